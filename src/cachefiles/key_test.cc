#include "cachefiles/key.h"

#include <cstdint>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace larder::cachefiles {
namespace {

using namespace std::string_literals;

TEST(KeyTest, PrintableKeysStayAsTheyAre) {
  EXPECT_EQ(cook_key("abc.DEF-_~\x7f"), "Dabc.DEF-_~\x7f");
  EXPECT_EQ(cook_key("a/b"), "E0xZyo");
  EXPECT_EQ(cook_key("a b"), "E0x1yo");
}

TEST(KeyTest, WordsAreTheShorterOfBothByteOrdersAndBigOnATie) {
  EXPECT_EQ(cook_key("\0\0\0\1"s), "S1");
  EXPECT_EQ(cook_key("\1\0\0\0"s), "T1");
  EXPECT_EQ(cook_key("\0\0\0\0\0\0\0\0"s), "S,");
  EXPECT_EQ(cook_key("\1\0\0\1\0\0\0\0\0\0\0\7"s), "S1000001,,7");
}

// The name of an NFS object seen in a kernel's cache.
TEST(KeyTest, Base64IsTheKernels) {
  const std::string name = "E210w114Hg92Az0HAMYCClFMVmkMY050002w1qO200";
  const auto key = uncook_key(name);
  ASSERT_TRUE(key.has_value());
  EXPECT_EQ(key->size(), 28U);
  EXPECT_EQ((*key)[0], '\x01');
  EXPECT_EQ(cook_key(*key), name);
}

TEST(KeyTest, EveryKeyComesBack) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 5000; ++round) {
    std::string key(1 + random() % 128, '\0');
    for (char& c : key) {
      c = random() % 3 == 0 ? '\0' : static_cast<char>(random());
    }
    const std::string name = cook_key(key);
    ASSERT_LE(name.size(), 254U);
    ASSERT_EQ(name.find('/'), std::string::npos);
    std::string back = uncook_key(name).value();
    back.resize(key.size());  // S and T pad with zeros
    ASSERT_EQ(back, key);
  }
}

TEST(KeyTest, OtherNamesAreNone) {
  for (const char* name :
       {"", "D", "Q1", "E", "E3AAAA", "E0AAA", "E0AA+A", "Sxyz", "T01", "Da/b"}) {
    EXPECT_FALSE(uncook_key(name).has_value()) << name;
  }
}

// "the bits of the computed hash value might appear on disk": worked through by hand once.
TEST(KeyTest, HashIsTheKernels) {
  EXPECT_EQ(fscache_hash(0, ""), 0U);
  // One word 1: x = 1, y = 1; x = 128 + 1; y = 1 << 20 times 9; then twice the golden ratio.
  const std::uint32_t y = (1U << 20U) * 9U;
  EXPECT_EQ(fscache_hash(0, "\1\0\0\0"s), (y ^ (129U * 0x61C88647U)) * 0x61C88647U);
  EXPECT_EQ(fscache_hash(0, "\1"), fscache_hash(0, "\1\0\0\0"s));
  EXPECT_NE(hash_of_volume("a"), hash_of_volume("b"));
}

}  // namespace
}  // namespace larder::cachefiles
