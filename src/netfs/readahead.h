// Readahead: from the pattern of a file's reads, what to fetch beyond what was asked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/byte_range.h"

namespace larder::netfs {

// What one read should set going.
struct ReadaheadAdvice {
  // Missing pieces are fetched in whole units of this many bytes.
  std::uint64_t fetch_unit = 0;
  // To be fetched in the background as well; empty when the reads are not sequential.
  ByteRange prefetch;
  // The file is being read from one end to the other: fetch the rest of it too.
  bool complete_file = false;
};

// Watches the reads of one file; tells a few interleaved sequential readers apart.
// Threads: external synchronisation.
class Readahead {
 public:
  static constexpr std::uint64_t kRandomUnit = std::uint64_t{64} * 1024;
  static constexpr std::uint64_t kSequentialUnit = std::uint64_t{1024} * 1024;
  static constexpr std::uint64_t kLeastWindow = std::uint64_t{1024} * 1024;
  static constexpr std::uint64_t kMostWindow = std::uint64_t{16} * 1024 * 1024;

  [[nodiscard]] ReadaheadAdvice on_read(ByteRange read, std::uint64_t file_size);

 private:
  static constexpr std::size_t kStreams = 4;
  // The kernel sends the pages of one readahead out of order, and a few at a time.
  static constexpr std::uint64_t kSlack = std::uint64_t{2} * 1024 * 1024;

  struct Stream {
    std::uint64_t next = 0;        // where the next read of it is expected
    std::uint64_t sequential = 0;  // bytes read in a row
    std::uint64_t used_at = 0;     // 0: free
  };

  std::array<Stream, kStreams> streams_{};
  std::uint64_t reads_ = 0;
};

}  // namespace larder::netfs
