// A size that is read wrongly fills a disk or caches nothing.
#include "base/byte_count.h"

#include <cstdint>
#include <string_view>

#include <gtest/gtest.h>

#include "base/error.h"

namespace larder {
namespace {

TEST(ByteCountTest, ReadsUnitsAsPowersOf1024) {
  EXPECT_EQ(parse_byte_count("4096").value(), 4096U);
  EXPECT_EQ(parse_byte_count("3k").value(), 3U << 10U);
  EXPECT_EQ(parse_byte_count("500M").value(), 500U << 20U);
  EXPECT_EQ(parse_byte_count("20G").value(), std::uint64_t{20} << 30U);
  EXPECT_EQ(parse_byte_count("16777215t").value(), std::uint64_t{16777215} << 40U);
  EXPECT_EQ(parse_byte_count("18446744073709551615").value(), ~std::uint64_t{0});
}

TEST(ByteCountTest, RefusesWhatIsNoAmount) {
  for (const std::string_view text :
       {"", "0", "0G", "-1", "-5G", "+5", " 5", "5 ", "G", "5GB", "5GiB", "5X", "1.5G", "five",
        "16777216T", "18446744073709551616", "99999999999G", "0x10"}) {
    const auto read = parse_byte_count(text);
    ASSERT_FALSE(read.has_value()) << '"' << text << "\" was read as " << *read;
    EXPECT_EQ(read.error().code(), Errc::kInvalid);
  }
}

TEST(ByteCountTest, WritesTheLargestUnitWithoutRemainder) {
  EXPECT_EQ(byte_count_text(std::uint64_t{20} << 30U), "20G");
  EXPECT_EQ(byte_count_text(1536U << 20U), "1536M");
  EXPECT_EQ(byte_count_text(std::uint64_t{1} << 50U), "1024T");
  EXPECT_EQ(byte_count_text(1000), "1000 bytes");
  EXPECT_EQ(byte_count_text(0), "0 bytes");
}

}  // namespace
}  // namespace larder
