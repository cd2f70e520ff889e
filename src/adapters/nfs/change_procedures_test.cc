// Arguments are compared with RFC 1813 word by word; results are cut short and bent.
#include "adapters/nfs/change_procedures.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/nfs_test_results.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::nfs {
namespace {

using netfs::AttributeChanges;
using netfs::FileHandle;
using netfs::FileType;
using netfs::Stability;
using netfs::Timestamp;

using Words = std::vector<std::uint32_t>;

// "handle" and "name" as they stand in XDR.
const Words handle_words{6, 0x68616e64, 0x6c650000};
const Words name_words{4, 0x6e616d65};
const FileHandle handle_value(bytes_of("handle"));
// sattr3 that sets nothing: mode, uid, gid, size, atime, mtime.
const Words no_settings{0, 0, 0, 0, 0, 0};

Words operator+(Words left, const Words& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Words words_of(Bytes bytes) {
  Words words;
  EXPECT_EQ(bytes.size() % 4, 0U);
  for (std::size_t at = 0; at + 4 <= bytes.size(); at += 4) {
    words.push_back(load_be<std::uint32_t>(bytes.data() + at));
  }
  return words;
}

TEST(ChangeProceduresTest, SetattrHasSixChoicesAndAGuard) {
  EXPECT_EQ(words_of(encode_setattr(handle_value, {})), handle_words + no_settings + (Words{0}));
  AttributeChanges all;
  all.mode = 04755;
  all.uid = 7;
  all.gid = 8;
  all.size = 0x1'0000'0002;
  all.accessed = netfs::ServerNow{};
  all.modified = Timestamp{0xfedcba98, 999};
  const Words expected{1, 04755, 1, 7, 1, 8, 1, 1, 2, 1, 2, 0xfedcba98, 999, 0};
  EXPECT_EQ(words_of(encode_setattr(handle_value, all)), handle_words + expected);
}

TEST(ChangeProceduresTest, StampsThatDoNotFitBecomeTheNearest) {
  AttributeChanges changes;
  changes.accessed = Timestamp{-1, 5};
  changes.modified = Timestamp{0x1'0000'0000, 5};
  EXPECT_EQ(words_of(encode_setattr(handle_value, changes)),
            handle_words + (Words{0, 0, 0, 0, 2, 0, 0, 2, 0xffffffff, 0, 0}));
}

TEST(ChangeProceduresTest, CreateHasThreeModes) {
  netfs::CreateOrder order;
  order.attributes.mode = 0600;
  EXPECT_EQ(words_of(encode_create(handle_value, "name", order)),
            handle_words + name_words + (Words{0, 1, 0600, 0, 0, 0, 0, 0}));
  order.mode = netfs::CreateMode::kGuarded;
  EXPECT_EQ(words_of(encode_create(handle_value, "name", order)),
            handle_words + name_words + (Words{1, 1, 0600, 0, 0, 0, 0, 0}));
  order.mode = netfs::CreateMode::kExclusive;
  store_be<std::uint64_t>(order.verifier.data(), 0x1122334455667788);
  EXPECT_EQ(words_of(encode_create(handle_value, "name", order)),
            handle_words + name_words + (Words{2, 0x11223344, 0x55667788}));
}

TEST(ChangeProceduresTest, WhatIsMade) {
  AttributeChanges mode;
  mode.mode = 0700;
  const Words sattr{1, 0700, 0, 0, 0, 0, 0};
  EXPECT_EQ(words_of(encode_mkdir(handle_value, "name", mode)), handle_words + name_words + sattr);
  EXPECT_EQ(words_of(encode_symlink(handle_value, "name", "../to", mode)),
            handle_words + name_words + sattr + (Words{5, 0x2e2e2f74, 0x6f000000}));
  netfs::MakeOrder order{FileType::kBlockDevice, mode, 8, 1};
  EXPECT_EQ(words_of(encode_mknod(handle_value, "name", order)),
            handle_words + name_words + (Words{3}) + sattr + (Words{8, 1}));
  order.type = FileType::kCharacterDevice;
  EXPECT_EQ(words_of(encode_mknod(handle_value, "name", order)),
            handle_words + name_words + (Words{4}) + sattr + (Words{8, 1}));
  order.type = FileType::kSocket;
  EXPECT_EQ(words_of(encode_mknod(handle_value, "name", order)),
            handle_words + name_words + (Words{6}) + sattr);
  order.type = FileType::kFifo;
  EXPECT_EQ(words_of(encode_mknod(handle_value, "name", order)),
            handle_words + name_words + (Words{7}) + sattr);
}

TEST(ChangeProceduresTest, NamesThatGoAndMove) {
  EXPECT_EQ(words_of(encode_remove(handle_value, "name")), handle_words + name_words);
  EXPECT_EQ(words_of(encode_rename(handle_value, "name", FileHandle(bytes_of("to")), "x")),
            handle_words + name_words + (Words{2, 0x746f0000, 1, 0x78000000}));
  EXPECT_EQ(words_of(encode_link(FileHandle(bytes_of("to")), handle_value, "name")),
            (Words{2, 0x746f0000}) + handle_words + name_words);
}

TEST(ChangeProceduresTest, WriteEndsWhereItsDataBegins) {
  EXPECT_EQ(words_of(encode_write(handle_value, 0x1'0000'0002, Stability::kDataSync, 99)),
            handle_words + (Words{1, 2, 99, 1, 99}));
  EXPECT_EQ(words_of(encode_commit(handle_value)), handle_words + (Words{0, 0, 0}));
}

void put_before(XdrEncoder& out) {
  out.put_bool(true);
  out.put_u64(1234);
  for (const std::uint32_t word : {10U, 20U, 30U, 40U}) {
    out.put_u32(word);
  }
}

void put_change(XdrEncoder& out, std::uint64_t fileid) {
  put_before(out);
  out.put_bool(true);
  put_attributes(out, test_attributes(fileid));
}

void expect_change(const netfs::Change& change, std::uint64_t fileid) {
  ASSERT_TRUE(change.before && change.after);
  EXPECT_EQ(change.before->size, 1234U);
  EXPECT_EQ(change.before->modified, (Timestamp{10, 20}));
  EXPECT_EQ(change.before->changed, (Timestamp{30, 40}));
  EXPECT_EQ(*change.after, test_attributes(fileid));
}

std::vector<std::byte> results(const std::function<void(XdrEncoder&)>& fill) {
  XdrEncoder out;
  out.put_u32(0);
  fill(out);
  return out.take();
}

std::vector<std::byte> create_results() {
  return results([](XdrEncoder& out) {
    out.put_bool(true);
    out.put_string("new file");
    out.put_bool(true);
    put_attributes(out, test_attributes(5));
    put_change(out, 6);
  });
}

std::vector<std::byte> write_results(std::uint32_t count, std::uint32_t committed = 2) {
  return results([&](XdrEncoder& out) {
    put_change(out, 5);
    out.put_u32(count);
    out.put_u32(committed);
    out.put_u64(0x0102030405060708);
  });
}

std::vector<std::byte> change_results() {
  return results([](XdrEncoder& out) { put_change(out, 5); });
}

std::vector<std::byte> rename_results() {
  return results([](XdrEncoder& out) {
    put_change(out, 5);
    put_change(out, 6);
  });
}

std::vector<std::byte> link_results() {
  return results([](XdrEncoder& out) {
    out.put_bool(true);
    put_attributes(out, test_attributes(5));
    put_change(out, 6);
  });
}

std::vector<std::byte> commit_results() {
  return results([](XdrEncoder& out) {
    put_change(out, 5);
    out.put_u64(0x0102030405060708);
  });
}

TEST(ChangeProceduresTest, ResultsComeThroughWhole) {
  expect_change(*decode_change(change_results(), "SETATTR"), 5);
  const auto created = decode_create(create_results(), "CREATE");
  ASSERT_TRUE(created);
  EXPECT_EQ(text_of(created->handle->bytes()), "new file");
  EXPECT_EQ(*created->attributes, test_attributes(5));
  expect_change(created->directory, 6);
  const auto renamed = decode_rename(rename_results());
  ASSERT_TRUE(renamed);
  expect_change(renamed->from, 5);
  expect_change(renamed->to, 6);
  const auto linked = decode_link(link_results());
  ASSERT_TRUE(linked);
  EXPECT_EQ(*linked->attributes, test_attributes(5));
  expect_change(linked->directory, 6);
  const auto written = decode_write(write_results(99, 1), 100);
  ASSERT_TRUE(written);
  EXPECT_EQ(written->length, 99U);
  EXPECT_EQ(written->stability, Stability::kDataSync);
  EXPECT_EQ(load_be<std::uint64_t>(written->verifier.data()), 0x0102030405060708U);
  expect_change(written->file, 5);
  const auto committed = decode_commit(commit_results());
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->verifier, written->verifier);
  expect_change(committed->file, 5);
}

TEST(ChangeProceduresTest, ServersMayLeaveOutWhatIsOptional) {
  const auto nothing = results([](XdrEncoder& out) { out.put_u64(0); });
  const auto change = decode_change(nothing, "REMOVE");
  ASSERT_TRUE(change);
  EXPECT_FALSE(change->before || change->after);
  const auto created = decode_create(results([](XdrEncoder& out) {
                                       out.put_u64(0);
                                       out.put_u64(0);
                                     }),
                                     "MKDIR");
  ASSERT_TRUE(created);
  EXPECT_FALSE(created->handle || created->attributes);
}

TEST(ChangeProceduresTest, EveryPrefixOfEveryReplyIsRefused) {
  expect_every_prefix_corrupt(change_results(),
                              [](Bytes bytes) { return decode_change(bytes, "SETATTR"); });
  expect_every_prefix_corrupt(create_results(),
                              [](Bytes bytes) { return decode_create(bytes, "CREATE"); });
  expect_every_prefix_corrupt(rename_results(), &decode_rename);
  expect_every_prefix_corrupt(link_results(), &decode_link);
  expect_every_prefix_corrupt(write_results(5),
                              [](Bytes bytes) { return decode_write(bytes, 100); });
  expect_every_prefix_corrupt(commit_results(), &decode_commit);
}

TEST(ChangeProceduresTest, WritesOfNothingOrOfMoreThanWasSentMakeNoSense) {
  EXPECT_TRUE(decode_write(write_results(100), 100));
  EXPECT_EQ(decode_write(write_results(0), 100).error().code(), Errc::kCorrupt);
  EXPECT_EQ(decode_write(write_results(101), 100).error().code(), Errc::kCorrupt);
  EXPECT_EQ(decode_write(write_results(0xffffffff), 100).error().code(), Errc::kCorrupt);
  EXPECT_EQ(decode_write(write_results(100, 3), 100).error().code(), Errc::kCorrupt);
}

TEST(ChangeProceduresTest, HandlesAndChoicesThatMakeNoSenseAreRefused) {
  const auto corrupt = [](const std::function<void(XdrEncoder&)>& fill) {
    const auto created = decode_create(results(fill), "CREATE");
    return !created && created.error().code() == Errc::kCorrupt;
  };
  EXPECT_TRUE(corrupt([](XdrEncoder& out) {  // a handle of 65 bytes
    out.put_bool(true);
    out.put_string(std::string(65, 'h'));
    out.put_u64(0);
    out.put_u32(0);
  }));
  EXPECT_TRUE(corrupt([](XdrEncoder& out) {  // an empty one
    out.put_bool(true);
    out.put_string("");
    out.put_u64(0);
    out.put_u32(0);
  }));
  EXPECT_TRUE(corrupt([](XdrEncoder& out) {  // neither yes nor no
    out.put_u32(2);
    out.put_u64(0);
    out.put_u32(0);
  }));
}

TEST(ChangeProceduresTest, RefusalsBecomeTheirErrno) {
  const std::pair<std::uint32_t, int> statuses[] = {
      {1, EPERM},         {2, ENOENT},        {13, EACCES},    {17, EEXIST}, {18, EXDEV},
      {20, ENOTDIR},      {21, EISDIR},       {22, EINVAL},    {27, EFBIG},  {28, ENOSPC},
      {30, EROFS},        {31, EMLINK},       {66, ENOTEMPTY}, {69, EDQUOT}, {70, ESTALE},
      {63, ENAMETOOLONG}, {10004, EOPNOTSUPP}};
  for (const auto& [status, error_number] : statuses) {
    XdrEncoder out;
    out.put_u32(status);
    out.put_u64(0);
    const auto refused = out.take();
    EXPECT_EQ(decode_change(refused, "REMOVE").error().error_number(), error_number);
    EXPECT_EQ(decode_write(refused, 5).error().error_number(), error_number);
    EXPECT_EQ(decode_rename(refused).error().error_number(), error_number);
    EXPECT_EQ(decode_commit(refused).error().error_number(), error_number);
  }
}

}  // namespace
}  // namespace larder::nfs
