#include "keeper/runtime_directory.h"

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
#include "os/packet_socket.h"

namespace larder::keeper {

namespace {

Result<> check_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail_errno(errno, fmt::format("the runtime directory {} cannot be made", path));
  }
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) {
    return fail_errno(errno, fmt::format("the runtime directory {}", path));
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != 0 || (status.st_mode & 0022U) != 0) {
    return fail(Errc::kInvalid,
                fmt::format("the runtime directory {} must be a directory that only "
                            "root can write to: choose another",
                            path));
  }
  // Whatever our umask is: everyone may reach control.sock.
  if (::chmod(path.c_str(), 0755) != 0) {
    return fail_errno(errno, fmt::format("the mode of the runtime directory {}", path));
  }
  return {};
}

}  // namespace

Result<RuntimeDirectory> RuntimeDirectory::claim(const std::string& path) {
  TRY(check_directory(path));
  const std::string lock_path = path + "/lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) {
    return fail_errno(errno, lock_path);
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return fail(Errc::kBusy, fmt::format("a keeper already runs for {}: `larder stop` ends it, "
                                           "--runtime-dir starts another beside it",
                                           path));
    }
    return fail_errno(errno, lock_path);
  }
  RuntimeDirectory directory(path, std::move(lock));
  directory.keeper_socket_ = TRY(os::listen_for_packets(path + "/keeper.sock", 0600));
  directory.control_socket_ = TRY(os::listen_for_packets(path + "/control.sock", 0666));
  return directory;
}

RuntimeDirectory::~RuntimeDirectory() {
  release();
}

void RuntimeDirectory::release() {
  if (!lock_.valid()) {  // released, or moved from
    return;
  }
  ::unlink((path_ + "/keeper.sock").c_str());
  ::unlink((path_ + "/control.sock").c_str());
  keeper_socket_.reset();
  control_socket_.reset();
  lock_.reset();
}

}  // namespace larder::keeper
