// Daemon: holds one cache online: brings it up, looks after it, and brings it up again when the
// engine that had it is gone.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/growing_pause.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/caretaker.h"
#include "cachefilesd/config.h"
#include "cachefilesd/waiter.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// Threads: the one that calls run(). Everything that waits, waits in the Waiter.
class Daemon {
 public:
  // What it is given; all outlive it.
  struct Parts {
    Waiter& waiter;
    const Clock& clock;
    std::function<os::FileTime()> now;  // the time by which files are stamped
    std::function<Result<std::unique_ptr<CacheChannel>>()> open_channel;
    // The cache's directory, open: for each bind, by descriptor and to look into.
    const UniqueFd& directory;
    std::function<Result<std::unique_ptr<os::Directory>>()> open_root;
    std::function<Result<Config>()> read_config;
    // The cache is up, for the first time. An error ends the daemon.
    std::function<Result<>()> on_started;
    // A line for whoever shows what we do.
    std::function<void(std::string_view)> on_status;
  };

  // `never_culls`: whatever the configuration says.
  Daemon(Parts parts, Config config, bool never_culls);

  // Until told to stop. Errors: the cache could not be brought up at first, of kBusy after some
  // seconds; or was a kernel's and has failed.
  [[nodiscard]] Result<> run();

 private:
  // Brings the cache up and looks after it until it is gone, which is the error, or we are told to
  // stop, which is none.
  [[nodiscard]] Result<> hold();
  [[nodiscard]] Result<> care(CacheChannel& channel, Caretaker& caretaker);
  // To signals and to the other end.
  [[nodiscard]] Result<> listen(CacheChannel& channel, Caretaker& caretaker);
  [[nodiscard]] Caretaker::Settings settings() const;
  void reload(CacheChannel* channel, Caretaker* caretaker);
  void note_busy(const Error& error);
  void note_error(const Error& error);
  // False: told to stop.
  [[nodiscard]] bool pause(Duration length);

  const Parts parts_;
  const bool never_culls_;
  Config config_;
  bool started_ = false;
  std::string trouble_;  // why the cache is not online, as it was said last
  bool is_kernels_ = false;
  bool removed_ = false;                   // the cache's directory: only a new start makes it again
  std::optional<MonotonicTime> bound_at_;  // of the last one
  GrowingPause pause_;
};

}  // namespace larder::cachefilesd
