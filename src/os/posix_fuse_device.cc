// The FuseDevice on a real /dev/fuse.
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <utility>

#include <fcntl.h>
#include <poll.h>
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
  PosixFuseDevice(UniqueFd fuse, UniqueFd stop) : fuse_(std::move(fuse)), stop_(std::move(stop)) {}

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
    // Nobody reads the eventfd, so it stays readable for everyone who ever polls it.
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
    std::array<pollfd, 2> descriptors{{{fuse_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    if (::poll(descriptors.data(), descriptors.size(), -1) < 0 && errno != EINTR) {
      return fail_errno(errno, "poll of /dev/fuse");
    }
    if (descriptors[1].revents != 0) {
      return stopped();
    }
    return {};
  }

  static std::unexpected<Error> stopped() { return fail(Errc::kCancelled, "told to stop"); }

  const UniqueFd fuse_;
  const UniqueFd stop_;
  std::atomic<bool> stopped_{false};
};

}  // namespace

Result<std::unique_ptr<FuseDevice>> make_posix_fuse_device(UniqueFd descriptor) {
  const int flags = ::fcntl(descriptor.get(), F_GETFL);
  if (flags < 0 || ::fcntl(descriptor.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "/dev/fuse without blocking");
  }
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) {
    return fail_errno(errno, "eventfd");
  }
  return std::make_unique<PosixFuseDevice>(std::move(descriptor), std::move(stop));
}

}  // namespace larder::os
