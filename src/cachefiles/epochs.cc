#include "cachefiles/epochs.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/stamp.h"
#include "cachefiles/state_file.h"

namespace larder::cachefiles {
namespace {

constexpr Duration kLeastEpoch = std::chrono::seconds(30);
constexpr int kSyncShare = 20;
constexpr std::uint64_t kMostEpochBytes = std::uint64_t{1} << 30U;

// Neighbours that are treated alike become one entry.
void join(std::vector<PastGenerations>& past) {
  std::vector<PastGenerations> joined;
  for (const PastGenerations& entry : past) {
    const bool alike = !joined.empty() && joined.back().durable == kWholeGeneration &&
                       entry.durable == kWholeGeneration && joined.back().verify == entry.verify &&
                       joined.back().last + 1 == entry.first;
    if (alike) {
      joined.back().last = entry.last;
    } else {
      joined.push_back(entry);
    }
  }
  if (joined.size() > kMostPastGenerations) {
    const auto surplus = static_cast<std::ptrdiff_t>(joined.size() - kMostPastGenerations);
    joined.erase(joined.begin(), std::next(joined.begin(), surplus));
  }
  past = std::move(joined);
}

}  // namespace

std::vector<PastGenerations> past_of(const CacheState& last, LastEnd end,
                                     std::uint32_t generation) {
  if (end == LastEnd::kUnknown) {
    return {{1, generation - 1, kWholeGeneration, true}};
  }
  std::vector<PastGenerations> past = last.past;
  const bool lost = end == LastEnd::kMachine;
  past.push_back(
      {last.generation, last.generation, lost ? last.durable_epoch : kWholeGeneration, false});
  if (lost) {
    for (PastGenerations& entry : past) {
      entry.verify = true;
    }
  }
  join(past);
  return past;
}

Epochs::Lease Epochs::begin(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  ++leases_;
  holds_anything_ = true;
  fresh_bytes_ += bytes;
  return {this, {generation_, current_}};
}

void Epochs::end_lease(std::uint32_t epoch) {
  const MutexLock lock(mutex_);
  std::uint64_t& count = epoch == current_ ? leases_ : old_leases_;
  if (--count == 0) {
    lease_ended_.notify_all();
  }
}

const PastGenerations* Epochs::find(std::uint32_t generation) const {
  const auto found = std::ranges::find_if(past_, [generation](const PastGenerations& entry) {
    return entry.first <= generation && generation <= entry.last;
  });
  return found == past_.end() ? nullptr : &*found;
}

bool Epochs::counts(Stamp stamp) const {
  if (stamp == Stamp{} || stamp.generation == generation_) {
    return true;
  }
  const PastGenerations* const past = find(stamp.generation);
  return past != nullptr && stamp.epoch <= past->durable;
}

bool Epochs::needs_verification(Stamp stamp) const {
  if (stamp.generation == generation_) {
    return false;
  }
  const PastGenerations* const past = find(stamp.generation);
  return past == nullptr || past->verify;
}

std::uint32_t Epochs::current_epoch() const {
  const MutexLock lock(mutex_);
  return current_;
}

std::uint32_t Epochs::durable_epoch() const {
  const MutexLock lock(mutex_);
  return durable_;
}

bool Epochs::durable(Stamp stamp) const {
  const MutexLock lock(mutex_);
  return stamp.generation != generation_ || stamp.epoch <= durable_;
}

std::uint64_t Epochs::fresh_bytes() const {
  const MutexLock lock(mutex_);
  return holds_anything_ ? std::max<std::uint64_t>(fresh_bytes_, 1) : 0;
}

Result<bool> Epochs::close(const std::function<Result<>(std::uint32_t epoch)>& sync) {
  std::uint32_t closing = 0;
  {
    const MutexLock lock(mutex_);
    if (!holds_anything_) {
      return false;
    }
    closing = current_++;
    old_leases_ = std::exchange(leases_, 0);
    holds_anything_ = false;
    fresh_bytes_ = 0;
    while (old_leases_ > 0) {
      lease_ended_.wait(mutex_);
    }
  }
  const Result<> synced = sync(closing);
  const MutexLock lock(mutex_);
  if (!synced) {
    holds_anything_ = true;  // which the next one makes durable, too
    return fail(synced.error());
  }
  durable_ = closing;
  return true;
}

Duration EpochPace::due_in(MonotonicTime now, std::uint64_t fresh_bytes) const {
  if (fresh_bytes >= kMostEpochBytes) {
    return {};
  }
  const MonotonicTime due = last_closed_ + std::max(kLeastEpoch, kSyncShare * last_sync_);
  return due > now ? due - now : Duration{};
}

void EpochPace::closed(MonotonicTime began, MonotonicTime ended) {
  last_closed_ = ended;
  last_sync_ = ended - began;
}

}  // namespace larder::cachefiles
