#include "cachefiles/tidy.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefiles/cache_fan_out.h"
#include "cachefiles/core.h"
#include "cachefiles/in_use.h"
#include "cachefiles/layout.h"
#include "cachefiles/volume.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr Duration kStepFor = std::chrono::milliseconds(20);
constexpr Duration kAtLatest = std::chrono::hours(1);
constexpr int kPausePerWork = 100;
constexpr std::size_t kMostAtOnce = 1024;            // of one directory, in a round
constexpr std::size_t kPartsOfVolume = kFanOut + 1;  // its directories, and their own

std::optional<os::NodeType> type_of(os::Directory& directory, const os::DirectoryEntry& entry) {
  if (entry.type) {
    return entry.type;
  }
  const Result<os::FileStat> stat = directory.stat(entry.name);
  return stat ? std::optional(stat->type) : std::nullopt;
}

}  // namespace

Tidy::Tidy(Core& core, Volumes& volumes)
    : core_(core),
      volumes_(volumes),
      not_before_(core.clock.now()),
      again_(not_before_ + kAtLatest) {}

bool Tidy::is_due(MonotonicTime now) const {
  return now >= not_before_ && (asked_ || now >= again_);
}

bool Tidy::work() {
  const MonotonicTime began = core_.clock.now();
  if (!next_) {
    if (!is_due(began)) {
      return false;
    }
    asked_ = false;
    next_ = 0;
    worked_ = {};
  }
  const std::size_t parts = 1 + volumes_.size() * kPartsOfVolume;
  MonotonicTime now = began;
  while (*next_ < parts && core_.usable() && now - began < kStepFor) {
    look_at((*next_)++);
    now = core_.clock.now();
  }
  worked_ += now - began;
  if (*next_ >= parts) {
    next_.reset();
    not_before_ = now + kPausePerWork * worked_;
    again_ = now + kAtLatest;
  }
  return true;
}

void Tidy::look_at(std::size_t part) {
  if (part == 0) {
    sweep(*core_.cache, Level::kVolumes, nullptr);
    sweep(*core_.maps, Level::kVolumes, nullptr);
    return;
  }
  Volume& volume = volumes_.at((part - 1) / kPartsOfVolume);
  const std::size_t of_volume = (part - 1) % kPartsOfVolume;
  if (of_volume < kFanOut) {
    look_at_fan_out(volume, static_cast<std::uint8_t>(of_volume));
  } else {
    look_at_volume(volume);
  }
}

// That of the map logs first: who is bound knows its volumes by those below cache/.
void Tidy::look_at_volume(Volume& volume) {
  const std::string name = volume_directory(volume.key());
  bool may_go = !volume.is_used();
  for (os::Directory* const top : {core_.maps.get(), core_.cache.get()}) {
    const Result<std::unique_ptr<os::Directory>> opened = top->open_directory(name);
    if (opened) {
      const bool empty = sweep(**opened, Level::kFanOuts, nullptr);
      may_go = may_go && empty && remove_directory(*top, name);
    } else {
      may_go = may_go && opened.error().code() == Errc::kNotFound;
    }
  }
}

// False: somebody was quicker and put something there, or it cannot be removed.
bool Tidy::remove_directory(os::Directory& parent, const std::string& name) {
  const Result<> removed = parent.remove_directory(name);
  if (!removed && removed.error().code() == Errc::kIo) {
    (void)core_.note(removed.error());
  }
  return removed.has_value();
}

void Tidy::look_at_fan_out(Volume& volume, std::uint8_t index) {
  for (const bool maps : {false, true}) {
    const Result<std::unique_ptr<os::Directory>> opened =
        maps ? volume.map_fan_out(index, false) : volume.open_fan_out(index, false);
    if (opened && sweep(**opened, Level::kObjects, &volume)) {
      volume.remove_if_empty(index, **opened, maps);
    }
  }
}

bool Tidy::sweep(os::Directory& directory, Level level, Volume* volume) {
  const auto belongs = [level](std::string_view name, os::NodeType type) {
    switch (level) {
      case Level::kVolumes:
        return name.starts_with('I') && type == os::NodeType::kDirectory;
      case Level::kFanOuts:
        return is_fan_out_directory(name) && type == os::NodeType::kDirectory;
      case Level::kObjects:
        return is_data_file(name) && type == os::NodeType::kFile;
    }
    return true;
  };
  std::vector<std::string> unexpected, volumes;
  bool empty = true;
  const Result<> listed = directory.list([&](const os::DirectoryEntry& entry) {
    empty = false;
    const std::optional<os::NodeType> type = type_of(directory, entry);
    if (type && !belongs(entry.name, *type)) {
      unexpected.push_back(entry.name);
    } else if (type && level == Level::kVolumes) {
      volumes.push_back(entry.name);
    }
    return unexpected.size() < kMostAtOnce;
  });
  if (!listed) {
    (void)core_.note(listed.error());
    return false;
  }
  for (const std::string& name : volumes) {
    adopt(name);
  }
  bool warned = false;
  for (const std::string& name : unexpected) {
    const Result<> buried = bury(directory, level, volume, name);
    if (buried) {
      core_.counters.damaged_objects.add();
      log_info("the cache: the unexpected \"{}\" was buried", name);
    } else if (buried.error().code() == Errc::kIo) {
      (void)core_.note(buried.error());
    } else if (buried.error().code() != Errc::kNotFound && buried.error().code() != Errc::kBusy &&
               !warned) {
      warned = true;
      log_warning("the cache: the unexpected \"{}\" cannot be buried: {}", name,
                  buried.error().message());
    }
  }
  return empty;
}

// What nobody knows may be opened by its key while we look: so it is ours rather than in the way.
void Tidy::adopt(std::string_view name) {
  const std::size_t before = volumes_.size();
  (void)volumes_.find_or_add(core_, name.substr(1));
  if (volumes_.size() > before) {
    core_.counters.damaged_objects.add();
  }
}

// What has a name that is used may be in the place of something that another thread is just making.
// A directory is made where something else was taken away, so only something else is taken away.
Result<> Tidy::bury(os::Directory& directory, Level level, Volume* volume, std::string_view name) {
  if ((level == Level::kVolumes && name.starts_with('I')) ||
      (level == Level::kFanOuts && is_fan_out_directory(name))) {
    return directory.unlink(name);
  }
  if (volume != nullptr && is_data_file(name)) {
    return bury_claimed(directory, *volume, name);
  }
  return take_away(directory, name);
}

Result<> Tidy::bury_claimed(os::Directory& directory, Volume& volume, std::string_view name) {
  const std::optional<InUse::Claim> claim = volume.in_use().claim_unused(name);
  if (!claim || TRY(directory.stat(name)).type == os::NodeType::kFile) {
    return fail(Errc::kBusy, std::string(name));
  }
  return take_away(directory, name);
}

Result<> Tidy::take_away(os::Directory& directory, std::string_view name) {
  const std::optional<os::FileStat> found = TRY(core_.take_away(directory, name));
  return found ? Result<>() : fail(Errc::kNotFound, std::string(name));
}

}  // namespace larder::cachefiles
