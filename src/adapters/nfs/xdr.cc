#include "adapters/nfs/xdr.h"

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"

namespace larder::nfs {

void XdrEncoder::put_u32(std::uint32_t value) {
  bytes_.resize(bytes_.size() + sizeof value);
  store_be(bytes_.data() + bytes_.size() - sizeof value, value);
}

void XdrEncoder::put_u64(std::uint64_t value) {
  bytes_.resize(bytes_.size() + sizeof value);
  store_be(bytes_.data() + bytes_.size() - sizeof value, value);
}

void XdrEncoder::put_fixed_opaque(Bytes bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  bytes_.resize(bytes_.size() + xdr_padding(bytes.size()));
}

void XdrEncoder::put_opaque(Bytes bytes) {
  put_u32(static_cast<std::uint32_t>(bytes.size()));
  put_fixed_opaque(bytes);
}

void XdrEncoder::set_u32(std::size_t at, std::uint32_t value) {
  CHECK(at + sizeof value <= bytes_.size());
  store_be(bytes_.data() + at, value);
}

std::uint32_t XdrDecoder::u32() {
  if (rest_.size() < sizeof(std::uint32_t)) {
    fail();
    return 0;
  }
  const auto value = load_be<std::uint32_t>(rest_.data());
  rest_ = rest_.subspan(sizeof value);
  return value;
}

std::uint64_t XdrDecoder::u64() {
  if (rest_.size() < sizeof(std::uint64_t)) {
    fail();
    return 0;
  }
  const auto value = load_be<std::uint64_t>(rest_.data());
  rest_ = rest_.subspan(sizeof value);
  return value;
}

bool XdrDecoder::boolean() {
  const std::uint32_t value = u32();
  if (value > 1) {
    fail();
  }
  return value == 1;
}

Bytes XdrDecoder::fixed_opaque(std::size_t length) {
  const std::size_t padding = xdr_padding(length);
  // Compared in this order, no sum can wrap.
  if (length > rest_.size() || padding > rest_.size() - length) {
    fail();
    return {};
  }
  const Bytes result = rest_.first(length);
  rest_ = rest_.subspan(length + padding);
  return result;
}

Bytes XdrDecoder::opaque(std::size_t most) {
  const std::uint32_t length = u32();
  if (length > most) {
    fail();
    return {};
  }
  return fixed_opaque(length);
}

}  // namespace larder::nfs
