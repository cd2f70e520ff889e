#include "cachefilesd/cache_tree.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefiles/layout.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/graveyard.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {
namespace {

constexpr std::size_t kMostGone = 256;        // volumes, before they are numbered anew
constexpr std::size_t kMostOpened = 64;       // as many as are judged together, but in small caches
constexpr std::size_t kMostUnexpected = 64;   // of one directory, at once
constexpr std::size_t kEstimatedSamples = 8;  // of kSamples

std::uint8_t fan_out_of(std::size_t directory) {
  return static_cast<std::uint8_t>(directory % culling::kSamples);
}

// Where there is nothing to see, or nothing that we may enter: no reason to give the cache up.
bool is_no_directory(const Error& error) {
  return error.code() == Errc::kNotFound || error.code() == Errc::kInvalid ||
         error.code() == Errc::kPermission;
}

// A name that cannot stand in a command is none that an object has.
bool is_object_name(std::string_view name) {
  return cachefiles::is_data_file(name) && name.find('\n') == std::string_view::npos;
}

bool is_volume_name(std::string_view name) {
  return name.starts_with('I') && name.find('\n') == std::string_view::npos;
}

Result<bool> is_directory(os::Directory& parent, const os::DirectoryEntry& entry) {
  return (entry.type ? *entry.type : TRY(parent.stat(entry.name)).type) == os::NodeType::kDirectory;
}

}  // namespace

Result<std::unique_ptr<CacheTree>> CacheTree::open(os::Directory& root, CacheChannel& channel,
                                                   Graveyard* graveyard) {
  auto cache = TRY(root.open_directory(cachefiles::kCacheDirectory));
  Result<std::unique_ptr<os::Directory>> maps = root.open_directory(cachefiles::kMapsDirectory);
  if (!maps && !is_no_directory(maps.error())) {
    return fail(maps.error());
  }
  return std::unique_ptr<CacheTree>(
      new CacheTree(std::move(cache), maps ? std::move(*maps) : nullptr, channel, graveyard));
}

Result<bool> CacheTree::find_volumes() {
  opened_.clear();
  const bool anew = number_volumes(TRY(list_volumes()));
  for (std::size_t i = 0; graveyard_ != nullptr && i < volumes_.size(); ++i) {
    TRY(tidy_volume(volumes_[i].name));
  }
  return anew;
}

Result<std::set<std::string>> CacheTree::list_volumes() {
  std::set<std::string> names;
  std::vector<std::string> unexpected;
  TRY(cache_->list([&](const os::DirectoryEntry& entry) {
    if (is_volume_name(entry.name) && is_directory(*cache_, entry).value_or(false)) {
      names.insert(entry.name);
    } else if (unexpected.size() < kMostUnexpected) {
      unexpected.push_back(entry.name);
    }
    return true;
  }));
  bury(*cache_, unexpected);
  return names;
}

bool CacheTree::number_volumes(std::set<std::string> names) {
  const auto gone = static_cast<std::size_t>(std::ranges::count(volumes_, false, &Volume::there));
  if (gone > kMostGone) {
    volumes_.clear();
  }
  for (Volume& volume : volumes_) {
    volume.there = names.erase(volume.name) > 0;
  }
  for (const std::string& name : names) {
    volumes_.push_back({name});
  }
  return gone > kMostGone;
}

Result<> CacheTree::tidy_volume(const std::string& name) {
  const Result<std::unique_ptr<os::Directory>> volume = cache_->open_directory(name);
  if (!volume) {
    return is_no_directory(volume.error()) ? Result<>() : fail(volume.error());
  }
  std::vector<std::string> unexpected;
  TRY((*volume)->list([&](const os::DirectoryEntry& entry) {
    if (!cachefiles::is_fan_out_directory(entry.name) ||
        !is_directory(**volume, entry).value_or(true)) {
      unexpected.push_back(entry.name);
    }
    return unexpected.size() < kMostUnexpected;
  }));
  bury(**volume, unexpected);
  return {};
}

void CacheTree::bury(os::Directory& parent, const std::vector<std::string>& names) {
  if (graveyard_ == nullptr) {
    return;
  }
  for (const std::string& name : names) {
    const Result<> buried = graveyard_->bury(parent, name);
    if (!buried && buried.error().code() != Errc::kNotFound) {
      log_warning("the cache: the unexpected \"{}\" cannot be buried: {}", name,
                  buried.error().message());
    } else if (buried) {
      log_info("the cache: the unexpected \"{}\" was buried", name);
    }
  }
}

Result<> CacheTree::find_large(culling::LargeObjects& large, std::uint64_t large_from,
                               const std::function<bool()>& is_enough) {
  if (maps_ == nullptr || !keep_going()) {
    return {};
  }
  return large.find_more(
      directories(),
      [&](std::size_t directory) { return find_large_in(directory, large, large_from); },
      [&] { return is_enough() || !keep_going(); });
}

Result<> CacheTree::find_large_in(std::size_t directory, culling::LargeObjects& large,
                                  std::uint64_t large_from) {
  const std::unique_ptr<os::Directory> maps = TRY(open_in(*maps_, directory));
  if (maps == nullptr) {
    return {};
  }
  return maps->list([&](const os::DirectoryEntry& entry) {
    const Result<culling::Candidate> object = look_at(directory, entry.name);
    if (object && object->bytes >= large_from) {
      large.add(directory, entry.name, object->bytes);
    }
    return true;
  });
}

Result<culling::Share> CacheTree::estimate() {
  constexpr std::size_t kStep = culling::kSamples / kEstimatedSamples;
  culling::Share share;
  for (std::size_t directory = 0; directory < directories(); directory += kStep) {
    TRY(list(directory, [&](culling::Candidate&& candidate) {
      ++share.objects;
      share.used_bytes += candidate.bytes;
      return share.objects % culling::kSamples != 0 || keep_going();
    }));
  }
  share.objects *= kStep;
  share.used_bytes *= kStep;
  return share;
}

Result<> CacheTree::list(std::size_t directory,
                         const std::function<bool(culling::Candidate&&)>& visit) {
  const std::shared_ptr<os::Directory> listed = TRY(opened(directory));
  if (listed == nullptr) {
    return {};
  }
  std::vector<std::string> unexpected;
  TRY(listed->list([&](const os::DirectoryEntry& entry) {
    const Result<os::FileStat> stat = listed->stat(entry.name);
    if (!stat) {
      return true;
    }
    if (is_object_name(entry.name) && stat->type == os::NodeType::kFile) {
      return visit({entry.name, *stat, stat->allocated});
    }
    if (unexpected.size() < kMostUnexpected) {
      unexpected.push_back(entry.name);
    }
    return true;
  }));
  bury(*listed, unexpected);
  return {};
}

Result<culling::Candidate> CacheTree::look_at(std::size_t directory, std::string_view name) {
  const std::shared_ptr<os::Directory> parent = TRY(opened(directory));
  if (parent == nullptr) {
    return fail(Errc::kNotFound, std::string(name));
  }
  const os::FileStat stat = TRY(parent->stat(name));
  if (stat.type != os::NodeType::kFile || !is_object_name(name)) {
    return fail(Errc::kNotFound, std::string(name));
  }
  return culling::Candidate{std::string(name), stat, stat.allocated};
}

Result<std::vector<Result<culling::Freed>>> CacheTree::cull(
    std::span<const culling::Placed> objects) {
  std::vector<Result<culling::Freed>> answers;
  std::vector<std::size_t> places;  // in `answers`, of those that are asked for
  std::vector<ObjectGroup> groups;
  for (std::span<const culling::Placed> left = objects; !left.empty();) {
    const std::size_t run = culling::run_of(left);
    ObjectGroup group;
    TRY(sort_out(left.first(run), group, answers, places));
    if (!group.objects.empty()) {
      groups.push_back(std::move(group));
    }
    left = left.subspan(run);
  }
  if (groups.empty()) {
    return answers;
  }
  const std::vector<Result<std::uint64_t>> culled = TRY(channel_.cull(groups));
  for (std::size_t i = 0; i < places.size() && i < culled.size(); ++i) {
    answers[places[i]] =
        culled[i] ? Result<culling::Freed>({*culled[i], 1}) : fail(culled[i].error());
  }
  return answers;
}

Result<> CacheTree::sort_out(std::span<const culling::Placed> objects, ObjectGroup& group,
                             std::vector<Result<culling::Freed>>& answers,
                             std::vector<std::size_t>& places) {
  const std::size_t directory = objects.front().directory;
  group.directory = TRY(opened(directory));
  group.path = fmt::format("{}/{}", volumes_[directory / culling::kSamples].name,
                           cachefiles::fan_out_directory(fan_out_of(directory)));
  for (const culling::Placed& placed : objects) {
    const culling::Candidate& object = placed.candidate;
    const Result<culling::Candidate> now = look_at(directory, object.name);
    if (!now) {
      answers.emplace_back(fail(now.error()));
    } else if (now->stat.accessed != object.stat.accessed || now->stat.inode != object.stat.inode) {
      answers.emplace_back(fail(Errc::kBusy, object.name));  // used in the meantime
    } else {
      places.push_back(answers.size());
      group.objects.push_back(object);
      answers.emplace_back();
    }
  }
  return {};
}

Result<std::unique_ptr<os::Directory>> CacheTree::open_in(os::Directory& top,
                                                          std::size_t directory) {
  Result<std::unique_ptr<os::Directory>> opened =
      top.open_directory_in(volumes_[directory / culling::kSamples].name,
                            cachefiles::fan_out_directory(fan_out_of(directory)));
  return opened || !is_no_directory(opened.error()) ? std::move(opened)
                                                    : Result<std::unique_ptr<os::Directory>>();
}

Result<std::shared_ptr<os::Directory>> CacheTree::opened(std::size_t directory) {
  const auto known = std::ranges::find(opened_, directory, &Opened::number);
  if (known != opened_.end()) {
    return known->directory;
  }
  std::shared_ptr<os::Directory> found = TRY(open_in(*cache_, directory));
  if (opened_.size() >= kMostOpened) {
    opened_.pop_front();
  }
  opened_.push_back({directory, found});
  return found;
}

}  // namespace larder::cachefilesd
