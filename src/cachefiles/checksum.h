// CRC32C of what lies on the disk, by libisal (docs/decisions/0007-crc32c-from-isal.md).
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace larder::cachefiles {

// The checksum of `bytes`, or of `before` + `bytes` when `before` is what was checked so far.
[[nodiscard]] std::uint32_t crc32c(Bytes bytes, std::uint32_t before = 0);

// The checksum of two pieces together, from those of each and the second one's length.
[[nodiscard]] std::uint32_t crc32c_combine(std::uint32_t first, std::uint32_t second,
                                           std::uint64_t second_bytes);

}  // namespace larder::cachefiles
