// RPC record marking: a state machine of two states, mark and payload.
#include "record.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/endian.h"

namespace larder::proxy {
namespace {

constexpr std::uint32_t kLastFragment = 0x80000000U;

}  // namespace

RecordScanner::Piece RecordScanner::next(Bytes input) {
  if (fragment_left_ == 0) {
    return next_of_mark(input);
  }
  const std::size_t length = std::min(fragment_left_, input.size());
  fragment_left_ -= length;
  return {.is_payload = true,
          .length = length,
          .ends_record = fragment_left_ == 0 && is_last_fragment_};
}

RecordScanner::Piece RecordScanner::next_of_mark(Bytes input) {
  const std::size_t length = std::min(mark_.size() - mark_length_, input.size());
  std::copy_n(input.begin(), length, mark_.begin() + static_cast<std::ptrdiff_t>(mark_length_));
  mark_length_ += length;
  if (mark_length_ < mark_.size()) {
    return {.is_payload = false, .length = length, .ends_record = false};
  }
  const auto mark = load_be<std::uint32_t>(mark_.data());
  mark_length_ = 0;
  fragment_left_ = mark & ~kLastFragment;
  is_last_fragment_ = (mark & kLastFragment) != 0;
  return {.is_payload = false,
          .length = length,
          .ends_record = fragment_left_ == 0 && is_last_fragment_};
}

std::vector<std::byte> frame_record(Bytes payload, std::size_t fragment_bytes) {
  const std::size_t step = fragment_bytes == 0 ? payload.size() : fragment_bytes;
  std::vector<std::byte> framed;
  framed.reserve(payload.size() + 4);
  do {
    const Bytes fragment = payload.first(std::min(step, payload.size()));
    payload = payload.subspan(fragment.size());
    const std::uint32_t last = payload.empty() ? kLastFragment : 0U;
    framed.resize(framed.size() + 4);
    store_be(framed.data() + framed.size() - 4, static_cast<std::uint32_t>(fragment.size()) | last);
    framed.insert(framed.end(), fragment.begin(), fragment.end());
  } while (!payload.empty());
  return framed;
}

}  // namespace larder::proxy
