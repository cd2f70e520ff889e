#include "netfs/inode.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/mutex.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"

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
bool begins_at(const Change& change, const Attributes& known) {
  return change.before && change.before->size == known.size &&
         change.before->modified == known.modified && change.before->changed == known.changed;
}

}  // namespace

Inode::Inode(InodeTable& table, const FileHandle& handle, const EarlierAttributes& known)
    : table_(table),
      handle_(handle),
      type_(known.attributes.type),
      changed_at_(known.ticket),
      timeout_ms_(least_timeout(table.times_, type_)),
      checked_at_(known.at),
      attributes_(known.attributes) {}

Inode::~Inode() {
  table_.forget(*this);
}

FreshAttributes Inode::attributes() const {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now - checked_at_);
  const auto left = std::chrono::milliseconds(timeout_ms_) - age;
  return {attributes_, std::max(left, std::chrono::milliseconds(0))};
}

AttributeNews Inode::update(const Attributes& attributes, CheckTicket ticket) {
  const MonotonicTime now = table_.clock_.now();
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (same_version(attributes, attributes_)) {
    timeout_ms_ = std::min(std::max(timeout_ms_ * 2, least_timeout(table_.times_, type_)),
                           most_timeout(table_.times_, type_));
    checked_at_ = now;
    attributes_ = attributes;
    return AttributeNews::kSame;
  }
  if (ticket < changed_at_ || own_ != nullptr) {
    timeout_ms_ = 0;
    return AttributeNews::kLate;
  }
  changed_at_ = table_.begin_check();
  front_outdated_ = true;
  attributes_ = attributes;
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
    if (change->before && change->after) {
      own_->early.push_back(*change);
    } else {
      own_->lost = true;
      if (change->after) {
        attributes_ = *change->after;
      }
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

// One of them is answered. Follows the chain as far as it goes.
AttributeNews Inode::settle_own_changes(MonotonicTime now) {
  for (auto next = own_->early.begin(); next != own_->early.end();) {
    if (begins_at(*next, attributes_)) {
      attributes_ = *next->after;
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
  const std::unique_ptr<OwnChanges> over = std::move(own_);
  if (!over->lost && over->early.empty()) {
    return AttributeNews::kOwn;
  }
  // The newest is the best guess until the server was asked.
  for (const Change& change : over->early) {
    if (change.after->changed >= attributes_.changed) {
      attributes_ = *change.after;
    }
  }
  timeout_ms_ = 0;
  front_outdated_ = true;
  return AttributeNews::kChanged;
}

bool Inode::confirm(const EarlierAttributes& earlier) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (earlier.attributes.type != type_ || !same_version(earlier.attributes, attributes_)) {
    return false;
  }
  if (earlier.at > checked_at_) {
    timeout_ms_ = std::max(timeout_ms_, least_timeout(table_.times_, type_));
    checked_at_ = earlier.at;
    attributes_ = earlier.attributes;
  }
  return true;
}

void Inode::expire() {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  timeout_ms_ = 0;
}

std::shared_ptr<File> Inode::file() const {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  return file_.lock();
}

std::shared_ptr<File> Inode::set_file(const std::shared_ptr<File>& file) {
  const MutexLock lock(table_.shard_of(handle_).mutex);
  if (auto existing = file_.lock()) {
    return existing;
  }
  file_ = file;
  return file;
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
  {
    Shard& shard = shard_of(handle);
    const MutexLock lock(shard.mutex);
    std::weak_ptr<Inode>& entry = shard.inodes[handle];
    found = entry.lock();
    if (found == nullptr || found->type() != known.attributes.type) {
      auto made = std::make_shared<Inode>(*this, handle, known);
      entry = made;
      return made;
    }
  }
  return found;
}

InodeRef InodeTable::find(const FileHandle& handle) const {
  Shard& shard = shard_of(handle);
  const MutexLock lock(shard.mutex);
  const auto found = shard.inodes.find(handle);
  return found == shard.inodes.end() ? nullptr : found->second.lock();
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
  const auto found = shard.inodes.find(inode.handle());
  // A new inode of the handle may have taken the place already.
  if (found != shard.inodes.end() && found->second.expired()) {
    shard.inodes.erase(found);
  }
}

}  // namespace larder::netfs
