#include "netfs/inode.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/coherency.h"
#include "netfs/file.h"

namespace larder::netfs {

namespace {

std::uint32_t least_timeout(const AttributeTimes& times, FileType type) {
  const auto least = type == FileType::kDirectory ? times.directory_least : times.file_least;
  return static_cast<std::uint32_t>(least.count());
}

std::uint32_t most_timeout(const AttributeTimes& times, FileType type) {
  const auto most = type == FileType::kDirectory ? times.directory_most : times.file_most;
  return static_cast<std::uint32_t>(most.count());
}

// Whether a change began at what is known.
bool begins_at(const BeforeChange& before, const Attributes& known) {
  return before.size == known.size && before.modified == known.modified &&
         before.changed == known.changed;
}

constexpr std::size_t kLeastBuckets = 16;

std::size_t bucket_index(const FileHandle& handle, std::size_t buckets) {
  return FileHandleHash()(handle) / InodeTable::kShards % buckets;  // the rest chose the shard
}

// Another version, that is not surely the older one.
bool may_follow(const Attributes& told, const Attributes& known) {
  return !same_version(told, known) && told.changed >= known.changed;
}

}  // namespace

Inode::Inode(InodeTable& table, const FileHandle& handle, const EarlierAttributes& known)
    : handle_(handle),
      type_(known.attributes.type),
      timeout_ms_(least_timeout(table.times_, type_)),
      changed_at_(known.ticket),
      checked_at_(known.at),
      attributes_(known.attributes),
      table_(table) {}

Inode::~Inode() {
  table_.forget(*this);
}

std::chrono::milliseconds Inode::fresh_for(MonotonicTime now) const {
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now - checked_at_);
  return std::max(std::chrono::milliseconds(timeout_ms_) - age, std::chrono::milliseconds(0));
}

std::chrono::milliseconds Inode::server_fresh_for() const {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return has_parked_changes() ? std::chrono::milliseconds(0) : fresh_for(now);
}

// Answered changes of ours whose place in the chain is not known yet.
bool Inode::has_parked_changes() const {
  return own_ != nullptr && !own_->early.empty();
}

// The best guess until their place is known, or the server was asked.
const Attributes& Inode::newest() const {
  const Attributes* newest = &attributes_;
  if (own_ != nullptr) {
    for (const OwnChanges::Step& step : own_->early) {
      newest = step.after.changed >= newest->changed ? &step.after : newest;
    }
  }
  return *newest;
}

FreshAttributes Inode::attributes() const {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return shown(newest(), now);
}

FreshAttributes Inode::attributes_after(const Attributes& told) const {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return shown(unsure_ ? told : newest(), now);
}

bool Inode::is_unsure() const {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return unsure_;
}

FreshAttributes Inode::shown(const Attributes& attributes, MonotonicTime now) const {
  FreshAttributes known{attributes, fresh_for(now)};
  if (has_parked_changes() || unsure_) {
    known.fresh_for = {};
  }
  if (hidden_ && known.attributes.link_count > 0) {
    --known.attributes.link_count;
  }
  if (own_ != nullptr && own_->answered_end > 0) {
    known.attributes.size = std::max(known.attributes.size, own_->answered_end);
    known.fresh_for = {};
  }
  return known;
}

void Inode::set_hidden(bool hidden) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  hidden_ = hidden;
  unhiding_ = false;
}

void Inode::begin_unhiding() {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  unhiding_ = true;
}

// While a hidden name goes nobody here knows whether the server still counts it, but by the number.
void Inode::take(const Attributes& attributes) {
  if (unhiding_ && attributes.link_count < attributes_.link_count) {
    hidden_ = false;
    unhiding_ = false;
  }
  attributes_ = attributes;
}

bool Inode::has_other_names() const {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return hidden_ || (timeout_ms_ > 0 && attributes_.link_count > 1);
}

AttributeNews Inode::update(const Attributes& attributes, CheckTicket ticket) {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (same_version(attributes, attributes_)) {
    if (ticket < expired_at_) {
      return AttributeNews::kSame;  // said before something that it may not tell of
    }
    if (ticket >= changed_at_) {
      unsure_ = false;
    }
    timeout_ms_ = std::min(std::max(timeout_ms_ * 2, least_timeout(table_.times_, type_)),
                           most_timeout(table_.times_, type_));
    checked_at_ = now;
    take(attributes);
    return AttributeNews::kSame;
  }
  const bool is_among_own = own_ != nullptr && own_->under_way > 0;
  if (ticket < changed_at_ || is_among_own) {
    timeout_ms_ = 0;
    if (is_among_own) {
      unsure_ = true;
      std::optional<Attributes>& told = own_->told;
      if (!told || told->changed <= attributes.changed) {
        told = attributes;
      }
    }
    return AttributeNews::kLate;
  }
  unsure_ = false;
  changed_at_ = table_.begin_check();
  front_outdated_ = true;
  others_changed_ = true;
  take(attributes);
  checked_at_ = now;
  timeout_ms_ = least_timeout(table_.times_, type_);
  return AttributeNews::kChanged;
}

void Inode::begin_own_change() {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (own_ == nullptr) {
    own_ = std::make_unique<OwnChanges>();
  }
  ++own_->under_way;
}

AttributeNews Inode::end_own_change(const Change* change) {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (change != nullptr) {
    changed_at_ = table_.begin_check();
    const std::optional<BeforeChange>& before = change->before;
    const std::optional<Attributes>& after = change->after;
    if (before && after) {
      own_->early.push_back({*before, *after});
    } else {
      (after ? own_->untold : own_->lost) = true;
      take(after.value_or(attributes_));
    }
  }
  return settle_own_changes(now);
}

AttributeNews Inode::end_unknown_change() {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  changed_at_ = table_.begin_check();
  own_->lost = true;
  return settle_own_changes(now);
}

void Inode::set_answered_end(std::uint64_t end) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (own_ == nullptr && end > 0) {
    own_ = std::make_unique<OwnChanges>();
  }
  if (own_ != nullptr) {
    own_->answered_end = end;
    if (end == 0 && own_->under_way == 0) {
      own_.reset();
    }
  }
}

// One of them is answered. Follows the chain as far as it goes.
AttributeNews Inode::settle_own_changes(MonotonicTime now) {
  for (auto next = own_->early.begin(); next != own_->early.end();) {
    if (begins_at(next->before, attributes_)) {
      take(next->after);
      unsure_ = false;
      checked_at_ = now;
      timeout_ms_ = least_timeout(table_.times_, type_);
      own_->early.erase(next);
      next = own_->early.begin();
    } else {
      ++next;
    }
  }
  if (--own_->under_way > 0) {
    return AttributeNews::kOwn;
  }
  const bool untold = std::exchange(own_->untold, false);
  const bool torn = std::exchange(own_->lost, false) || has_parked_changes();
  take(newest());
  own_->early.clear();
  const std::optional<Attributes> told = std::exchange(own_->told, std::nullopt);
  if (own_->answered_end == 0) {
    own_.reset();
  }
  unsure_ = unsure_ || untold || torn || (told && may_follow(*told, attributes_));
  if (!untold && !torn) {
    return AttributeNews::kOwn;
  }
  timeout_ms_ = 0;
  front_outdated_ = true;
  others_changed_ = true;
  return torn ? AttributeNews::kChanged : AttributeNews::kUntold;
}

bool Inode::own_changes_fit() const {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return !has_parked_changes() && (own_ == nullptr || !own_->lost);
}

bool Inode::watch_for_others() {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  others_changed_ = false;
  return attributes_.size == 0 && !has_parked_changes();
}

std::optional<Attributes> Inode::unless_others_changed() const {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  const bool answered = own_ == nullptr || (own_->under_way == 0 && own_->early.empty());
  return answered && !others_changed_ ? std::optional(attributes_) : std::nullopt;
}

bool Inode::confirm(const EarlierAttributes& earlier) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (earlier.attributes.type != type_ || !same_version(earlier.attributes, attributes_)) {
    return false;
  }
  if (earlier.at > checked_at_ && earlier.ticket >= expired_at_) {
    timeout_ms_ = std::max(timeout_ms_, least_timeout(table_.times_, type_));
    checked_at_ = earlier.at;
    take(earlier.attributes);
  }
  return true;
}

void Inode::expire() {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  expired_at_ = table_.begin_check();
  timeout_ms_ = 0;
}

std::shared_ptr<File> Inode::file() const {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return file_ == nullptr ? nullptr : file_->weak_from_this().lock();
}

std::shared_ptr<File> Inode::set_file(const std::shared_ptr<File>& file) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (file_ != nullptr) {
    if (auto existing = file_->weak_from_this().lock()) {
      return existing;
    }
  }
  file_ = file.get();
  return file;
}

void Inode::clear_file(const File& file) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (file_ == &file) {  // else a newer one took its place
    file_ = nullptr;
  }
}

Inode* InodeBuckets::find(const FileHandle& handle) const {
  if (buckets_.empty()) {
    return nullptr;
  }
  Inode* inode = buckets_[bucket_index(handle, buckets_.size())];
  while (inode != nullptr && inode->handle_ != handle) {
    inode = inode->next_of_bucket_;
  }
  return inode;
}

void InodeBuckets::insert(Inode& inode) {
  if (size_ >= buckets_.size() * 2) {
    resize(std::max(buckets_.size() * 2, kLeastBuckets));
  }
  inode.next_of_bucket_ = std::exchange(bucket_of(inode.handle_), &inode);
  ++size_;
}

void InodeBuckets::erase(const Inode& inode) {
  if (buckets_.empty()) {
    return;
  }
  Inode** link = &bucket_of(inode.handle_);
  while (*link != nullptr && *link != &inode) {
    link = &(*link)->next_of_bucket_;
  }
  if (*link == nullptr) {
    return;
  }
  *link = inode.next_of_bucket_;
  --size_;
  if (size_ < buckets_.size() / 4 && buckets_.size() > kLeastBuckets) {
    resize(buckets_.size() / 2);
  }
}

Inode*& InodeBuckets::bucket_of(const FileHandle& handle) {
  return buckets_[bucket_index(handle, buckets_.size())];
}

void InodeBuckets::resize(std::size_t buckets) {
  const std::vector<Inode*> old = std::exchange(buckets_, std::vector<Inode*>(buckets));
  for (Inode* inode : old) {
    while (inode != nullptr) {
      Inode* const next = inode->next_of_bucket_;
      inode->next_of_bucket_ = std::exchange(bucket_of(inode->handle_), inode);
      inode = next;
    }
  }
}

InodeRef InodeTable::find_or_confirm(const FileHandle& handle, const EarlierAttributes& known) {
  if (known.ticket < forgotten_change_) {
    return nullptr;  // it may have been this one
  }
  const InodeRef inode = find_or_make(handle, known);
  return inode->confirm(known) ? inode : nullptr;
}

InodeRef InodeTable::find_or_make(const FileHandle& handle, const EarlierAttributes& known) {
  InodeRef found;  // outlives the lock: its destructor takes it
  Shard& shard = shard_of(handle);
  const MutexLock lock(shard.mutex);
  if (Inode* const existing = shard.inodes.find(handle)) {
    found = existing->weak_from_this().lock();
    if (found != nullptr && found->type() == known.attributes.type) {
      return found;
    }
    shard.inodes.erase(*existing);
  }
  InodeRef made = std::make_shared<Inode>(*this, handle, known);
  shard.inodes.insert(*made);
  return made;
}

InodeRef InodeTable::find(const FileHandle& handle) const {
  Shard& shard = shard_of(handle);
  const MutexLock lock(shard.mutex);
  Inode* const found = shard.inodes.find(handle);
  return found == nullptr ? nullptr : found->weak_from_this().lock();
}

std::size_t InodeTable::size() const {
  std::size_t size = 0;
  for (Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    size += shard.inodes.size();
  }
  return size;
}

void InodeTable::forget(const Inode& inode) {
  Shard& shard = shard_of(inode.handle());
  const MutexLock lock(shard.mutex);
  CheckTicket forgotten = forgotten_change_;
  while (forgotten < inode.changed_at_ &&
         !forgotten_change_.compare_exchange_weak(forgotten, inode.changed_at_)) {
  }
  shard.inodes.erase(inode);  // unless a new inode of the handle has taken its place
}

}  // namespace larder::netfs
