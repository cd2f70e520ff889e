// CacheTree: the directories below cache/, as culling sees them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/graveyard.h"
#include "cachefilesd/readahead.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// Names are looked at, never followed; what has no business there is left to the engine, or buried
// where the cache is a kernel's. Holds some dozens of descriptors, however many directories there
// are; while it culls, one for each directory of a batch. Threads: one, and the readahead's own.
// Life: from a bind to the release.
class CacheTree final : public culling::FanOut {
 public:
  // `root`: the cache's directory, bound, so that cache/ is there. All outlive the tree.
  // `graveyard`: where the unexpected goes; null: nowhere.
  [[nodiscard]] static Result<std::unique_ptr<CacheTree>> open(os::Directory& root,
                                                               CacheChannel& channel,
                                                               const Clock& clock,
                                                               Graveyard* graveyard);

  // Who answers keep_going(); all the time until then.
  void ask(std::function<bool()> keep_going) { keep_going_ = std::move(keep_going); }

  // Looks for volumes that came. True: the directories have other numbers than before.
  [[nodiscard]] Result<bool> find_volumes();

  // Only what has a map log is large. Without maps/ nothing is known. Looks at the directories that
  // it has not looked at yet: at one, and then at others until `is_enough`.
  [[nodiscard]] Result<> find_large(culling::LargeObjects& large, std::uint64_t large_from,
                                    const std::function<bool()>& is_enough);

  // What there is, by a look at some samples.
  [[nodiscard]] Result<culling::Share> estimate();

  std::size_t directories() override { return volumes_.size() * culling::kSamples; }

  void expect(std::span<const std::size_t> directories) override;

  Result<> list(std::size_t directory,
                const std::function<bool(culling::Candidate&&)>& visit) override;

  bool in_use(std::size_t /*directory*/, std::string_view /*name*/) override { return false; }

  Result<std::vector<Result<culling::Freed>>> cull(
      std::span<const culling::Placed> objects) override;
  Result<culling::Candidate> look_at(std::size_t directory, std::string_view name) override;

  bool keep_going() override { return !keep_going_ || keep_going_(); }

 private:
  struct Volume {
    std::string name;
    bool there = true;
  };

  struct Opened {
    std::size_t number = 0;
    std::shared_ptr<os::Directory> directory;  // null: it is not there
  };

  CacheTree(std::unique_ptr<os::Directory> cache, std::unique_ptr<os::Directory> maps,
            CacheChannel& channel, const Clock& clock, Graveyard* graveyard)
      : cache_(std::move(cache)),
        maps_(std::move(maps)),
        channel_(channel),
        clock_(clock),
        graveyard_(graveyard),
        readahead_(*cache_) {}

  [[nodiscard]] Result<std::set<std::string>> list_volumes();
  // True: all have other numbers than before.
  bool number_volumes(std::set<std::string> names);
  [[nodiscard]] Result<> find_large_in(std::size_t directory, culling::LargeObjects& large,
                                       std::uint64_t large_from);

  [[nodiscard]] const std::string& volume_of(std::size_t directory) const {
    return volumes_[directory / culling::kSamples].name;
  }

  // Of one that was listed ahead.
  [[nodiscard]] Result<> show(std::size_t directory, Listing listing,
                              const std::function<bool(culling::Candidate&&)>& visit);
  // A directory below cache/, kept open: what was listed is culled soon. nullptr: it is not there.
  [[nodiscard]] Result<std::shared_ptr<os::Directory>> opened(std::size_t directory);
  // Answers for those of one directory that are not as they were, where that was long ago; the
  // others come into `group`, and their answers' places into `places`.
  [[nodiscard]] Result<> sort_out(std::span<const culling::Placed> objects, ObjectGroup& group,
                                  std::vector<Result<culling::Freed>>& answers,
                                  std::vector<std::size_t>& places);
  // So short a time ago that who keeps the cache knows of each use since.
  [[nodiscard]] bool is_listed_just_now(std::size_t directory) const;
  // kBusy: it was used, or is another; kNotFound.
  [[nodiscard]] Result<> check_unused_since(std::size_t directory,
                                            const culling::Candidate& object);
  [[nodiscard]] Result<> tidy_volume(const std::string& name);
  void bury(os::Directory& parent, const std::vector<std::string>& names);

  const std::unique_ptr<os::Directory> cache_;
  const std::unique_ptr<os::Directory> maps_;  // null: there is none
  CacheChannel& channel_;
  const Clock& clock_;
  Graveyard* const graveyard_;
  std::function<bool()> keep_going_;
  std::vector<Volume> volumes_;
  std::deque<Opened> opened_;
  std::map<std::size_t, MonotonicTime> listed_;  // directories: when, or before that
  MonotonicTime expected_;
  Readahead readahead_;
};

}  // namespace larder::cachefilesd
