// What is dead goes, and what somebody is about to give a place to stays.
#include "culling/graves.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"

// Clang-tidy 19 takes much for constant that is changed in functions with a lambda among designated
// initializers.
// NOLINTBEGIN(misc-const-correctness)

namespace larder::culling {
namespace {

TEST(GravesTest, FilesThatAreSparedStayAndHoldUpNothing) {
  testing::FakeFilesystem filesystem;
  const auto graveyard = filesystem.open_root("/").value();
  ASSERT_TRUE(graveyard->create_file("a young file", 0600));
  ASSERT_TRUE(graveyard->create_file("an old file", 0600));
  ASSERT_TRUE(graveyard->make_directory("grave", 0700));
  const auto inside = graveyard->open_directory("grave").value()->create_file("inside", 0600);
  ASSERT_TRUE(inside);
  const auto young = graveyard->stat("a young file")->inode;
  Graves graves({.new_name = [] { return std::string("another"); },
                 .spares = [young](const os::FileStat& stat) { return stat.inode == young; }});
  while (graves.empty_some(*graveyard)) {
  }
  std::set<std::string> left;
  ASSERT_TRUE(graveyard->list([&](const os::DirectoryEntry& entry) {
    left.insert(entry.name);
    return true;
  }));
  EXPECT_EQ(left, std::set<std::string>{"a young file"});
}

TEST(GravesTest, AStepEndsWhenItIsTold) {
  testing::FakeFilesystem filesystem;
  const auto graveyard = filesystem.open_root("/").value();
  ASSERT_TRUE(graveyard->make_directory("grave", 0700));
  const auto grave = graveyard->open_directory("grave").value();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(grave->create_file("dead" + std::to_string(i), 0600));
  }
  Graves graves({.new_name = [] { return std::string("another"); }, .spares = nullptr});
  int asked = 0;
  EXPECT_TRUE(graves.empty_some(*graveyard, [&] { return ++asked < 10; }));
  EXPECT_EQ(graves.removed(), 9U);
  EXPECT_FALSE(graves.empty_some(*graveyard));
  EXPECT_EQ(graves.removed(), 51U);
}

class ManyGravesTest : public ::testing::Test {
 protected:
  void make_files(os::Directory& parent, int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(parent.create_file("dead" + std::to_string(i), 0600));
    }
  }

  std::unique_ptr<os::Directory> make_grave(const std::string& name, int files) {
    EXPECT_TRUE(graveyard_->make_directory(name, 0700));
    auto grave = graveyard_->open_directory(name).value();
    make_files(*grave, files);
    return grave;
  }

  // Returns how many steps it took.
  int reap() {
    int steps = 1;
    while (graves_.empty_some(*seen_)) {
      ++steps;
    }
    return steps;
  }

  testing::FakeFilesystem filesystem_;
  std::unique_ptr<os::Directory> graveyard_ = filesystem_.open_root("/").value();
  testing::FaultyFilesystem faulty_{filesystem_};
  std::unique_ptr<os::Directory> seen_ = faulty_.open_root("/").value();
  Graves graves_{{.new_name = [] { return std::string("another"); }, .spares = nullptr}};
};

// To list it once more costs as much as all that went before: with a million that would be hours.
TEST_F(ManyGravesTest, AreListedByThousandsAndNotInEachStep) {
  make_grave("wide", 5000);
  make_files(*graveyard_, 3000);
  int lists = 0;
  faulty_.faults().set_hook([&](testing::FileCall call, std::uint64_t) {
    lists += call == testing::FileCall::kList ? 1 : 0;
    return 0;
  });
  EXPECT_GT(reap(), 60);
  EXPECT_EQ(graves_.removed(), 8001U);
  EXPECT_LE(lists, 5);
}

TEST_F(ManyGravesTest, WhatSomebodyElseRemovedMeanwhileIsNoTrouble) {
  const auto grave = make_grave("wide", 600);
  make_files(*graveyard_, 3);
  EXPECT_TRUE(graves_.empty_some(*seen_));
  for (int i = 0; i < 600; ++i) {
    (void)grave->unlink("dead" + std::to_string(i));
  }
  ASSERT_TRUE(graveyard_->remove_directory("wide"));
  (void)graveyard_->unlink("dead1");
  (void)reap();
  make_grave("later", 10);
  const std::uint64_t before = graves_.removed();
  (void)reap();
  EXPECT_EQ(graves_.removed() - before, 11U);
  EXPECT_FALSE(graveyard_->stat("dead0").has_value());
  EXPECT_FALSE(graveyard_->stat("dead2").has_value());
}

// One that is stuck does not take its names to the next one.
TEST_F(ManyGravesTest, OneThatCannotBeEmptiedHoldsUpNoOther) {
  make_grave("a", 300);
  make_grave("b", 300);
  bool refused = false;
  faulty_.faults().set_hook([&](testing::FileCall call, std::uint64_t) {
    return call == testing::FileCall::kName && !std::exchange(refused, true) ? EACCES : 0;
  });
  (void)reap();
  EXPECT_EQ(graves_.removed(), 301U);
}

TEST_F(ManyGravesTest, WhatIsStuckIsPassedOverUntilItIsTriedAgain) {
  make_grave("stuck", 1);
  faulty_.faults().fail_all(testing::FileCall::kName, EACCES);
  (void)reap();
  EXPECT_TRUE(graves_.anything_stays());
  faulty_.faults().set_hook(nullptr);
  make_grave("later", 10);
  (void)reap();
  EXPECT_EQ(graves_.removed(), 11U);
  EXPECT_TRUE(graves_.anything_stays());
  graves_.try_again();
  (void)reap();
  EXPECT_EQ(graves_.removed(), 13U);
  EXPECT_FALSE(graves_.anything_stays());
}

}  // namespace
}  // namespace larder::culling

// NOLINTEND(misc-const-correctness)
