// What is dead goes, and what somebody is about to give a place to stays.
#include "culling/graves.h"

#include <memory>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "os/filesystem.h"
#include "testing/fake_filesystem.h"

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

}  // namespace
}  // namespace larder::culling
