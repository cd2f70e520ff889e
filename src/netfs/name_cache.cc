#include "netfs/name_cache.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "netfs/attributes.h"
#include "netfs/caller_key.h"
#include "netfs/coherency.h"

namespace larder::netfs {

MonotonicTime NameCache::end_of(const ListedName& name) const {
  const bool directory = name.said.attributes.type == FileType::kDirectory;
  return name.said.at + (directory ? times_.directory_least : times_.file_least);
}

void NameCache::add(const FileHandle& directory, const Credential& caller, const Attributes& stamps,
                    std::vector<std::pair<std::string, ListedName>> names) {
  const MonotonicTime now = executor_.clock().now();
  const MutexLock lock(mutex_);
  const auto listing = find_or_make({directory, caller}, stamps);
  for (auto& [name, listed] : names) {
    while (size_ >= kMostNames && listings_.begin() != listing) {
      drop(listings_.begin());
    }
    const MonotonicTime end = end_of(listed);
    if (size_ >= kMostNames || end <= now) {
      continue;
    }
    listing->until = std::max(listing->until, end);
    size_ += listing->names.insert_or_assign(std::move(name), listed).second ? 1 : 0;
  }
  if (listing->names.empty()) {
    drop(listing);
  }
  arm(now);
}

std::optional<ListedName> NameCache::take(const FileHandle& directory, const Credential& caller,
                                          const Attributes& stamps, std::string_view name) {
  const MonotonicTime now = executor_.clock().now();
  const MutexLock lock(mutex_);
  if (size_ == 0) {
    return std::nullopt;
  }
  const auto found = by_key_.find({directory, caller});
  if (found == by_key_.end()) {
    return std::nullopt;
  }
  const Listings::iterator listing = found->second;
  if (!same_version(listing->stamps, stamps)) {
    drop(listing);
    return std::nullopt;
  }
  const auto at = listing->names.find(std::string(name));
  if (at == listing->names.end()) {
    return std::nullopt;
  }
  const ListedName listed = at->second;
  listing->names.erase(at);
  --size_;
  if (listing->names.empty()) {
    drop(listing);
  }
  return end_of(listed) > now ? std::optional(listed) : std::nullopt;
}

std::size_t NameCache::size() const {
  const MutexLock lock(mutex_);
  return size_;
}

// The caller's listing of this version of the directory, moved behind all others.
NameCache::Listings::iterator NameCache::find_or_make(const CallerKey& key,
                                                      const Attributes& stamps) {
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    const Listings::iterator listing = found->second;
    if (same_version(listing->stamps, stamps)) {
      listings_.splice(listings_.end(), listings_, listing);
      return listing;
    }
    drop(listing);
  }
  listings_.push_back({key, stamps, {}, {}});
  return by_key_.emplace(key, std::prev(listings_.end())).first->second;
}

void NameCache::drop(Listings::iterator listing) {
  size_ -= listing->names.size();
  by_key_.erase(listing->key);
  listings_.erase(listing);
}

void NameCache::drop_old() {
  const MonotonicTime now = executor_.clock().now();
  const MutexLock lock(mutex_);
  armed_ = false;
  for (auto at = listings_.begin(); at != listings_.end();) {
    const auto listing = at++;
    if (listing->until <= now) {
      drop(listing);
    }
  }
  arm(now);
}

// Memory is given back when nothing of it is good any more.
void NameCache::arm(MonotonicTime now) {
  if (listings_.empty() || armed_) {
    return;
  }
  armed_ = true;
  const MonotonicTime last = std::ranges::max(listings_, {}, &Listing::until).until;
  executor_.timers().schedule(last - now, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->drop_old();
    }
  });
}

}  // namespace larder::netfs
