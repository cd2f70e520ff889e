#include "cachefilesd/run.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/background.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/daemon.h"
#include "cachefilesd/engine_channel.h"
#include "cachefilesd/kernel_channel.h"
#include "cachefilesd/options.h"
#include "cachefilesd/pid_file.h"
#include "cachefilesd/rights.h"
#include "cachefilesd/signals.h"
#include "cachefilesd/waiter.h"
#include "handover/cache_directory.h"
#include "handover/engine_user.h"
#include "handover/paths.h"
#include "os/filesystem.h"
#include "os/service_manager.h"

namespace larder::cachefilesd {
namespace {

constexpr const char* kDefaultDevice = "/dev/cachefiles";

// Who keeps the cache.
struct OtherEnd {
  std::string runtime_directory;  // the engine's; "": a kernel's
  std::string device;
};

os::FileTime file_time_now() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<std::uint32_t>(now.tv_nsec)};
}

bool is_there(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

Result<OtherEnd> find_other_end(const Config& config) {
  if (config.device) {
    return OtherEnd{{}, *config.device};
  }
  if (config.runtime_directory) {
    return OtherEnd{*config.runtime_directory, {}};
  }
  const std::string socket = fmt::format("{}/control.sock", handover::kDefaultRuntimeDirectory);
  if (is_there(socket)) {
    return OtherEnd{handover::kDefaultRuntimeDirectory, {}};
  }
  if (is_there(kDefaultDevice)) {
    return OtherEnd{{}, kDefaultDevice};
  }
  return fail(
      Errc::kNotFound,
      fmt::format("nobody is there to keep a cache, neither {} nor {}: start an engine with "
                  "`larder serve`, or say where one is with runtime-dir",
                  socket, kDefaultDevice));
}

// What the command line says counts more than the configuration.
Result<Config> read_whole_config(const Options& options) {
  Config config = TRY(read_config(options.config_path));
  if (!options.runtime_directory.empty() || !options.device.empty()) {
    config.runtime_directory.reset();
    config.device.reset();
  }
  if (!options.runtime_directory.empty()) {
    config.runtime_directory = options.runtime_directory;
  }
  if (!options.device.empty()) {
    config.device = options.device;
  }
  return config;
}

// Once we are who we are then.
Result<Config> read_whole_config_again(const Options& options) {
  Result<Config> config = read_whole_config(options);
  if (!config && config.error().code() == Errc::kPermission) {
    return fail(
        Errc::kPermission,
        fmt::format("{}: since it has started cachefilesd is user {} without root's rights; "
                    "let that user read the file, which must lie in the directory itself, "
                    "or restart cachefilesd",
                    config.error().message(), ::getuid()));
  }
  return config;
}

// As who we are then we may not get to the directory by its path: it was opened before.
Result<std::unique_ptr<CacheChannel>> connect_to_engine(const std::string& path,
                                                        const UniqueFd& opened, Waiter& waiter) {
  Result<std::unique_ptr<CacheChannel>> channel = EngineChannel::connect(path, waiter);
  if (channel || channel.error().code() != Errc::kPermission || !opened.valid() ||
      ::fchdir(opened.get()) != 0) {
    return channel;
  }
  return EngineChannel::connect(".", waiter);
}

Result<UniqueFd> open_cache(const Config& config, const OtherEnd& end,
                            const handover::EngineUser& user) {
  if (end.device.empty()) {
    return handover::open_cache_directory(config.directory, user);
  }
  const auto directory = TRY(os::make_posix_filesystem()->open_root(config.directory));
  return directory->duplicate_descriptor();
}

// The cache is online. What the engine's cache takes was given up before.
Result<> begin_work(const OtherEnd& end, const std::function<void()>& started) {
  if (!end.device.empty()) {
    TRY(drop_capabilities());
  }
  os::notify_service_manager("READY=1");
  started();
  return {};
}

// Holds the cache until told to stop. `started` is called once it is online.
Result<> serve(const Options& options, const Config& config, const std::function<void()>& started) {
  ::umask(077);
  const pid_t parent = ::getppid();
  const std::unique_ptr<Signals> signals = TRY(Signals::watch());
  const OtherEnd end = TRY(find_other_end(config));
  const handover::EngineUser user = TRY(handover::find_engine_user());
  std::optional<PidFile> pid_file;
  if (!options.pid_file.empty() || !options.foreground) {
    pid_file = TRY(PidFile::claim(options.pid_file.empty() ? kDefaultPidFile : options.pid_file));
  }
  const UniqueFd directory = TRY(open_cache(config, end, user));
  const UniqueFd runtime(
      end.device.empty() ? ::open(end.runtime_directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)
                         : -1);
  if (end.device.empty()) {
    TRY(become(user));
    confine(directory, options.config_path);
  }
  // A change of user would have cleared it.
  if (options.with_parent &&
      (::prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) != 0 || ::getppid() != parent)) {
    return fail(Errc::kCancelled, "the process that started cachefilesd has ended");
  }
  give_way();
  const SteadyClock clock;
  const auto filesystem = os::make_posix_filesystem();
  Daemon daemon(
      {.waiter = *signals,
       .clock = clock,
       .now = file_time_now,
       .open_channel = [&]() -> Result<std::unique_ptr<CacheChannel>> {
         return end.device.empty() ? connect_to_engine(end.runtime_directory, runtime, *signals)
                                   : KernelChannel::open(end.device, *signals);
       },
       .directory = directory,
       .open_root = [&]() -> Result<std::unique_ptr<os::Directory>> {
         UniqueFd copy(::fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
         return copy.valid()
                    ? os::adopt_directory(std::move(copy))
                    : Result<std::unique_ptr<os::Directory>>(fail_errno(errno, config.directory));
       },
       .read_config = [&] { return read_whole_config_again(options); },
       .on_started = [&] { return begin_work(end, started); },
       .on_status =
           [](std::string_view status) {
             os::notify_service_manager(fmt::format("STATUS={}", status));
           }},
      config, options.never_culls);
  const Result<> done = daemon.run();
  os::notify_service_manager("STOPPING=1");
  return done;
}

// The daemon works from "/".
void make_absolute(std::string& path) {
  if (!path.empty()) {
    path = std::filesystem::absolute(path).lexically_normal();
  }
}

int finish(const Result<>& result) {
  if (!result) {
    fmt::print(stderr, "cachefilesd: {}\n", result.error().message());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

void begin_log(const Options& options) {
  if (options.debug > 0) {
    set_log_level(LogLevel::kDebug);
  }
  if (!options.no_syslog) {
    ::tzset();  // syslog(3) would read the file of the time zone later
    log_to_syslog(options.debug > 0);
  }
}

}  // namespace

int run(int argc, char** argv) {
  set_log_name("cachefilesd");
  int exit_code = EXIT_SUCCESS;
  std::optional<Options> options = parse_options(argc, argv, exit_code);
  if (!options) {
    return exit_code;
  }
  if (options->shows_version) {
    fmt::print("cachefilesd version {}\n", LARDER_VERSION);
    return EXIT_SUCCESS;
  }
  for (std::string* const path :
       {&options->config_path, &options->pid_file, &options->runtime_directory, &options->device}) {
    make_absolute(*path);
  }
  const Result<Config> config = read_whole_config(*options);
  if (!config) {
    return finish(fail(config.error()));
  }
  begin_log(*options);
  for (const std::string& note : config->notes) {
    log_info("{}", note);
  }
  if (options->foreground) {
    const Result<> served = serve(*options, *config, [] {});
    if (!served && !options->no_syslog) {
      log_error("{}", served.error().message());
    }
    return finish(served);
  }
  return finish(run_in_background(
      options->debug > 0 || options->no_syslog,
      [&](const std::function<void()>& started) { return serve(*options, *config, started); }));
}

}  // namespace larder::cachefilesd
