// Opens that can write, their modes, WRITE, FLUSH and FSYNC.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "fuse/protocol.h"
#include "fuse/testing/changing_test.h"
#include "testing/fake_kernel.h"
#include "testing/memory_backend.h"

namespace larder::fuse {
namespace {

using larder::testing::FuseBytes;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Not;

class WritesTest : public ChangingTest {};

// ---- Opens.

TEST_F(WritesTest, AWriterIsNeverInPassthrough) {
  const std::uint64_t node = fill_large();
  const OpenOut writer = open(node, O_RDWR);
  EXPECT_EQ(writer.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(writer.open_flags & kOpenNoFlush, 0U) << "its close says what was lost";
  const OpenOut reader = open(node);
  EXPECT_EQ(reader.open_flags & kOpenPassthrough, 0U) << "while somebody can write";
  EXPECT_EQ(reader.open_flags & kOpenNoFlush, 0U) << "its close ends locks";
  close(node, reader);
  close(node, writer);
  settle();
  const OpenOut later = open(node);
  EXPECT_NE(later.open_flags & kOpenPassthrough, 0U) << "nothing was written";
  close(node, later);
}

TEST_F(WritesTest, AWriterOfANodeInPassthroughGetsANodeOfItsOwn) {
  const std::uint64_t held_node = fill_large();
  const OpenOut held = open(held_node);
  ASSERT_NE(held.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(error_of(kernel().open(held_node, O_WRONLY)), ESTALE);
  EXPECT_EQ(error_of(kernel().open(held_node, O_WRONLY)), ESTALE)
      << "a reopen of /proc/PID/fd cannot write to an older version";
  const std::uint64_t node = lookup("large");
  ASSERT_NE(node, held_node);
  const OpenOut writer = open(node, O_WRONLY);
  EXPECT_EQ(write(node, writer, 0, "new"), 3U);

  // Readers follow; who holds the first node is on it as long as he has it open.
  EXPECT_EQ(error_of(kernel().open(held_node)), ESTALE);
  const OpenOut reader = open(lookup("large"));
  EXPECT_EQ(lookup("large"), node);
  EXPECT_EQ(read(node, reader).substr(0, 5), "newll");
  EXPECT_EQ(attr(held_node).size, kLarge);
  close(node, reader);
  close(node, writer);
  close(held_node, held);
}

TEST_F(WritesTest, AClosedNodeBesideANewerOneIsLeft) {
  const std::uint64_t held_node = fill_large();
  const OpenOut held = open(held_node);
  EXPECT_EQ(error_of(kernel().open(held_node, O_WRONLY)), ESTALE);
  const std::uint64_t node = lookup("large");
  close(held_node, held);
  const OpenOut writer = open(node, O_WRONLY);
  EXPECT_EQ(error_of(kernel().open(held_node)), ESTALE) << "another name of it may lead there";
  EXPECT_EQ(lookup("large"), node);
  close(node, writer);
  // Once the kernel has forgotten the newer one, the older is as good as any.
  kernel().forget(node, 2);
  settle();
  const OpenOut again = open(held_node);
  EXPECT_EQ(lookup("large"), held_node);
  close(held_node, again);
}

TEST_F(WritesTest, OpeningWithTruncateCutsTheFile) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_WRONLY | O_TRUNC);
  EXPECT_EQ(fake_.server.content(small_), "");
  EXPECT_EQ(attr(node).size, 0U);
  EXPECT_EQ(write(node, opened, 0, "new"), 3U);
  close(node, opened);
  EXPECT_EQ(fake_.server.stable_content(small_), "new");
}

// A disk of which a test looks at the file that a reader in passthrough has.
class HeldWritesTest : public ChangingTest {
 protected:
  // The large file, held by a reader in passthrough.
  void hold() {
    held_node_ = fill_large();
    held_ = open(held_node_);
    ASSERT_NE(held_.open_flags & kOpenPassthrough, 0U);
    for (const auto& [volume, objects] : fake_.disk.volumes) {
      for (const auto& [key, stored] : objects) {
        backing_ = stored->description.size == kLarge ? stored : backing_;
      }
    }
    ASSERT_NE(backing_, nullptr);
  }

  // The writer's node beside it.
  std::uint64_t node_to_write() {
    EXPECT_EQ(error_of(kernel().open(held_node_, O_RDWR)), ESTALE);
    return lookup("large");
  }

  // By the node that nobody has open any more.
  void overwrite(std::string_view text) {
    const OpenOut writer = open(held_node_, O_RDWR);
    write(held_node_, writer, 0, text);
    close(held_node_, writer);
  }

  // How often the disk is asked once it has said that nobody has the file mapped any more.
  int looks_once_nobody_reads() {
    backing_->open_elsewhere = false;
    settle();
    fake_.disk.looks = 0;
    settle();
    return fake_.disk.looks;
  }

  // How often the kernel was told that it has none of the node any more.
  int told_of_attributes(std::uint64_t node) {
    int told = 0;
    for (const larder::testing::FuseNotice& notice : kernel().take_notices()) {
      const auto out = notice.body.as<fuse_notify_inval_inode_out>();
      told += out.ino == node && out.off < 0 ? 1 : 0;
    }
    return told;
  }

  std::uint64_t held_node_ = 0;
  OpenOut held_{};
  std::shared_ptr<larder::testing::MemoryDisk::Stored> backing_;
};

TEST_F(HeldWritesTest, AReaderInPassthroughSeesAWriteBeforeItIsAnswered) {
  hold();
  const std::uint64_t node = node_to_write();
  const OpenOut writer = open(node, O_RDWR);
  static_cast<void>(kernel().take_notices());
  EXPECT_EQ(write(node, writer, kLarge - 2, "longer"), 6U);
  EXPECT_EQ(backing_->bytes, fake_.server.content(large_));
  EXPECT_EQ(attr(held_node_).size, kLarge + 4);
  EXPECT_GT(told_of_attributes(held_node_), 0)
      << "else the kernel goes on to show the size of before";
  close(node, writer);
  EXPECT_EQ(attr(held_node_).size, kLarge + 4);
  close(held_node_, held_);
}

// The kernel knows of no mapping that outlives its file; the cache's disk does.
TEST_F(HeldWritesTest, WhoClosedTheFileAndHasItMappedSeesAWrite) {
  char letter = 'a';
  for (const bool mapped : {true, false}) {
    for (const auto pause : {std::chrono::seconds(1), std::chrono::seconds(40)}) {
      hold();
      backing_->open_elsewhere = mapped;
      close(held_node_, held_);
      fake_.advance(pause);
      const OpenOut writer = open(held_node_, O_RDWR);
      write(held_node_, writer, 0, std::string(5, ++letter));
      close(held_node_, writer);
      EXPECT_EQ(backing_->bytes == fake_.server.content(large_), mapped);
      backing_->open_elsewhere = false;
      settle();
    }
  }
  EXPECT_EQ(fake_.registrar.files.size(), 0U);
}

TEST_F(HeldWritesTest, AMappedFileIsHeldOnceHoweverOftenItIsOpenedAgain) {
  hold();
  backing_->open_elsewhere = true;
  close(held_node_, held_);
  constexpr int kTimes = 100;
  for (int i = 0; i < kTimes; ++i) {
    fake_.advance(std::chrono::seconds(6));
    held_ = open(held_node_);
    ASSERT_NE(held_.open_flags & kOpenPassthrough, 0U);
    close(held_node_, held_);
  }
  fake_.advance(std::chrono::seconds(6));
  EXPECT_LE(fake_.disk.looks, kTimes * 6 / 5 + 2) << "one every five seconds";
  static_cast<void>(kernel().take_notices());
  overwrite("new");
  EXPECT_TRUE(backing_->bytes == fake_.server.content(large_));
  EXPECT_EQ(told_of_attributes(held_node_), 1) << "once for each hold";
  EXPECT_EQ(looks_once_nobody_reads(), 0) << "nothing is held";
}

TEST_F(HeldWritesTest, TheDiskIsAskedOnceForAllNodesOfAVersion) {
  hold();
  const std::uint64_t node = node_to_write();
  const OpenOut other = open(node);
  ASSERT_NE(other.open_flags & kOpenPassthrough, 0U);
  backing_->open_elsewhere = true;
  close(held_node_, held_);
  close(node, other);
  settle();
  fake_.disk.looks = 0;
  for (int i = 0; i < 10; ++i) {
    fake_.advance(std::chrono::seconds(5));
  }
  EXPECT_EQ(fake_.disk.looks, 10);
  EXPECT_EQ(looks_once_nobody_reads(), 0) << "the answer was for both";
}

// Who closes it while the disk is asked may have mapped it since it looked.
TEST_F(HeldWritesTest, ALookThatBeganBeforeTheCloseDoesNotCount) {
  hold();
  backing_->open_elsewhere = true;
  close(held_node_, held_);
  fake_.advance(std::chrono::seconds(6));
  backing_->open_elsewhere = false;
  bool looked = false;
  fake_.disk.after_look = [&] {
    fake_.disk.after_look = nullptr;
    looked = true;
    held_ = open(held_node_);
    ASSERT_NE(held_.open_flags & kOpenPassthrough, 0U);
    backing_->open_elsewhere = true;
    close(held_node_, held_);
    fake_.disk.pressed = true;  // so that its registration does not linger
    (*fake_.disk.wake)();
    fake_.stepper.run();
    ASSERT_TRUE(fake_.registrar.files.empty());
  };
  fake_.advance(std::chrono::seconds(5));
  ASSERT_TRUE(looked);
  overwrite("new");
  EXPECT_TRUE(backing_->bytes == fake_.server.content(large_));
}

TEST_F(HeldWritesTest, AFileThatIsOpenedAgainIsHeldAgain) {
  hold();
  close(held_node_, held_);
  const std::int32_t before = fake_.registrar.last_id;
  held_ = open(held_node_);
  EXPECT_EQ(fake_.registrar.last_id, before) << "it was registered still";
  const std::uint64_t node = node_to_write();
  const OpenOut writer = open(node, O_RDWR);
  write(node, writer, 0, "new");
  EXPECT_EQ(backing_->bytes, fake_.server.content(large_));
  close(node, writer);
  close(held_node_, held_);
}

TEST_F(HeldWritesTest, AFileIsCutUnderItsReaderByTheSecondNode) {
  hold();
  EXPECT_EQ(error_of(kernel().open(held_node_, O_WRONLY | O_TRUNC)), ESTALE);
  EXPECT_EQ(fake_.server.content(large_).size(), kLarge) << "the second OPEN does it";
  fuse_setattr_in cut{};
  cut.valid = FATTR_SIZE;
  EXPECT_EQ(error_of(kernel().setattr(held_node_, cut)), ESTALE);
  EXPECT_EQ(fake_.server.content(large_).size(), kLarge);
  const std::uint64_t node = lookup("large");
  EXPECT_EQ(answer<fuse_attr_out>(kernel().setattr(node, cut)).attr.size, 0U);
  EXPECT_EQ(fake_.server.content(large_), "");
  EXPECT_EQ(backing_->bytes, "");
  EXPECT_EQ(attr(held_node_).size, 0U);
  close(held_node_, held_);
}

TEST_F(WritesTest, PagesOfWhatWasWrittenAreNotKeptForTheNextOpen) {
  const std::uint64_t node = lookup("small");
  OpenOut opened = open(node);
  EXPECT_EQ(read(node, opened), "first content");
  close(node, opened);
  opened = open(node, O_RDWR);
  EXPECT_NE(opened.open_flags & FOPEN_KEEP_CACHE, 0U) << "as of any open of the same version";
  EXPECT_EQ(write(node, opened, 0, "other"), 5U);
  close(node, opened);
  settle();
  opened = open(node);
  EXPECT_EQ(opened.open_flags & FOPEN_KEEP_CACHE, 0U);
  EXPECT_EQ(read(node, opened), "other content");
  close(node, opened);
  opened = open(node);
  EXPECT_NE(opened.open_flags & FOPEN_KEEP_CACHE, 0U) << "it is a version like any other";
  close(node, opened);
}

TEST_F(WritesTest, AWriterThatTheKernelDidNotTakeIsClosed) {
  const std::uint64_t node = fill_large();
  kernel().refuse_next_reply = true;
  const std::uint64_t unique = kernel().open(node, O_RDWR);
  fake_.stepper.run();
  EXPECT_EQ(kernel().take_reply(unique), std::nullopt);
  settle();
  const OpenOut reader = open(node);
  EXPECT_NE(reader.open_flags & kOpenPassthrough, 0U) << "nobody can write any more";
  close(node, reader);
}

// ---- Writes.

TEST_F(WritesTest, BytesAreSeenWhenTheWriteIsAnsweredAndSafeWhenItIsClosed) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR);
  EXPECT_EQ(write(node, opened, 6, "CONTENT, more"), 13U);
  EXPECT_EQ(lookup("small"), node);
  EXPECT_EQ(fake_.server.content(small_), "first content") << "nobody needed them there yet";
  EXPECT_EQ(attr(node).size, 19U);
  EXPECT_EQ(read(node, opened), "first CONTENT, more");
  EXPECT_EQ(fake_.server.content(small_), "first CONTENT, more");
  EXPECT_EQ(fake_.server.stable_content(small_), "first content");
  EXPECT_EQ(error_of(kernel().fsync(node, opened.fh)), 0);
  EXPECT_EQ(fake_.server.stable_content(small_), "first CONTENT, more");
  EXPECT_EQ(write(node, opened, 0, "F"), 1U);
  EXPECT_EQ(error_of(kernel().flush(node, opened.fh)), 0);
  EXPECT_EQ(fake_.server.stable_content(small_), "First CONTENT, more");
  close(node, opened);
}

TEST_F(WritesTest, SynchronousWritesAreAtTheServerWhenTheyAreAnswered) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR | O_DSYNC);
  EXPECT_EQ(write(node, opened, 0, "FIRST", O_RDWR | O_DSYNC), 5U);
  EXPECT_EQ(fake_.server.content(small_), "FIRST content");
  close(node, opened);
}

TEST_F(WritesTest, AppendingIsAtTheServersEndAndDropsWhatTheKernelHasElsewhere) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_WRONLY | O_APPEND);
  EXPECT_EQ(write(node, opened, 13, "!", O_WRONLY | O_APPEND), 1U);
  fake_.stepper.run();
  EXPECT_THAT(invalidated(), Not(Contains(node))) << "the kernel knew the end";
  fake_.server.append(small_, " by others");
  settle();
  EXPECT_EQ(write(node, opened, 14, "?", O_WRONLY | O_APPEND), 1U);
  fake_.stepper.run();
  EXPECT_EQ(fake_.server.content(small_), "first content! by others?");
  EXPECT_THAT(invalidated(), Contains(node));
  close(node, opened);
}

TEST_F(WritesTest, WhatIsWrittenBackOfAMappingIsNeverAppended) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR | O_APPEND);
  const std::uint64_t unique =
      kernel().write(node, opened.fh, 0, "FIRST", O_RDWR | O_APPEND, FUSE_WRITE_CACHE);
  EXPECT_EQ(answer<fuse_write_out>(unique).size, 5U);
  EXPECT_EQ(fake_.server.content(small_), "FIRST content");
  close(node, opened);
}

// The kernel has cleared the rest of the page, into which it had put the appended bytes.
TEST_F(WritesTest, APageWrittenBackBesideALongerWriteIsDroppedBeforeThatIsAnswered) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR | O_APPEND);
  fake_.control->hold = true;
  const std::uint64_t append = kernel().write(node, opened.fh, 13, ", more", O_RDWR | O_APPEND);
  const std::uint64_t back =
      kernel().write(node, opened.fh, 0, "FIRST content", O_RDWR, FUSE_WRITE_CACHE);
  fake_.stepper.run();
  fake_.control->release();
  EXPECT_EQ(answer<fuse_write_out>(append).size, 6U);
  EXPECT_THAT(invalidated(), Contains(node));
  EXPECT_EQ(answer<fuse_write_out>(back).size, 13U);
  fake_.stepper.run();
  EXPECT_EQ(fake_.server.content(small_), "FIRST content, more");
  close(node, opened);
}

TEST_F(WritesTest, APageWrittenBackAfterALongerWriteIsDroppedToo) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR);
  EXPECT_EQ(write(node, opened, 13, ", more"), 6U);
  const std::uint64_t back =
      kernel().write(node, opened.fh, 0, "FIRST content", O_RDWR, FUSE_WRITE_CACHE);
  EXPECT_EQ(answer<fuse_write_out>(back).size, 13U);
  fake_.stepper.run();
  EXPECT_THAT(invalidated(), Contains(node));
  close(node, opened);
}

TEST_F(WritesTest, AWriteBackToTheEndOfTheFileDropsNothing) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR);
  EXPECT_EQ(write(node, opened, 0, "FIRST"), 5U);
  settle();
  static_cast<void>(invalidated());
  const std::uint64_t back =
      kernel().write(node, opened.fh, 0, "First content", O_RDWR, FUSE_WRITE_CACHE);
  EXPECT_EQ(answer<fuse_write_out>(back).size, 13U);
  fake_.stepper.run();
  EXPECT_THAT(invalidated(), Not(Contains(node)));
  close(node, opened);
}

TEST_F(WritesTest, PagesThatCouldNotBeWrittenBackAreDropped) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_RDWR);
  fake_.control->errors.emplace_back(Errc::kRemote, ENOSPC, "the server refuses");
  EXPECT_EQ(error_of(kernel().write(node, opened.fh, 0, "FIRST", 0, FUSE_WRITE_CACHE)), ENOSPC);
  fake_.stepper.run();
  EXPECT_THAT(invalidated(), Contains(node));
  fake_.server.capacity = 0;
  const std::string longer(50'000, 'x');
  EXPECT_EQ(error_of(kernel().write(node, opened.fh, 0, longer)), 0) << "accepted";
  EXPECT_EQ(error_of(kernel().fsync(node, opened.fh)), ENOSPC);
  EXPECT_EQ(fake_.server.content(small_), "first content");
  fake_.server.capacity = std::uint64_t{1} << 30U;
  static_cast<void>(error_of(kernel().flush(node, opened.fh)));
  EXPECT_EQ(error_of(kernel().release(node, opened.fh)), 0);
}

TEST_F(WritesTest, WritesThatMakeNoSenseAreRefused) {
  const std::uint64_t node = lookup("small");
  const OpenOut reader = open(node);
  const OpenOut writer = open(node, O_WRONLY);
  EXPECT_EQ(error_of(kernel().write(node, 4711, 0, "x")), EBADF);
  EXPECT_EQ(error_of(kernel().write(node, reader.fh, 0, "x")), EBADF);
  EXPECT_EQ(error_of(kernel().write(lookup("large"), writer.fh, 0, "x")), EBADF);
  EXPECT_EQ(error_of(kernel().write(node, writer.fh, 0, std::string(kMostIoBytes + 1, 'x'))),
            EINVAL);
  EXPECT_EQ(write(node, writer, 0, ""), 0U);
  fuse_write_in lie{};
  lie.fh = writer.fh;
  lie.size = 100;
  EXPECT_EQ(
      error_of(kernel().send(FUSE_WRITE, node, FuseBytes().add(lie).add_bytes(bytes_of("short")))),
      EINVAL);
  EXPECT_EQ(error_of(kernel().flush(node, 4711)), EBADF);
  EXPECT_EQ(error_of(kernel().fsync(node, 4711)), EBADF);
  EXPECT_EQ(error_of(kernel().fsync(node, reader.fh)), 0);
  EXPECT_EQ(fake_.server.content(small_), "first content");
  close(node, writer);
  close(node, reader);
}

TEST_F(WritesTest, TheLargestWriteArrivesWhole) {
  const std::uint64_t node = lookup("small");
  const OpenOut opened = open(node, O_WRONLY);
  std::string data(kMostIoBytes, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = static_cast<char>(i * 131 + i / 4096);
  }
  EXPECT_EQ(write(node, opened, 1000, data), data.size());
  close(node, opened);
  EXPECT_EQ(fake_.server.stable_content(small_).substr(1000), data);
}

}  // namespace
}  // namespace larder::fuse
