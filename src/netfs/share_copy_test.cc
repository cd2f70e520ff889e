// What a writer leaves in the cache: the content of what was written from nothing, if that is
// certain; nothing of what was removed.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"
#include "netfs/whole_copy.h"
#include "netfs/writer.h"
#include "testing/manual_clock.h"

namespace larder::netfs {
namespace {

class ShareCopyTest : public ShareTest {
 protected:
  void create(const std::string& name) {
    CreateIntent intent{.mode = 0644, .exclusive = false, .open = {}};
    intent.open.write = true;
    auto created = wait<Created>(
        [&](auto done) { share_->create(share_->root(), name, intent, caller_, std::move(done)); });
    ASSERT_TRUE(created);
    open_ = created->open;
  }

  void open_existing(const std::string& name, bool truncate) {
    const auto inode = look_up(name);
    ASSERT_TRUE(inode);
    const OpenIntent intent{.read = true, .write = true, .truncate = truncate};
    auto opened =
        wait<OpenFile>([&](auto done) { share_->open(*inode, intent, caller_, std::move(done)); });
    ASSERT_TRUE(opened);
    open_ = std::move(*opened);
  }

  Result<Written> write(std::uint64_t offset, std::string text) {
    const auto kept = std::make_shared<const std::string>(std::move(text));
    return wait<Written>([&](auto done) {
      share_->write(*open_, {.offset = offset}, {kept, bytes_of(*kept)}, caller_, std::move(done));
    });
  }

  void set_size(std::uint64_t size) {
    AttributeChanges changes;
    changes.size = size;
    ASSERT_TRUE(wait<FreshAttributes>([&](auto done) {
      share_->set_attributes(open_->file->inode(), changes, &*open_, caller_, std::move(done));
    }));
  }

  // As close(2) does; what it answers.
  Result<> close() {
    Result<> synced =
        wait<void>([&](auto done) { share_->sync(*open_, caller_, std::move(done)); });
    const std::shared_ptr<File> file = open_->file;
    open_.reset();
    share_->closed(file);
    stepper_.run();
    return synced;
  }

  // The READs that it takes to read the right content.
  std::uint64_t reads_of(const std::string& name) {
    server_.calls.clear();
    const Result<std::string> seen = cat(name);
    EXPECT_TRUE(seen);
    EXPECT_TRUE(seen && *seen == server_.content(server_.find_name(name).value()));
    return server_.calls["READ"];
  }

  std::optional<OpenFile> open_;
};

TEST_F(ShareCopyTest, WhatWasJustWrittenIsReadWithoutTheServer) {
  mount();
  for (const std::size_t size : {std::size_t{100}, std::size_t{60'000}, std::size_t{3'000'000}}) {
    const std::string name = std::to_string(size);
    create(name);
    ASSERT_TRUE(write(0, pattern(size / 2, 1)));
    ASSERT_TRUE(write(size / 2, pattern(size - size / 2, 2)));
    ASSERT_TRUE(write(size / 3, pattern(20, 3)));
    ASSERT_TRUE(close());
    EXPECT_EQ(reads_of(name), 0U) << size;
    unmount();
    mount();  // its stamps have settled meanwhile
    EXPECT_GT(reads_of(name), 0U) << "once more: docs/decisions/0010";
    EXPECT_EQ(reads_of(name), 0U);
  }
}

TEST_F(ShareCopyTest, AFileCutToNothingBeginsAnew) {
  server_.add_file("file", pattern(100'000, 1));
  mount();
  open_existing("file", false);
  ASSERT_TRUE(write(10, "to be cut off"));
  set_size(0);
  ASSERT_TRUE(write(3, pattern(1000, 2)));
  set_size(500);
  set_size(700);
  ASSERT_TRUE(close());
  EXPECT_EQ(reads_of("file"), 0U);
  open_existing("file", true);
  ASSERT_TRUE(write(0, pattern(5000, 3)));
  ASSERT_TRUE(close());
  EXPECT_EQ(reads_of("file"), 0U);
}

TEST_F(ShareCopyTest, WhatWasNotWrittenFromNothingIsFetched) {
  server_.add_file("file", pattern(1000, 1));
  mount();
  open_existing("file", false);
  ASSERT_TRUE(write(0, pattern(1000, 2)));
  ASSERT_TRUE(close());
  EXPECT_GT(reads_of("file"), 0U);
}

TEST_F(ShareCopyTest, WhatSomebodyElseWroteToIsFetched) {
  mount();
  for (const bool at_the_end : {false, true}) {
    const std::string name = at_the_end ? "at the end" : "between";
    create(name);
    ASSERT_TRUE(write(0, pattern(1000, 1)));
    if (!at_the_end) {
      ASSERT_TRUE(wait<void>([&](auto done) { share_->sync(*open_, caller_, std::move(done)); }));
    }
    stepper_.advance(std::chrono::milliseconds(10));
    const std::uint64_t file = server_.find_name(name).value();
    if (at_the_end) {
      ASSERT_TRUE(close());
      stepper_.advance(std::chrono::milliseconds(10));
      server_.write_file(file, pattern(1100, 3));
    } else {
      server_.write_file(file, pattern(1100, 3));
      ASSERT_TRUE(write(1000, pattern(100, 2)));
      ASSERT_TRUE(close());
    }
    EXPECT_GT(reads_of(name), 0U) << name;
  }
}

// In one tick of the server's clock, with as many bytes: the stamps tell nothing. Whoever opens the
// file once stamps of that age can be believed must see it, however new the last ones are.
TEST_F(ShareCopyTest, WhatSomebodyElseWroteUnseenIsSeenInTime) {
  server_.granularity = {1, 0};
  mount();
  for (const bool late : {false, true}) {
    const std::string name = late ? "late" : "early";
    create(name);
    ASSERT_TRUE(write(0, pattern(1000, 1)));
    ASSERT_TRUE(wait<void>([&](auto done) { share_->sync(*open_, caller_, std::move(done)); }));
    server_.write_file(server_.find_name(name).value(), pattern(1000, 3));
    if (late) {
      stepper_.advance(std::chrono::seconds(100));
    }
    ASSERT_TRUE(write(1000, pattern(100, 2)));
    ASSERT_TRUE(close());
    if (!late) {
      stepper_.advance(std::chrono::milliseconds(2001));
    }
    EXPECT_GT(reads_of(name), 0U) << name;
  }
}

// It was believed to be empty, from before.
TEST_F(ShareCopyTest, WhatSomebodyElseWroteToBeforeIsFetched) {
  const std::uint64_t file = server_.add_file("file", "");
  mount();
  open_existing("file", false);
  stepper_.advance(std::chrono::milliseconds(10));
  server_.write_file(file, pattern(1000, 3));
  ASSERT_TRUE(write(0, pattern(10, 2)));
  ASSERT_TRUE(close());
  EXPECT_GT(reads_of("file"), 0U);
}

TEST_F(ShareCopyTest, WhatAServerRefusedOrLostIsNotTakenForWritten) {
  mount();
  create("lost");
  ASSERT_TRUE(write(0, pattern(1000, 1)));
  server_.restart();
  ASSERT_TRUE(close());
  static_cast<void>(reads_of("lost"));
  create("refused");
  ASSERT_TRUE(write(0, pattern(1000, 1)));
  server_.capacity = 500;
  ASSERT_FALSE(close());
  server_.capacity = 1'000'000;
  static_cast<void>(reads_of("refused"));
}

TEST_F(ShareCopyTest, AServerThatDoesNotTellWhatWasBeforeIsNotTrusted) {
  server_.tells_before = false;
  mount();
  create("file");
  ASSERT_TRUE(write(0, pattern(1000, 1)));
  ASSERT_TRUE(close());
  EXPECT_GT(reads_of("file"), 0U);
}

TEST_F(ShareCopyTest, ALargeFileIsFetched) {
  mount();
  create("file");
  ASSERT_TRUE(write(0, pattern(1000, 1)));
  ASSERT_TRUE(write(WholeCopy::kMostBytes, "x"));
  ASSERT_TRUE(close());
  EXPECT_GT(reads_of("file"), 0U);
}

class ShareRemovalTest : public ShareCopyTest {
 protected:
  // Files, fetched into the cache.
  void make(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      server_.add_file(name, pattern(100'000, 1));
    }
    mount();
    for (const std::string& name : names) {
      ASSERT_TRUE(cat(name));
    }
    ASSERT_EQ(kept(), names.size());
  }

  [[nodiscard]] std::size_t kept() const {
    std::size_t objects = 0;
    for (const auto& [key, stored] : disk_.volumes) {
      objects += stored.size();
    }
    return objects;
  }

  Result<> remove(const std::string& name) {
    return wait<void>(
        [&](auto done) { share_->remove(share_->root(), name, caller_, std::move(done)); });
  }
};

TEST_F(ShareRemovalTest, WhatIsRemovedMakesRoomInTheCache) {
  make({"one", "two"});
  ASSERT_TRUE(remove("one"));
  stepper_.run();
  EXPECT_EQ(kept(), 1U);
  EXPECT_EQ(reads_of("two"), 0U);
  EXPECT_EQ(remove("one").error().error_number(), ENOENT);
}

TEST_F(ShareRemovalTest, WhatIsRenamedOverMakesRoomInTheCache) {
  make({"one", "two"});
  ASSERT_TRUE(wait<void>([&](auto done) {
    share_->rename(share_->root(), "one", share_->root(), "two", caller_, std::move(done));
  }));
  stepper_.run();
  EXPECT_EQ(kept(), 1U);
}

TEST_F(ShareRemovalTest, AFileWithAnotherNameStays) {
  make({"one"});
  ASSERT_TRUE(wait<LookupOutcome>([&](auto done) {
    share_->link(look_up("one").value(), share_->root(), "other", caller_, std::move(done));
  }));
  ASSERT_TRUE(remove("one"));
  stepper_.run();
  EXPECT_EQ(kept(), 1U);
}

TEST_F(ShareRemovalTest, AFileThatIsOpenStaysUntilItsLastClose) {
  make({"one"});
  auto held = open(look_up("one").value());
  ASSERT_TRUE(held);
  ASSERT_TRUE(remove("one"));
  stepper_.run();
  EXPECT_EQ(kept(), 1U);
  EXPECT_EQ(read(*held, {0, 1000}).value(), pattern(1000, 1));
  share_->closed(held->file);
  held = fail(Errc::kStale, "closed");
  stepper_.run();
  EXPECT_EQ(kept(), 0U);
}

TEST(WholeCopyTest, FollowsWritesAndCuts) {
  const auto total = std::make_shared<std::atomic<std::uint64_t>>(0);
  const testing::ManualClock clock;
  WholeCopy copy(total, clock);
  copy.write(0, bytes_of("nobody knows what is before"));
  EXPECT_FALSE(copy.take());
  copy.begin();
  copy.write(2, bytes_of("abcdef"));
  copy.set_size(5);
  copy.set_size(7);
  copy.write(6, bytes_of("x"));
  EXPECT_EQ(*total, 7U);
  auto taken = copy.take();
  ASSERT_TRUE(taken);
  EXPECT_EQ(text_of(taken->bytes()), std::string_view("\0\0abc\0x", 7));
  EXPECT_EQ(*total, 7U);
  taken = nullptr;
  EXPECT_EQ(*total, 0U);
  EXPECT_FALSE(copy.take()) << "only once";
}

TEST(WholeCopyTest, MemoryIsBounded) {
  const auto total = std::make_shared<std::atomic<std::uint64_t>>(0);
  const testing::ManualClock clock;
  WholeCopy copy(total, clock);
  const std::string block(1 << 20, 'x');
  copy.begin();
  for (std::uint64_t at = 0; at <= WholeCopy::kMostBytes; at += block.size()) {
    copy.write(at, bytes_of(block));
  }
  EXPECT_FALSE(copy.take());
  EXPECT_EQ(*total, 0U);
  copy.begin();
  copy.write(UINT64_MAX - 1, bytes_of("ab"));
  EXPECT_FALSE(copy.take());
  *total = WholeCopy::kMostTotalBytes;
  copy.begin();
  copy.write(0, bytes_of("a"));
  EXPECT_FALSE(copy.take());
  EXPECT_EQ(*total, WholeCopy::kMostTotalBytes);
}

}  // namespace
}  // namespace larder::netfs
