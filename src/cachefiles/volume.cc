#include "cachefiles/volume.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"
#include "cachefiles/content_map.h"
#include "cachefiles/core.h"
#include "cachefiles/in_use.h"
#include "cachefiles/key.h"
#include "cachefiles/layout.h"
#include "cachefiles/object.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// Tidy removes a directory once in a round, and that of its volume.
constexpr int kMostPuts = 3;

bool was_removed(os::Directory& directory) {
  const Result<os::FileStat> stat = directory.stat_self();
  return stat && stat->link_count == 0;
}

Result<> put_again(const std::function<Result<>()>& put) {
  for (int left = kMostPuts;; --left) {
    Result<> done = put();
    if (done || done.error().code() != Errc::kNotFound || left == 1) {
      return done;
    }
  }
}

}  // namespace

Volume::Volume(Core& core, std::string key)
    : core_(core), key_(std::move(key)), hash_(hash_of_volume(key_)) {}

std::uint8_t Volume::fan_out_of(std::string_view object_key) const {
  return static_cast<std::uint8_t>(hash_of_key(hash_, object_key) & 0xFFU);
}

Result<Volume::Opened> Volume::open_beneath(os::Directory& parent, std::string_view name,
                                            bool create) {
  Result<std::unique_ptr<os::Directory>> opened = parent.open_directory(name);
  if (opened) {
    return Opened{std::move(*opened), false};
  }
  if (!create && opened.error().code() == Errc::kNotFound) {
    return fail(opened.error());
  }
  // Something else has the name: a file, a symbolic link, another mount.
  if (opened.error().code() != Errc::kNotFound) {
    if (core_.note(opened.error()).code() == Errc::kIo) {
      return fail(opened.error());
    }
    core_.counters.damaged_objects.add();
    TRY(core_.bury(parent, name));
    if (!create) {
      return fail(Errc::kNotFound, std::string(name));
    }
  }
  const Result<> made = parent.make_directory(name, kDirectoryMode);
  if (!made && made.error().code() != Errc::kExists) {
    return fail(core_.note(made.error()));
  }
  Opened anew;
  anew.directory = TRY(parent.open_directory(name));
  anew.made = made.has_value();
  return anew;
}

// A name is linked and unlinked by the holder of its claim, who comes here behind it: what is there
// now may go as long as it is empty, but the name cannot come into another one meanwhile.
Result<std::shared_ptr<os::Directory>> Volume::fan_out(std::uint8_t index, bool create) {
  std::shared_ptr<os::Directory> directory = core_.kept_directories.find(*this, index);
  if (directory == nullptr || was_removed(*directory)) {
    forget_fan_out(index);
    directory = TRY(open_fan_out(index, create));
    core_.kept_directories.keep(*this, index, directory);
  }
  return directory;
}

void Volume::forget_fan_out(std::uint8_t index) {
  core_.kept_directories.forget(*this, index);
}

Result<> Volume::put_in_fan_out(std::uint8_t index, const Put& put) {
  return put_again([&]() -> Result<> {
    const std::shared_ptr<os::Directory> directory = TRY(fan_out(index, true));
    return put(directory);
  });
}

Result<> Volume::put_in_maps(std::uint8_t index, const Put& put) {
  return put_again([&]() -> Result<> {
    const std::shared_ptr<os::Directory> directory = TRY(map_fan_out(index, true));
    return put(directory);
  });
}

// Only an empty one can be removed, and one that was takes no names: whoever has it open is told.
void Volume::remove_if_empty(std::uint8_t index, os::Directory& directory, bool map_directory) {
  const Result<std::unique_ptr<os::Directory>> parent =
      top(map_directory).open_directory(volume_directory(key_));
  const Result<os::FileStat> stat = directory.stat_self();
  if (!parent || !stat) {
    return;
  }
  // Before it goes: who makes it anew counts it anew.
  core_.accounts.directory_goes(accounts_[index], stat->allocated, map_directory);
  const Result<> removed = (*parent)->remove_directory(fan_out_directory(index));
  if (!removed) {
    account_directory(index, directory, map_directory);
    if (removed.error().code() == Errc::kIo) {
      (void)core_.note(removed.error());
    }
  } else if (!map_directory) {
    forget_fan_out(index);
  }
}

Result<std::unique_ptr<os::Directory>> Volume::open_fan_out(std::uint8_t index, bool create) {
  return open_fan_out_in(false, index, create);
}

Result<std::unique_ptr<os::Directory>> Volume::map_fan_out(std::uint8_t index, bool create) {
  return open_fan_out_in(true, index, create);
}

Result<std::unique_ptr<os::Directory>> Volume::open_fan_out_in(bool maps, std::uint8_t index,
                                                               bool create) {
  const std::string outer = volume_directory(key_);
  const std::string inner = fan_out_directory(index);
  Result<std::unique_ptr<os::Directory>> opened = top(maps).open_directory_in(outer, inner);
  if (opened || (!create && opened.error().code() == Errc::kNotFound)) {
    return opened;
  }
  if (opened.error().code() == Errc::kIo) {
    return fail(core_.note(opened.error()));
  }
  const Opened volume = TRY(open_beneath(top(maps), outer, create));
  Opened fan_out = TRY(open_beneath(*volume.directory, inner, create));
  if (fan_out.made) {
    core_.accounts.directory_made(accounts_[index], maps);
  }
  return std::move(fan_out.directory);
}

void Volume::account_directory(std::uint8_t index, os::Directory& directory, bool map_directory) {
  const Result<os::FileStat> stat = directory.stat_self();
  if (stat) {
    core_.accounts.directory_itself(accounts_[index], stat->allocated, map_directory);
  }
}

std::size_t Volume::stamp_open_objects(double seconds, std::size_t most) {
  const os::FileTime now = core_.file_time();
  const std::vector<std::string> due = in_use_.names_where(
      [&](const Object& object) { return object.stamp_due(now, seconds); }, most);
  for (const std::string& name : due) {
    const std::optional<InUse::Claim> claim = in_use_.try_claim(name);
    if (!claim) {
      continue;  // being opened or closed, or changed: the next time
    }
    for (Object* const object : in_use_.marked(name)) {
      if (object->stamp_due(now, seconds)) {
        object->stamp_last_use();
      }
    }
  }
  return due.size();
}

Result<OpenFanOut> Volume::with_maps(std::uint8_t index,
                                     Result<std::shared_ptr<os::Directory>> data) {
  OpenFanOut both;
  if (data) {
    both.data = std::move(*data);
  } else if (data.error().code() != Errc::kNotFound) {
    return fail(core_.note(data.error()));
  }
  Result<std::unique_ptr<os::Directory>> maps = map_fan_out(index, false);
  if (maps) {
    both.maps = std::move(*maps);
  } else if (maps.error().code() != Errc::kNotFound) {
    return fail(core_.note(maps.error()));
  }
  return both;
}

void Volume::list_logs(std::uint8_t index, OpenFanOut& directories, std::size_t most) const {
  if (directories.maps == nullptr) {
    return;
  }
  directories.made_now = &logs_made_[index];
  directories.made_before = logs_made_[index];
  std::set<std::string, std::less<>> names;
  const Result<> listed = directories.maps->list([&](const os::DirectoryEntry& entry) {
    names.insert(entry.name);
    return names.size() <= most;
  });
  if (listed && names.size() <= most) {
    directories.logs = std::move(names);
  }
}

Result<Removed> Volume::remove(std::uint8_t index, std::string_view name) {
  const OpenFanOut directories = TRY(with_maps(index, fan_out(index, false)));
  return remove(directories, name);
}

// The map log first: one without its file is only in the way.
Result<Removed> Volume::remove(const OpenFanOut& directories, std::string_view name) {
  Removed removed;
  if (directories.may_have_log(name)) {
    const std::optional<os::FileStat> log = TRY(core_.bury(*directories.maps, name));
    removed.bytes += log ? log->allocated : 0;
  }
  if (directories.data != nullptr) {
    const std::optional<os::FileStat> file = TRY(core_.bury(*directories.data, name));
    if (file && file->type == os::NodeType::kFile) {
      removed.existed = true;
      removed.bytes += file->allocated;
      core_.write_back.let_go(file->inode);
    }
  }
  return removed;
}

Result<std::unique_ptr<fscache::BackendObject>> OpenVolume::open_object(
    const fscache::ObjectDescription& description) {
  if (!volume_.core().usable()) {
    return fail(Errc::kCacheDead, "the cache was given up");
  }
  if (description.key.empty() || description.key.size() > 128) {
    return fail(Errc::kInvalid, fmt::format("a key of {} bytes", description.key.size()));
  }
  if (description.size > ContentMap::kMostFileBytes) {
    return fail(Errc::kNotSupported, fmt::format("a file of {} bytes", description.size));
  }
  return Object::open(volume_, description);
}

Result<> OpenVolume::discard(std::string_view key) {
  return Object::discard(volume_, key);
}

}  // namespace larder::cachefiles
