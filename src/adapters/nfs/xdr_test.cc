#include "adapters/nfs/xdr.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace larder::nfs {
namespace {

TEST(XdrTest, ReadsBackWhatWasPut) {
  XdrEncoder out;
  out.put_u32(7);
  out.put_u64(0x0102030405060708);
  out.put_bool(true);
  out.put_string("abcde");
  out.put_fixed_opaque(bytes_of("xyz"));
  const std::vector<std::byte> bytes = out.take();
  EXPECT_EQ(bytes.size(), 4U + 8 + 4 + 4 + 8 + 4);
  XdrDecoder in(bytes);
  EXPECT_EQ(in.u32(), 7U);
  EXPECT_EQ(in.u64(), 0x0102030405060708U);
  EXPECT_TRUE(in.boolean());
  EXPECT_EQ(in.string(5), "abcde");
  EXPECT_EQ(text_of(in.fixed_opaque(3)), "xyz");
  EXPECT_TRUE(in.ok());
  EXPECT_EQ(in.remaining(), 0U);
}

// A length from a hostile peer must neither be read over nor wrap when its padding is added.
TEST(XdrTest, LengthsBeyondTheBytesFail) {
  for (const std::uint32_t length : {5U, 0x7fffffffU, 0xfffffffdU, 0xffffffffU}) {
    XdrEncoder out;
    out.put_u32(length);
    out.put_u32(0);
    const std::vector<std::byte> bytes = out.take();
    XdrDecoder in(bytes);
    EXPECT_TRUE(in.opaque(SIZE_MAX).empty());
    EXPECT_FALSE(in.ok()) << length;
  }
}

TEST(XdrTest, MissingPaddingFails) {
  const std::byte bytes[] = {std::byte{0}, std::byte{0}, std::byte{0}, std::byte{1}, std::byte{9}};
  XdrDecoder in{Bytes(bytes)};
  EXPECT_TRUE(in.opaque(10).empty());
  EXPECT_FALSE(in.ok());
}

// After a failure nothing may look like a value again.
TEST(XdrTest, FailsForGood) {
  XdrEncoder out;
  out.put_u32(2);
  out.put_u32(1);
  const std::vector<std::byte> bytes = out.take();
  XdrDecoder in(bytes);
  EXPECT_FALSE(in.boolean());
  EXPECT_EQ(in.u32(), 0U);
  EXPECT_FALSE(in.ok());
}

}  // namespace
}  // namespace larder::nfs
