// File: what becomes of a download that is over: to its readers, into the cache, out of memory.
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"
#include "netfs/fetch.h"
#include "netfs/file.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

namespace {

// Held pieces that nobody came for go at the second tick.
constexpr std::chrono::seconds kTick{1};
constexpr std::chrono::seconds kConfirmAgainAfter{10};

// So that the kernel may have the file.
bool lacks_only_the_mark(const Version& version) {
  return !version.small() && !version.racy && version.cookie->has_everything() &&
         !version.cookie->complete();
}

}  // namespace

void File::land(const std::shared_ptr<Fetch>& fetch) {
  std::vector<FetchDone> waiters;
  bool gone = false;
  {
    const MutexLock lock(mutex_);
    fetch->landed = true;
    gone = fetch->gone;
    for (auto& [id, waiter] : fetch->waiters) {
      waiters.push_back(std::move(waiter));
    }
    fetch->waiters.clear();
    if (!gone) {
      landed_bytes_ += fetch->range.length;
    }
    end_prefetch(*fetch);
  }
  for (auto& waiter : waiters) {
    waiter(fetch->buffer);
  }
  if (!gone) {
    keep(fetch);
  }
  pump_prefetch();
}

// Into the cache, as far as it can follow.
void File::keep(const std::shared_ptr<Fetch>& fetch) {
  const std::uint64_t length = fetch->range.length;
  if (!fetch->version->cookie->wants_data() ||
      share_->unwritten_bytes.load() > ShareContext::kMostUnwrittenBytes) {
    on_kept(fetch, fail(Errc::kNoSpace, "not kept"));
    return;
  }
  share_->unwritten_bytes += length;
  fetch->version->cookie->start_write(
      fetch->range.offset, fetch->buffer, fetch->buffer.bytes(),
      [self = shared_from_this(), fetch, length](const Result<>& result) {
        self->share_->unwritten_bytes -= length;
        self->on_kept(fetch, result);
        self->pump_prefetch();
      });
}

void File::on_kept(const std::shared_ptr<Fetch>& fetch, const Result<>& result) {
  {
    const MutexLock lock(mutex_);
    fetch->kept = true;
    fetch->written = result.has_value();
    if (!result && fetch->prefetch) {
      prefetch_ = {};  // the next read tries again
    }
    hold_or_drop(fetch);
  }
  if (!result) {
    share_->counters.cache_write_drops.add();
    return;
  }
  confirm_complete(fetch->version, fetch->credential);
}

// From now on reads can take it from the cache. But a reader that is about to come for it is spared
// the way over the disk; and what the cache would not have is kept for the reader that it was
// prefetched for.
void File::hold_or_drop(const std::shared_ptr<Fetch>& fetch) {
  const std::uint64_t length = fetch->range.length;
  const bool of_use = fetch->served < length && (fetch->written ? holding_ : fetch->prefetch);
  if (fetch->gone || !of_use || landed_bytes_ > 2 * kMostLandedBytes ||
      share_->held_bytes.load() + length > ShareContext::kMostHeldBytes) {
    drop_landed(fetch);
    return;
  }
  fetch->held = true;
  fetch->round = round_;
  share_->held_bytes += length;
  arm_tick();
}

// It does not count as held any more.
void File::let_go(Fetch& fetch) {
  if (std::exchange(fetch.held, false)) {
    share_->held_bytes -= fetch.range.length;
  }
}

void File::drop_landed(const std::shared_ptr<Fetch>& fetch) {
  if (fetch->gone) {
    return;
  }
  fetch->gone = true;
  let_go(*fetch);
  landed_bytes_ -= fetch->range.length;
  fetches_.erase(fetch->range.offset);
}

// Of what is held, all, or what the cache has and nobody came for since the tick before the last.
void File::drop_held(bool all) {
  for (auto at = fetches_.begin(); at != fetches_.end();) {
    const std::shared_ptr<Fetch> fetch = (at++)->second;
    if (fetch->held && (all || (fetch->written && fetch->round < round_))) {
      drop_landed(fetch);
    }
  }
}

void File::arm_tick() {
  if (!std::exchange(tick_set_, true)) {
    share_->executor.timers().schedule(kTick, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->tick();
      }
    });
  }
}

// The reader may have stopped, or be slow: memory is not to wait for it, nor the rest of the file.
void File::tick() {
  {
    const MutexLock lock(mutex_);
    tick_set_ = false;
    const bool reads_on = std::exchange(read_since_tick_, false);
    holding_ = holding_ && reads_on;
    drop_held(!holding_);
    ++round_;
    if (landed_bytes_ > 0) {
      arm_tick();
    }
  }
  pump_prefetch();
}

// Every piece was the version's when it came; one more look says that they are so together.
void File::confirm_complete(const VersionRef& version, const CredentialRef& credential) {
  if (!lacks_only_the_mark(*version)) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    if (confirming_ || version_ != version) {
      return;
    }
    confirming_ = true;
  }
  share_->refresh(inode_, {credential, nullptr},
                  [self = shared_from_this(), version](const Result<Attributes>& attributes) {
                    {
                      const MutexLock lock(self->mutex_);
                      self->confirming_ = false;
                    }
                    // Else an open tries again.
                    if (attributes && same_version(*attributes, version->attributes)) {
                      version->cookie->start_mark_complete([](const Result<>&) {});
                    }
                  });
}

// The last piece may have come in an earlier life, which ended before the mark, or the disk would
// not have it. Not with each open: a disk that never takes it costs the server no call for each.
void File::confirm_complete_at_open(const VersionRef& version, const CredentialRef& credential) {
  if (!lacks_only_the_mark(*version)) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    const MonotonicTime now = share_->executor.clock().now();
    if (confirmed_at_open_ && now < *confirmed_at_open_ + kConfirmAgainAfter) {
      return;
    }
    confirmed_at_open_ = now;
  }
  confirm_complete(version, credential);
}

}  // namespace larder::netfs
