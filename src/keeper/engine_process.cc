#include "keeper/engine_process.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"
#include "handover/messages.h"
#include "os/capabilities.h"

namespace larder::keeper {

namespace {

constexpr int kFirstHighDescriptor = 10;  // above those that the child puts in place
constexpr std::uint64_t kBindService = 1ULL << CAP_NET_BIND_SERVICE;

// What the child needs, made before the fork: between fork and exec nothing may allocate.
struct LaunchPlan {
  int program = -1;
  int channel = -1;
  int failure = -1;  // the child writes its errno here
  pid_t keeper = 0;
  handover::EngineUser user;
  std::array<char*, 2> arguments{};
  std::vector<char*> environment;
};

std::vector<std::string> engine_environment() {
  std::vector<std::string> environment{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
  for (const char* const name :
       {"JOURNAL_STREAM", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): the keeper has one thread when it looks
    if (const char* const value = std::getenv(name)) {
      environment.push_back(fmt::format("{}={}", name, value));
    }
  }
  return environment;
}

bool drop_rights(const handover::EngineUser& user) {
  if (!os::drop_bounding_set(kBindService) || ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 ||
      ::setgroups(0, nullptr) != 0 || ::setresgid(user.gid, user.gid, user.gid) != 0 ||
      ::setresuid(user.uid, user.uid, user.uid) != 0) {
    return false;
  }
  // In a container that has no CAP_NET_BIND_SERVICE the engine goes without: servers that insist on
  // privileged ports then refuse it, which it reports.
  if (!os::set_capabilities(kBindService) ||
      ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) != 0) {
    if (!os::set_capabilities(0)) {
      return false;
    }
  }
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

bool reset_signals() {
  for (int number = 1; number < SIGRTMAX; ++number) {
    ::signal(number, SIG_DFL);  // SIGKILL and SIGSTOP say no
  }
  sigset_t none;
  ::sigemptyset(&none);
  return ::pthread_sigmask(SIG_SETMASK, &none, nullptr) == 0;
}

bool prepare_child(const LaunchPlan& plan) {
  rlimit descriptors{};
  ::umask(077);
  return ::getrlimit(RLIMIT_NOFILE, &descriptors) == 0 &&
         (descriptors.rlim_cur = descriptors.rlim_max, true) &&
         ::setrlimit(RLIMIT_NOFILE, &descriptors) == 0 && ::setpgid(0, 0) == 0 &&
         ::chdir("/") == 0 && drop_rights(plan.user) &&
         // After the change of user, which would clear it.
         ::prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) == 0 && ::getppid() == plan.keeper &&
         ::dup2(plan.channel, handover::kChannelDescriptor) >= 0 &&
         // Also what whoever started the keeper left open for it.
         ::syscall(SYS_close_range, handover::kChannelDescriptor + 1, ~0U, CLOSE_RANGE_CLOEXEC) ==
             0 &&
         reset_signals();
}

[[noreturn]] void run_child(const LaunchPlan& plan) {
  if (prepare_child(plan)) {
    ::syscall(SYS_execveat, plan.program, "", plan.arguments.data(), plan.environment.data(),
              AT_EMPTY_PATH);
  }
  const int error_number = errno;
  [[maybe_unused]] const auto written = ::write(plan.failure, &error_number, sizeof error_number);
  ::_exit(127);
}

Result<UniqueFd> high_duplicate(int descriptor, const char* what) {
  UniqueFd high(::fcntl(descriptor, F_DUPFD_CLOEXEC, kFirstHighDescriptor));
  if (!high.valid()) {
    return fail_errno(errno, what);
  }
  return high;
}

Result<EngineProcess> fork_engine(LaunchPlan& plan, const std::string& program) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail_errno(errno, "pipe");
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  UniqueFd failure = TRY(high_duplicate(writer.get(), "pipe"));
  plan.failure = failure.get();
  writer.reset();
  EngineProcess engine;
  engine.pid = ::fork();
  if (engine.pid == 0) {
    run_child(plan);
  }
  if (engine.pid < 0) {
    return fail_errno(errno, "fork of the engine");
  }
  failure.reset();
  int error_number = 0;
  const bool failed = ::read(reader.get(), &error_number, sizeof error_number) > 0;
  engine.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, engine.pid, 0)));
  if (failed || !engine.pidfd.valid()) {
    const int why = failed ? error_number : errno;
    ::kill(engine.pid, SIGKILL);
    ::waitpid(engine.pid, nullptr, 0);
    return fail_errno(
        why, fmt::format("the engine {} could not be started as uid {}", program, plan.user.uid));
  }
  return engine;
}

}  // namespace

Result<std::string> find_engine_program() {
  return find_program("larder-engine", {"/larder-engine", "/../libexec/larder/larder-engine"});
}

Result<std::string> find_program(const char* name, std::initializer_list<const char*> places) {
  std::array<char, 4096> buffer{};
  const ssize_t length = ::readlink("/proc/self/exe", buffer.data(), buffer.size() - 1);
  if (length < 0) {
    return fail_errno(errno, "/proc/self/exe");
  }
  std::string directory(buffer.data(), static_cast<std::size_t>(length));
  directory.resize(directory.rfind('/'));
  for (const char* const place : places) {
    std::string program = directory + place;
    if (::access(program.c_str(), X_OK) == 0) {
      return program;
    }
  }
  return fail(Errc::kNotFound,
              fmt::format("{0} is neither at {1}{2} nor at {1}{3}: install larder again", name,
                          directory, *places.begin(), *(places.end() - 1)));
}

Result<EngineProcess> start_engine(const std::string& program, const handover::EngineUser& user,
                                   const UniqueFd& channel) {
  const UniqueFd opened(::open(program.c_str(), O_PATH | O_CLOEXEC));
  if (!opened.valid()) {
    return fail_errno(errno, program);
  }
  const UniqueFd high_program = TRY(high_duplicate(opened.get(), "descriptor of the engine"));
  const UniqueFd high_channel = TRY(high_duplicate(channel.get(), "descriptor of the channel"));
  std::string name = "larder-engine";
  std::vector<std::string> environment = engine_environment();
  LaunchPlan plan;
  plan.program = high_program.get();
  plan.channel = high_channel.get();
  plan.keeper = ::getpid();
  plan.user = user;
  plan.arguments = {name.data(), nullptr};
  for (std::string& variable : environment) {
    plan.environment.push_back(variable.data());
  }
  plan.environment.push_back(nullptr);
  return fork_engine(plan, program);
}

std::string reap_process(const UniqueFd& pidfd) {
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info,
               WEXITED) != 0) {  // NOLINT(misc-include-cleaner): of <sys/wait.h>
    return "ended unseen";
  }
  return info.si_code == CLD_EXITED ? fmt::format("ended with exit code {}", info.si_status)
                                    : fmt::format("was killed by signal {}", info.si_status);
}

}  // namespace larder::keeper
