#include "adapters/nfs/procedures.h"

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/mount.h"
#include "adapters/nfs/nfs_status.h"
#include "adapters/nfs/nfs_test_results.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::nfs {
namespace {

using netfs::Attributes;
using netfs::FileHandle;

TEST(ProceduresTest, AttributesComeThroughWhole) {
  XdrEncoder out;
  out.put_u32(0);
  put_attributes(out, test_attributes(99));
  const Result<Attributes> attributes = decode_getattr(out.take());
  ASSERT_TRUE(attributes);
  EXPECT_EQ(*attributes, test_attributes(99));
}

TEST(ProceduresTest, EveryPrefixOfEveryReplyIsRefused) {
  const FileHandle handle(bytes_of("handle"));
  expect_every_prefix_corrupt(getattr_results(test_attributes(1)), decode_getattr);
  expect_every_prefix_corrupt(lookup_results(handle, test_attributes(1)), decode_lookup);
  expect_every_prefix_corrupt(fsinfo_results(1U << 20, 8192), decode_fsinfo);
  const auto page = readdir_results(true, {{"a", 1, 11}, {"bcd", 2, 12}}, true);
  expect_every_prefix_corrupt(page, [](Bytes bytes) { return decode_readdirplus(bytes, 0); });
  const auto plain = readdir_results(false, {{"a", 1, 11}, {"bcd", 2, 12}}, true);
  expect_every_prefix_corrupt(plain, [](Bytes bytes) { return decode_readdir(bytes, 0); });
  XdrEncoder access;
  access.put_u32(0);
  access.put_bool(true);
  put_attributes(access, test_attributes(5));
  access.put_u32(netfs::kAccessRead);
  expect_every_prefix_corrupt(access.take(), decode_access);
  XdrEncoder link;
  link.put_u32(0);
  link.put_bool(false);
  link.put_string("../target");
  expect_every_prefix_corrupt(link.take(), decode_readlink);
  XdrEncoder fsstat;
  fsstat.put_u32(0);
  fsstat.put_bool(false);
  for (std::uint64_t i = 1; i <= 6; ++i) {
    fsstat.put_u64(i);
  }
  fsstat.put_u32(0);
  expect_every_prefix_corrupt(fsstat.take(), decode_fsstat);
  XdrEncoder pathconf;
  pathconf.put_u32(0);
  pathconf.put_bool(false);
  for (const std::uint32_t word : {8U, 255U, 1U, 1U, 0U, 1U}) {
    pathconf.put_u32(word);
  }
  expect_every_prefix_corrupt(pathconf.take(), decode_pathconf);
}

struct StatusCase {
  NfsStatus status;
  Errc code;
  int error_number;
};

TEST(ProceduresTest, StatusesBecomeTheErrorsThatNetfsKnows) {
  const StatusCase cases[] = {
      {NfsStatus::kNoEntry, Errc::kNotFound, ENOENT},
      {NfsStatus::kAccess, Errc::kRemote, EACCES},
      {NfsStatus::kStale, Errc::kStale, ESTALE},
      {NfsStatus::kBadHandle, Errc::kStale, ESTALE},
      {NfsStatus::kBadCookie, Errc::kStale, EAGAIN},
      {NfsStatus::kNotSupported, Errc::kNotSupported, EOPNOTSUPP},
      {NfsStatus::kServerFault, Errc::kRemote, EIO},
      {static_cast<NfsStatus>(4711), Errc::kRemote, EIO},
  };
  for (const StatusCase& each : cases) {
    XdrEncoder out;
    out.put_u32(static_cast<std::uint32_t>(each.status));
    out.put_bool(false);
    const auto result = decode_lookup(out.take());
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), each.code);
    EXPECT_EQ(result.error().error_number(), each.error_number);
  }
}

// A name with a slash would let a server point out of its tree.
TEST(ProceduresTest, NamesThatNoDirectoryCanHoldAreLeftOut) {
  const std::string longest(255, 'x');
  const std::string too_long(256, 'x');
  const auto results = readdir_results(false,
                                       {{".", 1, 1},
                                        {"..", 1, 2},
                                        {"../../etc/passwd", 1, 3},
                                        {"", 1, 4},
                                        {std::string("a\0b", 3), 1, 5},
                                        {too_long, 1, 6},
                                        {longest, 1, 7},
                                        {"...", 1, 8}},
                                       false);
  const Result<DirectoryPage> page = decode_readdir(results, 0);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->reply.entries.size(), 2U);
  EXPECT_EQ(page->reply.entries[0].name, longest);
  EXPECT_EQ(page->reply.entries[1].name, "...");
  EXPECT_EQ(page->refused_names, 4U);
  EXPECT_EQ(page->last_cookie, 8U);
}

// A listing that goes round in a circle would never end.
TEST(ProceduresTest, CookiesThatDoNotLeadOnAreCorrupt) {
  const auto repeats = readdir_results(false, {{"a", 1, 5}, {"b", 2, 5}}, false);
  EXPECT_EQ(decode_readdir(repeats, 0).error().code(), Errc::kCorrupt);
  const auto back = readdir_results(false, {{"a", 1, 5}, {"b", 2, 7}}, false);
  EXPECT_EQ(decode_readdir(back, 7).error().code(), Errc::kCorrupt);
  EXPECT_TRUE(decode_readdir(back, 9)) << "cookies need not rise";
  EXPECT_EQ(decode_readdir(readdir_results(false, {}, false), 3).error().code(), Errc::kCorrupt);
  EXPECT_TRUE(decode_readdir(readdir_results(false, {}, true), 3));
}

TEST(ProceduresTest, ReadsWhoseLengthsDisagreeAreCorrupt) {
  const auto results = [](std::uint32_t count, bool end, std::uint32_t length) {
    XdrEncoder out;
    out.put_u32(0);
    out.put_bool(false);
    out.put_u32(count);
    out.put_bool(end);
    out.put_u32(length);
    return out.take();
  };
  EXPECT_TRUE(decode_read(results(8, false, 8), 8, 16));
  EXPECT_TRUE(decode_read(results(0, true, 0), 0, 16)->end);
  EXPECT_EQ(decode_read(results(9, false, 8), 8, 16).error().code(), Errc::kCorrupt);
  EXPECT_EQ(decode_read(results(8, false, 9), 8, 16).error().code(), Errc::kCorrupt);
  EXPECT_EQ(decode_read(results(17, false, 17), 17, 16).error().code(), Errc::kCorrupt);
  EXPECT_EQ(decode_read(results(0, false, 0), 0, 16).error().code(), Errc::kCorrupt)
      << "asked again, it would answer the same for ever";
}

TEST(ProceduresTest, ADirectoryOfHandlesWithoutBytesIsCorrupt) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_opaque({});
  out.put_u64(0);
  EXPECT_EQ(decode_lookup(out.take()).error().code(), Errc::kCorrupt);
}

struct MountCase {
  std::uint32_t status;
  int error_number;
  const char* says;
};

TEST(MountTest, RefusalsNameHostExportReasonAndWhatToDo) {
  const MountCase cases[] = {
      {13, EACCES, "refuses to export"}, {1, EACCES, "refuses to export"},
      {2, ENOENT, "showmount -e"},       {20, ENOTDIR, "not a directory"},
      {63, ENAMETOOLONG, "too long"},    {10006, EIO, "10006"},
  };
  for (const MountCase& each : cases) {
    XdrEncoder out;
    out.put_u32(each.status);
    const auto result = decode_mnt(out.take(), "server", "/export");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().error_number(), each.error_number);
    EXPECT_TRUE(result.error().context().contains(each.says)) << result.error().context();
    EXPECT_TRUE(result.error().context().contains("server"));
    EXPECT_TRUE(result.error().context().contains("/export"));
  }
}

TEST(MountTest, AShareWithKerberosAloneIsRefused) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_opaque(bytes_of("root"));
  out.put_u32(1);
  out.put_u32(390003);
  const auto result = decode_mnt(out.take(), "server", "/export");
  ASSERT_FALSE(result);
  EXPECT_TRUE(result.error().context().contains("sec=sys"));
}

TEST(MountTest, PortsOfThePortmapper) {
  const auto port = [](std::uint32_t value) {
    XdrEncoder out;
    out.put_u32(value);
    return decode_getport(out.take());
  };
  EXPECT_EQ(port(2049)->value(), 2049);
  EXPECT_FALSE(port(0)->has_value());
  EXPECT_EQ(port(65536).error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace larder::nfs
