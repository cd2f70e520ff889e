// Who gets a lock, who waits, in which order, and who is told that he would wait for ever.
#include "netfs/lock_table.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/range_locks.h"
#include "testing/seed.h"
#include "testing/stepper.h"

namespace larder::netfs {
namespace {

constexpr std::uint64_t kEnd = std::uint64_t{1} << 63U;
constexpr LockMode kShared = LockMode::kShared;
constexpr LockMode kExclusive = LockMode::kExclusive;
constexpr int kWaiting = -1;

class LockTableTest : public ::testing::Test {
 protected:
  void TearDown() override { table_.shut_down(); }

  InodeRef file(std::uint64_t number) {
    Attributes attributes;
    attributes.fileid = number;
    return inodes_.find_or_make(FileHandle(bytes_of(fmt::format("file {}", number))), attributes,
                                inodes_.begin_check());
  }

  // The errno of what was decided; kWaiting: nothing is.
  struct Asked {
    int outcome = kWaiting;
    std::shared_ptr<CallScope> scope = std::make_shared<CallScope>();
  };

  using AskedRef = std::shared_ptr<Asked>;

  static LockOrder record(LockOwner owner, LockMode mode, std::uint64_t begin, std::uint64_t end,
                          bool waits = false) {
    return {.kind = LockKind::kRecord,
            .lock = {.range = ByteRange::between(begin, end),
                     .mode = mode,
                     .owner = owner,
                     .pid = static_cast<std::uint32_t>(owner),
                     .open = owner},
            .waits = waits};
  }

  static LockOrder whole(LockOwner owner, LockMode mode, bool waits = false) {
    LockOrder order = record(owner, mode, 0, kEnd, waits);
    order.kind = LockKind::kWholeFile;
    return order;
  }

  AskedRef ask(const InodeRef& inode, const LockOrder& order) {
    auto asked = std::make_shared<Asked>();
    table_.lock(inode, order, asked->scope, [asked](const Result<>& result) {
      EXPECT_EQ(asked->outcome, kWaiting) << "decided twice";
      asked->outcome = result ? 0 : result.error().error_number();
    });
    return asked;
  }

  int try_lock(const InodeRef& inode, const LockOrder& order) { return ask(inode, order)->outcome; }

  int unlock(const InodeRef& inode, const LockOrder& order) {
    const Result<> done = table_.unlock(*inode, order);
    return done ? 0 : done.error().error_number();
  }

  testing::Stepper stepper_;
  InodeTable inodes_{stepper_.clock(), {}};
  LockTable table_{stepper_.timers(), 1000};
  const InodeRef a_ = file(1);
  const InodeRef b_ = file(2);
};

TEST_F(LockTableTest, NothingIsKeptOfAFileWithoutLocks) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, whole(1, kExclusive)), 0);
  EXPECT_EQ(table_.files(), 2U);
  EXPECT_EQ(unlock(a_, record(1, kShared, 0, kEnd)), 0);
  table_.close_open(*b_, 1);
  EXPECT_EQ(table_.files(), 0U);
  EXPECT_EQ(unlock(a_, record(1, kShared, 0, kEnd)), 0) << "nothing to give up";
  EXPECT_EQ(b_.use_count(), 1);
}

TEST_F(LockTableTest, ATryLockIsAnsweredAtOnce) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(a_, record(2, kShared, 9, 20)), EAGAIN);
  EXPECT_EQ(try_lock(a_, record(2, kShared, 10, 20)), 0);
  EXPECT_EQ(try_lock(b_, record(2, kExclusive, 0, 10)), 0) << "another file";
}

TEST_F(LockTableTest, TheKindsDoNotSeeEachOther) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, kEnd)), 0);
  EXPECT_EQ(try_lock(a_, whole(2, kExclusive)), 0);
  EXPECT_EQ(try_lock(a_, whole(3, kShared)), EAGAIN);
  table_.close_descriptor(*a_, 2, 2);
  EXPECT_EQ(try_lock(a_, record(3, kShared, 0, 1)), EAGAIN);
}

TEST_F(LockTableTest, WhoAsksIsToldOfTheFirstLockInHisWay) {
  EXPECT_EQ(try_lock(a_, record(1, kShared, 5, 10)), 0);
  EXPECT_EQ(table_.find_conflict(*a_, record(2, kShared, 0, kEnd).lock), std::nullopt);
  EXPECT_EQ(table_.find_conflict(*a_, record(2, kExclusive, 0, kEnd).lock),
            record(1, kShared, 5, 10).lock);
  EXPECT_EQ(table_.find_conflict(*b_, record(2, kExclusive, 0, kEnd).lock), std::nullopt);
  EXPECT_EQ(table_.find_own(*a_, record(1, kShared, 0, kEnd).lock), record(1, kShared, 5, 10).lock);
  EXPECT_EQ(table_.find_own(*a_, record(2, kShared, 0, kEnd).lock), std::nullopt);
}

TEST_F(LockTableTest, WaitersAreServedInTheOrderInWhichTheyCame) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  const AskedRef second = ask(a_, record(2, kExclusive, 0, 10, true));
  const AskedRef third = ask(a_, record(3, kShared, 0, 10, true));
  const AskedRef fourth = ask(a_, record(4, kShared, 5, 10, true));
  const AskedRef fifth = ask(a_, record(5, kExclusive, 3, 4, true));
  EXPECT_EQ(second->outcome, kWaiting);
  unlock(a_, record(1, kShared, 0, 10));
  EXPECT_EQ(second->outcome, 0);
  EXPECT_EQ(third->outcome, kWaiting);
  unlock(a_, record(2, kShared, 0, 10));
  EXPECT_EQ(third->outcome, 0);
  EXPECT_EQ(fourth->outcome, 0) << "beside the third";
  EXPECT_EQ(fifth->outcome, kWaiting);
  table_.close_descriptor(*a_, 3, 3);
  EXPECT_EQ(fifth->outcome, 0);
}

TEST_F(LockTableTest, WhatIsWaitedForStandsInNobodysWay) {
  EXPECT_EQ(try_lock(a_, record(1, kShared, 0, 10)), 0);
  const AskedRef writer = ask(a_, record(2, kExclusive, 0, 10, true));
  EXPECT_EQ(try_lock(a_, record(3, kShared, 0, 10)), 0) << "else who has one could wait for ever";
  EXPECT_EQ(writer->outcome, kWaiting);
}

TEST_F(LockTableTest, AWeakerLockLetsOthersIn) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 30)), 0);
  const AskedRef middle = ask(a_, record(2, kShared, 10, 20, true));
  const AskedRef end = ask(a_, record(3, kExclusive, 20, 30, true));
  EXPECT_EQ(try_lock(a_, record(1, kShared, 5, 25)), 0);
  EXPECT_EQ(middle->outcome, 0);
  EXPECT_EQ(end->outcome, kWaiting);
  unlock(a_, record(1, kShared, 20, 30));
  EXPECT_EQ(end->outcome, 0);
}

// What a waiter gets may be weaker than what he had: that lets earlier ones in.
TEST_F(LockTableTest, AWaiterThatBecomesWeakerLetsOthersIn) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(a_, record(2, kExclusive, 10, 20)), 0);
  const AskedRef first = ask(a_, record(3, kShared, 0, 5, true));
  const AskedRef second = ask(a_, record(1, kShared, 0, 20, true));
  EXPECT_EQ(first->outcome, kWaiting);
  EXPECT_EQ(second->outcome, kWaiting);
  table_.close_descriptor(*a_, 2, 2);
  EXPECT_EQ(second->outcome, 0);
  EXPECT_EQ(first->outcome, 0);
}

TEST_F(LockTableTest, AWaitCanBeEnded) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  const AskedRef ended = ask(a_, record(2, kShared, 0, 10, true));
  const AskedRef other = ask(a_, record(3, kShared, 0, 10, true));
  ended->scope->cancel();
  EXPECT_EQ(ended->outcome, EINTR);
  unlock(a_, record(1, kShared, 0, 10));
  EXPECT_EQ(other->outcome, 0);
  other->scope->cancel();
  EXPECT_EQ(try_lock(a_, record(4, kExclusive, 0, 10)), EAGAIN) << "too late: it is held";
  unlock(a_, record(3, kShared, 0, 10));
  EXPECT_EQ(table_.files(), 0U) << "the ended one has nothing";
}

TEST_F(LockTableTest, AWaitThatWasEndedBeforeItBeganEnds) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  const auto scope = std::make_shared<CallScope>();
  scope->cancel();
  int outcome = kWaiting;
  table_.lock(a_, record(2, kShared, 0, 10, true), scope, [&](const Result<>& result) {
    outcome = result ? 0 : result.error().error_number();
  });
  EXPECT_EQ(outcome, EINTR);
}

TEST_F(LockTableTest, ShuttingDownEndsWaits) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  const AskedRef waiting = ask(a_, record(2, kShared, 0, 10, true));
  table_.shut_down();
  EXPECT_EQ(waiting->outcome, EINTR);
  EXPECT_EQ(table_.files(), 0U);
  EXPECT_EQ(try_lock(a_, record(3, kShared, 0, 10, true)), EINTR);
}

TEST_F(LockTableTest, ClosingADescriptorEndsTheRecordLocksOfItsOwnerOnly) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  LockOrder by_another_open = record(1, kExclusive, 20, 30);
  by_another_open.lock.open = 77;
  EXPECT_EQ(try_lock(a_, by_another_open), 0);
  EXPECT_EQ(try_lock(a_, whole(50, kExclusive)), 0);
  EXPECT_EQ(try_lock(a_, record(2, kExclusive, 10, 20)), 0);
  table_.close_descriptor(*a_, 1, 77);
  EXPECT_EQ(table_.find_conflict(*a_, record(9, kExclusive, 0, kEnd).lock),
            record(2, kExclusive, 10, 20).lock);
  EXPECT_EQ(try_lock(a_, whole(51, kShared)), EAGAIN);
}

TEST_F(LockTableTest, AnOpenThatIsOverTakesAllItsLocksAlong) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);  // as by F_OFD_SETLK: no FLUSH names it
  EXPECT_EQ(try_lock(a_, whole(1, kExclusive)), 0);
  const AskedRef of_range = ask(a_, record(2, kShared, 0, 1, true));
  const AskedRef of_file = ask(a_, whole(2, kShared, true));
  table_.close_open(*a_, 1);
  EXPECT_EQ(of_range->outcome, 0);
  EXPECT_EQ(of_file->outcome, 0);
}

// ---- flock(2).

TEST_F(LockTableTest, WhoChangesTheModeGivesUpTheOneHeHad) {
  EXPECT_EQ(try_lock(a_, whole(1, kShared)), 0);
  EXPECT_EQ(try_lock(a_, whole(2, kShared)), 0);
  const AskedRef writer = ask(a_, whole(3, kExclusive, true));
  EXPECT_EQ(try_lock(a_, whole(2, kShared)), 0) << "as it is";
  EXPECT_EQ(try_lock(a_, whole(1, kExclusive)), EAGAIN);
  EXPECT_EQ(writer->outcome, kWaiting);
  EXPECT_EQ(unlock(a_, whole(2, kShared)), 0);
  EXPECT_EQ(writer->outcome, 0) << "the first gave his up";
  EXPECT_EQ(try_lock(a_, whole(3, kShared)), 0);
  EXPECT_EQ(try_lock(a_, whole(1, kShared)), 0);
}

TEST_F(LockTableTest, TwoThatWantBothModesDoNotWaitForEachOther) {
  EXPECT_EQ(try_lock(a_, whole(1, kShared)), 0);
  EXPECT_EQ(try_lock(a_, whole(2, kShared)), 0);
  const AskedRef first = ask(a_, whole(1, kExclusive, true));
  EXPECT_EQ(first->outcome, kWaiting);
  EXPECT_EQ(try_lock(a_, whole(2, kExclusive, true)), 0) << "the first has none any more";
  EXPECT_EQ(first->outcome, kWaiting);
  table_.close_open(*a_, 2);
  EXPECT_EQ(first->outcome, 0);
}

// ---- The last close is told late.

TEST_F(LockTableTest, ATryLockWaitsForTheNewsOfAClose) {
  EXPECT_EQ(try_lock(a_, whole(1, kExclusive)), 0);
  EXPECT_EQ(try_lock(a_, whole(2, kExclusive)), EAGAIN) << "nobody closed anything";
  table_.close_descriptor(*a_, 100, 1);
  const AskedRef soon = ask(a_, whole(2, kExclusive));
  EXPECT_EQ(soon->outcome, kWaiting);
  table_.close_open(*a_, 1);
  EXPECT_EQ(soon->outcome, 0);
  stepper_.advance(LockTable::kClosing);
  stepper_.run();
  EXPECT_EQ(soon->outcome, 0);
}

TEST_F(LockTableTest, ADescriptorMoreKeepsTheLock) {
  EXPECT_EQ(try_lock(a_, whole(1, kExclusive)), 0);
  table_.close_descriptor(*a_, 100, 1);
  const AskedRef refused = ask(a_, whole(2, kExclusive));
  EXPECT_EQ(refused->outcome, kWaiting);
  stepper_.advance(LockTable::kClosing);
  stepper_.run();
  EXPECT_EQ(refused->outcome, EAGAIN);
  EXPECT_EQ(try_lock(a_, whole(2, kExclusive)), EAGAIN) << "at once: it is known to go on";
  table_.close_descriptor(*a_, 100, 1);
  EXPECT_EQ(try_lock(a_, whole(1, kExclusive)), 0);
  EXPECT_EQ(try_lock(a_, whole(2, kExclusive)), EAGAIN) << "it was used since";
}

TEST_F(LockTableTest, OneThatIsNotClosedDecides) {
  EXPECT_EQ(try_lock(a_, record(1, kShared, 0, 10)), 0);
  EXPECT_EQ(try_lock(a_, record(2, kShared, 0, 10)), 0);
  table_.close_descriptor(*a_, 100, 1);
  EXPECT_EQ(try_lock(a_, record(3, kExclusive, 0, 10)), EAGAIN);
}

// ---- Deadlocks.

TEST_F(LockTableTest, WhoWouldWaitForHimselfIsTold) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, record(2, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, record(3, kShared, 20, 30)), 0);
  const AskedRef first = ask(b_, record(1, kShared, 0, 10, true));
  EXPECT_EQ(first->outcome, kWaiting);
  const AskedRef third = ask(a_, record(3, kShared, 5, 6, true));
  EXPECT_EQ(third->outcome, kWaiting) << "a chain is no circle";
  EXPECT_EQ(try_lock(b_, record(2, kExclusive, 20, 21, true)), EDEADLK) << "over the third";
  EXPECT_EQ(try_lock(a_, record(2, kExclusive, 0, 1)), EAGAIN) << "who does not wait is told that";
  unlock(b_, record(2, kShared, 0, 10));
  EXPECT_EQ(first->outcome, 0);
}

TEST_F(LockTableTest, TwoSharedThatBothWantAllAreADeadlock) {
  EXPECT_EQ(try_lock(a_, record(1, kShared, 0, 10)), 0);
  EXPECT_EQ(try_lock(a_, record(2, kShared, 0, 10)), 0);
  const AskedRef first = ask(a_, record(1, kExclusive, 0, 10, true));
  EXPECT_EQ(try_lock(a_, record(2, kExclusive, 0, 10, true)), EDEADLK);
  EXPECT_EQ(first->outcome, kWaiting);
  table_.close_descriptor(*a_, 2, 2);
  EXPECT_EQ(first->outcome, 0);
}

TEST_F(LockTableTest, AWaitThatIsOverLeadsNowhere) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, record(2, kExclusive, 0, 10)), 0);
  const AskedRef first = ask(b_, record(1, kShared, 0, 10, true));
  first->scope->cancel();
  const AskedRef second = ask(a_, record(2, kShared, 0, 10, true));
  EXPECT_EQ(second->outcome, kWaiting);
}

// A process with two threads: one waits, the other gets what somebody waits for.
TEST_F(LockTableTest, ADeadlockThatAGrantClosesIsFound) {
  EXPECT_EQ(try_lock(a_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, record(2, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, record(3, kExclusive, 20, 30)), 0);
  const AskedRef of_one = ask(b_, record(1, kShared, 20, 40, true));  // for the third
  EXPECT_EQ(of_one->outcome, kWaiting);
  const AskedRef of_two = ask(a_, record(2, kShared, 0, 1, true));  // for the first
  EXPECT_EQ(of_two->outcome, kWaiting);
  EXPECT_EQ(try_lock(b_, record(2, kExclusive, 30, 40)), 0);  // now the first waits for it too
  EXPECT_EQ(of_one->outcome, EDEADLK);
  EXPECT_EQ(of_two->outcome, kWaiting);
}

TEST_F(LockTableTest, WholeFileLocksHaveNoSearchForDeadlocks) {
  EXPECT_EQ(try_lock(a_, whole(1, kExclusive)), 0);
  EXPECT_EQ(try_lock(b_, whole(2, kExclusive)), 0);
  EXPECT_EQ(ask(b_, whole(1, kExclusive, true))->outcome, kWaiting);
  EXPECT_EQ(ask(a_, whole(2, kExclusive, true))->outcome, kWaiting) << "as in the kernel";
}

TEST_F(LockTableTest, TheNumberOfLocksIsBounded) {
  for (std::uint64_t i = 0; i < 999; ++i) {
    ASSERT_EQ(try_lock(a_, record(1, kExclusive, 10 * i, 10 * i + 5)), 0);
  }
  EXPECT_EQ(try_lock(b_, record(1, kExclusive, 0, 10)), 0);
  EXPECT_EQ(try_lock(b_, record(1, kExclusive, 20, 30)), ENOLCK);
  EXPECT_EQ(unlock(b_, record(1, kExclusive, 2, 4)), ENOLCK) << "there would be one more";
  EXPECT_EQ(unlock(b_, record(1, kExclusive, 0, 4)), 0);
  EXPECT_EQ(unlock(b_, record(1, kExclusive, 0, kEnd)), 0);
  EXPECT_EQ(try_lock(b_, record(1, kExclusive, 20, 30)), 0);
}

// ---- Anything, by many, on two files.

class RandomLocks : public LockTableTest {
 protected:
  static constexpr std::uint64_t kBytes = 20;
  static constexpr LockOwner kOwners = 6;

  using Held = std::map<LockOwner, std::map<std::uint64_t, LockMode>>;  // by byte

  struct Wait {
    int file = 0;
    LockOrder order;
    AskedRef asked;
  };

  std::uint64_t below(std::uint64_t end) { return random_() % end; }

  [[nodiscard]] Held& held(int file, LockKind kind) { return held_[{file, kind}]; }

  [[nodiscard]] std::set<LockOwner> in_the_way(int file, const LockOrder& order) {
    std::set<LockOwner> owners;
    for (const auto& [owner, bytes] : held(file, order.kind)) {
      for (const auto& [byte, mode] : bytes) {
        if (owner != order.lock.owner && order.lock.range.contains({byte, 1}) &&
            (mode == kExclusive || order.lock.mode == kExclusive)) {
          owners.insert(owner);
        }
      }
    }
    return owners;
  }

  void take(int file, const LockOrder& order) {
    EXPECT_TRUE(in_the_way(file, order).empty()) << "two that exclude each other";
    for (std::uint64_t byte = order.lock.range.offset; byte < order.lock.range.end(); ++byte) {
      held(file, order.kind)[order.lock.owner][byte] = order.lock.mode;
    }
  }

  void give_up(int file, const LockOrder& order) {
    std::erase_if(held(file, order.kind)[order.lock.owner],
                  [&](const auto& byte) { return order.lock.range.contains({byte.first, 1}); });
  }

  // Whether whoever waits for `order` waits for himself, in however many steps.
  bool is_circle(int file, const LockOrder& order) {
    std::set<LockOwner> reached = in_the_way(file, order);
    for (std::size_t before = 0; before != reached.size();) {
      before = reached.size();
      for (const Wait& wait : waits_) {
        if (wait.asked->outcome == kWaiting && reached.contains(wait.order.lock.owner)) {
          reached.merge(in_the_way(wait.file, wait.order));
        }
      }
    }
    return reached.contains(order.lock.owner);
  }

  void ask_at_random(LockOwner owner) {
    const int file = static_cast<int>(below(2));
    const std::uint64_t begin = below(kBytes);
    const LockMode mode = below(2) == 0 ? kShared : kExclusive;
    const bool waits = below(3) != 0;
    const LockOrder order =
        below(4) == 0 ? [&] {
          LockOrder all = record(owner + 100, mode, 0, kBytes, waits);
          all.kind = LockKind::kWholeFile;
          return all;
        }()
                      : record(owner, mode, begin, begin + 1 + below(kBytes - begin), waits);
    const auto& own = held(file, order.kind)[order.lock.owner];
    if (order.kind == LockKind::kWholeFile && !own.empty() && own.begin()->second != mode) {
      give_up(file, order);
    }
    const bool blocked = !in_the_way(file, order).empty();
    const bool circle = order.kind == LockKind::kRecord && is_circle(file, order);
    auto asked = std::make_shared<Asked>();
    table_.lock(inode(file), order, asked->scope,
                [this, file, order, asked](const Result<>& result) {
                  ASSERT_EQ(asked->outcome, kWaiting) << "decided twice";
                  asked->outcome = result ? 0 : result.error().error_number();
                  if (result) {
                    take(file, order);
                  }
                });
    EXPECT_EQ(asked->outcome, !blocked ? 0 : !waits ? EAGAIN : circle ? EDEADLK : kWaiting);
    waits_.push_back({file, order, asked});
  }

  void act(LockOwner owner) {
    const int file = static_cast<int>(below(2));
    const std::uint64_t begin = below(kBytes);
    const LockOrder range = record(owner, kShared, begin, begin + 1 + below(kBytes - begin));
    switch (below(4)) {
      case 0:
        give_up(file, range);
        EXPECT_EQ(unlock(inode(file), range), 0);
        break;
      case 1:  // a process that ends
        for (const int each : {0, 1}) {
          give_up(each, record(owner, kShared, 0, kBytes));
          table_.close_descriptor(*inode(each), owner, owner + 1000);
        }
        break;
      case 2: {
        LockOrder all = record(owner + 100, kShared, 0, kBytes);
        all.kind = LockKind::kWholeFile;
        give_up(file, all);
        table_.close_open(*inode(file), owner + 100);
        break;
      }
      default:
        ask_at_random(owner);
    }
  }

  InodeRef inode(int file) { return file == 0 ? a_ : b_; }

  void check() {
    std::erase_if(waits_, [](const Wait& wait) { return wait.asked->outcome != kWaiting; });
    for (const Wait& wait : waits_) {
      EXPECT_FALSE(in_the_way(wait.file, wait.order).empty()) << "it waits for nothing";
      EXPECT_FALSE(wait.order.kind == LockKind::kRecord && is_circle(wait.file, wait.order));
    }
    for (const int file : {0, 1}) {
      for (LockOwner owner = 1; owner <= kOwners; ++owner) {
        const LockOrder all = record(owner, kExclusive, 0, kBytes);
        EXPECT_EQ(table_.find_conflict(*inode(file), all.lock).has_value(),
                  !in_the_way(file, all).empty());
      }
    }
  }

  std::mt19937_64 random_;
  std::map<std::pair<int, LockKind>, Held> held_;
  std::vector<Wait> waits_;
};

TEST_F(RandomLocks, NobodyWaitsForNothingAndNobodyForEver) {
  random_.seed(testing::seed_of_test());
  for (int step = 0; step < 20'000 && !HasFailure(); ++step) {
    const LockOwner owner = 1 + below(kOwners);
    const auto waiting = std::ranges::find_if(
        waits_, [owner](const Wait& wait) { return wait.order.lock.owner % 100 == owner; });
    // One thread each: who waits does nothing else, but may be interrupted.
    if (waiting == waits_.end()) {
      act(owner);
    } else if (below(10) == 0) {
      waiting->asked->scope->cancel();
      EXPECT_EQ(waiting->asked->outcome, EINTR);
    }
    check();
  }
  for (const Wait& wait : waits_) {
    wait.asked->scope->cancel();
  }
  for (LockOwner owner = 1; owner <= kOwners; ++owner) {
    for (const InodeRef& each : {a_, b_}) {
      table_.close_descriptor(*each, owner, owner);
      table_.close_open(*each, owner + 100);
    }
  }
  EXPECT_EQ(table_.files(), 0U);
}

}  // namespace
}  // namespace larder::netfs
