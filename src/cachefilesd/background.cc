#include "cachefilesd/background.h"

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/detached_process.h"

namespace larder::cachefilesd {
namespace {

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
                            ? work([&report] { tell(report, os::kStarted); })
                            : Result<>(fail_errno(errno, "detaching from the terminal"));
  if (!done) {
    log_error("{}", done.error().message());
    tell(report, done.error().message());
  }
  std::exit(done ? EXIT_SUCCESS : EXIT_FAILURE);  // NOLINT(concurrency-mt-unsafe): one thread
}

}  // namespace

Result<> run_in_background(
    bool keep_stderr, const std::function<Result<>(const std::function<void()>& started)>& work) {
  return os::start_detached(
      [&](UniqueFd report) { run_detached(std::move(report), keep_stderr, work); },
      "cachefilesd died before it had started");
}

}  // namespace larder::cachefilesd
