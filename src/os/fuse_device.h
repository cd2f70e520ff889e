// The descriptor of a mounted FUSE filesystem: requests of the kernel in, replies out.
//
// Knows nothing of the protocol: one read is one request, one write is one reply or notification.
// The tests' form (testing/fake_fuse_device.h) plays the kernel.
#pragma once

#include <memory>
#include <span>

#include <sys/uio.h>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

// Threads: any number may read and write at once.
class FuseDevice {
 public:
  FuseDevice() = default;
  FuseDevice(const FuseDevice&) = delete;
  FuseDevice& operator=(const FuseDevice&) = delete;
  virtual ~FuseDevice() = default;

  // Waits for the next request and returns its bytes in `buffer` (which must hold max_write + 4
  // KiB). kCancelled: stop() was called. kNotFound: the filesystem was unmounted or aborted.
  [[nodiscard]] virtual Result<MutableBytes> read_request(MutableBytes buffer) = 0;
  // One reply or notification. kNotFound: nobody waits for it any more (interrupted, forgotten
  // name).
  [[nodiscard]] virtual Result<> write_reply(std::span<const iovec> parts) = 0;
  // Lets every reader return with kCancelled, now and later.
  virtual void stop() = 0;
};

// The real one, on a mounted /dev/fuse, which it makes non-blocking and owns.
[[nodiscard]] Result<std::unique_ptr<FuseDevice>> make_posix_fuse_device(UniqueFd descriptor);

}  // namespace larder::os
