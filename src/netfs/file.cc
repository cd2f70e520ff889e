#include "netfs/file.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fscache/backend.h"
#include "fscache/volume.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/coherency.h"
#include "netfs/fetch.h"
#include "netfs/readahead.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

namespace {

constexpr int kMostFilePrefetches = 8;
// What is in memory ahead of a reader: with fewer the server's answers come too late, with more the
// processor's caches have lost them when the reader comes.
constexpr std::uint64_t kMostLandedBytes = std::uint64_t{16} << 20;
// Held pieces that nobody came for go at the second tick.
constexpr std::chrono::seconds kTick{1};

Error changed_meanwhile() {
  return {Errc::kChanged, "the file changed on the server meanwhile"};
}

// It does not count as held any more.
void let_go(ShareContext& share, Fetch& fetch) {
  if (std::exchange(fetch.held, false)) {
    share.held_bytes -= fetch.range.length;
  }
}

fscache::ObjectDescription description_of(const Inode& inode, const Attributes& attributes,
                                          bool racy) {
  return {std::string(text_of(inode.handle().bytes())), attributes.size, coherency_of(attributes),
          racy};
}

}  // namespace

File::File(std::shared_ptr<ShareContext> share, InodeRef inode)
    : share_(std::move(share)), inode_(std::move(inode)) {}

File::~File() {
  for (const auto& [offset, fetch] : fetches_) {
    let_go(*share_, *fetch);
  }
}

VersionRef File::version() {
  while (true) {
    const Attributes attributes = inode_->attributes().attributes;
    VersionRef before;
    {
      const MutexLock lock(mutex_);
      before = version_;
    }
    if (before != nullptr && same_version(before->attributes, attributes)) {
      return before;
    }
    if (VersionRef made = replace_version(before, attributes)) {
      return made;
    }
  }
}

VersionRef File::version_at_open() {
  VersionRef version = this->version();
  if (version->racy &&
      share_->server_time.is_settled(version->attributes, share_->executor.clock().now())) {
    if (VersionRef settled = replace_version(version, version->attributes)) {
      return settled;
    }
    return this->version();
  }
  return version;
}

// Puts a new version in the place of `before`; null when somebody else was faster.
VersionRef File::replace_version(const VersionRef& before, const Attributes& attributes) {
  auto made = std::make_shared<Version>();
  made->attributes = attributes;
  made->racy = !share_->server_time.is_settled(attributes, share_->executor.clock().now());
  // Outside of the lock: superseding an older cookie wakes those who wait for it.
  made->cookie = share_->volume_of(attributes.fsid)
                     ->acquire_cookie(description_of(*inode_, attributes, made->racy));
  if (made->racy) {
    share_->counters.racy_versions.add();
  }
  FetchMap old_fetches;
  Buffer old_small;
  {
    const MutexLock lock(mutex_);
    if (version_ != before) {
      return nullptr;
    }
    version_ = made;
    old_fetches.swap(fetches_);
    for (const auto& [offset, fetch] : old_fetches) {
      fetch->gone = true;
      let_go(*share_, *fetch);
    }
    landed_bytes_ = 0;
    prefetch_ = {};
    completing_ = false;
    std::swap(old_small, small_);
  }
  for (const auto& [offset, fetch] : old_fetches) {
    abandon(fetch, changed_meanwhile());
  }
  return made;
}

void File::start_prepare(const VersionRef& version, const Caller& caller, Done<VersionRef> done) {
  version->cookie->use(
      [self = shared_from_this(), version, caller, done = std::move(done)]() mutable {
        if (version->cookie->racy() && !version->racy) {
          self->renew_racy(version, caller, std::move(done));
          return;
        }
        version->cookie->note_use();
        if (!version->small() || version->size() == 0 ||
            version->cookie->plan_read({0, version->size()}).source == fscache::Source::kCache) {
          done(version);
          return;
        }
        self->start_load_small(version, caller,
                               [version, done = std::move(done)](Result<Buffer> loaded) mutable {
                                 if (!loaded) {
                                   done(fail(loaded.error()));
                                 } else {
                                   done(version);
                                 }
                               });
      });
}

// What is in the cache was fetched when the version was too young to be trusted, and now it is not.
void File::renew_racy(const VersionRef& version, const Caller& caller, Done<VersionRef> done) {
  share_->volume_of(version->attributes.fsid)
      ->discard(version->cookie->description().key,
                [self = shared_from_this(), version, caller,
                 done = std::move(done)](const Result<>& /*best effort*/) mutable {
                  VersionRef renewed = self->replace_version(version, version->attributes);
                  if (renewed == nullptr) {
                    renewed = self->version();
                  }
                  renewed->cookie->use([self, renewed, caller, done = std::move(done)]() mutable {
                    done(renewed);  // its reads fetch what is missing
                  });
                });
}

void File::start_load_small(const VersionRef& version, const Caller& caller, Done<Buffer> done) {
  Buffer loaded;
  {
    const MutexLock lock(mutex_);
    if (version_ == version && small_) {
      loaded = small_;
    } else {
      auto& waiters = small_waiters_[version];
      waiters.push_back(std::move(done));
      if (waiters.size() > 1) {
        return;  // somebody loads it already
      }
    }
  }
  if (loaded) {
    done(std::move(loaded));
    return;
  }
  version->cookie->use([self = shared_from_this(), version, caller] {
    const ByteRange whole{0, version->size()};
    if (version->cookie->plan_read(whole).source != fscache::Source::kCache) {
      self->fetch_small(version, caller.credential);
      return;
    }
    const Buffer buffer = self->share_->buffers.allocate(whole.length);
    version->cookie->start_read(0, buffer, buffer.bytes(),
                                [self, version, caller, buffer](const Result<>& result) {
                                  if (!result) {
                                    self->share_->counters.cache_read_errors.add();
                                    self->fetch_small(version, caller.credential);
                                    return;
                                  }
                                  self->share_->counters.bytes_from_cache.add(buffer.size());
                                  self->finish_small(version, buffer);
                                });
  });
}

void File::fetch_small(const VersionRef& version, const CredentialRef& credential) {
  {
    const MutexLock lock(mutex_);
    small_is_news_ = true;
  }
  const std::vector<Piece> pieces =
      fetch(version, {0, version->size()}, Readahead::kRandomUnit, credential);
  if (pieces.size() != 1) {
    // The version changed, or the server reads in pieces smaller than a small file.
    fetch_small_in_pieces(version, pieces);
    return;
  }
  wait_for(pieces.front(), [self = shared_from_this(), version](Result<Buffer> fetched) {
    self->finish_small(version, std::move(fetched));
  });
}

void File::fetch_small_in_pieces(const VersionRef& version, const std::vector<Piece>& pieces) {
  if (pieces.empty()) {
    finish_small(version, fail(changed_meanwhile()));
    return;
  }

  struct Gathering {
    Buffer whole;
    Mutex mutex{LockRank::kStats};
    std::size_t pending GUARDED_BY(mutex) = 0;
    std::optional<Error> error GUARDED_BY(mutex);
  };

  auto gathering = std::make_shared<Gathering>();
  gathering->whole = share_->buffers.allocate(version->size());
  {
    const MutexLock lock(gathering->mutex);
    gathering->pending = pieces.size();
  }
  for (const Piece& piece : pieces) {
    wait_for(piece,
             [self = shared_from_this(), version, piece, gathering](const Result<Buffer>& fetched) {
               std::optional<Error> error;
               {
                 const MutexLock lock(gathering->mutex);
                 if (!fetched) {
                   gathering->error = fetched.error();
                 } else {
                   std::ranges::copy(fetched->bytes().subspan(piece.range.offset - piece.origin,
                                                              piece.range.length),
                                     gathering->whole.bytes().subspan(piece.range.offset).begin());
                 }
                 if (--gathering->pending > 0) {
                   return;
                 }
                 error = gathering->error;
               }
               if (error) {
                 self->finish_small(version, fail(*error));
                 return;
               }
               // The pieces were too small for the cache one by one: a small object is kept whole.
               self->keep_small(version, gathering->whole);
               self->finish_small(version, gathering->whole);
             });
  }
}

void File::keep_small(const VersionRef& version, const Buffer& whole) {
  version->cookie->start_write(0, whole, whole.bytes(),
                               [self = shared_from_this()](const Result<>& result) {
                                 if (!result) {
                                   self->share_->counters.cache_write_drops.add();
                                 }
                               });
}

bool File::take_small_news() {
  const MutexLock lock(mutex_);
  return std::exchange(small_is_news_, false);
}

void File::finish_small(const VersionRef& version, Result<Buffer> loaded) {
  std::vector<Done<Buffer>> waiters;
  {
    const MutexLock lock(mutex_);
    const auto found = small_waiters_.find(version);
    if (found != small_waiters_.end()) {
      waiters = std::move(found->second);
      small_waiters_.erase(found);
    }
    if (loaded && version_ == version) {
      small_ = *loaded;
    }
  }
  for (auto& waiter : waiters) {
    waiter(loaded);
  }
}

std::uint64_t File::note_read(const VersionRef& version, ByteRange read,
                              const CredentialRef& credential) {
  const bool may_prefetch = version->cookie->wants_data() && !version->cookie->has_everything();
  const MutexLock lock(mutex_);
  const ReadaheadAdvice advice = readahead_.on_read(read, version->size());
  read_since_tick_ = true;
  holding_ = advice.fetch_unit > Readahead::kRandomUnit;
  if (may_prefetch && version_ == version && !advice.prefetch.empty()) {
    completing_ = completing_ || advice.complete_file;
    const std::uint64_t end = completing_ ? version->size() : advice.prefetch.end();
    const bool near = !prefetch_.empty() && prefetch_.offset >= advice.prefetch.offset &&
                      prefetch_.offset <= advice.prefetch.end();
    const std::uint64_t begin = near ? prefetch_.offset : advice.prefetch.offset;
    prefetch_ = ByteRange::between(begin, std::max(end, begin));
    prefetch_credential_ = credential;
  }
  return advice.fetch_unit;
}

void File::pump_prefetch() {
  while (true) {
    std::shared_ptr<Fetch> fetch;
    {
      const MutexLock lock(mutex_);
      if (version_ == nullptr || prefetch_.empty() || prefetches_ >= kMostFilePrefetches ||
          share_->unwritten_bytes.load() > ShareContext::kMostUnwrittenBytes ||
          landed_bytes_ + static_cast<std::uint64_t>(prefetches_) * Readahead::kSequentialUnit >=
              kMostLandedBytes ||
          !version_->cookie->wants_data()) {
        return;
      }
      const ByteRange range = next_to_prefetch();
      if (range.empty()) {
        return;
      }
      if (share_->prefetches.fetch_add(1) >= ShareContext::kMostPrefetches) {
        --share_->prefetches;
        prefetch_ = ByteRange::between(range.offset, prefetch_.end());  // the next read tries again
        return;
      }
      ++prefetches_;
      fetch = make_fetch(version_, range, true, prefetch_credential_);
    }
    issue(fetch);
  }
}

// The next piece that is neither in the cache nor under way; moves the goal on behind it.
ByteRange File::next_to_prefetch() {
  std::uint64_t at = prefetch_.offset;
  const std::uint64_t end = prefetch_.end();
  while (at < end) {
    const auto overlap = first_overlap({at, 1});
    if (overlap != fetches_.end() && overlap->second->range.offset <= at) {
      at = overlap->second->range.end();
      continue;
    }
    const fscache::ReadPlan plan = version_->cookie->plan_read(ByteRange::between(at, end));
    if (plan.source == fscache::Source::kCache) {
      at = plan.range.end();
      continue;
    }
    const std::uint64_t unit =
        std::min<std::uint64_t>(std::bit_floor(share_->read_size), Readahead::kSequentialUnit);
    std::uint64_t stop = std::min(plan.range.end(), (at / unit + 1) * unit);
    const auto next = fetches_.lower_bound(at);
    if (next != fetches_.end()) {
      stop = std::min(stop, next->first);
    }
    prefetch_ = ByteRange::between(stop, end);
    return ByteRange::between(at, stop);
  }
  prefetch_ = {};
  if (completing_ && end == version_->size() && !wrapped_) {
    wrapped_ = true;  // once around, for what was skipped before the reader's first byte
    prefetch_ = {0, version_->size()};
    return next_to_prefetch();
  }
  return {};
}

File::FetchMap::iterator File::first_overlap(ByteRange range) {
  auto at = fetches_.upper_bound(range.offset);
  if (at != fetches_.begin()) {
    const auto before = std::prev(at);
    if (before->second->range.overlaps(range)) {
      return before;
    }
  }
  return at != fetches_.end() && at->second->range.overlaps(range) ? at : fetches_.end();
}

std::shared_ptr<Fetch> File::make_fetch(const VersionRef& version, ByteRange range, bool prefetch,
                                        const CredentialRef& credential) {
  auto fetch = std::make_shared<Fetch>();
  fetch->version = version;
  fetch->range = range;
  fetch->buffer = share_->buffers.allocate(range.length);
  fetch->credential = credential;
  fetch->prefetch = prefetch;
  fetches_.emplace(range.offset, fetch);
  return fetch;
}

std::vector<File::Piece> File::fetch(const VersionRef& version, ByteRange wanted,
                                     std::uint64_t unit, const CredentialRef& credential) {
  std::vector<Piece> pieces;
  std::vector<std::shared_ptr<Fetch>> begun;
  {
    const MutexLock lock(mutex_);
    if (version_ != version) {
      return {};
    }
    unit = std::min<std::uint64_t>(unit, std::bit_floor(share_->read_size));
    std::uint64_t at = wanted.offset;
    while (at < wanted.end()) {
      auto overlap = first_overlap({at, 1});
      if (overlap == fetches_.end()) {
        // Whole units, but not over downloads that are under way on either side.
        ByteRange range = ByteRange{at, 1}.rounded_out(unit);
        range = range.intersection({0, version->size()});
        const auto next = fetches_.lower_bound(at);
        const std::uint64_t stop =
            next == fetches_.end() ? range.end() : std::min(range.end(), next->first);
        const std::uint64_t start =
            next == fetches_.begin() ? range.offset
                                     : std::max(range.offset, std::prev(next)->second->range.end());
        begun.push_back(make_fetch(version, ByteRange::between(start, stop), false, credential));
        overlap = fetches_.find(start);
      }
      const std::shared_ptr<Fetch>& fetch = overlap->second;
      const ByteRange part = fetch->range.intersection(ByteRange::between(at, wanted.end()));
      pieces.push_back({part, fetch->range.offset, fetch});
      at = part.end();
    }
  }
  for (const auto& fetch : begun) {
    issue(fetch);
  }
  return pieces;
}

std::vector<File::Piece> File::take_landed(const VersionRef& version, ByteRange wanted) {
  std::vector<Piece> pieces;
  const MutexLock lock(mutex_);
  if (version_ != version) {
    return pieces;
  }
  for (auto at = first_overlap(wanted); at != fetches_.end() && at->first < wanted.end(); ++at) {
    const std::shared_ptr<Fetch>& fetch = at->second;
    if (fetch->landed) {
      pieces.push_back({fetch->range.intersection(wanted), fetch->range.offset, fetch});
    }
  }
  for (const Piece& piece : pieces) {
    serve(piece);
  }
  return pieces;
}

// What was read to its end is not asked for again soon.
void File::serve(const Piece& piece) {
  Fetch& fetch = *piece.fetch;
  fetch.served += piece.range.length;
  if (fetch.kept && fetch.served >= fetch.range.length) {
    drop_landed(piece.fetch);
  }
}

std::uint64_t File::wait_for(const Piece& piece, FetchDone done) {
  Fetch& fetch = *piece.fetch;
  bool landed = false;
  {
    const MutexLock lock(mutex_);
    serve(piece);
    if (!fetch.landed && !fetch.gone) {
      fetch.waiters.emplace(++fetch.last_waiter, std::move(done));
      return fetch.last_waiter;
    }
    landed = fetch.landed;
  }
  if (landed) {
    done(fetch.buffer);
  } else {
    done(fail(changed_meanwhile()));
  }
  return 0;
}

void File::leave(const Piece& piece, std::uint64_t waiter) {
  CallId to_cancel = 0;
  FetchDone dropped;
  {
    const MutexLock lock(mutex_);
    Fetch& fetch = *piece.fetch;
    const auto found = fetch.waiters.find(waiter);
    if (found == fetch.waiters.end()) {
      return;
    }
    dropped = std::move(found->second);
    fetch.waiters.erase(found);
    if (fetch.waiters.empty() && !fetch.prefetch && !fetch.landed) {
      to_cancel = fetch.call;
    }
  }
  if (to_cancel != 0) {
    share_->adapter.cancel(to_cancel);
  }
}

// Asks the server for what the download still lacks.
void File::issue(const std::shared_ptr<Fetch>& fetch) {
  fetch->ticket = share_->inodes.begin_check();
  const std::uint64_t offset = fetch->range.offset + fetch->received;
  MutableBytes rest = fetch->buffer.bytes().subspan(fetch->received);
  rest = rest.first(std::min<std::size_t>(rest.size(), share_->read_size));
  const CallId call = share_->adapter.start_read(
      inode_->handle(), {offset, rest, fetch->prefetch}, fetch->credential,
      [self = shared_from_this(), fetch](Result<ReadReply> reply) {
        self->on_read_reply(fetch, std::move(reply));
      });
  const MutexLock lock(mutex_);
  fetch->call = call;
}

void File::on_read_reply(const std::shared_ptr<Fetch>& fetch, Result<ReadReply> reply) {
  if (!reply) {
    abandon(fetch, reply.error());
    return;
  }
  fetch->received += reply->length;
  share_->counters.bytes_from_server.add(reply->length);
  if (fetch->prefetch) {
    share_->counters.bytes_prefetched.add(reply->length);
  }
  const bool all = fetch->received >= fetch->range.length;
  if (reply->attributes) {
    share_->apply(*inode_, *reply->attributes, fetch->ticket);
    if (!same_version(*reply->attributes, fetch->version->attributes)) {
      abandon(fetch, changed_meanwhile());
      return;
    }
  }
  if (!all && (reply->length == 0 || reply->end)) {
    // The file ends before the version does: whatever the stamps say, it is another one.
    inode_->expire();
    abandon(fetch, changed_meanwhile());
    return;
  }
  if (!all) {
    issue(fetch);
  } else if (!reply->attributes) {
    verify_by_getattr(fetch);
  } else {
    land(fetch);
  }
}

// For servers whose READ replies carry no attributes: what they say right behind it will do, since
// a version is only left, never come back to.
void File::verify_by_getattr(const std::shared_ptr<Fetch>& fetch) {
  share_->refresh(inode_, {fetch->credential, nullptr},
                  [self = shared_from_this(), fetch](const Result<Attributes>& attributes) {
                    if (!attributes) {
                      self->abandon(fetch, attributes.error());
                    } else if (same_version(*attributes, fetch->version->attributes)) {
                      self->land(fetch);
                    } else {
                      self->abandon(fetch, changed_meanwhile());
                    }
                  });
}

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

void File::end_prefetch(Fetch& fetch) {
  if (fetch.prefetch && !std::exchange(fetch.prefetch_ended, true)) {
    --prefetches_;
    --share_->prefetches;
  }
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
  const Version& version = *fetch->version;
  if (!version.small() && !version.racy && version.cookie->has_everything() &&
      !version.cookie->complete()) {
    confirm_complete(fetch->version, fetch->credential);
  }
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

void File::drop_landed(const std::shared_ptr<Fetch>& fetch) {
  if (fetch->gone) {
    return;
  }
  fetch->gone = true;
  let_go(*share_, *fetch);
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

void File::abandon(const std::shared_ptr<Fetch>& fetch, const Error& error) {
  std::vector<FetchDone> waiters;
  {
    const MutexLock lock(mutex_);
    if (!fetch->gone) {
      fetch->gone = true;
      fetches_.erase(fetch->range.offset);
    }
    for (auto& [id, waiter] : fetch->waiters) {
      waiters.push_back(std::move(waiter));
    }
    fetch->waiters.clear();
    end_prefetch(*fetch);
    if (fetch->prefetch) {
      prefetch_ = {};  // a server in trouble is not to be asked for more than is needed
    }
  }
  for (auto& waiter : waiters) {
    waiter(fail(error));
  }
}

// Every piece was the version's when it came; one more look says that they are so together.
void File::confirm_complete(const VersionRef& version, const CredentialRef& credential) {
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
                    // Else the next piece, or the next open, tries again.
                    if (attributes && same_version(*attributes, version->attributes)) {
                      version->cookie->start_mark_complete([](const Result<>&) {});
                    }
                  });
}

bool File::begin_reply(const VersionRef& version) {
  const MutexLock lock(mutex_);
  if (version_ != version) {
    return false;
  }
  ++replies_;
  return true;
}

void File::end_reply() {
  bool tell = false;
  {
    const MutexLock lock(mutex_);
    --replies_;
    if (replies_ == 0) {
      tell = std::exchange(change_to_tell_, false);
    }
  }
  if (tell) {
    share_->tell_changed(*inode_);
  }
}

void File::on_changed() {
  // Whoever begins a reply from now on finds the old version gone.
  static_cast<void>(version());
  bool tell = false;
  {
    const MutexLock lock(mutex_);
    change_to_tell_ = true;
    if (replies_ == 0) {
      tell = std::exchange(change_to_tell_, false);
    }
  }
  if (tell) {
    share_->tell_changed(*inode_);
  }
}

void File::begin_anew() {
  const VersionRef version = this->version();
  static_cast<void>(replace_version(version, version->attributes));
}

void File::on_last_close() {
  Buffer dropped;
  {
    const MutexLock lock(mutex_);
    std::swap(dropped, small_);
    holding_ = false;
    drop_held(true);
  }
  pump_prefetch();  // which held memory may have stopped
}

}  // namespace larder::netfs
