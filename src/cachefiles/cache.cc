#include "cachefiles/cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefiles/bind.h"
#include "cachefiles/cache_fan_out.h"
#include "cachefiles/care.h"
#include "cachefiles/caretaker.h"
#include "cachefiles/core.h"
#include "cachefiles/epochs.h"
#include "cachefiles/graveyard.h"
#include "cachefiles/layout.h"
#include "cachefiles/space.h"
#include "cachefiles/state_file.h"
#include "cachefiles/tidy.h"
#include "cachefiles/volume.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"
#include "culling/score.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// The files and directories at the top, about.
constexpr std::uint64_t kFixedBytes = std::uint64_t{64} * 1024;
constexpr Duration kIdle = std::chrono::seconds(30);
constexpr Duration kCountFor = std::chrono::milliseconds(50);
constexpr Duration kCullFor = std::chrono::seconds(1);
constexpr Duration kFindLargeFor = std::chrono::milliseconds(20);
constexpr Duration kBetweenSteps = std::chrono::milliseconds(20);
constexpr std::size_t kMostStamps = 256;  // at once

class Cache final : public DirectoryCache {
 public:
  Cache(Bound&& bound, os::Filesystem& filesystem, const CacheOptions& options, const Clock& clock)
      : path_(options.path_for_messages),
        least_stamp_seconds_(options.least_stamp_seconds),
        headroom_bytes_(options.headroom_bytes),
        core_(filesystem, clock, bound.limits, bound.state.generation, std::move(bound.past),
              options.most_open_files),
        care_(core_, volumes_),
        fan_out_(core_, volumes_),
        graveyard_(core_),
        tidy_(core_, volumes_),
        lock_(std::move(bound.lock)),
        state_file_(std::move(bound.state_file)),
        state_(std::move(bound.state)),
        pace_(clock.now()),
        rotation_(state_.rotation),
        counting_(bound.last_end != LastEnd::kClean) {
    core_.root = std::move(bound.root);
    core_.cache = std::move(bound.cache);
    core_.maps = std::move(bound.maps);
    core_.meta = std::move(bound.meta);
    core_.stamp_seconds = least_stamp_seconds_;
    if (bound.fresh) {
      state_.used_bytes = kFixedBytes;
    }
    core_.space.set_totals(state_.used_bytes, state_.objects, !counting_);
    if (counting_) {
      core_.accounts.begin_round();
    }
  }

  // The last part of bind: what lies on the disk is known, and the new generation stored.
  Result<> start() {
    TRY(core_.cache->list([this](const os::DirectoryEntry& entry) {
      if (entry.name.starts_with('I')) {
        (void)volumes_.find_or_add(core_, std::string_view(entry.name).substr(1));
      }
      return true;
    }));
    TRY(look_at_filesystem());
    return store_state(false);
  }

  Result<std::unique_ptr<fscache::BackendVolume>> open_volume(std::string_view key) override {
    if (!core_.usable()) {
      return fail(Errc::kCacheDead, "the cache was given up");
    }
    if (key.empty() || key.find('/') != std::string_view::npos ||
        key.find('\0') != std::string_view::npos) {
      return fail(Errc::kInvalid, fmt::format("not a volume key: \"{}\"", key));
    }
    const std::string shorter = short_volume_key(key);
    if (shorter != key) {
      TRY(keep_whole_key(shorter, key));
    }
    return std::make_unique<OpenVolume>(volumes_.find_or_add(core_, shorter));
  }

  Duration run_maintenance() override {
    if (!core_.usable()) {
      return std::chrono::hours(1);
    }
    const Core::Maintaining maintaining(core_);
    const Result<Duration> next = maintain();
    if (!next) {
      (void)core_.note(next.error());
      return kIdle;
    }
    return *next;
  }

  void set_maintenance_wake(std::move_only_function<void()> wake) override {
    core_.set_wake(std::move(wake));
  }

  Result<> withdraw() override {
    if (!core_.usable()) {
      return fail(Errc::kCacheDead, core_.trouble());
    }
    while (counting_) {
      TRY(count_some(kCountFor));
    }
    TRY(close_epoch());
    // What carries no stamp (names taken away, times of last use) too.
    const Result<> synced = core_.root->sync_filesystem();
    if (!synced) {
      return fail(core_.note(Error(Errc::kIo, synced.error().error_number(), "syncfs")));
    }
    const Result<> stored = store_state(true);
    if (!stored) {
      return fail(core_.note(stored.error()));
    }
    return {};
  }

  fscache::BackendStatus status() const override {
    fscache::BackendStatus status;
    status.path = path_;
    status.used_bytes = core_.space.used_bytes();
    status.limit_bytes = core_.space.limit_bytes();
    const Room room = core_.space.room();
    status.blocks = {room.free_bytes, room.blocks.run, room.blocks.cull, room.blocks.stop};
    status.files = {room.free_files, room.files.run, room.files.cull, room.files.stop};
    status.objects = core_.space.objects();
    status.objects_exact = core_.space.exact();
    status.culling = core_.space.culling();
    status.trouble = core_.trouble();
    if (status.trouble.empty()) {
      status.trouble = core_.why_stopped();
    }
    status.culled_objects = core_.counters.culled_objects.value();
    status.culled_bytes = core_.counters.culled_bytes.value();
    status.culled_last_hour = core_.counters.culled_lately.in_last_hour(core_.clock.now());
    status.oldest_seconds = oldest_seconds_;
    status.open_objects = volumes_.open_objects();
    status.open_directories = core_.kept_directories.size();
    status.corrupt_ranges = core_.counters.corrupt_ranges.value();
    status.damaged_objects = core_.counters.damaged_objects.value();
    return status;
  }

  bool take_pressed() override {
    return core_.pressure.take(core_.space.culling(), core_.counters.culled_objects.value(),
                               core_.clock.now());
  }

  bool usable() const override { return core_.usable(); }

  void set_caretaker(std::move_only_function<void()> changed) override {
    core_.caretaker.set(std::move(changed));
  }

  Released take_released() override { return core_.caretaker.take_released(); }

  void set_oldest(double seconds) override { set_stamp_seconds(seconds); }

  Result<> set_limits(const Limits& limits) override {
    core_.space.set_limits(TRY(limits_of(limits, path_, *core_.root)));
    core_.wake();
    return {};
  }

  Result<CareState> care_state() override { return care_.state(); }

  Result<std::vector<Culled>> cull(std::string_view directory,
                                   std::span<const std::string> names) override {
    return care_.cull(directory, names);
  }

  Result<bool> in_use(std::string_view directory, std::string_view name) override {
    return care_.in_use(directory, name);
  }

 private:
  Result<> keep_whole_key(const std::string& shorter, std::string_view key) {
    const Result<std::unique_ptr<os::File>> file = core_.meta->create_file(shorter, kFileMode);
    if (!file) {
      if (file.error().code() == Errc::kExists) {
        return {};
      }
      return fail(core_.note(file.error()));
    }
    return (*file)->write_at(0, bytes_of(key));
  }

  // Room and the filesystem's time.
  Result<> look_at_filesystem() {
    core_.space.note_filesystem(TRY(core_.root->space()));
    TRY(look_at_file_time());
    core_.forget_partial_trouble();
    if (was_removed()) {
      core_.set_partial_trouble(
          fmt::format("the cache's directory {} was removed while it was in use: nothing new is "
                      "cached; `larder cache detach` and `attach` make it anew",
                      path_));
    } else if (const auto graveyard = core_.open_graveyard(); !graveyard) {
      core_.set_partial_trouble(fmt::format(
          "{}/graveyard cannot be used ({}): what is damaged is not cached anew; remove "
          "it, and it is made again",
          path_, core_.note(graveyard.error()).message()));
    }
    return {};
  }

  // From a stamp: by what clock and how coarsely a filesystem stamps is its own.
  Result<> look_at_file_time() {
    const Result<> stamped = lock_->set_accessed_now();
    if (!stamped && stamped.error().error_number() == EROFS) {
      (void)core_.note(stamped.error());
      return {};  // the time goes on; what does not need the disk is done
    }
    TRY(stamped);
    core_.set_file_time(TRY(lock_->stat()).accessed);
    return {};
  }

  // We hold it open, and all that we hold of it works as before; but it takes no new names.
  [[nodiscard]] bool was_removed() const {
    return std::ranges::any_of(std::array{kCacheDirectory, kMapsDirectory},
                               [this](std::string_view name) {
                                 const Result<os::FileStat> found = core_.root->stat(name);
                                 return !found && found.error().code() == Errc::kNotFound;
                               });
  }

  Result<Duration> maintain() {
    TRY(look_at_filesystem());
    const std::uint64_t damaged = core_.counters.damaged_objects.value();
    if (damaged != counted_damaged_ && !counting_) {
      // Somebody else changed the directory: the books may be wrong.
      counting_ = true;
      next_counted_ = 0;
      core_.accounts.begin_round();
      tidy_.ask();
    }
    counted_damaged_ = damaged;
    look_at_pressure();
    TRY(go_on_counting());
    cull_goes_on_ = false;
    if (core_.caretaker.present()) {
      care_.note_news();
    } else {
      TRY(cull());
    }
    const std::uint64_t fresh = core_.epochs.fresh_bytes();
    if (fresh > 0 && pace_.due_in(core_.clock.now(), fresh) == Duration{}) {
      TRY(close_epoch());
    } else if (core_.space.near_ceiling()) {
      TRY(store_state(false));
    }
    TRY(write_back());
    stamp_open_objects();
    const bool others_wait = counting_ || core_.write_back.anything();
    if (others_wait && !cull_goes_on_) {
      return Duration{};
    }
    // Nothing else waits; or it may do so for as long as a cull goes on.
    const bool tidied = tidy_.work();
    if (others_wait || cull_goes_on_) {
      return Duration{};
    }
    if (tidied) {
      return kBetweenSteps;
    }
    if (!core_.caretaker.present() && graveyard_.empty_some()) {
      return kBetweenSteps;
    }
    if (core_.epochs.fresh_bytes() == 0) {
      return kIdle;
    }
    // A disk that took long for one epoch has the next one wait: the others do not.
    return std::clamp<Duration>(pace_.due_in(core_.clock.now(), core_.epochs.fresh_bytes()),
                                std::chrono::seconds(1), kIdle);
  }

  // What nobody expects takes room that nobody counts.
  void look_at_pressure() {
    const bool pressed = core_.space.culling() || core_.space.wants_culling();
    if (pressed && !was_pressed_) {
      tidy_.ask();
    }
    if (!pressed) {
      core_.refusals.forget();
    }
    was_pressed_ = pressed;
  }

  // Some of it; all where a cull waits for it: while only an upper bound is known nothing is
  // culled.
  Result<> go_on_counting() {
    const bool awaited = core_.space.wants_culling();
    while (counting_) {
      TRY(count_some(kCountFor));
      if (!awaited) {
        break;
      }
    }
    return {};
  }

  Result<> count_some(Duration at_most) {
    const MonotonicTime begin = core_.clock.now();
    const std::uint64_t large_from = culling::large_from(core_.space.limit_bytes());
    while (next_counted_ < fan_out_.directories()) {
      TRY(fan_out_.count(next_counted_++, large_, large_from));
      if (core_.clock.now() - begin > at_most) {
        return {};
      }
    }
    counting_ = false;
    core_.accounts.finish_round(kFixedBytes);
    log_info("cache {}: {} objects, {} bytes", path_, core_.space.objects(),
             core_.space.used_bytes());
    return {};
  }

  // A step in the graveyard goes before each slice, as with a caretaker: what is wanted may lie
  // there. When nothing else can go they are all that is left to wait for. Whoever fills may be as
  // fast as we are: the other duties have their turn now and then.
  Result<> cull() {
    const MonotonicTime until = core_.clock.now() + kCullFor;
    culling::Outcome last;
    while (!last.stopped && wants_room()) {
      if (core_.clock.now() >= until) {
        cull_goes_on_ = !last.exhausted;
        break;
      }
      const bool goes_on = TRY(cull_step(last));
      if (!goes_on) {
        break;
      }
    }
    if (last.exhausted) {
      core_.pressure.note_in_vain();
    }
    return {};
  }

  // False: neither among the graves nor among the objects is anything left that can go.
  Result<bool> cull_step(culling::Outcome& last) {
    const bool graves = graveyard_.empty_some();
    core_.space.note_filesystem(TRY(core_.root->space()));
    if (last.exhausted) {
      return graves;
    }
    if (wants_room()) {
      last = TRY(cull_slice());
    }
    return true;
  }

  [[nodiscard]] bool wants_room() {
    const ToFree wanted = core_.space.to_free();
    return wanted.bytes > 0 || wanted.files > 0;
  }

  Result<culling::Outcome> cull_slice() {
    TRY(find_large());
    const ToFree wanted = core_.space.to_free();
    const culling::Share share{core_.space.used_bytes(), core_.space.objects(), wanted.bytes,
                               wanted.files};
    culling::Outcome outcome =
        TRY(rotation_.cull_slice(fan_out_, large_, share, core_.file_time(), least_stamp_seconds_));
    core_.space.note_filesystem(TRY(core_.root->space()));
    set_stamp_seconds(rotation_.oldest_seconds());
    return outcome;
  }

  // Some before each slice: the first does not wait until all are known.
  Result<> find_large() {
    const MonotonicTime until = core_.clock.now() + kFindLargeFor;
    return fan_out_.find_large(large_, culling::large_from(core_.space.used_bytes()),
                               [&] { return core_.clock.now() >= until; });
  }

  void set_stamp_seconds(double oldest_seconds) {
    oldest_seconds_ = oldest_seconds;
    core_.stamp_seconds = culling::stamp_after(oldest_seconds, least_stamp_seconds_);
  }

  // What stays open is in use, and should look so after a crash too.
  void stamp_open_objects() {
    const MonotonicTime now = core_.clock.now();
    if (now < stamp_again_) {
      return;
    }
    const double seconds = std::max<double>(core_.stamp_seconds, 1);
    std::size_t left = kMostStamps;
    for (std::size_t i = 0; i < volumes_.size() && left > 0; ++i) {
      left -= volumes_.at(i).stamp_open_objects(seconds, left);
    }
    stamp_again_ =
        now + (left == 0
                   ? std::chrono::seconds(1)
                   : std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)));
  }

  Result<> write_back() {
    const Result<> written = core_.write_back.step();
    if (written) {
      return {};
    }
    const Result<> noted =
        state_file_->note_doubt(core_.epochs.generation(), core_.epochs.current_epoch());
    if (!noted) {
      log_warning("cache {}: {}", path_, noted.error().message());
    }
    return give_up_epoch(written.error());
  }

  // A failed sync leaves the kernel's memory and the disk apart: the cache is given up, and what
  // was not durable before will not count when it is bound again. Where the sync could not be
  // begun, as the filesystem is read-only or full, the epoch stays open: its checksums are looked
  // at with each read.
  Result<> close_epoch() {
    const MonotonicTime began = core_.clock.now();
    bool begun = false;
    const Result<bool> closed = core_.epochs.close([&](std::uint32_t epoch) -> Result<> {
      const Result<> noted = state_file_->note_doubt(core_.epochs.generation(), epoch);
      const int number = noted ? 0 : noted.error().error_number();
      begun = number != EROFS && number != ENOSPC && number != EDQUOT;
      TRY(noted);
      return core_.root->sync_filesystem();
    });
    if (!closed) {
      return begun ? give_up_epoch(closed.error()) : fail(core_.note(closed.error()));
    }
    pace_.closed(began, core_.clock.now());
    if (*closed) {
      const Result<> stored = store_state(false);
      if (!stored) {
        return fail(core_.note(stored.error()));
      }
    }
    return {};
  }

  Result<> give_up_epoch(const Error& why) {
    const Error error(Errc::kIo, why.error_number(),
                      "writing back to the disk failed, what was written last is dropped");
    const Result<> stored = store_state(false);
    if (!stored) {
      log_warning("cache {}: {}", path_, stored.error().message());
    }
    return fail(core_.note(error));
  }

  // The ceiling is on the disk before use may reach it.
  Result<> store_state(bool clean) {
    const std::uint64_t used = core_.space.used_bytes();
    const std::uint64_t ceiling = std::min(core_.space.limit_bytes(), used + headroom_bytes_);
    state_.clean = clean;
    state_.durable_epoch = core_.epochs.durable_epoch();
    state_.used_bytes = used;
    state_.objects = core_.space.objects();
    state_.rotation = rotation_.cursor();
    state_.ceiling_bytes = std::max(ceiling, used);
    core_.space.set_ceiling(std::min(state_.ceiling_bytes, ceiling_));
    TRY(state_file_->store(state_));
    ceiling_ = state_.ceiling_bytes;
    core_.space.set_ceiling(ceiling_);
    return {};
  }

  const std::string path_;
  const double least_stamp_seconds_;
  const std::uint64_t headroom_bytes_;
  std::atomic<double> oldest_seconds_{0};
  Core core_;
  Volumes volumes_;

  Care care_;

  // Of the thread that maintains.
  CacheFanOut fan_out_;
  Graveyard graveyard_;
  Tidy tidy_;
  bool was_pressed_ = false;  // for room
  bool cull_goes_on_ = false;
  std::unique_ptr<os::File> lock_;
  std::unique_ptr<StateFile> state_file_;
  CacheState state_;
  std::uint64_t ceiling_ = 0;
  EpochPace pace_;
  culling::Rotation rotation_;
  culling::LargeObjects large_;
  bool counting_;
  std::size_t next_counted_ = 0;
  std::uint64_t counted_damaged_ = 0;
  MonotonicTime stamp_again_{};
};

}  // namespace

Result<std::unique_ptr<DirectoryCache>> bind_cache(std::unique_ptr<os::Directory> root,
                                                   os::Filesystem& filesystem,
                                                   const CacheOptions& options,
                                                   const Clock& clock) {
  Bound bound = TRY(open_cache_directory(std::move(root), filesystem, options));
  const LastEnd last_end = bound.last_end;
  auto cache = std::make_unique<Cache>(std::move(bound), filesystem, options, clock);
  const Result<> started = cache->start();
  if (!started) {
    return fail(started.error().within(fmt::format("the cache {}", options.path_for_messages)));
  }
  if (last_end == LastEnd::kMachine || last_end == LastEnd::kUnknown) {
    log_info("cache {}: was not shut down cleanly; what may have been lost is fetched again",
             options.path_for_messages);
  }
  return cache;
}

}  // namespace larder::cachefiles
