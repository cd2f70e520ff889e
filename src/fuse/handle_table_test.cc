// An fh must name one open of one mount until it is closed, and nothing else ever; what the next
// engine needs of it must be in the record meanwhile.
#include "fuse/handle_table.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "fuse/node_open.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"

namespace larder::fuse {
namespace {

using handover::HandleRecord;
using handover::Table;
using handover::TableKind;
using handover::TableMemory;
using handover::TableShape;

constexpr std::uint64_t kNode = 0x700000010;
constexpr TableShape kShape{TableKind::kHandles, "test-handles", sizeof(HandleRecord), 32768};

OpenHandle handle_of(std::uint32_t mount_id, std::uint64_t nodeid = kNode) {
  OpenHandle handle;
  handle.mount_id = mount_id;
  handle.nodeid = nodeid;
  return handle;
}

class HandleTableTest : public ::testing::Test {
 protected:
  explicit HandleTableTest(const TableShape& shape = kShape)
      : memory_(std::move(*TableMemory::create(shape))),
        seen_(std::move(*TableMemory::map(memory_, shape))),
        table_(Table<HandleRecord>(std::move(*TableMemory::map(memory_, shape)))) {}

  const HandleRecord& record(std::uint64_t fh) { return seen_[static_cast<std::uint32_t>(fh)]; }

  std::uint64_t add(std::uint32_t mount_id, std::uint64_t nodeid = kNode) {
    const Result<std::uint64_t> fh = table_.add(handle_of(mount_id, nodeid));
    EXPECT_TRUE(fh.has_value());
    return fh.value_or(0);
  }

  const UniqueFd memory_;
  const Table<HandleRecord> seen_;  // as the next engine finds it
  HandleTable table_;
};

TEST_F(HandleTableTest, ARecordSaysWhoOpenedWhatAndHow) {
  OpenHandle handle = handle_of(3);
  handle.open_flags = O_RDONLY | O_NOATIME;
  handle.mode = OpenMode::kPassthrough;
  handle.open.credential =
      std::make_shared<netfs::Credential>(netfs::Credential{1000, 100, {4, 20, 24}});
  const std::uint64_t fh = *table_.add(std::move(handle));
  const HandleRecord& kept = record(fh);
  EXPECT_EQ(kept.nodeid, kNode);
  EXPECT_EQ(kept.mount_id, 3U);
  EXPECT_EQ(kept.generation, fh >> 32U);
  EXPECT_EQ(kept.uid, 1000U);
  EXPECT_EQ(kept.gid, 100U);
  EXPECT_EQ(kept.group_count, 3U);
  EXPECT_EQ(std::vector<std::uint32_t>(kept.groups.begin(), kept.groups.begin() + 3),
            (std::vector<std::uint32_t>{4, 20, 24}));
  EXPECT_EQ(kept.open_flags, static_cast<std::uint32_t>(O_RDONLY | O_NOATIME));
  EXPECT_EQ(kept.open_mode, 2U);
  EXPECT_NE(table_.remove(3, kNode, fh), nullptr);
  EXPECT_EQ(kept.mount_id, 0U) << "free";
}

TEST_F(HandleTableTest, OfTooManyGroupsTheFirstAreKept) {
  std::vector<std::uint32_t> groups(100);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    groups[i] = static_cast<std::uint32_t>(5000 + i);
  }
  OpenHandle handle = handle_of(1);
  handle.open.credential = std::make_shared<netfs::Credential>(netfs::Credential{1, 2, groups});
  const HandleRecord& kept = record(*table_.add(std::move(handle)));
  EXPECT_EQ(kept.group_count, HandleRecord::kMostGroups);
  EXPECT_EQ(kept.groups.front(), 5000U);
  EXPECT_EQ(kept.groups.back(), 5000U + HandleRecord::kMostGroups - 1);
}

TEST_F(HandleTableTest, NothingButTheOpenItselfIsFound) {
  const std::uint64_t fh = add(1);
  EXPECT_NE(table_.find(1, kNode, fh), nullptr);
  EXPECT_EQ(table_.find(2, kNode, fh), nullptr) << "of another mount";
  EXPECT_EQ(table_.find(1, kNode + 1, fh), nullptr) << "of another node";
  for (unsigned bit = 0; bit < 64; ++bit) {
    EXPECT_EQ(table_.find(1, kNode, fh ^ (1ULL << bit)), nullptr) << bit;
    EXPECT_EQ(table_.remove(1, kNode, fh ^ (1ULL << bit)), nullptr) << bit;
  }
  EXPECT_NE(table_.remove(1, kNode, fh), nullptr);
  EXPECT_EQ(table_.find(1, kNode, fh), nullptr);
  EXPECT_EQ(table_.remove(1, kNode, fh), nullptr) << "once";
}

TEST_F(HandleTableTest, AnFhIsNeverGivenOutTwice) {
  std::set<std::uint64_t> all;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t fh = add(1);
    EXPECT_TRUE(all.insert(fh).second) << fh;
    EXPECT_NE(table_.remove(1, kNode, fh), nullptr);
  }
}

TEST_F(HandleTableTest, AFullTableSaysSoAndTakesTheNextAfterAClose) {
  std::vector<std::uint64_t> all;
  all.reserve(kShape.capacity);
  for (std::uint32_t i = 0; i < kShape.capacity; ++i) {
    all.push_back(add(1, i));
  }
  EXPECT_EQ(std::set(all.begin(), all.end()).size(), all.size());
  const Result<std::uint64_t> refused = table_.add(handle_of(1));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Errc::kNoSpace);
  EXPECT_EQ(refused.error().error_number(), ENFILE);
  EXPECT_NE(table_.remove(1, 77, all.at(77)), nullptr);
  EXPECT_TRUE(table_.add(handle_of(1)).has_value());
  EXPECT_EQ(table_.size(), kShape.capacity);
}

TEST_F(HandleTableTest, AMountTakesItsOpensWithIt) {
  for (std::uint32_t i = 0; i < 20'000; ++i) {
    static_cast<void>(add(1, i));
  }
  const std::uint64_t other = add(2);
  table_.drop_mount(1);
  EXPECT_EQ(table_.size(), 1U);
  EXPECT_NE(table_.find(2, kNode, other), nullptr);
  table_.drop_mount(2);
  EXPECT_EQ(table_.size(), 0U);
  for (std::uint32_t slot = 0; slot < kShape.capacity; ++slot) {
    ASSERT_EQ(seen_[slot].mount_id, 0U) << slot;
  }
  EXPECT_NE(table_.find(1, kNode, add(1)), nullptr);
}

TEST_F(HandleTableTest, ManyThreadsOpenAndCloseBesideEachOther) {
  constexpr int kRounds = 3000;
  const auto open_and_close = [this](std::uint32_t mount) {
    std::mt19937 random(mount);
    std::vector<std::uint64_t> mine;
    for (int round = 0; round < kRounds; ++round) {
      if (mine.empty() || random() % 2 == 0) {
        mine.push_back(*table_.add(handle_of(mount, mount)));
        continue;
      }
      std::swap(mine.at(random() % mine.size()), mine.back());
      ASSERT_NE(table_.find(mount, mount, mine.back()), nullptr);
      ASSERT_NE(table_.remove(mount, mount, mine.back()), nullptr);
      mine.pop_back();
    }
    for (const std::uint64_t fh : mine) {
      ASSERT_NE(table_.remove(mount, mount, fh), nullptr);
    }
  };
  {
    std::vector<Thread> threads;
    for (std::uint32_t mount = 1; mount <= 4; ++mount) {
      threads.emplace_back("opener", [&open_and_close, mount] { open_and_close(mount); });
    }
  }
  EXPECT_EQ(table_.size(), 0U);
}

}  // namespace
}  // namespace larder::fuse
