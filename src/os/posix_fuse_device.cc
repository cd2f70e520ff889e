// The FuseDevice on a real /dev/fuse.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/fuse_device.h"

namespace larder::os {

namespace {

bool is_unmounted(int error_number) {
  return error_number == ENODEV || error_number == ECONNABORTED || error_number == ENOTCONN;
}

class PosixFuseDevice final : public FuseDevice {
 public:
  PosixFuseDevice(UniqueFd fuse, UniqueFd stop, UniqueFd waiting)
      : fuse_(std::move(fuse)), stop_(std::move(stop)), waiting_(std::move(waiting)) {}

  // Reads first: under load the next request is already there, and one system call gets it.
  Result<MutableBytes> read_request(MutableBytes buffer) override {
    while (!stopped_.load(std::memory_order_relaxed)) {
      const ssize_t length = ::read(fuse_.get(), buffer.data(), buffer.size());
      if (length >= 0) {
        return buffer.first(static_cast<std::size_t>(length));
      }
      TRY(recover(errno));
    }
    return stopped();
  }

  Result<> write_reply(std::span<const iovec> parts) override {
    const ssize_t written = ::writev(fuse_.get(), parts.data(), static_cast<int>(parts.size()));
    if (written >= 0) {
      return {};
    }
    if (is_unmounted(errno)) {
      return fail(Errc::kNotFound, "the filesystem was unmounted");
    }
    return fail_errno(errno, "write to /dev/fuse");
  }

  void stop() override {
    stopped_.store(true, std::memory_order_relaxed);
    const std::uint64_t one = 1;
    // Nobody reads the eventfd, so it stays readable for everyone who ever waits.
    [[maybe_unused]] const auto written = ::write(stop_.get(), &one, sizeof one);
  }

 private:
  // After a failed read: success when it is worth trying again.
  Result<> recover(int error_number) {
    if (error_number == EAGAIN) {
      return wait_for_request();
    }
    if (is_unmounted(error_number)) {
      return fail(Errc::kNotFound, "the filesystem was unmounted");
    }
    // ENOENT: the request was interrupted before anybody read it.
    if (error_number != EINTR && error_number != ENOENT) {
      return fail_errno(error_number, "read of /dev/fuse");
    }
    return {};
  }

  Result<> wait_for_request() {
    epoll_event event{};
    const int ready = ::epoll_wait(waiting_.get(), &event, 1, -1);
    if (ready < 0 && errno != EINTR) {
      return fail_errno(errno, "epoll of /dev/fuse");
    }
    return {};
  }

  static std::unexpected<Error> stopped() { return fail(Errc::kCancelled, "told to stop"); }

  const UniqueFd fuse_;
  const UniqueFd stop_;
  const UniqueFd waiting_;  // an epoll of both
  std::atomic<bool> stopped_{false};
};

}  // namespace

Result<std::unique_ptr<FuseDevice>> make_posix_fuse_device(UniqueFd descriptor) {
  const int flags = ::fcntl(descriptor.get(), F_GETFL);
  if (flags < 0 || ::fcntl(descriptor.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "/dev/fuse without blocking");
  }
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  UniqueFd waiting(::epoll_create1(EPOLL_CLOEXEC));
  // Edges, so that a request wakes one thread and not all; whoever wakes reads until there is no
  // more. The end, a level, wakes one after the other.
  epoll_event request{.events = EPOLLIN | EPOLLET, .data = {}};
  epoll_event end{.events = EPOLLIN, .data = {}};
  if (!stop.valid() || !waiting.valid() ||
      ::epoll_ctl(waiting.get(), EPOLL_CTL_ADD, descriptor.get(), &request) != 0 ||
      ::epoll_ctl(waiting.get(), EPOLL_CTL_ADD, stop.get(), &end) != 0) {
    return fail_errno(errno, "eventfd and epoll for /dev/fuse");
  }
  return std::make_unique<PosixFuseDevice>(std::move(descriptor), std::move(stop),
                                           std::move(waiting));
}

}  // namespace larder::os
