// File: what is fetched before it is asked for.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/byte_range.h"
#include "base/mutex.h"
#include "fscache/backend.h"
#include "netfs/attributes.h"
#include "netfs/fetch.h"
#include "netfs/file.h"
#include "netfs/readahead.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

namespace {

constexpr int kMostFilePrefetches = 8;

}  // namespace

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

void File::end_prefetch(Fetch& fetch) {
  if (fetch.prefetch && !std::exchange(fetch.prefetch_ended, true)) {
    --prefetches_;
    --share_->prefetches;
  }
}

}  // namespace larder::netfs
