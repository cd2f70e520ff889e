// Daemons: the cachefilesd of each cache that `larder serve` was told of, started, and started
// again when it ends.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/growing_pause.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::keeper {

// How a daemon is started; the process belongs to the caller.
struct DaemonProcess {
  pid_t pid = 0;
  UniqueFd pidfd;
};

// Starts `program`, absolute, in the foreground with a configuration, for the engine of a runtime
// directory; it logs where we do, and ends when we do. Errors: also that of the exec.
[[nodiscard]] Result<DaemonProcess> start_daemon(const std::string& program,
                                                 const std::string& configuration,
                                                 const std::string& runtime_directory);

// cachefilesd beside this program, or ../sbin/cachefilesd from there.
[[nodiscard]] Result<std::string> find_daemon_program();

// One that ends is started again after a pause that grows from 0.1 s to a minute, and is short
// again after one has lived for a minute. Threads: the keeper's. Life: the keeper's; end_all()
// before it goes.
class Daemons {
 public:
  using Start = std::function<Result<DaemonProcess>(const std::string& configuration)>;

  // `told` hears a sentence when a daemon keeps dying, and "" when none does any more.
  Daemons(std::vector<std::string> configurations, Start start, const Clock& clock,
          std::function<void(std::string)> told);

  void append_to(std::vector<pollfd>& polled) const;
  // Reaps who ended, starts who is due.
  void turn();
  // When turn() has something to do though nobody ends; nullopt: not before.
  [[nodiscard]] std::optional<MonotonicTime> due() const;
  // Tells them to end, and starts none again.
  void end_all();

 private:
  struct Daemon {
    std::string configuration;
    DaemonProcess process;  // pid 0: none runs
    MonotonicTime started, start_at;
    GrowingPause pause;
    unsigned deaths = 0;  // in a row, each soon after the start
  };

  void start(Daemon& daemon);
  void reap(Daemon& daemon);
  void note_death(Daemon& daemon, const std::string& how);
  void tell();

  const Start start_;
  const Clock& clock_;
  const std::function<void(std::string)> told_;
  std::vector<Daemon> daemons_;
  std::string trouble_;
  bool ending_ = false;
};

}  // namespace larder::keeper
