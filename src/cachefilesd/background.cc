#include "cachefilesd/background.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::cachefilesd {
namespace {

constexpr char kStarted = '\n';  // the whole report of a daemon that has started

void tell(UniqueFd& report, std::string_view text) {
  if (report.valid()) {
    [[maybe_unused]] const auto written = ::write(report.get(), text.data(), text.size());
    report.reset();
  }
}

bool detach(bool keep_stderr) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  return null.valid() && ::chdir("/") == 0 && ::dup2(null.get(), STDIN_FILENO) >= 0 &&
         ::dup2(null.get(), STDOUT_FILENO) >= 0 &&
         (keep_stderr || ::dup2(null.get(), STDERR_FILENO) >= 0);
}

[[noreturn]] void run_detached(
    UniqueFd report, bool keep_stderr,
    const std::function<Result<>(const std::function<void()>& started)>& work) {
  ::signal(SIGPIPE, SIG_IGN);
  const Result<> done = detach(keep_stderr)
                            ? work([&report] { tell(report, std::string_view(&kStarted, 1)); })
                            : Result<>(fail_errno(errno, "detaching from the terminal"));
  if (!done) {
    log_error("{}", done.error().message());
    tell(report, done.error().message());
  }
  std::exit(done ? EXIT_SUCCESS : EXIT_FAILURE);  // NOLINT(concurrency-mt-unsafe): one thread
}

std::string read_report(const UniqueFd& pipe) {
  std::string text;
  std::array<char, 1024> buffer{};
  ssize_t length = 0;
  while ((length = ::read(pipe.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(length));
  }
  return text;
}

}  // namespace

Result<> run_in_background(
    bool keep_stderr, const std::function<Result<>(const std::function<void()>& started)>& work) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail_errno(errno, "pipe");
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) {
    return fail_errno(errno, "fork");
  }
  if (child == 0) {
    reader.reset();
    ::setsid();
    // The second fork: no session leader, so that no terminal can become ours by accident.
    const pid_t daemon = ::fork();
    if (daemon != 0) {
      ::_exit(daemon < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    run_detached(std::move(writer), keep_stderr, work);
  }
  writer.reset();
  ::waitpid(child, nullptr, 0);
  const std::string report = read_report(reader);
  if (report == std::string_view(&kStarted, 1)) {
    return {};
  }
  return fail(Errc::kIo,
              report.empty() ? std::string("cachefilesd died before it had started") : report);
}

}  // namespace larder::cachefilesd
