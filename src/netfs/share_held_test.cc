// What was downloaded and is held in memory until its readers come.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "netfs/share.h"
#include "netfs/share_context.h"
#include "netfs/share_fixture_test.h"

namespace larder::netfs {
namespace {

// What readahead brought is handed on from memory: written to the cache, but not read back from it.
TEST_F(ShareTest, SequentialReadsAreHandedOnFromMemory) {
  const std::string content = pattern(20 << 20, 3);
  server_.add_file("file", content);
  mount();
  EXPECT_EQ(cat("file").value(), content);
  EXPECT_EQ(share_->statistics().bytes_from_cache, 0U);
  EXPECT_GE(share_->statistics().bytes_handed_on, content.size() * 9 / 10);
  EXPECT_EQ(share_->statistics().bytes_from_server, content.size());
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  EXPECT_EQ(cat("file").value(), content);
  EXPECT_EQ(share_->statistics().bytes_from_cache, content.size());
}

TEST_F(ShareTest, MemoryDoesNotWaitForAReaderThatStopped) {
  const std::string content = pattern(32 << 20, 3);
  server_.add_file("file", content);
  mount();
  const auto opened = open(*look_up("file"));
  ASSERT_TRUE(opened);
  for (std::uint64_t at = 0; at < (std::uint64_t{5} << 20); at += 128 * 1024) {
    ASSERT_EQ(read(*opened, {at, 128 * 1024}).value(), content.substr(at, 128 * 1024));
  }
  stepper_.run();
  EXPECT_GT(share_->statistics().held_bytes, 0U);
  EXPECT_LT(server_.bytes_read, content.size()) << "downloads wait for the reader ...";
  for (int i = 0; i < 3; ++i) {
    stepper_.advance(std::chrono::seconds(1));
    stepper_.run();
  }
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  EXPECT_EQ(server_.bytes_read, content.size()) << "... but not for ever";
  EXPECT_EQ(read(*opened, {20 << 20, 4096}).value(), content.substr(20 << 20, 4096));
  EXPECT_EQ(share_->statistics().bytes_from_cache, 4096U);
}

TEST_F(ShareTest, TheLastCloseLetsGoOfMemory) {
  const std::string content = pattern(32 << 20, 3);
  server_.add_file("file", content);
  mount();
  const auto opened = open(*look_up("file"));
  for (std::uint64_t at = 0; at < (std::uint64_t{5} << 20); at += 128 * 1024) {
    ASSERT_TRUE(read(*opened, {at, 128 * 1024}));
  }
  stepper_.run();
  ASSERT_GT(share_->statistics().held_bytes, 0U);
  share_->closed(opened->file);
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  stepper_.run();
  EXPECT_EQ(server_.bytes_read, content.size());
}

// Second law: what was downloaded of one version is not handed on once another one is known.
TEST_F(ShareTest, WhatIsHeldGoesWithItsVersion) {
  const std::string old_content = pattern(28 << 20, 3);
  const std::string new_content = pattern(28 << 20, 4);
  const std::uint64_t file = server_.add_file("file", old_content);
  mount();
  const auto opened = open(*look_up("file"));
  for (std::uint64_t at = 0; at < (std::uint64_t{5} << 20); at += 128 * 1024) {
    ASSERT_EQ(read(*opened, {at, 128 * 1024}).value(), old_content.substr(at, 128 * 1024));
  }
  stepper_.run();
  ASSERT_GT(share_->statistics().held_bytes, 0U);
  stepper_.advance(std::chrono::milliseconds(10));
  server_.write_file(file, new_content);
  const auto again = open(opened->file->inode());
  ASSERT_TRUE(again);
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  EXPECT_EQ(read(*opened, {5 << 20, 1 << 20}).value(), new_content.substr(5 << 20, 1 << 20));
}

TEST_F(ShareTest, ManyReadersShareABoundOfMemory) {
  constexpr int kFiles = 6;
  mount();
  std::vector<OpenFile> opens;
  for (int i = 0; i < kFiles; ++i) {
    const std::string name = "file" + std::to_string(i);
    server_.add_file(name, pattern(20 << 20, 1));
    stepper_.advance(std::chrono::milliseconds(1));
    opens.push_back(open(*look_up(name)).value());
  }
  std::uint64_t most = 0;
  for (std::uint64_t at = 0; at < (std::uint64_t{3} << 20); at += 128 * 1024) {
    for (const OpenFile& opened : opens) {
      ASSERT_TRUE(read(opened, {at, 128 * 1024}));
      stepper_.run();
      most = std::max(most, share_->statistics().held_bytes);
    }
  }
  EXPECT_GT(most, std::uint64_t{32} << 20);
  EXPECT_LE(most, ShareContext::kMostHeldBytes);
}

}  // namespace
}  // namespace larder::netfs
