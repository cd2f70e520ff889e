// Epochs: which of what is on the disk survives a crash, without a sync for each file.
//
// Whatever is written carries a stamp. A stamp is held as a lease until data and record are
// written; closing an epoch gives new leases the next one, waits for the old ones, syncs the
// filesystem, and only then calls the epoch durable.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/stamp.h"
#include "cachefiles/state_file.h"

namespace larder::cachefiles {

// How the last life of a cache ended, as far as its filesystem is concerned.
enum class LastEnd : std::uint8_t {
  kClean,    // withdrawn
  kEngine,   // the engine died, the machine and the mount went on: nothing was lost
  kMachine,  // power cut, crash, another mount instance: what was not durable may be lost
  kUnknown,  // no state could be read: only what its checksum vouches for counts
};

// The generations before `generation` and what counts of them. `lost_after_epoch`: of the last
// generation, when it is known that its later epochs failed to reach the disk.
[[nodiscard]] std::vector<PastGenerations> past_of(const CacheState& last, LastEnd end,
                                                   std::uint32_t generation);

// Threads: any, but close() one at a time. Life: the cache's.
class Epochs {
 public:
  class Lease {
   public:
    Lease() = default;

    Lease(Lease&& other) noexcept
        : epochs_(std::exchange(other.epochs_, nullptr)), stamp_(other.stamp_) {}

    Lease& operator=(Lease&& other) noexcept {
      end();
      epochs_ = std::exchange(other.epochs_, nullptr);
      stamp_ = other.stamp_;
      return *this;
    }

    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    ~Lease() { end(); }

    [[nodiscard]] Stamp stamp() const { return stamp_; }

    void end() {
      if (epochs_ != nullptr) {
        std::exchange(epochs_, nullptr)->end_lease(stamp_.epoch);
      }
    }

   private:
    friend class Epochs;

    Lease(Epochs* epochs, Stamp stamp) : epochs_(epochs), stamp_(stamp) {}

    Epochs* epochs_ = nullptr;
    Stamp stamp_;
  };

  Epochs(std::uint32_t generation, std::vector<PastGenerations> past)
      : generation_(generation), past_(std::move(past)) {}

  // Something of about `bytes` is going to be written.
  [[nodiscard]] Lease begin(std::uint64_t bytes) EXCLUDES(mutex_);

  // What carries this stamp is on the disk, as far as a crash can tell.
  [[nodiscard]] bool counts(Stamp stamp) const;
  // A file that was sealed with this stamp must be verified whole before it is registered.
  [[nodiscard]] bool needs_verification(Stamp stamp) const;

  [[nodiscard]] std::uint32_t generation() const { return generation_; }

  [[nodiscard]] const std::vector<PastGenerations>& past() const { return past_; }

  [[nodiscard]] std::uint32_t current_epoch() const EXCLUDES(mutex_);
  [[nodiscard]] std::uint32_t durable_epoch() const EXCLUDES(mutex_);
  // What carries this stamp, which counts, has been written to the disk without an error. Before
  // that the kernel may drop it again: when its writing fails, pages are clean and what is read
  // next is what the disk had there.
  [[nodiscard]] bool durable(Stamp stamp) const EXCLUDES(mutex_);
  // Written since the epoch began, in bytes.
  [[nodiscard]] std::uint64_t fresh_bytes() const EXCLUDES(mutex_);

  // Closes the current epoch when it holds anything: waits for its leases, calls `sync` with its
  // number, and on success makes it durable. True: an epoch was closed.
  [[nodiscard]] Result<bool> close(const std::function<Result<>(std::uint32_t epoch)>& sync)
      EXCLUDES(mutex_);

 private:
  void end_lease(std::uint32_t epoch) EXCLUDES(mutex_);
  [[nodiscard]] const PastGenerations* find(std::uint32_t generation) const;

  const std::uint32_t generation_;
  const std::vector<PastGenerations> past_;

  mutable Mutex mutex_{LockRank::kCache};
  CondVar lease_ended_;
  std::uint32_t current_ GUARDED_BY(mutex_) = 1;
  std::uint32_t durable_ GUARDED_BY(mutex_) = 0;
  std::uint64_t leases_ GUARDED_BY(mutex_) = 0;      // of the current epoch
  std::uint64_t old_leases_ GUARDED_BY(mutex_) = 0;  // of the one that is being closed
  bool holds_anything_ GUARDED_BY(mutex_) = false;
  std::uint64_t fresh_bytes_ GUARDED_BY(mutex_) = 0;
};

// When an epoch is due: not sooner than 30 s or 20 times the last sync's duration after the last
// one, or at a gibibyte.
// Threads: one.
class EpochPace {
 public:
  explicit EpochPace(MonotonicTime now) : last_closed_(now) {}

  // How long from now; zero: now.
  [[nodiscard]] Duration due_in(MonotonicTime now, std::uint64_t fresh_bytes) const;
  void closed(MonotonicTime began, MonotonicTime ended);

 private:
  MonotonicTime last_closed_;
  Duration last_sync_{};
};

}  // namespace larder::cachefiles
