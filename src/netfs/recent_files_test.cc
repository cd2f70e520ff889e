// Files that were closed a moment ago, and a cache that is pressed for the room that they hold.
#include "netfs/recent_files.h"

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/linger_list.h"
#include "base/result.h"
#include "netfs/file.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"
#include "netfs/writer.h"

namespace larder::netfs {
namespace {

constexpr std::size_t kRecent = 200;
constexpr std::size_t kRecentSize = 20'000;

constexpr std::size_t part_to_give(std::size_t files) {
  return LingerList<std::shared_ptr<File>>::part_of(files);
}

class RecentFilesTest : public ShareTest {
 protected:
  void begin() {
    for (std::size_t number = 0; number < kRecent; ++number) {
      server_.add_file(name(number), pattern(kRecentSize, static_cast<unsigned>(number)));
    }
    server_.add_file("new", pattern(kRecentSize, 1));
    mount();
    for (std::size_t number = 0; number < kRecent; ++number) {
      inodes_.push_back(*look_up(name(number)));
      ASSERT_TRUE(cat(name(number)));
    }
  }

  void TearDown() override {
    inodes_.clear();
    ShareTest::TearDown();
  }

  static std::string name(std::size_t number) { return fmt::format("file{}", number); }

  [[nodiscard]] bool is_kept(std::size_t number) const {
    return inodes_[number]->file() != nullptr;
  }

  [[nodiscard]] std::size_t kept() const {
    std::size_t count = 0;
    for (std::size_t number = 0; number < inodes_.size(); ++number) {
      count += is_kept(number) ? 1 : 0;
    }
    return count;
  }

  // A read whose bytes the cache has no room for.
  void press() {
    disk_.full = true;
    EXPECT_EQ(cat("new").value(), pattern(kRecentSize, 1));
    stepper_.run();
  }

  std::vector<InodeRef> inodes_;
};

TEST_F(RecentFilesTest, StayForAWhileAndThenGo) {
  begin();
  EXPECT_EQ(kept(), kRecent);
  stepper_.advance(std::chrono::seconds(9));
  stepper_.run();
  EXPECT_EQ(kept(), kRecent) << "there is room";
  ASSERT_TRUE(cat(name(3)));
  stepper_.advance(std::chrono::seconds(2));
  stepper_.run();
  EXPECT_EQ(kept(), 1U);
  EXPECT_TRUE(is_kept(3)) << "closed once more since";
  stepper_.advance(std::chrono::seconds(11));
  stepper_.run();
  EXPECT_EQ(kept(), 0U);
  EXPECT_EQ(share_->statistics().files_let_go, 0U);
}

TEST_F(RecentFilesTest, WhereRoomIsShortThoseClosedLongestAgoGoFirst) {
  begin();
  ASSERT_TRUE(cat(name(0)));
  press();
  const std::size_t gone = kRecent - kept();
  EXPECT_EQ(gone, part_to_give(kRecent + 1));
  EXPECT_TRUE(is_kept(0)) << "closed once more since";
  for (std::size_t number = 1; number < kRecent; ++number) {
    EXPECT_EQ(is_kept(number), number > gone) << number;
  }
  EXPECT_EQ(share_->statistics().files_let_go, gone);
}

TEST_F(RecentFilesTest, WhatIsOpenAgainStays) {
  begin();
  const auto held = open(inodes_[2]);
  ASSERT_TRUE(held);
  press();
  EXPECT_FALSE(is_kept(1));
  EXPECT_TRUE(is_kept(2));
  EXPECT_EQ(read(*held, {0, kRecentSize}).value(), pattern(kRecentSize, 2));
  EXPECT_EQ(share_->statistics().files_let_go, part_to_give(kRecent + 1) - 1);
}

TEST_F(RecentFilesTest, WhatHoldsBytesThatTheServerHasNotGotStays) {
  begin();
  {
    const auto writing = wait<OpenFile>([&](auto done) {
      share_->open(inodes_[2], {.read = true, .write = true}, caller_, std::move(done));
    });
    ASSERT_TRUE(writing);
    control_->hold = true;  // the server does not answer
    ASSERT_TRUE(wait<Written>([&](auto done) {
      share_->write(*writing, {}, bytes_of_text("written"), caller_, std::move(done));
    }));
  }
  ASSERT_TRUE(inodes_[2]->file()->for_page_cache_only());
  disk_.pressed = true;
  (*disk_.wake)();
  stepper_.run();
  EXPECT_FALSE(is_kept(1));
  EXPECT_EQ(share_->statistics().files_let_go, part_to_give(kRecent) - 1);
  control_->release();
  stepper_.run();
  EXPECT_TRUE(is_kept(2)) << "nothing but our list holds it now";
  EXPECT_EQ(server_.content(inodes_[2]->attributes().attributes.fileid).substr(0, 7), "written");
}

// Nothing is asked of a share that is gone, and a cache outlives it.
TEST_F(RecentFilesTest, ACacheThatIsPressedOutlivesTheShare) {
  begin();
  inodes_.clear();
  unmount();
  disk_.pressed = true;
  (*disk_.wake)();
  stepper_.run();
}

}  // namespace
}  // namespace larder::netfs
