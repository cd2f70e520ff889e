// The locks of one file against a model that knows, of each byte, who has it in which mode.
#include "netfs/range_locks.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "testing/seed.h"

namespace larder::netfs {
namespace {

using ::testing::ElementsAre;

constexpr std::uint64_t kWhole = std::uint64_t{1} << 63U;

FileLock shared_by(LockOwner owner, std::uint64_t begin, std::uint64_t end,
                   std::uint64_t open = 0) {
  return {.range = ByteRange::between(begin, end),
          .mode = LockMode::kShared,
          .owner = owner,
          .pid = static_cast<std::uint32_t>(owner),
          .open = open};
}

FileLock exclusive_by(LockOwner owner, std::uint64_t begin, std::uint64_t end,
                      std::uint64_t open = 0) {
  FileLock lock = shared_by(owner, begin, end, open);
  lock.mode = LockMode::kExclusive;
  return lock;
}

std::vector<FileLock> all_of(const RangeLocks& locks) {
  std::vector<FileLock> all;
  locks.for_each_conflict(exclusive_by(4711, 0, kWhole), [&all](const FileLock& held) {
    all.push_back(held);
    return true;
  });
  return all;
}

TEST(RangeLocksTest, SharedOnesOverlapAndExclusiveOnesDoNot) {
  RangeLocks locks;
  locks.set(shared_by(1, 0, 10));
  EXPECT_EQ(locks.find_conflict(shared_by(2, 0, 10)), nullptr);
  EXPECT_EQ(*locks.find_conflict(exclusive_by(2, 9, 20)), shared_by(1, 0, 10));
  EXPECT_EQ(locks.find_conflict(exclusive_by(2, 10, 20)), nullptr);
  EXPECT_EQ(locks.find_conflict(exclusive_by(1, 0, 10)), nullptr) << "his own";
  locks.set(exclusive_by(1, 0, 10));
  EXPECT_EQ(*locks.find_conflict(shared_by(2, 0, 1)), exclusive_by(1, 0, 10));
}

TEST(RangeLocksTest, AnotherModeInTheMiddleSplits) {
  RangeLocks locks;
  locks.set(exclusive_by(1, 0, kWhole));
  locks.set(shared_by(1, 10, 20));
  EXPECT_THAT(all_of(locks), ElementsAre(exclusive_by(1, 0, 10), shared_by(1, 10, 20),
                                         exclusive_by(1, 20, kWhole)));
  locks.set(exclusive_by(1, 10, 20));
  EXPECT_THAT(all_of(locks), ElementsAre(exclusive_by(1, 0, kWhole)));
  EXPECT_EQ(locks.size(), 1U);
}

TEST(RangeLocksTest, WhatTouchesInOneModeIsOne) {
  RangeLocks locks;
  locks.set(shared_by(1, 0, 10));
  locks.set(shared_by(1, 20, 30));
  EXPECT_EQ(locks.size(), 2U);
  locks.set(shared_by(1, 10, 20));
  EXPECT_THAT(all_of(locks), ElementsAre(shared_by(1, 0, 30)));
  locks.set(exclusive_by(1, 30, 40));
  EXPECT_EQ(locks.size(), 2U) << "of another mode";
}

TEST(RangeLocksTest, ClearingInTheMiddleLeavesBothEnds) {
  RangeLocks locks;
  locks.set(exclusive_by(1, 0, 30));
  EXPECT_TRUE(locks.would_split(1, ByteRange::between(10, 20)));
  EXPECT_FALSE(locks.would_split(1, ByteRange::between(0, 20)));
  EXPECT_FALSE(locks.would_split(1, ByteRange::between(20, 30)));
  EXPECT_FALSE(locks.would_split(2, ByteRange::between(10, 20)));
  locks.clear(1, ByteRange::between(10, 20));
  EXPECT_THAT(all_of(locks), ElementsAre(exclusive_by(1, 0, 10), exclusive_by(1, 20, 30)));
  locks.clear(2, ByteRange::between(0, kWhole));
  EXPECT_EQ(locks.size(), 2U) << "another's";
  locks.clear(1, ByteRange::between(0, kWhole));
  EXPECT_TRUE(locks.empty());
}

TEST(RangeLocksTest, ConflictsComeInTheOrderOfTheOwners) {
  RangeLocks locks;
  locks.set(shared_by(7, 50, 60));
  locks.set(shared_by(3, 0, 100));
  locks.set(shared_by(7, 10, 20));
  EXPECT_EQ(*locks.find_conflict(exclusive_by(1, 0, 100)), shared_by(7, 10, 20));
  locks.clear_owner(7);
  EXPECT_EQ(*locks.find_conflict(exclusive_by(1, 0, 100)), shared_by(3, 0, 100));
}

TEST(RangeLocksTest, AnOpenTakesItsLocksAlong) {
  RangeLocks locks;
  locks.set(shared_by(1, 0, 10, 100));
  locks.set(shared_by(1, 20, 30, 200));
  locks.set(shared_by(2, 0, 10, 200));
  EXPECT_TRUE(locks.has_open(200));
  locks.clear_open(200);
  EXPECT_FALSE(locks.has_open(200));
  EXPECT_THAT(all_of(locks), ElementsAre(shared_by(1, 0, 10, 100)));
  EXPECT_EQ(locks.find_own(2, ByteRange::between(0, 10)), nullptr);
}

// Each byte on its own: what nobody would keep, and nobody can get wrong.
class Model {
 public:
  static constexpr std::uint64_t kBytes = 40;
  static constexpr LockOwner kOwners = 4;

  [[nodiscard]] bool conflicts(const FileLock& wanted) const {
    for (std::uint64_t byte = wanted.range.offset; byte < wanted.range.end(); ++byte) {
      for (const auto& [owner, held] : bytes_.at(byte)) {
        if (owner != wanted.owner &&
            (held == LockMode::kExclusive || wanted.mode == LockMode::kExclusive)) {
          return true;
        }
      }
    }
    return false;
  }

  void set(const FileLock& lock) {
    for (std::uint64_t byte = lock.range.offset; byte < lock.range.end(); ++byte) {
      bytes_.at(byte)[lock.owner] = lock.mode;
    }
  }

  void clear(LockOwner owner, ByteRange range) {
    for (std::uint64_t byte = range.offset; byte < range.end(); ++byte) {
      bytes_.at(byte).erase(owner);
    }
  }

  // Runs of bytes of one owner in one mode.
  [[nodiscard]] std::vector<FileLock> runs(LockOwner owner) const {
    std::vector<FileLock> runs;
    std::optional<LockMode> before;
    for (std::uint64_t byte = 0; byte < kBytes; ++byte) {
      const auto held = bytes_.at(byte).find(owner);
      const auto mode = held == bytes_.at(byte).end() ? std::nullopt : std::optional(held->second);
      if (mode && mode == before) {
        ++runs.back().range.length;
      } else if (mode) {
        runs.push_back({{byte, 1}, *mode, owner, static_cast<std::uint32_t>(owner), 0});
      }
      before = mode;
    }
    return runs;
  }

 private:
  std::array<std::map<LockOwner, LockMode>, kBytes> bytes_;
};

void expect_same(const RangeLocks& locks, const Model& model) {
  std::size_t count = 0;
  for (LockOwner owner = 1; owner <= Model::kOwners; ++owner) {
    std::vector<FileLock> own;
    for (const FileLock& lock : all_of(locks)) {
      if (lock.owner == owner) {
        own.push_back(lock);
      }
    }
    EXPECT_EQ(own, model.runs(owner)) << "owner " << owner;
    count += own.size();
  }
  EXPECT_EQ(locks.size(), count);
}

// One step of anything on both.
void step_at_random(std::mt19937_64& random, RangeLocks& locks, Model& model) {
  const auto below = [&random](std::uint64_t end) { return random() % end; };
  const std::uint64_t begin = below(Model::kBytes);
  const std::uint64_t end = begin + 1 + below(Model::kBytes - begin);
  FileLock lock = shared_by(1 + below(Model::kOwners), begin, end);
  lock.mode = below(3) == 0 ? LockMode::kExclusive : LockMode::kShared;
  const bool conflicts = model.conflicts(lock);
  EXPECT_EQ(locks.find_conflict(lock) != nullptr, conflicts);
  const std::uint64_t what = below(60);
  if (what == 0) {
    locks.clear_owner(lock.owner);
    model.clear(lock.owner, {0, Model::kBytes});
  } else if (what < 20) {
    const std::size_t before = locks.size();
    const bool splits = locks.would_split(lock.owner, lock.range);
    locks.clear(lock.owner, lock.range);
    model.clear(lock.owner, lock.range);
    EXPECT_EQ(locks.size() > before, splits);
  } else if (!conflicts) {
    locks.set(lock);
    model.set(lock);
  }
}

TEST(RangeLocksTest, DoesWhatAModelOfSingleBytesDoes) {
  std::mt19937_64 random(testing::seed_of_test());
  for (int round = 0; round < 200; ++round) {
    RangeLocks locks;
    Model model;
    for (int step = 0; step < 200 && !::testing::Test::HasFailure(); ++step) {
      step_at_random(random, locks, model);
      expect_same(locks, model);
    }
  }
}

}  // namespace
}  // namespace larder::netfs
