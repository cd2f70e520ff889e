#include "fuse/write_watch.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"

namespace larder::fuse {

WriteWatch::WriteRef WriteWatch::begin(std::uint64_t nodeid, std::uint64_t end) {
  auto write = std::make_shared<Write>(nodeid, end);
  const MutexLock lock(mutex_);
  writes_[nodeid].push_back(write);
  return write;
}

std::optional<std::uint64_t> WriteWatch::end(const WriteRef& write) {
  const MutexLock lock(mutex_);
  const auto found = writes_.find(write->nodeid);
  std::erase(found->second, write);
  if (found->second.empty()) {
    writes_.erase(found);
  }
  return write->cleared_from;
}

void WriteWatch::note_write_back(std::uint64_t nodeid, std::uint64_t end) {
  const MutexLock lock(mutex_);
  const auto found = writes_.find(nodeid);
  if (found == writes_.end()) {
    return;
  }
  for (const WriteRef& write : found->second) {
    if (write->end > end) {
      write->cleared_from = std::min(write->cleared_from.value_or(end), end);
    }
  }
}

}  // namespace larder::fuse
