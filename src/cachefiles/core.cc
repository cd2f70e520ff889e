#include "cachefiles/core.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/endian.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/bind.h"
#include "cachefiles/layout.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// Of this process or machine; says nothing about the disk.
bool is_shortage(int error_number) {
  return error_number == EMFILE || error_number == ENFILE || error_number == ENOMEM;
}

// What this thread maintains just now.
thread_local const Core* maintained_here = nullptr;

}  // namespace

Error Core::note(Error error) {
  if (error.code() == Errc::kNoSpace) {
    space.note_disk_full();
    wake();
    caretaker.tell();
  } else if (error.code() == Errc::kNotFound) {
    if (!missing_.exchange(true)) {
      wake();
    }
  } else if (error.error_number() == EROFS) {
    set_partial_trouble(
        "the cache's filesystem is read-only: what is in the cache is read, and nothing new is "
        "cached; check the filesystem (fsck), then mount it writable again");
  } else if (error.error_number() == EACCES || error.error_number() == EPERM) {
    set_partial_trouble(fmt::format(
        "the engine may not change the cache's directory any more ({}): nothing new is cached; "
        "give it back to its owner, then `larder cache detach` and `attach` it",
        error.message()));
  } else if (is_shortage(error.error_number())) {
    log_warning("the cache: {}", error.message());
  } else if (error.code() == Errc::kIo) {
    if (!dead_.exchange(true, std::memory_order_acq_rel)) {
      const std::string sentence =
          fmt::format("the cache's disk failed ({}); nothing is cached until it is bound again",
                      error.message());
      log_warning("{}", sentence);
      {
        const MutexLock lock(mutex_);
        trouble_ = sentence;
      }
      wake();
    }
  }
  return error;
}

std::string Core::trouble() const {
  const MutexLock lock(mutex_);
  return trouble_.empty() ? partial_trouble_ : trouble_;
}

void Core::set_partial_trouble(std::string sentence) {
  const MutexLock lock(mutex_);
  partial_trouble_ = std::move(sentence);
  partial_trouble_lasts_ = true;
}

void Core::forget_partial_trouble() {
  missing_ = false;
  const MutexLock lock(mutex_);
  if (!std::exchange(partial_trouble_lasts_, false)) {
    partial_trouble_.clear();
  }
}

void Core::set_wake(std::move_only_function<void()> wake) {
  const MutexLock lock(mutex_);
  wake_ = std::make_shared<std::move_only_function<void()>>(std::move(wake));
}

Core::Maintaining::Maintaining(const Core& core) {
  maintained_here = &core;
}

Core::Maintaining::~Maintaining() {
  maintained_here = nullptr;
}

void Core::wake() {
  if (maintained_here == this) {
    return;
  }
  std::shared_ptr<std::move_only_function<void()>> wake;
  {
    const MutexLock lock(mutex_);
    wake = wake_;
  }
  if (wake != nullptr && *wake) {
    (*wake)();
  }
}

void Core::set_file_time(os::FileTime now) {
  const MutexLock lock(mutex_);
  file_time_ = now;
  file_time_taken_ = clock.now();
}

os::FileTime Core::file_time() const {
  const MutexLock lock(mutex_);
  const auto since =
      std::chrono::duration_cast<std::chrono::nanoseconds>(clock.now() - file_time_taken_);
  const std::int64_t nanoseconds = file_time_.nanoseconds + since.count();
  return {file_time_.seconds + nanoseconds / 1'000'000'000,
          static_cast<std::uint32_t>(nanoseconds % 1'000'000'000)};
}

Result<std::uint64_t> Core::random() {
  std::array<std::byte, 8> bytes{};
  TRY(filesystem.random_bytes(bytes));
  return load_be<std::uint64_t>(bytes.data());
}

Result<std::unique_ptr<os::Directory>> Core::open_graveyard() {
  return open_or_make(*root, kGraveyardDirectory);
}

Result<std::string> Core::grave_name() {
  const std::uint64_t lot = TRY(random());
  return fmt::format("x{:x}x{:x}x", lot, ++buried_);
}

void Core::note_refused() {
  pressure.note_refused();
  refusals.note(counters.culled_objects.value(), clock.now());
}

bool Core::stopped() const {
  return space.stopped() ||
         (space.culling() && refusals.go_on(counters.culled_objects.value(), clock.now()));
}

std::string Core::why_stopped() const {
  if (space.stopped()) {
    return "the cache's filesystem is too full: nothing new is cached";
  }
  if (!stopped()) {
    return "";
  }
  if (!caretaker.present()) {
    return "the cache is full, and all that it holds is in use or pinned: nothing new is cached; "
           "give it more room (`--cache-size`, in fstab `cachesize=`)";
  }
  if (refusals.in_vain(counters.culled_objects.value())) {
    return "the cache is full, and all that it holds is in use: nothing new is cached; give it "
           "more room (`size`)";
  }
  return "the cache is full, and its holder culls nothing: nothing new is cached; see that the "
         "holder runs, that its configuration does not say nocull and that not all is in use or "
         "pinned, or give the cache more room (`size`)";
}

void Core::note_released(std::uint64_t bytes) {
  caretaker.note_released(bytes);
  if (caretaker.present() && space.culling()) {
    caretaker.tell();
  }
}

Result<std::optional<os::FileStat>> Core::bury(os::Directory& directory, std::string_view name) {
  Result<std::optional<os::FileStat>> taken = take_away(directory, name);
  if (!taken) {
    return fail(note(taken.error()));
  }
  return taken;
}

Result<std::optional<os::FileStat>> Core::take_away(os::Directory& directory,
                                                    std::string_view name) {
  const Result<os::FileStat> found = directory.stat(name);
  if (!found) {
    if (found.error().code() == Errc::kNotFound) {
      return std::nullopt;
    }
    return fail(found.error());
  }
  Result<> gone;
  if (found->type == os::NodeType::kDirectory) {
    const std::unique_ptr<os::Directory> graveyard = TRY(open_graveyard());
    const std::string grave = TRY(grave_name());
    gone = directory.rename(name, *graveyard, grave);
    caretaker.tell();
  } else {
    gone = directory.unlink(name);
  }
  if (!gone && gone.error().code() != Errc::kNotFound) {
    return fail(gone.error());
  }
  return *found;
}

}  // namespace larder::cachefiles
