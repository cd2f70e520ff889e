#include "keeper/daemons.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/growing_pause.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/engine_process.h"

namespace larder::keeper {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstPause{100};
constexpr milliseconds kMostPause{60'000};
constexpr std::chrono::seconds kDaemonsHealthyLife{60};
constexpr unsigned kDeathsToTell = 3;

// As after a start from a shell: nothing blocked, nothing ignored, a group of its own.
class SpawnAttributes {
 public:
  SpawnAttributes() {
    ::posix_spawnattr_init(&attributes_);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::posix_spawnattr_setsigmask(&attributes_, &signals);
    ::sigfillset(&signals);
    ::posix_spawnattr_setsigdefault(&attributes_, &signals);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }

  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;

  ~SpawnAttributes() { ::posix_spawnattr_destroy(&attributes_); }

  [[nodiscard]] const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_{};
};

}  // namespace

Result<std::string> find_daemon_program() {
  return find_program("cachefilesd", {"/cachefilesd", "/../sbin/cachefilesd"});
}

Result<DaemonProcess> start_daemon(const std::string& program, const std::string& configuration,
                                   const std::string& runtime_directory) {
  std::vector<std::string> words{
      "cachefilesd",    "-n", "-s", "--with-parent", "-f", configuration, "--runtime-dir",
      runtime_directory};
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) {
    arguments.push_back(word.data());
  }
  arguments.push_back(nullptr);
  const SpawnAttributes attributes;
  DaemonProcess process;
  const int error_number = ::posix_spawn(&process.pid, program.c_str(), nullptr, attributes.get(),
                                         arguments.data(), ::environ);
  if (error_number != 0) {
    return fail_errno(error_number, fmt::format("{} could not be started", program));
  }
  process.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  if (!process.pidfd.valid()) {
    const int why = errno;
    ::kill(process.pid, SIGKILL);
    ::waitpid(process.pid, nullptr, 0);
    return fail_errno(why, "pidfd of cachefilesd");
  }
  return process;
}

Daemons::Daemons(std::vector<std::string> configurations, Start start, const Clock& clock,
                 std::function<void(std::string)> told)
    : start_(std::move(start)), clock_(clock), told_(std::move(told)) {
  for (std::string& configuration : configurations) {
    daemons_.push_back(
        {std::move(configuration), {}, {}, clock_.now(), GrowingPause(kFirstPause, kMostPause), 0});
  }
}

void Daemons::append_to(std::vector<pollfd>& polled) const {
  for (const Daemon& daemon : daemons_) {
    if (daemon.process.pid != 0) {
      polled.push_back({daemon.process.pidfd.get(), POLLIN, 0});
    }
  }
}

void Daemons::turn() {
  for (Daemon& daemon : daemons_) {
    if (daemon.process.pid != 0) {
      reap(daemon);
    }
    if (daemon.process.pid == 0 && !ending_ && clock_.now() >= daemon.start_at) {
      start(daemon);
    }
    if (daemon.deaths > 0 && daemon.process.pid != 0 &&
        clock_.now() >= daemon.started + kDaemonsHealthyLife) {
      daemon.deaths = 0;
      daemon.pause.reset();
    }
  }
  tell();
}

std::optional<MonotonicTime> Daemons::due() const {
  std::optional<MonotonicTime> first;
  for (const Daemon& daemon : daemons_) {
    const bool runs = daemon.process.pid != 0;
    if (ending_ || (runs && daemon.deaths == 0)) {
      continue;
    }
    const MonotonicTime at = runs ? daemon.started + kDaemonsHealthyLife : daemon.start_at;
    first = std::min(first.value_or(at), at);
  }
  return first;
}

void Daemons::end_all() {
  ending_ = true;
  for (const Daemon& daemon : daemons_) {
    if (daemon.process.pid != 0) {
      ::syscall(SYS_pidfd_send_signal, daemon.process.pidfd.get(), SIGTERM, nullptr, 0);
    }
  }
}

void Daemons::start(Daemon& daemon) {
  daemon.started = clock_.now();
  Result<DaemonProcess> process = start_(daemon.configuration);
  if (!process) {
    note_death(daemon, process.error().message());
    return;
  }
  daemon.process = std::move(*process);
  log_info("cachefilesd started for {}, pid {}", daemon.configuration, daemon.process.pid);
}

void Daemons::reap(Daemon& daemon) {
  pollfd ended{daemon.process.pidfd.get(), POLLIN, 0};
  if (::poll(&ended, 1, 0) != 1) {
    return;
  }
  const std::string how = reap_process(daemon.process.pidfd);
  daemon.process = {};
  if (!ending_) {
    note_death(daemon, how);
  }
}

void Daemons::note_death(Daemon& daemon, const std::string& how) {
  if (clock_.now() - daemon.started >= kDaemonsHealthyLife) {
    daemon.pause.reset();
    daemon.deaths = 0;
  }
  ++daemon.deaths;
  const milliseconds pause = daemon.pause.take();
  daemon.start_at = clock_.now() + pause;
  log_error("cachefilesd for {} {}: its cache is offline, the next starts in {} ms",
            daemon.configuration, how, pause.count());
}

void Daemons::tell() {
  std::string trouble;
  for (const Daemon& daemon : daemons_) {
    if (daemon.deaths >= kDeathsToTell) {
      trouble += fmt::format(
          "{}the cachefilesd for {} ended {} times, each soon after its start: the log says why",
          trouble.empty() ? "" : "; ", daemon.configuration, daemon.deaths);
    }
  }
  if (trouble != trouble_) {
    trouble_ = trouble;
    told_(trouble_);
  }
}

}  // namespace larder::keeper
