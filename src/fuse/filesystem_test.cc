// What one mount answers the kernel: nodes, opens and their modes, reads, listings.
#include "fuse/filesystem.h"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/testing/mounted_fake.h"
#include "handover/records.h"
#include "testing/fake_kernel.h"

namespace larder::fuse {
namespace {

using larder::testing::FakeKernel;
using larder::testing::FuseNotice;
using larder::testing::FuseReply;
using larder::testing::ListedName;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::size_t kLarge = 400'000;

std::string pattern(std::size_t size, unsigned seed) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 131 + i / 4096 + seed * 7919) & 0xff);
  }
  return text;
}

class FilesystemTest : public ::testing::Test {
 protected:
  FilesystemTest() {
    large_ = fake_.server.add_file("large", pattern(kLarge, 1));
    small_ = fake_.server.add_file("small", "first content");
    fake_.negotiate();
    fake_.advance(std::chrono::seconds(20));
  }

  FilesystemTest(const FilesystemTest&) = delete;
  FilesystemTest& operator=(const FilesystemTest&) = delete;

  ~FilesystemTest() override { EXPECT_THAT(kernel().violations(), IsEmpty()); }

  FakeKernel& kernel() { return fake_.kernel; }

  fuse_entry_out lookup(const std::string& name) {
    const FuseReply reply = fake_.wait(kernel().lookup(FUSE_ROOT_ID, name));
    EXPECT_EQ(reply.error, 0) << name;
    return reply.body.as<fuse_entry_out>();
  }

  FuseReply try_open(std::uint64_t nodeid) { return fake_.wait(kernel().open(nodeid)); }

  OpenOut open(std::uint64_t nodeid) {
    const FuseReply reply = try_open(nodeid);
    EXPECT_EQ(reply.error, 0);
    return reply.body.as<OpenOut>();
  }

  void close(std::uint64_t nodeid, const OpenOut& open) {
    EXPECT_EQ(fake_.wait(kernel().release(nodeid, open.fh)).error, 0);
  }

  std::string read(std::uint64_t nodeid, const OpenOut& open, std::uint64_t offset = 0,
                   std::uint32_t size = 1U << 20U) {
    const FuseReply reply = fake_.wait(kernel().read(nodeid, open.fh, offset, size));
    EXPECT_EQ(reply.error, 0);
    return reply.body.text();
  }

  // The whole of the large file into the cache, closed again.
  std::uint64_t fill_large() {
    const std::uint64_t node = lookup("large").nodeid;
    const OpenOut opened = open(node);
    EXPECT_EQ(opened.open_flags & kOpenPassthrough, 0U) << "nothing of it is there yet";
    EXPECT_EQ(read(node, opened).size(), kLarge);
    close(node, opened);
    fake_.advance(std::chrono::seconds(1));
    return node;
  }

  // The node's opens are not answered any more: the next one is another node's.
  void expect_served_by_the_server(std::uint64_t node) {
    EXPECT_EQ(try_open(node).error, ESTALE);
    const auto entry = lookup("large");
    EXPECT_NE(entry.nodeid, node);
    const OpenOut served = open(entry.nodeid);
    EXPECT_EQ(served.open_flags & kOpenPassthrough, 0U);
    EXPECT_EQ(read(entry.nodeid, served), pattern(kLarge, 1));
    close(entry.nodeid, served);
  }

  // A second content, and the time after which the server's answer is asked for again.
  void change_large() {
    fake_.server.write_file(large_, pattern(kLarge, 2));
    fake_.advance(std::chrono::seconds(20));
  }

  // Nodes of which the kernel was told that its pages are old.
  std::vector<std::uint64_t> invalidated() {
    std::vector<std::uint64_t> nodes;
    for (const FuseNotice& notice : kernel().take_notices()) {
      EXPECT_EQ(notice.code, FUSE_NOTIFY_INVAL_INODE);
      const auto out = notice.body.as<fuse_notify_inval_inode_out>();
      if (out.off >= 0) {  // else of the attributes alone
        nodes.push_back(out.ino);
      }
    }
    return nodes;
  }

  MountedFake fake_;
  std::uint64_t large_ = 0;
  std::uint64_t small_ = 0;
};

// ---- Nodes.

TEST_F(FilesystemTest, TwoLookupsOfAFileGiveOneNode) {
  const auto first = lookup("small");
  const auto second = lookup("small");
  EXPECT_EQ(first.nodeid, second.nodeid);
  EXPECT_EQ(first.attr.ino, small_);
  EXPECT_NE(first.nodeid, lookup("large").nodeid);
}

TEST_F(FilesystemTest, ForgettingEveryReferenceFreesTheNode) {
  const std::size_t before = fake_.nodes.size();
  const std::uint64_t node = lookup("small").nodeid;
  EXPECT_EQ(lookup("small").nodeid, node);
  EXPECT_EQ(lookup("small").nodeid, node);
  kernel().forget(node, 2);
  EXPECT_EQ(fake_.nodes.size(), before + 1);
  EXPECT_EQ(fake_.wait(kernel().getattr(node)).error, 0);
  kernel().forget(node, 1);
  EXPECT_EQ(fake_.nodes.size(), before);
  EXPECT_EQ(fake_.wait(kernel().getattr(node)).error, ESTALE);
  EXPECT_NE(lookup("small").nodeid, node) << "a number is never used twice";
}

TEST_F(FilesystemTest, BatchForgetEmptiesTheTable) {
  const std::size_t before = fake_.nodes.size();
  std::vector<std::pair<std::uint64_t, std::uint64_t>> all;
  for (int i = 0; i < 50; ++i) {
    fake_.server.add_file(fmt::format("f{}", i), "x");
    all.emplace_back(lookup(fmt::format("f{}", i)).nodeid, 1);
  }
  EXPECT_EQ(fake_.nodes.size(), before + all.size());
  all.emplace_back(0xdeadbeef, 7);       // nobody's
  all.emplace_back(FUSE_ROOT_ID, 1000);  // never goes
  kernel().batch_forget(all);
  EXPECT_EQ(fake_.nodes.size(), before);
  EXPECT_EQ(fake_.wait(kernel().getattr(FUSE_ROOT_ID)).error, 0);
}

TEST_F(FilesystemTest, AnEntryThatTheKernelDidNotTakeIsNotReferenced) {
  const std::size_t before = fake_.nodes.size();
  kernel().refuse_next_reply = true;
  const std::uint64_t unique = kernel().lookup(FUSE_ROOT_ID, "small");
  fake_.stepper.run();
  EXPECT_EQ(kernel().take_reply(unique), std::nullopt);
  EXPECT_EQ(fake_.nodes.size(), before);
}

TEST_F(FilesystemTest, AMissingNameIsNodeZero) {
  const FuseReply reply = fake_.wait(kernel().lookup(FUSE_ROOT_ID, "nobody"));
  EXPECT_EQ(reply.error, 0);
  EXPECT_EQ(reply.body.as<fuse_entry_out>().nodeid, 0U);
  EXPECT_EQ(fake_.wait(kernel().lookup(FUSE_ROOT_ID, "")).error, EINVAL);
  EXPECT_EQ(fake_.wait(kernel().lookup(FUSE_ROOT_ID, std::string(256, 'n'))).error, ENAMETOOLONG);
}

TEST_F(FilesystemTest, ALinkIsReadAsLongAsTheKernelTakesIt) {
  fake_.server.add_symlink("link", "../target");
  fake_.server.add_symlink("longest", std::string(4095, 't'));
  fake_.server.add_symlink("too_long", std::string(4096, 't'));
  const auto read_link = [&](const std::string& name) {
    return fake_.wait(kernel().send(FUSE_READLINK, lookup(name).nodeid));
  };
  EXPECT_EQ(read_link("link").body.text(), "../target");
  EXPECT_EQ(read_link("longest").body.text(), std::string(4095, 't'));
  EXPECT_EQ(read_link("too_long").error, ENAMETOOLONG);
  EXPECT_EQ(read_link("small").error, EINVAL);
}

// ---- Opens.

TEST_F(FilesystemTest, PagesAreKeptOnlyOfAVersionThatDidNotChange) {
  const std::uint64_t node = lookup("small").nodeid;
  const OpenOut first = open(node);
  EXPECT_EQ(first.open_flags & FOPEN_KEEP_CACHE, 0U);
  EXPECT_EQ(read(node, first), "first content");
  close(node, first);
  const OpenOut again = open(node);
  EXPECT_NE(again.open_flags & FOPEN_KEEP_CACHE, 0U);
  close(node, again);
  fake_.server.write_file(small_, "other content");
  fake_.advance(std::chrono::seconds(20));
  const OpenOut changed = open(node);
  EXPECT_EQ(changed.open_flags & FOPEN_KEEP_CACHE, 0U);
  EXPECT_EQ(read(node, changed), "other content");
  close(node, changed);
}

TEST_F(FilesystemTest, AChangeUnderAnOpenFileIsTold) {
  const std::uint64_t node = lookup("small").nodeid;
  const OpenOut first = open(node);
  EXPECT_EQ(read(node, first), "first content");
  EXPECT_THAT(invalidated(), IsEmpty());
  fake_.server.write_file(small_, "other content");
  fake_.advance(std::chrono::seconds(20));
  const OpenOut second = open(node);
  fake_.stepper.run();
  EXPECT_THAT(invalidated(), ElementsAre(node));
  EXPECT_EQ(read(node, first), "other content") << "page-cache mode: one version for all";
  close(node, first);
  close(node, second);
}

TEST_F(FilesystemTest, ACompleteFileIsHandedToTheKernel) {
  const std::uint64_t node = fill_large();
  const OpenOut first = open(node);
  ASSERT_NE(first.open_flags & kOpenPassthrough, 0U);
  const OpenOut second = open(node);
  EXPECT_NE(second.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(second.backing_id, first.backing_id) << "one id a node";
  EXPECT_EQ(read(node, first, 1000, 3000), pattern(kLarge, 1).substr(1000, 3000))
      << "READs come for handles in passthrough too";
  close(node, first);
  close(node, second);
  const OpenOut soon = open(node);
  EXPECT_EQ(soon.backing_id, first.backing_id) << "kept for a moment";
  close(node, soon);
  EXPECT_EQ(fake_.registrar.files.size(), 1U);
  fake_.advance(std::chrono::seconds(30));
  EXPECT_THAT(fake_.registrar.files, IsEmpty());
  EXPECT_EQ(fake_.filesystem->statistics().backing_ids, 0U);
}

// What is registered is in use: the cache cannot cull it.
TEST_F(FilesystemTest, ABackingFileThatNobodyHasOpenMakesRoom) {
  const std::uint64_t node = fill_large();
  fake_.server.add_file("other", pattern(kLarge, 3));
  fake_.server.add_file("third", pattern(kLarge, 4));
  close(node, open(node));
  EXPECT_EQ(fake_.registrar.files.size(), 1U) << "kept for a moment";
  const auto read_new = [&](const char* name, unsigned seed) {
    const std::uint64_t other = lookup(name).nodeid;
    const OpenOut opened = open(other);
    EXPECT_EQ(read(other, opened), pattern(kLarge, seed));
    close(other, opened);
    fake_.stepper.run();
  };
  fake_.disk.full = true;
  const OpenOut held = open(node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  read_new("other", 3);
  EXPECT_EQ(fake_.registrar.files.size(), 1U) << "it is open";
  close(node, held);
  fake_.advance(std::chrono::milliseconds(100));
  read_new("third", 4);
  EXPECT_THAT(fake_.registrar.files, IsEmpty());
  EXPECT_EQ(fake_.filesystem->statistics().backing_ids, 0U);
  fake_.disk.full = false;
  const OpenOut again = open(node);
  EXPECT_NE(again.open_flags & kOpenPassthrough, 0U);
  close(node, again);
}

// However often it was closed in that time, it is one of those that can be given.
TEST_F(FilesystemTest, ABackingFileThatIsOpenedAgainAndAgainMakesRoom) {
  const std::uint64_t node = fill_large();
  fake_.server.add_file("other", pattern(kLarge, 3));
  for (int times = 0; times < 100; ++times) {
    close(node, open(node));
  }
  ASSERT_EQ(fake_.registrar.files.size(), 1U);
  fake_.disk.full = true;
  const std::uint64_t other = lookup("other").nodeid;
  const OpenOut opened = open(other);
  EXPECT_EQ(read(other, opened), pattern(kLarge, 3));
  fake_.stepper.run();
  EXPECT_THAT(fake_.registrar.files, IsEmpty());
  close(other, opened);
}

TEST_F(FilesystemTest, ADiskThatFailsUnderPassthroughIsLeftByTheNextOpens) {
  const std::uint64_t node = fill_large();
  const OpenOut held = open(node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  fake_.stepper.run();
  fake_.disk.dead = true;  // only the kernel, which tells nobody, meets it
  const OpenOut second = open(node);
  EXPECT_NE(second.open_flags & kOpenPassthrough, 0U);
  fake_.stepper.run();
  expect_served_by_the_server(node);
  close(node, second);
  close(node, held);
}

TEST_F(FilesystemTest, WhatTheKernelFailedToReadIsReadBeforeTheFileIsOpenedOnceMore) {
  const std::uint64_t node = fill_large();
  const OpenOut held = open(node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  fake_.stepper.run();
  fake_.disk.failed_read = 8192;  // being read just now, as it turns out
  const OpenOut second = open(node);
  EXPECT_NE(second.open_flags & kOpenPassthrough, 0U);
  fake_.stepper.run();
  fake_.disk.dead = true;
  expect_served_by_the_server(node);  // the first open already
  close(node, second);
  close(node, held);
}

TEST_F(FilesystemTest, WithoutARegistrationThePageCacheServes) {
  fake_.registrar.refuse = true;
  const std::uint64_t node = fill_large();
  const OpenOut opened = open(node);
  EXPECT_EQ(opened.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(read(node, opened), pattern(kLarge, 1));
  EXPECT_FALSE(fake_.filesystem->statistics().passthrough_trouble.empty());
  close(node, opened);
}

TEST_F(FilesystemTest, AChangedFileUnderPassthroughGetsANodeOfItsOwn) {
  const std::uint64_t old_node = fill_large();
  const OpenOut old_open = open(old_node);
  ASSERT_NE(old_open.open_flags & kOpenPassthrough, 0U);
  const auto old_attr = fake_.wait(kernel().getattr(old_node)).body.as<fuse_attr_out>().attr;
  change_large();

  EXPECT_EQ(try_open(old_node).error, ESTALE);
  const auto entry = lookup("large");  // as the kernel does after ESTALE
  EXPECT_NE(entry.nodeid, old_node);
  EXPECT_EQ(entry.attr.ino, large_) << "for stat(2) it is the same file";
  const OpenOut new_open = open(entry.nodeid);
  EXPECT_EQ(read(entry.nodeid, new_open), pattern(kLarge, 2));

  const auto held = fake_.wait(kernel().getattr(old_node)).body.as<fuse_attr_out>().attr;
  EXPECT_EQ(held.mtime, old_attr.mtime) << "the old node shows its own version";
  EXPECT_EQ(lookup("large").nodeid, entry.nodeid);
  close(old_node, old_open);
  close(entry.nodeid, new_open);
}

TEST_F(FilesystemTest, TheSecondOpenOfAThreadGetsTheOldVersion) {
  const std::uint64_t node = fill_large();
  const OpenOut held = open(node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  change_large();
  EXPECT_EQ(try_open(node).error, ESTALE);
  EXPECT_EQ(fake_.wait(kernel().getattr(node)).error, 0)
      << "where the kernel forgot its attributes";
  const OpenOut reopened = open(node);  // of /proc/PID/fd: there is no LOOKUP between
  EXPECT_EQ(reopened.backing_id, held.backing_id);
  // Another thread, and this one after something else, are told again.
  ++kernel().pid;
  EXPECT_EQ(try_open(node).error, ESTALE);
  --kernel().pid;
  EXPECT_EQ(try_open(node).error, ESTALE);
  EXPECT_NE(lookup("large").nodeid, node);
  EXPECT_EQ(try_open(node).error, ESTALE) << "a LOOKUP was between: it comes by the name";
  fake_.advance(std::chrono::seconds(2));
  EXPECT_EQ(try_open(node).error, ESTALE) << "a second has passed";
  close(node, held);
  close(node, reopened);
}

TEST_F(FilesystemTest, OpensWaitForTheFirstToDecide) {
  const std::uint64_t node = lookup("large").nodeid;
  fake_.control->hold = true;
  const std::uint64_t first = kernel().open(node);
  const std::uint64_t second = kernel().open(node);
  fake_.stepper.run();
  EXPECT_EQ(kernel().take_reply(first), std::nullopt);
  EXPECT_EQ(kernel().take_reply(second), std::nullopt);
  fake_.control->release();
  const FuseReply one = fake_.wait(first);
  const FuseReply two = fake_.wait(second);
  EXPECT_EQ(one.error, 0);
  EXPECT_EQ(two.error, 0);
  EXPECT_NE(one.body.as<OpenOut>().fh, two.body.as<OpenOut>().fh);
  EXPECT_EQ(one.body.as<OpenOut>().open_flags & kOpenPassthrough,
            two.body.as<OpenOut>().open_flags & kOpenPassthrough);
  close(node, one.body.as<OpenOut>());
  close(node, two.body.as<OpenOut>());
}

TEST_F(FilesystemTest, AnotherOpenDecidesWhenTheFirstFails) {
  const std::uint64_t node = lookup("small").nodeid;
  fake_.control->hold = true;
  const std::uint64_t first = kernel().open(node);
  const std::uint64_t second = kernel().open(node);
  fake_.stepper.run();
  kernel().interrupt(first);
  fake_.control->release();
  EXPECT_EQ(fake_.wait(first).error, EINTR);
  const FuseReply two = fake_.wait(second);
  EXPECT_EQ(two.error, 0);
  EXPECT_EQ(read(node, two.body.as<OpenOut>()), "first content");
  close(node, two.body.as<OpenOut>());
}

TEST_F(FilesystemTest, AnOpenThatTheKernelDidNotTakeIsClosed) {
  const std::uint64_t node = fill_large();
  kernel().refuse_next_reply = true;
  const std::uint64_t unique = kernel().open(node);
  fake_.stepper.run();
  EXPECT_EQ(kernel().take_reply(unique), std::nullopt);
  fake_.advance(std::chrono::seconds(30));
  EXPECT_THAT(fake_.registrar.files, IsEmpty()) << "as after a close";
}

// ---- A kernel that knows too much.

class SurplusTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kMostNodes = 100;

  std::uint64_t lookup(int number) {
    const FuseReply reply =
        fake_.wait(fake_.kernel.lookup(FUSE_ROOT_ID, fmt::format("file-{}", number)));
    EXPECT_EQ(reply.error, 0) << number;
    return reply.body.as<fuse_entry_out>().nodeid;
  }

  // Looks all names up, from the first; returns their nodes.
  std::vector<std::uint64_t> walk(int files) {
    std::vector<std::uint64_t> nodes;
    for (int i = 0; i < files; ++i) {
      fake_.server.add_file(fmt::format("file-{}", i), "");
      nodes.push_back(lookup(i));
    }
    fake_.stepper.run();
    return nodes;
  }

  // What the kernel was asked to forget.
  std::vector<std::uint64_t> offered() {
    std::vector<std::uint64_t> nodes;
    for (const FuseNotice& notice : fake_.kernel.take_notices()) {
      EXPECT_EQ(notice.code, kNotifyPrune);
      const auto out = notice.body.as<NotifyPruneOut>();
      const Bytes ids = notice.body.bytes().subspan(sizeof out);
      EXPECT_EQ(ids.size(), out.count * sizeof(std::uint64_t));
      const std::size_t before = nodes.size();
      nodes.resize(before + out.count);
      std::memcpy(nodes.data() + before, ids.data(), ids.size());
    }
    return nodes;
  }

  MountedFake fake_{true, kMostNodes};
};

TEST_F(SurplusTest, TheKernelIsAskedToForgetTheLongestKnownThatAreNotOpen) {
  fake_.negotiate();
  const std::vector<std::uint64_t> first = walk(kMostNodes - 1);
  ASSERT_EQ(fake_.wait(fake_.kernel.open(first.at(5))).error, 0);
  EXPECT_THAT(offered(), IsEmpty()) << "not yet too many";
  const std::vector<std::uint64_t> all = walk(kMostNodes + NodeTable::kOffered / 2);
  std::vector<std::uint64_t> wanted = all;
  std::erase(wanted, first.at(5));
  const std::vector<std::uint64_t> asked = offered();
  ASSERT_GE(asked.size(), NodeTable::kOffered / 2);
  wanted.resize(asked.size());
  EXPECT_EQ(asked, wanted);
  for (const std::uint64_t node : asked) {
    fake_.kernel.forget(node, node == first.at(5) ? 0 : 2);
  }
  EXPECT_LE(fake_.nodes.size(), kMostNodes);
  EXPECT_NE(lookup(0), first.at(0)) << "known anew";
}

TEST_F(SurplusTest, AKernelThatForgetsNothingIsAskedNowAndThen) {
  fake_.negotiate();
  static_cast<void>(walk(5000));
  const std::size_t asked = offered().size();
  EXPECT_GT(asked, 5000U);
  EXPECT_LE(asked, 2 * 5000U + NodeTable::kOffered);
}

TEST_F(SurplusTest, AnOlderKernelIsNotAsked) {
  fake_.negotiate(44);
  static_cast<void>(walk(1000));
  EXPECT_THAT(offered(), IsEmpty());
}

// ---- Records.

TEST_F(FilesystemTest, TheRecordsOfAnOpenSayItsVersionAndItsOpener) {
  kernel().uid = 1234;
  kernel().gid = 56;
  const std::uint64_t node = lookup("small").nodeid;
  EXPECT_EQ(fake_.record_of(node).coherency, handover::NodeRecord{}.coherency) << "never opened";
  const OpenOut opened = fake_.wait(kernel().open(node, O_NOFOLLOW)).body.as<OpenOut>();
  const handover::NodeRecord& of_node = fake_.record_of(node);
  const handover::HandleRecord& of_open = fake_.record_of(opened);
  EXPECT_EQ(of_node.size, 13U);
  EXPECT_NE(of_node.coherency, handover::NodeRecord{}.coherency);
  EXPECT_EQ(of_node.open_mode, 1U);
  EXPECT_EQ(of_node.open_count, 1U);
  EXPECT_EQ(of_node.flags, 0U);
  EXPECT_EQ(of_open.nodeid, node);
  EXPECT_EQ(of_open.mount_id, 1U);
  EXPECT_EQ(of_open.uid, 1234U);
  EXPECT_EQ(of_open.gid, 56U);
  EXPECT_EQ(of_open.open_flags, static_cast<std::uint32_t>(O_NOFOLLOW));
  EXPECT_EQ(of_open.open_mode, 1U);
  EXPECT_EQ(of_open.size, 13U);
  EXPECT_EQ(of_open.coherency, of_node.coherency);
  close(node, opened);
  EXPECT_EQ(of_open.mount_id, 0U);
}

TEST_F(FilesystemTest, TheRecordOfANodeFollowsTheVersionThatItsReadsGive) {
  const std::uint64_t node = lookup("small").nodeid;
  const OpenOut first = open(node);
  const handover::NodeRecord before = fake_.record_of(node);
  fake_.server.write_file(small_, "longer than before");
  fake_.advance(std::chrono::seconds(100));  // no attributes are believed for longer
  EXPECT_EQ(fake_.wait(kernel().getattr(node)).body.as<fuse_attr_out>().attr.size, 18U);
  const handover::NodeRecord changed = fake_.record_of(node);
  EXPECT_EQ(changed.size, 18U);
  EXPECT_NE(changed.coherency, before.coherency);
  EXPECT_EQ(changed.flags, handover::kNodePagesUnsure);
  EXPECT_EQ(fake_.record_of(first).coherency, before.coherency) << "the version of the open";
  const OpenOut second = open(node);
  EXPECT_EQ(second.open_flags & FOPEN_KEEP_CACHE, 0U);
  EXPECT_EQ(fake_.record_of(node).flags, 0U);
  EXPECT_EQ(fake_.record_of(node).coherency, changed.coherency);
  close(node, first);
  close(node, second);
}

TEST_F(FilesystemTest, ANodeInPassthroughKeepsTheVersionOfItsBackingFileInItsRecord) {
  const std::uint64_t node = fill_large();
  const OpenOut held = open(node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  const handover::NodeRecord before = fake_.record_of(node);
  EXPECT_EQ(before.coherency, fake_.record_of(held).coherency);
  EXPECT_EQ(before.backing_id, held.backing_id);
  change_large();
  EXPECT_EQ(try_open(node).error, ESTALE);
  EXPECT_EQ(fake_.record_of(node).coherency, before.coherency);
  const std::uint64_t newer = lookup("large").nodeid;
  const OpenOut opened = open(newer);
  EXPECT_NE(fake_.record_of(newer).coherency, before.coherency);
  EXPECT_EQ(fake_.record_of(newer).coherency, fake_.record_of(opened).coherency);
  close(node, held);
  close(newer, opened);
}

TEST_F(FilesystemTest, AVersionThatIsTooYoungIsRecordedAsSuch) {
  fake_.server.write_file(small_, "just written");
  const std::uint64_t node = lookup("small").nodeid;
  const OpenOut young = open(node);
  EXPECT_EQ(fake_.record_of(node).size, 12U);
  EXPECT_EQ(fake_.record_of(node).flags, handover::kNodePagesUnsure);
  close(node, young);
  fake_.advance(std::chrono::seconds(20));
  const OpenOut settled = open(node);
  EXPECT_EQ(settled.open_flags & FOPEN_KEEP_CACHE, 0U);
  EXPECT_EQ(fake_.record_of(node).flags, 0U);
  close(node, settled);
}

TEST_F(FilesystemTest, ADirectorysRecordSaysTheVerifierOfItsLastListing) {
  fake_.server.listing_verifier = 0xfeedbeef;
  const auto directory = fake_.wait(kernel().opendir(FUSE_ROOT_ID)).body.as<OpenOut>();
  EXPECT_EQ(fake_.record_of(directory).nodeid, FUSE_ROOT_ID);
  EXPECT_EQ(fake_.wait(kernel().readdir(FUSE_ROOT_ID, directory.fh, 0, 4096)).error, 0);
  EXPECT_EQ(fake_.node_records[0].directory_verifier, 0xfeedbeefU);
  EXPECT_EQ(fake_.wait(kernel().release(FUSE_ROOT_ID, directory.fh, FUSE_RELEASEDIR)).error, 0);
  EXPECT_EQ(fake_.record_of(directory).mount_id, 0U);
}

// ---- Handles.

TEST_F(FilesystemTest, HandlesOfUnknownNumbersAreRefused) {
  const std::uint64_t node = lookup("small").nodeid;
  EXPECT_EQ(fake_.wait(kernel().read(node, 4711, 0, 10)).error, EBADF);
  EXPECT_EQ(fake_.wait(kernel().readdir(node, 4711, 0, 4096)).error, EBADF);
  EXPECT_EQ(fake_.wait(kernel().release(node, 4711)).error, EBADF);
  EXPECT_EQ(fake_.wait(kernel().release(node, 4711, FUSE_RELEASEDIR)).error, EBADF);
  const OpenOut opened = open(node);
  EXPECT_EQ(fake_.wait(kernel().readdir(node, opened.fh, 0, 4096)).error, EBADF)
      << "a file is no directory";
  close(node, opened);
  EXPECT_EQ(fake_.wait(kernel().read(node, opened.fh, 0, 10)).error, EBADF) << "closed";
  const auto directory = fake_.wait(kernel().opendir(FUSE_ROOT_ID)).body.as<OpenOut>();
  EXPECT_EQ(fake_.wait(kernel().read(FUSE_ROOT_ID, directory.fh, 0, 10)).error, EBADF);
}

TEST_F(FilesystemTest, HandlesOfOtherFilesAndHostileNumbersAreRefused) {
  const std::uint64_t node = lookup("small").nodeid;
  const std::uint64_t other = lookup("large").nodeid;
  const OpenOut opened = open(node);
  EXPECT_EQ(fake_.wait(kernel().read(other, opened.fh, 0, 10)).error, EBADF);
  EXPECT_EQ(fake_.wait(kernel().release(other, opened.fh)).error, EBADF);
  for (const std::uint64_t fh :
       std::vector<std::uint64_t>{0, UINT64_MAX, opened.fh + 1, opened.fh ^ (1ULL << 31U),
                                  opened.fh + (1ULL << 32U), opened.fh & 0xffffffffU}) {
    EXPECT_EQ(fake_.wait(kernel().read(node, fh, 0, 10)).error, EBADF) << fh;
    EXPECT_EQ(fake_.wait(kernel().release(node, fh)).error, EBADF) << fh;
  }
  EXPECT_EQ(read(node, opened), "first content");
  close(node, opened);
  EXPECT_EQ(fake_.handles.size(), 0U);
}

TEST_F(FilesystemTest, OpensOfAFullTableAreRefusedAndLeaveNothingBehind) {
  const std::uint64_t node = fill_large();
  std::vector<OpenOut> all;
  while (fake_.handles.size() < MountedFake::kFewHandles.capacity) {
    all.push_back(open(node));
  }
  EXPECT_EQ(try_open(node).error, ENFILE);
  EXPECT_EQ(fake_.wait(kernel().opendir(FUSE_ROOT_ID)).error, ENFILE);
  close(node, all.back());
  all.pop_back();
  all.push_back(open(node));
  for (const OpenOut& opened : all) {
    close(node, opened);
  }
  fake_.advance(std::chrono::seconds(30));
  EXPECT_THAT(fake_.registrar.files, IsEmpty()) << "the refused open counts as closed";
}

TEST_F(FilesystemTest, ReadsBeyondTheEndAreEmptyAndHugeOnesRefused) {
  const std::uint64_t node = lookup("small").nodeid;
  const OpenOut opened = open(node);
  EXPECT_EQ(read(node, opened, 6, 100), "content");
  EXPECT_EQ(read(node, opened, 13, 100), "");
  EXPECT_EQ(read(node, opened, UINT64_MAX - 10, 100), "");
  EXPECT_EQ(fake_.wait(kernel().read(node, opened.fh, 0, kMostIoBytes + 1)).error, EINVAL);
  close(node, opened);
}

// ---- Listings.

class ListingTest : public FilesystemTest {
 protected:
  ListingTest() {
    fake_.server.entries_per_readdir = 7;
    for (int i = 0; i < 40; ++i) {
      fake_.server.add_file(fmt::format("entry-{:02}", i), "");
    }
    handle_ = fake_.wait(kernel().opendir(FUSE_ROOT_ID)).body.as<OpenOut>().fh;
  }

  std::vector<ListedName> list(std::uint64_t offset, std::uint32_t size) {
    const FuseReply reply = fake_.wait(kernel().readdir(FUSE_ROOT_ID, handle_, offset, size));
    EXPECT_EQ(reply.error, 0);
    EXPECT_LE(reply.body.bytes().size(), size);
    return FakeKernel::entries_of(reply);
  }

  std::vector<std::string> list_all(std::uint32_t size) {
    std::vector<std::string> names;
    std::uint64_t offset = 0;
    for (std::vector<ListedName> some = list(0, size); !some.empty(); some = list(offset, size)) {
      for (const ListedName& entry : some) {
        names.push_back(entry.name);
        offset = entry.offset;
      }
    }
    return names;
  }

  std::uint64_t handle_ = 0;
};

TEST_F(ListingTest, GivesEveryNameOnceInPiecesOfAnySize) {
  const std::vector<std::string> whole = list_all(1U << 20U);
  EXPECT_EQ(whole.size(), 44U);  // with ".", "..", "large" and "small"
  EXPECT_EQ(whole[0], ".");
  EXPECT_EQ(whole[1], "..");
  EXPECT_EQ(list_all(100), whole);
}

TEST_F(ListingTest, GoesOnAtAnyOffsetThatWasGiven) {
  const std::vector<ListedName> whole = list(0, 4096);
  ASSERT_EQ(whole.size(), 9U);  // ours, and one page of the server's
  for (const std::size_t at : {0UL, 1UL, 2UL, 7UL}) {
    const std::vector<ListedName> rest = list(whole[at].offset, 4096);
    ASSERT_FALSE(rest.empty());
    EXPECT_EQ(rest.front().name, whole[at + 1].name);
  }
  EXPECT_THAT(list(1'000'000, 4096), IsEmpty());
  EXPECT_THAT(list(UINT64_MAX, 4096), IsEmpty());
}

TEST_F(ListingTest, ARewindShowsWhatIsNew) {
  const std::size_t before = list_all(4096).size();
  fake_.server.add_file("later", "");
  fake_.advance(std::chrono::seconds(120));
  EXPECT_EQ(list_all(4096).size(), before + 1);
}

TEST_F(ListingTest, ABufferWithoutRoomForAnEntryIsNotTheEnd) {
  EXPECT_THAT(list(0, 8), IsEmpty());
  EXPECT_EQ(list(0, 64).size(), 2U) << "and what fits comes";
}

}  // namespace
}  // namespace larder::fuse
