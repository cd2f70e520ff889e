// RPC record marking (RFC 5531 section 11): finding records in a byte stream, and framing them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"

namespace larder::proxy {

// Tells marks from payload in a stream, however the stream is cut up and whatever the fragments
// are. Threads: one.
class RecordScanner {
 public:
  // A run of bytes of one kind; `length` is at least 1.
  struct Piece {
    bool is_payload;
    std::size_t length;
    bool ends_record;
  };

  // What the first bytes of `input` are; the caller passes on the rest next time.
  // Requires: `input` is not empty.
  [[nodiscard]] Piece next(Bytes input);

 private:
  Piece next_of_mark(Bytes input);

  std::array<std::byte, 4> mark_{};
  std::size_t mark_length_ = 0;    // bytes of the mark seen so far
  std::size_t fragment_left_ = 0;  // payload bytes of the fragment still to come
  bool is_last_fragment_ = false;
};

// `payload` as a record of fragments of at most `fragment_bytes`; 0 means one fragment.
[[nodiscard]] std::vector<std::byte> frame_record(Bytes payload, std::size_t fragment_bytes);

}  // namespace larder::proxy
