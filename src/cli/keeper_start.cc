#include "cli/keeper_start.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/keeper_client.h"
#include "handover/paths.h"
#include "os/detached_process.h"

namespace larder::cli {

namespace {

constexpr int kReportDescriptor = 3;
constexpr auto kRuntimeMode =
    std::filesystem::perms::owner_all | std::filesystem::perms::group_read |
    std::filesystem::perms::group_exec | std::filesystem::perms::others_read |
    std::filesystem::perms::others_exec;

// Null input, output and errors to the log, nothing else of the caller's open but the report.
bool settle_descriptors(const std::string& log_path, int report) {
  const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
  const int null = ::open("/dev/null", O_RDONLY);
  return log >= 0 && null >= 0 && ::dup2(null, STDIN_FILENO) >= 0 &&
         ::dup2(log, STDOUT_FILENO) >= 0 && ::dup2(log, STDERR_FILENO) >= 0 &&
         ::dup3(report, kReportDescriptor, O_CLOEXEC) >= 0 &&
         ::syscall(SYS_close_range, kReportDescriptor + 1, ~0U, 0) == 0;
}

void report(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(kReportDescriptor, text.data(), text.size());
  ::close(kReportDescriptor);
}

[[noreturn]] void run_daemon(const Serve& serve, const ServeOptions& options, int report_pipe) {
  ::umask(077);
  const std::string log_path = options.runtime_directory + "/keeper.log";
  // The duplicate lies above the descriptor that it is moved to.
  const int high = ::fcntl(report_pipe, F_DUPFD_CLOEXEC, kReportDescriptor + 1);
  if (high < 0 || !settle_descriptors(log_path, high) || ::chdir("/") != 0) {
    const std::string text =
        Error::from_errno(errno, fmt::format("the keeper's log {}", log_path)).message();
    [[maybe_unused]] const auto written = ::write(report_pipe, text.data(), text.size());
    ::_exit(1);
  }
  const Result<> served = serve(options, [] { report(os::kStarted); });
  if (!served) {
    log_error("{}", served.error().message());
    report(served.error().message());
  }
  std::exit(served ? 0 : 1);  // NOLINT(concurrency-mt-unsafe): the keeper has joined its threads
}

Result<> make_runtime_directory(const std::string& path) {
  std::error_code error;
  const bool made = std::filesystem::create_directory(path, error);
  if (error) {
    return fail(Errc::kInvalid,
                fmt::format("the runtime directory {} cannot be made: {}", path, error.message()));
  }
  if (made) {
    std::filesystem::permissions(path, kRuntimeMode, error);
  }
  return {};
}

// Whether systemd runs this machine and has a unit that starts this very program.
bool has_unit() {
  std::error_code error;
  if (!std::filesystem::exists("/run/systemd/system", error)) {
    return false;
  }
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const char* const directory : {"/etc/systemd/system", "/usr/local/lib/systemd/system",
                                      "/usr/lib/systemd/system", "/lib/systemd/system"}) {
    std::ifstream stream(fmt::format("{}/larder.service", directory));
    const std::string unit{std::istreambuf_iterator<char>(stream), {}};
    if (unit.find(fmt::format("ExecStart={} ", program)) != std::string::npos) {
      return true;
    }
  }
  return false;
}

Result<> start_unit() {
  std::array<std::string, 3> words{"systemctl", "start", "larder.service"};
  const std::array<char*, 4> arguments{words[0].data(), words[1].data(), words[2].data(), nullptr};
  pid_t child = 0;
  int status = 0;
  const int error =
      ::posix_spawnp(&child, "systemctl", nullptr, nullptr, arguments.data(), environ);
  if (error != 0 || ::waitpid(child, &status, 0) != child || status != 0) {
    return fail(Errc::kIo,
                "systemd could not start larder.service: see `journalctl -u larder.service`");
  }
  return {};
}

}  // namespace

Result<> start_in_background(const Serve& serve, const ServeOptions& options) {
  if (::geteuid() != 0) {
    return fail(Errc::kPermission, "the keeper must be started by root");
  }
  TRY(make_runtime_directory(options.runtime_directory));
  return os::start_detached(
      [&](UniqueFd report) { run_daemon(serve, options, report.get()); },
      fmt::format("the keeper died at its start: see {}/keeper.log", options.runtime_directory));
}

Result<> ensure_keeper(const Serve& serve, const ServeOptions& options) {
  handover::KeeperClient client(options.runtime_directory);
  const Result<handover::Pids> pids = client.pids();
  if (pids) {
    return {};
  }
  if (pids.error().code() != Errc::kNotFound) {
    return fail(pids.error());
  }
  const bool by_systemd =
      options.runtime_directory == handover::kDefaultRuntimeDirectory && has_unit();
  const Result<> started = by_systemd ? start_unit() : start_in_background(serve, options);
  // Somebody else may have been faster: then it runs, and all is well.
  return started || client.pids() ? Result<>() : started;
}

}  // namespace larder::cli
