#include "keeper/log_file.h"

#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/unique_fd.h"

namespace larder::keeper {

namespace {

bool copy(const std::string& from, const std::string& to) {
  const UniqueFd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  const UniqueFd target(
      ::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!source.valid() || !target.valid()) {
    return false;
  }
  ssize_t copied = 0;
  do {
    copied = ::sendfile(target.get(), source.get(), nullptr, LogFile::kMostBytes);
  } while (copied > 0);
  return copied == 0;
}

}  // namespace

LogFile::LogFile(const std::string& runtime_directory) : path_(runtime_directory + "/keeper.log") {
  struct stat named{};
  struct stat used{};
  ours_ = ::lstat(path_.c_str(), &named) == 0 && ::fstat(STDERR_FILENO, &used) == 0 &&
          S_ISREG(used.st_mode) && named.st_dev == used.st_dev && named.st_ino == used.st_ino;
}

std::string LogFile::place() const {
  return ours_ ? path_ : "the keeper's log (`journalctl -u larder`, if systemd started it)";
}

void LogFile::bound() const {
  struct stat status{};
  if (!ours_ || ::fstat(STDERR_FILENO, &status) != 0 || status.st_size <= kMostBytes) {
    return;
  }
  const std::string older = path_ + ".1";
  const bool kept = copy(path_, older);
  if (::ftruncate(STDERR_FILENO, 0) == 0) {  // everybody appends: the next line is the first
    log_info("{} goes on here, {} {}", path_, kept ? "from" : "older lines are lost: no room for",
             older);
  }
}

}  // namespace larder::keeper
