#include "base/mutex.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace larder {

#ifndef NDEBUG
namespace {

constexpr auto kRankNames = std::to_array<std::string_view>({
#define LOCK_RANK(enumerator, name, what) name,
#include "base/lock_ranks.def"
#undef LOCK_RANK
});

constexpr std::size_t kMostHeldLocks = 16;

// The ranks that this thread holds, in the order in which it took them (so they rise).
struct HeldLocks {
  std::array<LockRank, kMostHeldLocks> ranks{};
  std::size_t count = 0;
};

thread_local HeldLocks held_locks;

void note_locked(LockRank rank) {
  HeldLocks& held = held_locks;
  CHECK(held.count < kMostHeldLocks);
  if (held.count > 0) {
    const LockRank last = held.ranks.at(held.count - 1);
    CHECK(last < rank, "lock of rank \"{}\" taken while holding \"{}\"",
          kRankNames.at(std::to_underlying(rank)), kRankNames.at(std::to_underlying(last)));
  }
  held.ranks.at(held.count++) = rank;
}

void note_unlocked(LockRank rank) {
  HeldLocks& held = held_locks;
  auto* const end = held.ranks.data() + held.count;
  auto* const found = std::find(held.ranks.data(), end, rank);
  CHECK(found != end);
  std::copy(found + 1, end, found);
  --held.count;
}

}  // namespace
#else
namespace {

void note_locked(LockRank /*rank*/) {}

void note_unlocked(LockRank /*rank*/) {}

}  // namespace
#endif

void Mutex::lock() {
  note_locked(rank_);
  mutex_.lock();
}

void Mutex::unlock() {
  // Last of all the unlocking: who takes it then may destroy us (see Gate).
  note_unlocked(rank_);
  mutex_.unlock();
}

void CondVar::wait(Mutex& mutex) {
  std::unique_lock lock(mutex.mutex_, std::adopt_lock);
  condition_.wait(lock);
  lock.release();
}

bool CondVar::wait_until(Mutex& mutex, std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex.mutex_, std::adopt_lock);
  const bool in_time = condition_.wait_until(lock, deadline) == std::cv_status::no_timeout;
  lock.release();
  return in_time;
}

}  // namespace larder
