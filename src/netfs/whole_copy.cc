#include "netfs/whole_copy.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace larder::netfs {

void WholeCopy::begin() {
  give_up();
  whole_ = true;
}

void WholeCopy::write(std::uint64_t offset, Bytes bytes) {
  if (!whole_) {
    return;
  }
  if (offset > kMostBytes || bytes.size() > kMostBytes) {
    give_up();
    return;
  }
  const std::uint64_t end = offset + bytes.size();
  if (end <= bytes_.size() || resize(end)) {
    std::memcpy(bytes_.data() + offset, bytes.data(), bytes.size());
  }
}

void WholeCopy::set_size(std::uint64_t size) {
  if (whole_) {
    static_cast<void>(resize(size));
  }
}

bool WholeCopy::resize(std::uint64_t size) {
  const std::uint64_t had = bytes_.size();
  if (had == 0) {
    since_ = clock_.now();
  }
  if (size > kMostBytes || (size > had && total_->load() + (size - had) > kMostTotalBytes)) {
    give_up();
    return false;
  }
  bytes_.resize(size);
  *total_ += size - had;
  return true;
}

std::shared_ptr<const WrittenContent> WholeCopy::take() {
  std::shared_ptr<const WrittenContent> taken;
  if (whole_ && !bytes_.empty()) {
    taken = std::make_shared<const WrittenContent>(std::exchange(bytes_, {}), since_, total_);
  }
  give_up();
  return taken;
}

void WholeCopy::give_up() {
  whole_ = false;
  *total_ -= bytes_.size();
  bytes_ = {};
}

}  // namespace larder::netfs
