#include "cachefilesd/pid_file.h"

#include <cerrno>
#include <string>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::cachefilesd {

Result<PidFile> PidFile::claim(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!file.valid()) {
    return fail_errno(errno, fmt::format("the pid file {}", path));
  }
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(Errc::kBusy, fmt::format("{} belongs to a cachefilesd that runs: stop it, or give "
                                         "this one another with -p",
                                         path));
  }
  const std::string text = fmt::format("{}\n", ::getpid());
  if (::fchmod(file.get(), 0644) != 0 || ::ftruncate(file.get(), 0) != 0 ||
      ::pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return fail_errno(errno, fmt::format("the pid file {}", path));
  }
  return PidFile(std::move(file));
}

PidFile::~PidFile() {
  if (file_.valid()) {
    [[maybe_unused]] const int emptied = ::ftruncate(file_.get(), 0);
  }
}

}  // namespace larder::cachefilesd
