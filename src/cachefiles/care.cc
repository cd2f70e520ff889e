#include "cachefiles/care.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/cache.h"
#include "cachefiles/core.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

bool is_busy(const Culled& culled) {
  return !culled && culled.error().code() == Errc::kBusy;
}

}  // namespace

Result<CareState> Care::state() {
  const Result<os::FilesystemSpace> found = core_.root->space();
  if (!found) {
    return fail(core_.note(found.error()));
  }
  core_.space.note_filesystem(*found);
  CareState state;
  state.buried = core_.buried();  // before the look: what comes meanwhile is told once more
  state.graveyard = has_graves();
  const MutexLock lock(mutex_);
  state.space = core_.space.state();
  state.space.stopped = core_.stopped();
  state.released_objects = core_.caretaker.released_objects();
  told_ = {state.space.culling, state.space.stopped, state.graveyard, state.buried};
  return state;
}

bool Care::has_graves() {
  bool any = false;
  const Result<std::unique_ptr<os::Directory>> graveyard = core_.open_graveyard();
  Result<> listed;
  if (graveyard) {
    listed = (*graveyard)->list([&any](const os::DirectoryEntry& entry) {
      any = !entry.name.empty();
      return false;
    });
  } else {
    listed = fail(graveyard.error());
  }
  if (!listed) {
    (void)core_.note(listed.error());
  }
  return any;
}

Result<std::size_t> Care::find(std::string_view directory) {
  const std::optional<std::size_t> found = fan_out_.find(directory);
  if (!found) {
    return fail(Errc::kInvalid,
                fmt::format("the cache has no directory {}", directory.substr(0, 300)));
  }
  return *found;
}

Result<std::vector<Culled>> Care::cull(std::string_view directory,
                                       std::span<const std::string> names) {
  const std::size_t place = TRY(find(directory));
  std::vector<Culled> culled = TRY(fan_out_.cull_names(place, names));
  if (std::ranges::all_of(culled, is_busy)) {
    core_.refusals.note_in_vain(core_.counters.culled_objects.value());
  }
  return culled;
}

Result<bool> Care::in_use(std::string_view directory, std::string_view name) {
  const std::size_t place = TRY(find(directory));
  if (fan_out_.in_use(place, name)) {
    return true;
  }
  TRY(fan_out_.look_at(place, name));
  return false;
}

void Care::note_news() {
  // Somebody else may have put something there, too.
  const std::uint64_t buried = core_.buried();
  const bool graves = has_graves();
  bool news = false;
  {
    const MutexLock lock(mutex_);
    (void)core_.space.to_free();
    const Told now{core_.space.culling(), core_.stopped(), graves, buried};
    news = told_ != now;
    told_ = now;
  }
  if (news) {
    core_.caretaker.tell();
  }
}

}  // namespace larder::cachefiles
