// XDR (RFC 4506): the bytes of numbers, opaques and strings as RPC carries them.
//
// Both sides are written for hostile peers: the decoder checks every length against the bytes that
// are really there, and allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace larder::nfs {

// The zero bytes behind an opaque of `length` bytes.
[[nodiscard]] constexpr std::size_t xdr_padding(std::size_t length) {
  return (4 - length % 4) % 4;
}

// Appends to a vector of its own.
// Threads: external synchronisation.
class XdrEncoder {
 public:
  XdrEncoder() = default;

  explicit XdrEncoder(std::size_t expected_bytes) { bytes_.reserve(expected_bytes); }

  void put_u32(std::uint32_t value);
  void put_u64(std::uint64_t value);

  void put_bool(bool value) { put_u32(value ? 1 : 0); }

  // Without a length in front; padded.
  void put_fixed_opaque(Bytes bytes);
  // With its length in front; padded.
  void put_opaque(Bytes bytes);

  void put_string(std::string_view text) { put_opaque(bytes_of(text)); }

  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

  // Overwrites four bytes that were put before; `at` is their offset.
  void set_u32(std::size_t at, std::uint32_t value);

  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// Reads from bytes of somebody else. The first thing that does not fit makes it fail for good: from
// then on everything reads as zero or empty, and ok() is false; so a codec asks once, at its end.
// Threads: external synchronisation. Life: views that it returns point into the bytes it reads.
class XdrDecoder {
 public:
  explicit XdrDecoder(Bytes bytes) : rest_(bytes), size_(bytes.size()) {}

  [[nodiscard]] std::uint32_t u32();
  [[nodiscard]] std::uint64_t u64();
  // Anything but 0 and 1 makes no sense.
  [[nodiscard]] bool boolean();
  [[nodiscard]] Bytes fixed_opaque(std::size_t length);
  // A length in front, at most `most` bytes.
  [[nodiscard]] Bytes opaque(std::size_t most);

  [[nodiscard]] std::string_view string(std::size_t most) { return text_of(opaque(most)); }

  // Makes it fail: a value that has no meaning.
  void fail() {
    failed_ = true;
    rest_ = {};
  }

  [[nodiscard]] bool ok() const { return !failed_; }

  // Bytes that were read so far.
  [[nodiscard]] std::size_t position() const { return size_ - rest_.size(); }

  [[nodiscard]] std::size_t remaining() const { return rest_.size(); }

 private:
  Bytes rest_;
  std::size_t size_;
  bool failed_ = false;
};

}  // namespace larder::nfs
