// Changes of names and attributes, and a mount on which there are none.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bytes.h"
#include "fuse/protocol.h"
#include "fuse/testing/changing_test.h"
#include "testing/fake_kernel.h"

namespace larder::fuse {
namespace {

using larder::testing::FuseBytes;

constexpr std::uint64_t kRoot = FUSE_ROOT_ID;

class ChangesTest : public ChangingTest {
 protected:
  std::uint64_t server_id(std::string_view name) {
    const auto found = fake_.server.find_name(name);
    EXPECT_TRUE(found.has_value()) << name;
    return found.value_or(0);
  }
};

// ---- Something new.

TEST_F(ChangesTest, CreateMakesAndOpens) {
  const auto made = answer<CreatedOut>(kernel().create(kRoot, "new", O_RDWR | O_EXCL, 0640));
  EXPECT_EQ(made.entry.attr.mode, S_IFREG | 0640U);
  EXPECT_EQ(made.entry.attr.ino, server_id("new"));
  EXPECT_EQ(made.open.open_flags & (kOpenPassthrough | kOpenNoFlush), 0U);
  EXPECT_EQ(write(made.entry.nodeid, made.open, 0, "text"), 4U);
  EXPECT_EQ(read(made.entry.nodeid, made.open), "text");
  close(made.entry.nodeid, made.open);
  EXPECT_EQ(lookup("new"), made.entry.nodeid);
  EXPECT_EQ(fake_.server.stable_content(server_id("new")), "text");
}

TEST_F(ChangesTest, CreateOfWhatIsThere) {
  EXPECT_EQ(error_of(kernel().create(kRoot, "small", O_RDWR | O_EXCL)), EEXIST);
  const std::uint64_t node = lookup("small");
  const auto found = answer<CreatedOut>(kernel().create(kRoot, "small", O_RDWR | O_TRUNC));
  EXPECT_EQ(found.entry.nodeid, node);
  EXPECT_EQ(fake_.server.content(small_), "");
  close(node, found.open);
}

TEST_F(ChangesTest, CreateLeavesReadersInPassthroughAlone) {
  const std::uint64_t held_node = fill_large();
  const OpenOut held = open(held_node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  const auto found = answer<CreatedOut>(kernel().create(kRoot, "large", O_WRONLY));
  EXPECT_NE(found.entry.nodeid, held_node);
  EXPECT_EQ(found.open.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(lookup("large"), found.entry.nodeid);
  close(found.entry.nodeid, found.open);
  close(held_node, held);
}

TEST_F(ChangesTest, ACreateThatTheKernelDidNotTakeLeavesNoNode) {
  const std::size_t before = fake_.nodes.size();
  kernel().refuse_next_reply = true;
  const std::uint64_t unique = kernel().create(kRoot, "new", O_RDWR | O_EXCL);
  fake_.stepper.run();
  EXPECT_EQ(kernel().take_reply(unique), std::nullopt);
  EXPECT_EQ(fake_.nodes.size(), before);
  EXPECT_TRUE(fake_.server.find_name("new").has_value()) << "as after kill -9 of the program";
}

TEST_F(ChangesTest, EveryKindOfFileCanBeMade) {
  const auto directory = answer<fuse_entry_out>(kernel().mkdir(kRoot, "directory", 01775));
  EXPECT_EQ(directory.attr.mode, S_IFDIR | 01775U);
  EXPECT_EQ(answer<fuse_entry_out>(kernel().mknod(kRoot, "fifo", S_IFIFO | 0600)).attr.mode,
            S_IFIFO | 0600U);
  EXPECT_EQ(answer<fuse_entry_out>(kernel().mknod(kRoot, "socket", S_IFSOCK | 0600)).attr.mode,
            S_IFSOCK | 0600U);
  const auto rdev = static_cast<std::uint32_t>(::makedev(259, 70'000));
  const auto device = answer<fuse_entry_out>(kernel().mknod(kRoot, "device", S_IFBLK | 0600, rdev));
  EXPECT_EQ(device.attr.rdev, rdev);
  const auto regular = answer<fuse_entry_out>(kernel().mknod(kRoot, "regular", S_IFREG | 0400));
  EXPECT_EQ(regular.attr.mode, S_IFREG | 0400U);
  EXPECT_EQ(error_of(kernel().mknod(kRoot, "regular", S_IFREG | 0400)), EEXIST);
  EXPECT_EQ(error_of(kernel().mknod(kRoot, "odd", S_IFDIR | 0700)), EINVAL);
  const auto link = answer<fuse_entry_out>(kernel().symlink(kRoot, "link", "../some where"));
  EXPECT_EQ(fake_.wait(kernel().send(FUSE_READLINK, link.nodeid)).body.text(), "../some where");
  // In a new directory, too.
  const auto inner =
      answer<CreatedOut>(kernel().create(directory.nodeid, "inner", O_WRONLY | O_EXCL));
  close(inner.entry.nodeid, inner.open);
  EXPECT_EQ(lookup("inner", directory.nodeid), inner.entry.nodeid);
}

TEST_F(ChangesTest, NamesAreCheckedAsForLookup) {
  const std::string longest(255, 'n');
  const std::string too_long(256, 'n');
  EXPECT_EQ(error_of(kernel().mkdir(kRoot, "")), EINVAL);
  EXPECT_EQ(error_of(kernel().mkdir(kRoot, too_long)), ENAMETOOLONG);
  EXPECT_EQ(error_of(kernel().mkdir(kRoot, longest)), 0);
  EXPECT_EQ(error_of(kernel().create(kRoot, too_long, O_RDWR)), ENAMETOOLONG);
  EXPECT_EQ(error_of(kernel().rename(kRoot, "small", kRoot, too_long)), ENAMETOOLONG);
  EXPECT_EQ(error_of(kernel().rename(kRoot, "small", kRoot, "")), EINVAL);
  EXPECT_EQ(error_of(kernel().symlink(kRoot, "link", "")), EINVAL);
  EXPECT_EQ(error_of(kernel().symlink(kRoot, "link", std::string(4096, 't'))), ENAMETOOLONG);
  EXPECT_EQ(error_of(kernel().unlink(0xdeadbeef, "small")), ESTALE);
  EXPECT_EQ(error_of(kernel().rename(kRoot, "small", 0xdeadbeef, "other")), ESTALE);
  EXPECT_EQ(error_of(kernel().link(0xdeadbeef, kRoot, "other")), ESTALE);
  EXPECT_EQ(error_of(kernel().setattr(0xdeadbeef, {})), ESTALE);
  EXPECT_EQ(error_of(kernel().send(FUSE_MKDIR, kRoot, FuseBytes().add_bytes(bytes_of("abc")))),
            EINVAL)
      << "shorter than its argument";
}

// ---- Names that go and move.

TEST_F(ChangesTest, LinksAndNamesGo) {
  const std::uint64_t node = lookup("small");
  const auto linked = answer<fuse_entry_out>(kernel().link(node, kRoot, "second"));
  EXPECT_EQ(linked.nodeid, node);
  EXPECT_EQ(linked.attr.nlink, 2U);
  EXPECT_EQ(error_of(kernel().unlink(kRoot, "small")), 0);
  EXPECT_EQ(fake_.server.find_name("small"), std::nullopt);
  EXPECT_EQ(answer<fuse_entry_out>(kernel().lookup(kRoot, "small")).nodeid, 0U);
  EXPECT_EQ(error_of(kernel().unlink(kRoot, "nobody")), ENOENT);
  const auto directory = answer<fuse_entry_out>(kernel().mkdir(kRoot, "directory"));
  EXPECT_EQ(error_of(kernel().mkdir(directory.nodeid, "inner")), 0);
  EXPECT_EQ(error_of(kernel().rmdir(kRoot, "directory")), ENOTEMPTY);
  EXPECT_EQ(error_of(kernel().rmdir(directory.nodeid, "inner")), 0);
  EXPECT_EQ(error_of(kernel().rmdir(kRoot, "directory")), 0);
  EXPECT_EQ(fake_.server.find_name("directory"), std::nullopt);
}

TEST_F(ChangesTest, NamesMove) {
  const auto directory = answer<fuse_entry_out>(kernel().mkdir(kRoot, "directory"));
  const std::uint64_t node = lookup("small");
  EXPECT_EQ(error_of(kernel().rename(kRoot, "small", directory.nodeid, "moved")), 0);
  EXPECT_EQ(fake_.server.find_name("small"), std::nullopt);
  EXPECT_EQ(lookup("moved", directory.nodeid), node);
  EXPECT_EQ(error_of(kernel().rename2(directory.nodeid, "moved", kRoot, "large", 0)), 0);
  EXPECT_EQ(server_id("large"), small_) << "over a name that was there";
  for (const std::uint32_t flags : {1U, 2U, 4U}) {  // NOREPLACE, EXCHANGE, WHITEOUT
    EXPECT_EQ(error_of(kernel().rename2(kRoot, "large", kRoot, "other", flags)), EINVAL);
  }
  EXPECT_EQ(server_id("large"), small_);
}

TEST_F(ChangesTest, AFileThatIsOpenOutlivesItsName) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR);
  EXPECT_EQ(error_of(kernel().unlink(kRoot, "small")), 0);
  EXPECT_EQ(answer<fuse_entry_out>(kernel().lookup(kRoot, "small")).nodeid, 0U);
  EXPECT_EQ(read(node, opened), "first content");
  EXPECT_EQ(write(node, opened, 0, "still"), 5U);
  EXPECT_EQ(read(node, opened), "still content");
  close(node, opened);
  fake_.stepper.run();
  EXPECT_EQ(error_of(kernel().rmdir(kRoot, "nobody")), ENOENT);
}

// ---- Attributes.

TEST_F(ChangesTest, AttributesAreSet) {
  const std::uint64_t node = lookup("small");
  fuse_setattr_in in{};
  in.valid = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME;
  in.mode = S_IFREG | 0604;
  in.uid = 7;
  in.gid = 8;
  in.size = 5;
  in.atime = 1'000'000'000;
  in.atimensec = 123'456'789;
  in.mtime = 1'100'000'000;
  in.mtimensec = 987'654'321;
  const fuse_attr set = answer<fuse_attr_out>(kernel().setattr(node, in)).attr;
  EXPECT_EQ(set.mode, S_IFREG | 0604U);
  EXPECT_EQ(set.uid, 7U);
  EXPECT_EQ(set.gid, 8U);
  EXPECT_EQ(set.size, 5U);
  EXPECT_EQ(set.atime, 1'000'000'000U);
  EXPECT_EQ(set.atimensec, 123'456'789U);
  EXPECT_EQ(set.mtime, 1'100'000'000U);
  EXPECT_EQ(set.mtimensec, 987'654'321U);
  EXPECT_EQ(fake_.server.content(small_), "first");

  fuse_setattr_in now{};
  now.valid = FATTR_MTIME | FATTR_MTIME_NOW | FATTR_CTIME;
  now.mtime = 5;
  const std::uint64_t present = answer<fuse_attr_out>(kernel().setattr(node, now)).attr.mtime;
  EXPECT_GT(present, 31'536'000U) << "of the server's clock";
  EXPECT_LT(present, 1'000'000'000U);
  const std::uint64_t calls = fake_.server.calls["setattr"];
  fuse_setattr_in nothing{};
  nothing.valid = FATTR_CTIME;
  EXPECT_EQ(error_of(kernel().setattr(node, nothing)), 0);
  EXPECT_EQ(fake_.server.calls["setattr"], calls) << "a ctime cannot be set";
  fuse_setattr_in odd{};
  odd.valid = FATTR_ATIME;
  odd.atimensec = 1'000'000'000;
  EXPECT_EQ(error_of(kernel().setattr(node, odd)), EINVAL);
}

TEST_F(ChangesTest, AnOpenFileIsCutByItsDescriptor) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR);
  EXPECT_EQ(write(node, opened, 13, " and more"), 9U);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE | FATTR_FH;
  in.fh = opened.fh;
  in.size = 3;
  EXPECT_EQ(answer<fuse_attr_out>(kernel().setattr(node, in)).attr.size, 3U);
  EXPECT_EQ(read(node, opened), "fir");
  in.size = 6;
  EXPECT_EQ(answer<fuse_attr_out>(kernel().setattr(node, in)).attr.size, 6U);
  EXPECT_EQ(read(node, opened), std::string("fir\0\0\0", 6));
  in.fh = 4711;
  EXPECT_EQ(error_of(kernel().setattr(node, in)), EBADF);
  close(node, opened);
}

TEST_F(ChangesTest, SuidGoesWithACutWhereTheKernelSaysSo) {
  fake_.server.set_mode(small_, 06755);
  settle();
  const std::uint64_t node = lookup("small");
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  in.size = 4;
  EXPECT_EQ(answer<fuse_attr_out>(kernel().setattr(node, in)).attr.mode & 07777U, 06755U);
  in.valid |= FATTR_KILL_SUIDGID;
  EXPECT_EQ(answer<fuse_attr_out>(kernel().setattr(node, in)).attr.mode & 07777U, 0755U);
  fake_.server.set_mode(small_, 02744);
  settle();
  EXPECT_EQ(attr(node).mode & 07777U, 02744U);
  EXPECT_EQ(answer<fuse_attr_out>(kernel().setattr(node, in)).attr.mode & 07777U, 02744U)
      << "sgid of what the group cannot execute means a lock";
}

TEST_F(ChangesTest, SuidGoesWithATruncatingOpenWhereTheKernelSaysSo) {
  fake_.server.set_mode(small_, 04755);
  settle();
  const std::uint64_t node = lookup("small");
  const fuse_open_in in{O_WRONLY | O_TRUNC, FUSE_OPEN_KILL_SUIDGID};
  const auto opened = answer<OpenOut>(kernel().send(FUSE_OPEN, node, FuseBytes().add(in)));
  EXPECT_EQ(fake_.server.attributes(small_).mode, 0755U);
  EXPECT_EQ(fake_.server.content(small_), "");
  close(node, opened);
}

TEST_F(ChangesTest, WhatTheServerRefusesIsRefused) {
  fake_.server.denied_uid = kernel().uid;
  const std::uint64_t node = lookup("small");
  fuse_setattr_in in{};
  in.valid = FATTR_MODE;
  EXPECT_EQ(error_of(kernel().setattr(node, in)), EACCES);
  EXPECT_EQ(error_of(kernel().create(kRoot, "new", O_RDWR | O_EXCL)), EACCES);
  EXPECT_EQ(error_of(kernel().mkdir(kRoot, "directory")), EACCES);
  EXPECT_EQ(error_of(kernel().unlink(kRoot, "small")), EACCES);
  EXPECT_EQ(error_of(kernel().open(node, O_WRONLY)), EACCES);
}

TEST_F(ChangesTest, WhatNfsDoesNotHaveIsLeftToTheKernel) {
  const std::uint64_t node = lookup("small");
  EXPECT_EQ(error_of(kernel().send(FUSE_FALLOCATE, node, FuseBytes().add(fuse_fallocate_in{}))),
            EOPNOTSUPP);
  EXPECT_EQ(error_of(kernel().send(FUSE_COPY_FILE_RANGE, node,
                                   FuseBytes().add(fuse_copy_file_range_in{}))),
            ENOSYS);
  EXPECT_EQ(error_of(kernel().send(FUSE_LSEEK, node, FuseBytes().add(fuse_lseek_in{}))), ENOSYS);
  EXPECT_EQ(error_of(kernel().send(FUSE_FSYNCDIR, kRoot, FuseBytes().add(fuse_fsync_in{}))), 0);
}

// ---- Read-only mounts.

class ReadOnlyTest : public ChangingTest {
 protected:
  ReadOnlyTest() : ChangingTest(true) {}
};

TEST_F(ReadOnlyTest, EveryChangeIsRefused) {
  const std::uint64_t node = lookup("small");
  const OpenOut reader = open(node);
  EXPECT_NE(reader.open_flags & kOpenNoFlush, 0U) << "the kernel keeps its locks";
  const std::vector<std::uint64_t> changes = {
      kernel().open(node, O_WRONLY),
      kernel().open(node, O_RDWR),
      kernel().open(node, O_RDONLY | O_TRUNC),
      kernel().create(kRoot, "new", O_RDWR),
      kernel().mknod(kRoot, "new", S_IFREG | 0600),
      kernel().mkdir(kRoot, "new"),
      kernel().symlink(kRoot, "new", "target"),
      kernel().link(node, kRoot, "new"),
      kernel().unlink(kRoot, "small"),
      kernel().rmdir(kRoot, "small"),
      kernel().rename(kRoot, "small", kRoot, "new"),
      kernel().rename2(kRoot, "small", kRoot, "new", 0),
      kernel().setattr(node, {}),
      kernel().write(node, reader.fh, 0, "x"),
      kernel().send(FUSE_FALLOCATE, node, FuseBytes().add(fuse_fallocate_in{})),
  };
  for (const std::uint64_t unique : changes) {
    EXPECT_EQ(error_of(unique), EROFS) << "request " << unique;
  }
  EXPECT_EQ(read(node, reader), "first content");
  close(node, reader);
}

}  // namespace
}  // namespace larder::fuse
