#include "cachefiles/in_use.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"

namespace larder::cachefiles {

InUse::Claim InUse::claim(std::string_view name) {
  const std::string key(name);
  const MutexLock lock(mutex_);
  ++entries_[key].waiting;  // keeps the entry while we wait
  while (entries_[key].claimed) {
    released_.wait(mutex_);
  }
  Entry& entry = entries_[key];
  --entry.waiting;
  entry.claimed = true;
  return {this, key};
}

std::optional<InUse::Claim> InUse::claim_unused(std::string_view name) {
  std::string key(name);
  const MutexLock lock(mutex_);
  if (entries_.contains(key)) {
    return std::nullopt;
  }
  entries_[key].claimed = true;
  return Claim(this, std::move(key));
}

std::optional<InUse::Claim> InUse::try_claim(std::string_view name) {
  std::string key(name);
  const MutexLock lock(mutex_);
  Entry& entry = entries_[key];
  if (entry.claimed) {
    return std::nullopt;
  }
  entry.claimed = true;
  return Claim(this, std::move(key));
}

std::vector<std::string> InUse::names_where(const std::function<bool(const Object&)>& which,
                                            std::size_t most) const {
  std::vector<std::string> names;
  const MutexLock lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    if (names.size() < most &&
        std::ranges::any_of(entry.objects, [&](const Object* object) { return which(*object); })) {
      names.push_back(name);
    }
  }
  return names;
}

void InUse::release(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto found = entries_.find(name);
  CHECK(found != entries_.end() && found->second.claimed);
  found->second.claimed = false;
  if (found->second.waiting > 0) {
    released_.notify_all();
  }
  forget_if_empty(name);
}

void InUse::forget_if_empty(const std::string& name) {
  const auto found = entries_.find(name);
  if (!found->second.claimed && found->second.waiting == 0 && found->second.objects.empty()) {
    entries_.erase(found);
  }
}

void InUse::mark(std::string_view name, Object* object) {
  const MutexLock lock(mutex_);
  entries_[std::string(name)].objects.push_back(object);
}

// Of two versions that are open the second has the name, and may be closed first.
std::uint64_t InUse::unmark(std::string_view name, Object* object, std::uint64_t bytes) {
  const std::string key(name);
  const MutexLock lock(mutex_);
  Entry& entry = entries_[key];
  std::erase(entry.objects, object);
  entry.bytes = std::max(entry.bytes, bytes);
  const std::uint64_t released = entry.objects.empty() ? std::exchange(entry.bytes, 0) : 0;
  forget_if_empty(key);
  return released;
}

std::vector<Object*> InUse::marked(std::string_view name) const {
  const MutexLock lock(mutex_);
  const auto found = entries_.find(std::string(name));
  return found == entries_.end() ? std::vector<Object*>() : found->second.objects;
}

bool InUse::in_use(std::string_view name) const {
  const MutexLock lock(mutex_);
  return entries_.contains(std::string(name));
}

void InUse::look_at(std::string_view name, const std::function<void(const Object&)>& look) const {
  const MutexLock lock(mutex_);
  const auto found = entries_.find(std::string(name));
  if (found != entries_.end()) {
    for (const Object* object : found->second.objects) {
      look(*object);
    }
  }
}

std::size_t InUse::size() const {
  const MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace larder::cachefiles
