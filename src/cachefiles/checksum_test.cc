#include "cachefiles/checksum.h"

#include <cstddef>
#include <string>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace larder::cachefiles {
namespace {

// The value that every description of CRC32C gives; caches on disk depend on it.
TEST(ChecksumTest, IsCrc32c) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283U);
  EXPECT_EQ(crc32c({}), 0U);
  EXPECT_EQ(crc32c(bytes_of("6789"), crc32c(bytes_of("12345"))), 0xE3069283U);
}

TEST(ChecksumTest, PiecesCombineToTheWhole) {
  std::string text;
  for (int i = 0; i < 70'000; ++i) {
    text.push_back(static_cast<char>(i * 31 % 251));
  }
  for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, text.size()}) {
    const Bytes all = bytes_of(text);
    EXPECT_EQ(crc32c_combine(crc32c(all.first(cut)), crc32c(all.subspan(cut)), text.size() - cut),
              crc32c(all));
  }
}

}  // namespace
}  // namespace larder::cachefiles
