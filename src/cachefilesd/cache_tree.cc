#include "cachefilesd/cache_tree.h"

#include <algorithm>
#include <chrono>
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

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefiles/layout.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/graveyard.h"
#include "cachefilesd/listing.h"
#include "cachefilesd/readahead.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {
namespace {

constexpr std::size_t kMostGone = 256;        // volumes, before they are numbered anew
constexpr std::size_t kMostOpened = 64;       // as many as are judged together, but in small caches
constexpr std::size_t kEstimatedSamples = 8;  // of kSamples

// An engine keeps what was closed open for longer; of a kernel's cache hardly anything is used
// within that time that was unused for long.
constexpr std::chrono::seconds kJustNow{1};

std::string fan_out_of(std::size_t directory) {
  return cachefiles::fan_out_directory(static_cast<std::uint8_t>(directory % culling::kSamples));
}

bool is_volume_name(std::string_view name) {
  return name.starts_with('I') && name.find('\n') == std::string_view::npos;
}

Result<bool> is_directory(os::Directory& parent, const os::DirectoryEntry& entry) {
  return (entry.type ? *entry.type : TRY(parent.stat(entry.name)).type) == os::NodeType::kDirectory;
}

}  // namespace

Result<std::unique_ptr<CacheTree>> CacheTree::open(os::Directory& root, CacheChannel& channel,
                                                   const Clock& clock, Graveyard* graveyard) {
  auto cache = TRY(root.open_directory(cachefiles::kCacheDirectory));
  Result<std::unique_ptr<os::Directory>> maps = root.open_directory(cachefiles::kMapsDirectory);
  if (!maps && !is_no_directory(maps.error())) {
    return fail(maps.error());
  }
  return std::unique_ptr<CacheTree>(new CacheTree(
      std::move(cache), maps ? std::move(*maps) : nullptr, channel, clock, graveyard));
}

Result<bool> CacheTree::find_volumes() {
  readahead_.expect({});
  opened_.clear();
  listed_.clear();
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
  const std::unique_ptr<os::Directory> maps =
      TRY(open_fan_out(*maps_, volume_of(directory), fan_out_of(directory)));
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

void CacheTree::expect(std::span<const std::size_t> directories) {
  std::vector<ExpectedDirectory> expected;
  for (const std::size_t directory : directories) {
    expected.push_back({directory, volume_of(directory), fan_out_of(directory)});
  }
  expected_ = clock_.now();
  readahead_.expect(std::move(expected));
}

Result<> CacheTree::list(std::size_t directory,
                         const std::function<bool(culling::Candidate&&)>& visit) {
  auto ahead = readahead_.take(directory, [this] { return keep_going(); });
  listed_[directory] = ahead ? expected_ : clock_.now();
  if (ahead) {
    Listing listing = TRY(std::move(*ahead));
    return show(directory, std::move(listing), visit);
  }
  const std::shared_ptr<os::Directory> listed = TRY(opened(directory));
  if (listed == nullptr) {
    return {};
  }
  std::vector<std::string> unexpected;
  TRY(list_objects(*listed, visit, unexpected));
  bury(*listed, unexpected);
  return {};
}

Result<> CacheTree::show(std::size_t directory, Listing listing,
                         const std::function<bool(culling::Candidate&&)>& visit) {
  for (culling::Candidate& object : listing.objects) {
    if (!visit(std::move(object))) {
      break;
    }
  }
  const std::shared_ptr<os::Directory> parent =
      listing.unexpected.empty() ? nullptr : TRY(opened(directory));
  if (parent != nullptr) {
    bury(*parent, listing.unexpected);
  }
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

bool CacheTree::is_listed_just_now(std::size_t directory) const {
  const auto listed = listed_.find(directory);
  return listed != listed_.end() && clock_.now() - listed->second < kJustNow;
}

Result<> CacheTree::check_unused_since(std::size_t directory, const culling::Candidate& object) {
  const culling::Candidate now = TRY(look_at(directory, object.name));
  if (now.stat.accessed != object.stat.accessed || now.stat.inode != object.stat.inode) {
    return fail(Errc::kBusy, object.name);
  }
  return {};
}

Result<> CacheTree::sort_out(std::span<const culling::Placed> objects, ObjectGroup& group,
                             std::vector<Result<culling::Freed>>& answers,
                             std::vector<std::size_t>& places) {
  const std::size_t directory = objects.front().directory;
  group.directory = TRY(opened(directory));
  group.path = fmt::format("{}/{}", volume_of(directory), fan_out_of(directory));
  const bool all = group.directory != nullptr && is_listed_just_now(directory);
  for (const culling::Placed& placed : objects) {
    const Result<> unused = all ? Result<>() : check_unused_since(directory, placed.candidate);
    if (!unused) {
      answers.emplace_back(fail(unused.error()));
      continue;
    }
    places.push_back(answers.size());
    group.objects.push_back(placed.candidate);
    answers.emplace_back();
  }
  return {};
}

Result<std::shared_ptr<os::Directory>> CacheTree::opened(std::size_t directory) {
  const auto known = std::ranges::find(opened_, directory, &Opened::number);
  if (known != opened_.end()) {
    return known->directory;
  }
  std::shared_ptr<os::Directory> found =
      TRY(open_fan_out(*cache_, volume_of(directory), fan_out_of(directory)));
  if (opened_.size() >= kMostOpened) {
    opened_.pop_front();
  }
  opened_.push_back({directory, found});
  return found;
}

}  // namespace larder::cachefilesd
