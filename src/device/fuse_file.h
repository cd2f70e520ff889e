// FuseFile: a mount over a file that shows one regular file, the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "device/holder.h"

struct fuse_buf;  // NOLINT(readability-identifier-naming): libfuse's
struct fuse_pollhandle;
struct fuse_req;
struct fuse_session;

namespace larder::device {

// Requests go to the device and are answered when it has the answer; the kernel keeps nothing of
// the file. Threads: the one of the loop. Life: unmounts at its end, also where it is in use; what
// is open then gets ENOTCONN. `device` outlives it.
class FuseFile {
 public:
  // `path` is absolute, and a regular file.
  [[nodiscard]] static Result<std::unique_ptr<FuseFile>> mount(const std::string& path,
                                                               Device& device);

  FuseFile(const FuseFile&) = delete;
  FuseFile& operator=(const FuseFile&) = delete;
  ~FuseFile();

  // Makes this process a daemon: the caller's goes on as its parent, which ends. Requires: one
  // thread.
  [[nodiscard]] static Result<> detach();

  // Readable: call process().
  [[nodiscard]] int descriptor() const;
  // Takes one request. False: it is unmounted.
  [[nodiscard]] bool process();
  // To be called after each of these, and after what the device did: wakes who waits in poll(2), if
  // there is something new to say.
  void settle();

 private:
  // A request that the device has not answered yet.
  struct Pending {
    FuseFile* file;
    Ticket ticket;
    std::uint32_t pid;
  };

  // What libfuse calls.
  struct Operations;

  explicit FuseFile(Device& device);

  // The request's number from now on; the kernel may interrupt it.
  Ticket begin(fuse_req* request);
  // Requires: begin(). Nothing interrupts it any more.
  void end(Ticket ticket);

  Device& device_;
  fuse_session* session_ = nullptr;
  bool mounted_ = false;
  std::unique_ptr<fuse_buf> buffer_;
  Ticket last_ticket_ = 0;
  std::unordered_map<Ticket, std::unique_ptr<Pending>> pending_;
  std::vector<Pending> interrupted_;  // while a request is processed
  fuse_pollhandle* poller_ = nullptr;
  unsigned told_events_ = 0;
  bool abandoned_ = false;  // an open succeeded that nobody waits for any more
};

}  // namespace larder::device
