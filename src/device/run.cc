#include "device/run.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/channel_client.h"
#include "device/device.h"
#include "device/fuse_file.h"
#include "device/holder.h"
#include "device/working_directory.h"
#include "handover/cache_directory.h"
#include "handover/engine_user.h"
#include "handover/paths.h"
#include "os/capabilities.h"
#include "os/ending.h"
#include "os/filesystem.h"
#include "os/poll_timeout.h"
#include "os/service_manager.h"
#include "os/signal_watch.h"

namespace larder::device {
namespace {

constexpr int kExitUsage = 2;

// What is left of root's rights: to stand where a writer stands, in whatever directory and whoever
// he is; to make what `dir` names the engine user's; to mount the file and unmount it.
constexpr std::uint64_t kRights = 1ULL << CAP_SYS_PTRACE | 1ULL << CAP_DAC_OVERRIDE |
                                  1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_CHOWN |
                                  1ULL << CAP_FOWNER | 1ULL << CAP_SYS_ADMIN;

struct Options {
  std::string file;
  std::string runtime_directory = handover::kDefaultRuntimeDirectory;
  bool foreground = false;
  bool shows_version = false;
};

// nullopt: there is nothing to do but to end with `exit_code`.
std::optional<Options> parse_options(int argc, char** argv, int& exit_code) {
  Options options;
  CLI::App app("Makes a file behave as the kernel's /dev/cachefiles, with an engine behind it",
               "larder-device");
  app.failure_message([](const CLI::App* /*app*/, const CLI::Error& error) {
    return fmt::format("larder-device: {}: see `larder-device --help`\n", error.what());
  });
  CLI::Option* const version =
      app.add_flag("-v,--version", options.shows_version, "print the version and end");
  app.add_flag("-f,--foreground", options.foreground, "stay in the foreground, log to stderr");
  app.add_option("--runtime-dir", options.runtime_directory,
                 "the cache is kept by the engine with its sockets in this directory")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_option("FILE", options.file, "the file, made if it is missing")
      ->type_name("")
      ->excludes(version);
  try {
    app.parse(argc, argv);
    if (options.file.empty() && !options.shows_version) {
      throw CLI::RequiredError("FILE");
    }
  } catch (const CLI::ParseError& error) {  // CLI11's way to say that it did not understand
    exit_code = app.exit(error) == 0 ? EXIT_SUCCESS : kExitUsage;
    return std::nullopt;
  }
  return options;
}

// The file that is mounted over; one that was made for that goes with its end.
class Place {
 public:
  [[nodiscard]] static Result<Place> prepare(const std::string& path) {
    struct stat found{};
    if (::stat(path.c_str(), &found) != 0) {
      if (errno == ENOTCONN) {
        return fail(Errc::kBusy, fmt::format("{} is left over from a larder-device that died: "
                                             "`umount -l {}`",
                                             path, path));
      }
      const UniqueFd made(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      if (!made.valid()) {
        return fail_errno(errno, path);
      }
      return Place(path);
    }
    if (!S_ISREG(found.st_mode)) {
      return fail(Errc::kUnsuitable,
                  fmt::format("{} is no regular file{}: name another", path,
                              S_ISCHR(found.st_mode) ? ", but the kernel's own device" : ""));
    }
    struct statfs filesystem{};
    if (::statfs(path.c_str(), &filesystem) == 0 && filesystem.f_type == FUSE_SUPER_MAGIC) {
      return fail(Errc::kBusy, fmt::format("something is mounted at {} already: unmount it", path));
    }
    return Place(std::string());
  }

  Place(Place&& other) noexcept : made_(std::exchange(other.made_, {})) {}

  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  Place& operator=(Place&&) = delete;

  ~Place() {
    if (!made_.empty()) {
      ::unlink(made_.c_str());
    }
  }

 private:
  explicit Place(std::string made) : made_(std::move(made)) {}

  std::string made_;  // "": it was there
};

// Until somebody unmounts the file or a signal comes.
void serve(Device& device, FuseFile& file, const UniqueFd& signals, const Clock& clock) {
  for (;;) {
    std::array<pollfd, 3> polled{{{signals.get(), POLLIN, 0},
                                  {file.descriptor(), POLLIN, 0},
                                  {device.descriptor(), POLLIN, 0}}};
    const std::optional<MonotonicTime> deadline = device.deadline();
    const int ready =
        ::poll(polled.data(), polled.size(),
               os::poll_timeout(deadline ? std::optional(*deadline - clock.now()) : std::nullopt));
    if (ready < 0 && errno != EINTR) {
      return;
    }
    if (polled[0].revents != 0) {
      return;
    }
    if (polled[2].revents != 0) {
      device.on_readable();
    }
    if (polled[1].revents != 0 && !file.process()) {
      return;
    }
    device.on_time();
    file.settle();
  }
}

// A kernel makes no directory for its cache, and neither must a slip in a configuration.
Result<UniqueFd> open_cache(const std::string& path, const handover::EngineUser& user) {
  TRY(os::make_posix_filesystem()->open_root(path));
  return handover::open_cache_directory(path, user);
}

Result<> hold(const Options& options) {
  if (::geteuid() != 0) {
    return fail(Errc::kPermission, "larder-device must be started by root");
  }
  const handover::EngineUser user = TRY(handover::find_engine_user());
  const SteadyClock clock;
  const Surroundings surroundings{
      .connect = [&] { return control::ChannelClient::connect(options.runtime_directory); },
      .open_cache = [&](const std::string& path) { return open_cache(path, user); },
      .open_working_directory = open_working_directory,
      .is_ending = [](std::uint32_t pid) { return os::is_thread_ending(os::read_proc_file, pid); }};
  Device device(clock, surroundings);
  // Both before the file is mounted: whoever sees it may end this process, which must unmount it,
  // and has one before him that has only these rights.
  const UniqueFd signals = TRY(os::watch_signals({SIGTERM, SIGINT, SIGHUP}));
  if (!os::keep_only(kRights)) {
    return fail_errno(errno, "giving up capabilities");
  }
  const Place place = TRY(Place::prepare(options.file));
  const std::unique_ptr<FuseFile> file = TRY(FuseFile::mount(options.file, device));
  if (!options.foreground) {
    ::tzset();  // syslog(3) would read the file of the time zone later
    log_to_syslog(false);
    TRY(FuseFile::detach());
  }
  os::notify_service_manager("READY=1");
  log_info("{} is a device of the engine in {}", options.file, options.runtime_directory);
  serve(device, *file, signals, clock);
  os::notify_service_manager("STOPPING=1");
  return {};
}

}  // namespace

int run(int argc, char** argv) {
  set_log_name("larder-device");
  int exit_code = EXIT_SUCCESS;
  std::optional<Options> options = parse_options(argc, argv, exit_code);
  if (!options) {
    return exit_code;
  }
  if (options->shows_version) {
    fmt::print("larder-device {}\n", LARDER_VERSION);
    return EXIT_SUCCESS;
  }
  // A daemon works from "/".
  options->file = std::filesystem::absolute(options->file).lexically_normal();
  options->runtime_directory =
      std::filesystem::absolute(options->runtime_directory).lexically_normal();
  const Result<> done = hold(*options);
  if (!done) {
    fmt::print(stderr, "larder-device: {}\n", done.error().message());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace larder::device
