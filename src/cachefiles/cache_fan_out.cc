#include "cachefiles/cache_fan_out.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/accounts.h"
#include "cachefiles/core.h"
#include "cachefiles/in_use.h"
#include "cachefiles/layout.h"
#include "cachefiles/object.h"
#include "cachefiles/space.h"
#include "cachefiles/volume.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

static_assert(kFanOut == culling::kSamples);

constexpr std::size_t kWorthListing = 16;  // names to be removed
constexpr std::size_t kListedForOne = 2;   // map logs, at most

std::uint8_t index_of(std::size_t directory) {
  return static_cast<std::uint8_t>(directory % kFanOut);
}

}  // namespace

Volume& Volumes::find_or_add(Core& core, std::string_view key) {
  const MutexLock lock(mutex_);
  for (const std::unique_ptr<Volume>& volume : volumes_) {
    if (volume->key() == key) {
      return *volume;
    }
  }
  return *volumes_.emplace_back(std::make_unique<Volume>(core, std::string(key)));
}

std::size_t Volumes::size() const {
  const MutexLock lock(mutex_);
  return volumes_.size();
}

Volume& Volumes::at(std::size_t index) {
  const MutexLock lock(mutex_);
  return *volumes_[index];
}

std::size_t Volumes::open_objects() const {
  std::vector<Volume*> volumes;
  {
    const MutexLock lock(mutex_);
    for (const std::unique_ptr<Volume>& volume : volumes_) {
      volumes.push_back(volume.get());
    }
  }
  std::size_t open = 0;
  for (Volume* const volume : volumes) {
    open += volume->in_use().size();
  }
  return open;
}

std::size_t CacheFanOut::directories() {
  return volumes_.size() * kFanOut;
}

Result<> CacheFanOut::list(std::size_t directory,
                           const std::function<bool(culling::Candidate&&)>& visit) {
  Result<std::unique_ptr<os::Directory>> opened =
      volumes_.at(directory / kFanOut).open_fan_out(index_of(directory), false);
  if (!opened) {
    if (opened.error().code() == Errc::kNotFound) {
      return {};
    }
    return fail(core_.note(opened.error()));
  }
  const Result<> listed = (*opened)->list([&](const os::DirectoryEntry& entry) {
    if (is_data_file(entry.name)) {
      const Result<os::FileStat> stat = (*opened)->stat(entry.name);
      if (stat && stat->type == os::NodeType::kFile) {
        return visit({entry.name, *stat, stat->allocated});
      }
    }
    return true;
  });
  if (!listed) {
    return fail(core_.note(listed.error()));
  }
  return {};
}

bool CacheFanOut::in_use(std::size_t directory, std::string_view name) {
  return volumes_.at(directory / kFanOut).in_use().in_use(name);
}

Result<culling::Candidate> CacheFanOut::look_at(std::size_t directory, std::string_view name) {
  const std::unique_ptr<os::Directory> opened =
      TRY(volumes_.at(directory / kFanOut).open_fan_out(index_of(directory), false));
  const os::FileStat stat = TRY(opened->stat(name));
  return culling::Candidate{std::string(name), stat, stat.allocated};
}

Result<culling::Freed> CacheFanOut::cull_one(const Place& place, const culling::Candidate& object) {
  const std::optional<InUse::Claim> claim = place.volume.in_use().claim_unused(object.name);
  if (!claim) {
    return fail(Errc::kBusy, object.name);
  }
  if (place.directories.data == nullptr) {
    return fail(Errc::kNotFound, object.name);
  }
  const os::FileStat now = TRY(place.directories.data->stat(object.name));
  if (now.accessed != object.stat.accessed || now.inode != object.stat.inode) {
    return fail(Errc::kBusy, object.name);  // used in the meantime
  }
  return remove_claimed(place, object.name);
}

Result<culling::Freed> CacheFanOut::remove_claimed(const Place& place, std::string_view name) {
  const Removed removed = TRY(place.volume.remove(place.directories, name));
  if (!removed.existed) {
    return fail(Errc::kNotFound, std::string(name));
  }
  core_.accounts.change(&place.volume.account(place.index),
                        -static_cast<std::int64_t>(removed.bytes), -1);
  core_.counters.culled_objects.add();
  core_.counters.culled_lately.add(core_.clock.now());
  core_.counters.culled_bytes.add(removed.bytes);
  return culling::Freed{removed.bytes, 1};
}

Result<CacheFanOut::Place> CacheFanOut::open_place(std::size_t directory, std::size_t count) {
  Volume& volume = volumes_.at(directory / kFanOut);
  const std::uint8_t index = index_of(directory);
  OpenFanOut directories = TRY(volume.with_maps(index, volume.open_fan_out(index, false)));
  if (count >= kWorthListing) {
    volume.list_logs(index, directories, count * kListedForOne);
  }
  return Place{volume, index, std::move(directories)};
}

std::optional<std::size_t> CacheFanOut::find(std::string_view directory) {
  const std::size_t slash = directory.find('/');
  if (slash == std::string_view::npos || !directory.starts_with('I') ||
      !is_fan_out_directory(directory.substr(slash + 1))) {
    return std::nullopt;
  }
  const std::string_view key = directory.substr(1, slash - 1);
  unsigned index = 0;
  std::from_chars(directory.data() + slash + 2, directory.data() + directory.size(), index, 16);
  for (std::size_t i = 0; i < volumes_.size(); ++i) {
    if (volumes_.at(i).key() == key) {
      return i * kFanOut + index;
    }
  }
  return std::nullopt;
}

Result<std::vector<Result<std::uint64_t>>> CacheFanOut::cull_names(
    std::size_t directory, std::span<const std::string> names) {
  const Place place = TRY(open_place(directory, names.size()));
  std::vector<Result<std::uint64_t>> outcomes;
  outcomes.reserve(names.size());
  for (const std::string& name : names) {
    outcomes.push_back(cull_name(place, name));
  }
  return outcomes;
}

Result<std::uint64_t> CacheFanOut::cull_name(const Place& place, std::string_view name) {
  if (!is_data_file(name)) {
    return fail(Errc::kInvalid, fmt::format("{} is no name of an object", name));
  }
  const std::optional<InUse::Claim> claim = place.volume.in_use().claim_unused(name);
  if (!claim) {
    return fail(Errc::kBusy, std::string(name));
  }
  return TRY(remove_claimed(place, name)).bytes;
}

Result<std::vector<Result<culling::Freed>>> CacheFanOut::cull(
    std::span<const culling::Placed> objects) {
  std::vector<Result<culling::Freed>> answers;
  answers.reserve(objects.size());
  while (!objects.empty()) {
    const std::size_t run = culling::run_of(objects);
    const Place place = TRY(open_place(objects.front().directory, run));
    for (const culling::Placed& object : objects.first(run)) {
      answers.push_back(cull_one(place, object.candidate));
      if (!answers.back() && (answers.back().error().code() == Errc::kIo ||
                              answers.back().error().code() == Errc::kCacheDead)) {
        return fail(answers.back().error());
      }
    }
    objects = objects.subspan(run);
  }
  return answers;
}

bool CacheFanOut::keep_going() {
  const ToFree wanted = core_.space.to_free();
  return core_.usable() && (wanted.bytes > 0 || wanted.files > 0);
}

// Of one nobody has open.
void CacheFanOut::reap_orphan(Volume& volume, std::uint8_t index, std::string_view name) {
  const std::optional<InUse::Claim> claim = volume.in_use().claim_unused(name);
  if (!claim) {
    return;
  }
  const Result<std::unique_ptr<os::Directory>> data = volume.open_fan_out(index, false);
  const Result<os::FileStat> stat =
      data ? (*data)->stat(name) : Result<os::FileStat>(fail(data.error()));
  if (stat || stat.error().code() != Errc::kNotFound) {
    return;
  }
  const Result<Removed> removed = volume.remove(index, name);
  if (removed) {
    log_debug("{}: a map log without its object, removed", name);
  }
}

Result<std::uint64_t> CacheFanOut::tally_maps(Volume& volume, std::uint8_t index) {
  const Result<std::unique_ptr<os::Directory>> maps = volume.map_fan_out(index, false);
  if (!maps) {
    if (maps.error().code() == Errc::kNotFound) {
      return 0;
    }
    return fail(core_.note(maps.error()));
  }
  volume.account_directory(index, **maps, true);
  const Result<std::unique_ptr<os::Directory>> data = volume.open_fan_out(index, false);
  std::uint64_t bytes = 0;
  const Result<> listed = (*maps)->list([&](const os::DirectoryEntry& entry) {
    if (volume.in_use().in_use(entry.name)) {
      return true;
    }
    const Result<os::FileStat> object =
        data ? (*data)->stat(entry.name) : Result<os::FileStat>(fail(data.error()));
    if (!object && object.error().code() == Errc::kNotFound) {
      reap_orphan(volume, index, entry.name);
      return true;
    }
    const Result<os::FileStat> stat = (*maps)->stat(entry.name);
    bytes += stat ? stat->allocated : 0;
    return true;
  });
  if (!listed) {
    return fail(core_.note(listed.error()));
  }
  return bytes;
}

Result<CacheFanOut::Tally> CacheFanOut::tally(std::size_t directory, culling::LargeObjects& large,
                                              std::uint64_t large_from) {
  Volume& volume = volumes_.at(directory / kFanOut);
  const std::uint8_t index = index_of(directory);
  Tally tally;
  TRY(list(directory, [&](culling::Candidate&& object) {
    ++tally.objects;
    bool open = false;
    volume.in_use().look_at(object.name, [&](const Object& user) {
      tally.bytes += user.linked_bytes();
      open = true;
    });
    tally.bytes += open ? 0 : object.bytes;
    if (object.bytes >= large_from) {
      large.add(directory, object.name, object.bytes);
    }
    return true;
  }));
  tally.bytes += TRY(tally_maps(volume, index));
  const Result<std::unique_ptr<os::Directory>> data = volume.open_fan_out(index, false);
  if (data) {
    volume.account_directory(index, **data, false);
  }
  return tally;
}

Result<> CacheFanOut::count(std::size_t directory, culling::LargeObjects& large,
                            std::uint64_t large_from) {
  DirectoryAccount& account = volumes_.at(directory / kFanOut).account(index_of(directory));
  for (;;) {
    (void)TRY(tally(directory, large, large_from));  // settles what the directories themselves take
    const std::uint64_t before = core_.accounts.changes_of(account);
    const Tally found = TRY(tally(directory, large, large_from));
    if (core_.accounts.counted(account, before, found.bytes, found.objects)) {
      large.note_looked_at(directory + 1);
      return {};
    }
  }
}

Result<> CacheFanOut::find_large(culling::LargeObjects& large, std::uint64_t large_from,
                                 const std::function<bool()>& is_enough) {
  return large.find_more(
      directories(),
      [&](std::size_t directory) { return find_large_in(directory, large, large_from); },
      is_enough);
}

Result<> CacheFanOut::find_large_in(std::size_t directory, culling::LargeObjects& large,
                                    std::uint64_t large_from) {
  Volume& volume = volumes_.at(directory / kFanOut);
  const std::uint8_t index = index_of(directory);
  const Result<std::unique_ptr<os::Directory>> maps = volume.map_fan_out(index, false);
  const Result<std::unique_ptr<os::Directory>> data = volume.open_fan_out(index, false);
  if (!maps || !data) {
    return {};
  }
  const Result<> listed = (*maps)->list([&](const os::DirectoryEntry& entry) {
    const Result<os::FileStat> object = (*data)->stat(entry.name);
    if (object && object->allocated >= large_from) {
      large.add(directory, entry.name, object->allocated);
    }
    return true;
  });
  if (!listed) {
    return fail(core_.note(listed.error()));
  }
  return {};
}

}  // namespace larder::cachefiles
