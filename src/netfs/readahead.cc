#include "netfs/readahead.h"

#include <algorithm>
#include <cstdint>

#include "base/byte_range.h"

namespace larder::netfs {

ReadaheadAdvice Readahead::on_read(ByteRange read, std::uint64_t file_size) {
  ++reads_;
  auto* stream = std::ranges::find_if(streams_, [&](const Stream& candidate) {
    return candidate.used_at != 0 && read.offset <= candidate.next + kSlack &&
           read.end() + kSlack >= candidate.next;
  });
  if (stream == streams_.end()) {
    stream = std::ranges::min_element(streams_, {}, &Stream::used_at);
    // A read from the very start most likely is the first of many.
    *stream = {read.end(), read.offset == 0 ? read.length : 0, reads_};
  } else {
    stream->sequential += read.length;
    stream->next = std::max(stream->next, read.end());
    stream->used_at = reads_;
  }
  if (stream->sequential <= kRandomUnit) {
    return {kRandomUnit, {}, false};
  }
  const std::uint64_t window = std::clamp(stream->sequential, kLeastWindow, kMostWindow);
  ReadaheadAdvice advice;
  advice.fetch_unit = kSequentialUnit;
  advice.prefetch = ByteRange::between(stream->next, std::min(file_size, stream->next + window));
  // An eighth of the file, or 8 MiB of it, in a row: whoever reads so reads to the end.
  advice.complete_file =
      stream->sequential >= std::min(file_size / 8 + 1, std::uint64_t{8} * 1024 * 1024);
  return advice;
}

}  // namespace larder::netfs
