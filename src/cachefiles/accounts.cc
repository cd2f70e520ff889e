#include "cachefiles/accounts.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/mutex.h"
#include "base/result.h"

namespace larder::cachefiles {
namespace {

std::optional<std::uint64_t>& known_of(DirectoryAccount& directory, bool map_directory) {
  return map_directory ? directory.map_bytes : directory.own_bytes;
}

}  // namespace

void Accounts::note(DirectoryAccount* directory, std::int64_t bytes, std::int64_t objects) {
  if (directory == nullptr) {
    nameless_ += bytes;
    return;
  }
  ++directory->changes;
  if (round_ != 0 && directory->round == round_) {
    round_bytes_ += bytes;
    round_objects_ += objects;
  }
}

Result<> Accounts::reserve(DirectoryAccount* directory, std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  TRY(space_.reserve(bytes));
  note(directory, static_cast<std::int64_t>(bytes), 0);
  return {};
}

void Accounts::change(DirectoryAccount* directory, std::int64_t bytes, std::int64_t objects) {
  const MutexLock lock(mutex_);
  note(directory, bytes, objects);
  space_.adjust(bytes, objects);
}

void Accounts::linked(DirectoryAccount& directory, std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  note(nullptr, -static_cast<std::int64_t>(bytes), 0);
  note(&directory, static_cast<std::int64_t>(bytes), 1);
  space_.adjust(0, 1);
}

void Accounts::unlinked(DirectoryAccount& directory, std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  note(&directory, -static_cast<std::int64_t>(bytes), -1);
  note(nullptr, static_cast<std::int64_t>(bytes), 0);
  space_.adjust(0, -1);
}

void Accounts::settle(DirectoryAccount& directory, std::uint64_t before, std::uint64_t after) {
  const std::int64_t grown = static_cast<std::int64_t>(after) - static_cast<std::int64_t>(before);
  if (grown != 0) {
    note(&directory, grown, 0);
    space_.adjust(grown, 0);
  }
}

void Accounts::directory_itself(DirectoryAccount& directory, std::uint64_t bytes,
                                bool map_directory) {
  const MutexLock lock(mutex_);
  std::optional<std::uint64_t>& known = known_of(directory, map_directory);
  settle(directory, known.value_or(bytes), bytes);
  known = bytes;
}

void Accounts::directory_made(DirectoryAccount& directory, bool map_directory) {
  const MutexLock lock(mutex_);
  std::optional<std::uint64_t>& known = known_of(directory, map_directory);
  settle(directory, known.value_or(0), 0);  // somebody else removed it, or nobody
  known = 0;
}

void Accounts::directory_goes(DirectoryAccount& directory, std::uint64_t bytes,
                              bool map_directory) {
  const MutexLock lock(mutex_);
  std::optional<std::uint64_t>& known = known_of(directory, map_directory);
  settle(directory, known.value_or(bytes), 0);
  known = 0;
}

void Accounts::begin_round() {
  const MutexLock lock(mutex_);
  ++round_;
  round_bytes_ = 0;
  round_objects_ = 0;
}

std::uint64_t Accounts::changes_of(const DirectoryAccount& directory) const {
  const MutexLock lock(mutex_);
  return directory.changes;
}

bool Accounts::counted(DirectoryAccount& directory, std::uint64_t changes_before,
                       std::uint64_t bytes, std::uint64_t objects) {
  const MutexLock lock(mutex_);
  if (directory.changes != changes_before) {
    return false;
  }
  directory.round = round_;
  round_bytes_ += static_cast<std::int64_t>(bytes + directory.own_bytes.value_or(0) +
                                            directory.map_bytes.value_or(0));
  round_objects_ += static_cast<std::int64_t>(objects);
  return true;
}

void Accounts::finish_round(std::uint64_t fixed_bytes) {
  const MutexLock lock(mutex_);
  const std::int64_t total = round_bytes_ + nameless_ + static_cast<std::int64_t>(fixed_bytes);
  space_.set_totals(static_cast<std::uint64_t>(std::max<std::int64_t>(total, 0)),
                    static_cast<std::uint64_t>(std::max<std::int64_t>(round_objects_, 0)), true);
}

}  // namespace larder::cachefiles
