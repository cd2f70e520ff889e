#include "os/detached_process.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {
namespace {

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

Result<> start_detached(const std::function<void(UniqueFd report)>& work,
                        const std::string& silence) {
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
    work(std::move(writer));
    ::_exit(EXIT_SUCCESS);
  }
  writer.reset();
  ::waitpid(child, nullptr, 0);
  const std::string report = read_report(reader);
  if (report == kStarted) {
    return {};
  }
  return fail(Errc::kIo, report.empty() ? silence : report);
}

}  // namespace larder::os
