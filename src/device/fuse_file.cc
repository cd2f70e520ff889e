#include "device/fuse_file.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/result.h"
#include "device/device.h"
#include "device/holder.h"

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <fuse3/fuse_opt.h>

namespace larder::device {
namespace {

FuseFile& file_of(fuse_req_t request) {
  return *static_cast<FuseFile*>(fuse_req_userdata(request));
}

// Always the same: the kernel asks again each time, since it takes what is written for a size.
void answer_attributes(fuse_req_t request) {
  struct stat attributes{};
  attributes.st_ino = FUSE_ROOT_ID;
  attributes.st_mode = S_IFREG | 0600;
  attributes.st_nlink = 1;
  fuse_reply_attr(request, &attributes, 0);
}

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return {static_cast<std::uint32_t>(context->pid), context->uid};
}

void answer_error(fuse_req_t request, const Error& error) {
  fuse_reply_err(request, error.error_number());
}

}  // namespace

struct FuseFile::Operations {
  static void getattr(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*info*/) {
    answer_attributes(request);
  }

  // A device has no size to cut; its owner and mode stay.
  static void setattr(fuse_req_t request, fuse_ino_t /*inode*/, struct stat* /*attributes*/,
                      int what, fuse_file_info* /*info*/) {
    constexpr int kRefused = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
    if ((what & kRefused) != 0) {
      fuse_reply_err(request, EPERM);
      return;
    }
    answer_attributes(request);
  }

  static void open(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* info) {
    FuseFile& file = file_of(request);
    const Ticket ticket = file.begin(request);
    file.device_.open(ticket, caller_of(request),
                      [&file, request, ticket, info = *info](Result<std::string> result) mutable {
                        file.end(ticket);
                        if (!result) {
                          return answer_error(request, result.error());
                        }
                        info.direct_io = 1;
                        info.keep_cache = 0;
                        if (fuse_reply_open(request, &info) == -ENOENT) {
                          file.abandoned_ = true;  // whoever opened it is gone: no release comes
                        }
                      });
  }

  static void read(fuse_req_t request, fuse_ino_t /*inode*/, size_t size, off_t /*offset*/,
                   fuse_file_info* /*info*/) {
    FuseFile& file = file_of(request);
    const Ticket ticket = file.begin(request);
    file.device_.read(ticket, size, [&file, request, ticket](Result<std::string> result) {
      file.end(ticket);
      if (!result) {
        return answer_error(request, result.error());
      }
      fuse_reply_buf(request, result->data(), result->size());
    });
  }

  static void write(fuse_req_t request, fuse_ino_t /*inode*/, const char* bytes, size_t size,
                    off_t /*offset*/, fuse_file_info* /*info*/) {
    FuseFile& file = file_of(request);
    const Ticket ticket = file.begin(request);
    file.device_.write(ticket, caller_of(request), std::string(bytes, size),
                       [&file, request, ticket, size](Result<std::string> result) {
                         file.end(ticket);
                         if (!result) {
                           return answer_error(request, result.error());
                         }
                         fuse_reply_write(request, size);
                       });
  }

  static void poll(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*info*/,
                   fuse_pollhandle* handle) {
    FuseFile& file = file_of(request);
    if (handle != nullptr) {
      if (file.poller_ != nullptr) {
        fuse_pollhandle_destroy(file.poller_);
      }
      file.poller_ = handle;
    }
    file.told_events_ = file.device_.events();
    fuse_reply_poll(request, file.told_events_);
  }

  static void flush(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*info*/) {
    file_of(request).device_.note_closed();
    fuse_reply_err(request, 0);
  }

  static void release(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*info*/) {
    file_of(request).device_.release();
    fuse_reply_err(request, 0);
  }

  static void interrupted(fuse_req_t /*request*/, void* data) {
    const auto* const pending = static_cast<const Pending*>(data);
    pending->file->interrupted_.push_back(*pending);
  }

  static constexpr fuse_lowlevel_ops table() {
    fuse_lowlevel_ops operations{};
    operations.getattr = getattr;
    operations.setattr = setattr;
    operations.open = open;
    operations.read = read;
    operations.write = write;
    operations.flush = flush;
    operations.release = release;
    operations.poll = poll;
    return operations;
  }
};

FuseFile::FuseFile(Device& device) : device_(device), buffer_(std::make_unique<fuse_buf>()) {}

Result<std::unique_ptr<FuseFile>> FuseFile::mount(const std::string& path, Device& device) {
  static constexpr fuse_lowlevel_ops kOperations = Operations::table();
  std::unique_ptr<FuseFile> file(new FuseFile(device));
  // Whoever is not root is told EPERM by the open itself, as by the kernel's device.
  std::array<std::string, 3> words{"larder-device", "-o",
                                   "allow_other,fsname=larder-device,subtype=larder-device"};
  std::array<char*, 3> pointers{words[0].data(), words[1].data(), words[2].data()};
  fuse_args arguments = FUSE_ARGS_INIT(static_cast<int>(pointers.size()), pointers.data());
  file->session_ = fuse_session_new(&arguments, &kOperations, sizeof kOperations, file.get());
  fuse_opt_free_args(&arguments);
  if (file->session_ == nullptr) {
    return fail(Errc::kNotSupported, "libfuse makes no session");
  }
  errno = 0;
  if (fuse_session_mount(file->session_, path.c_str()) != 0) {
    return fail_errno(errno != 0 ? errno : EIO, fmt::format("mounting over {}", path));
  }
  file->mounted_ = true;
  // A request that is taken back between poll(2) and read(2) must not make the loop wait.
  const int descriptor = fuse_session_fd(file->session_);
  if (::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) | O_NONBLOCK) != 0) {
    return fail_errno(errno, "/dev/fuse");
  }
  return file;
}

FuseFile::~FuseFile() {
  device_.end();
  if (poller_ != nullptr) {
    fuse_pollhandle_destroy(poller_);
  }
  if (mounted_) {
    fuse_session_unmount(session_);
  }
  if (session_ != nullptr) {
    fuse_session_destroy(session_);
  }
  std::free(buffer_->mem);  // NOLINT(*-no-malloc): libfuse made it so
}

Result<> FuseFile::detach() {
  if (fuse_daemonize(0) != 0) {
    return fail(Errc::kIo, "no daemon can be made of this process");
  }
  return {};
}

int FuseFile::descriptor() const {
  return fuse_session_fd(session_);
}

bool FuseFile::process() {
  const int length = fuse_session_receive_buf(session_, buffer_.get());
  if (length == -EINTR || length == -EAGAIN) {
    return true;
  }
  if (length <= 0) {
    return false;
  }
  fuse_session_process_buf(session_, buffer_.get());
  for (const Pending& pending : std::exchange(interrupted_, {})) {
    device_.interrupt(pending.ticket, pending.pid);
  }
  return fuse_session_exited(session_) == 0;
}

void FuseFile::settle() {
  if (std::exchange(abandoned_, false)) {
    device_.release();
  }
  if (poller_ == nullptr || device_.events() == told_events_) {
    return;
  }
  fuse_pollhandle* const poller = std::exchange(poller_, nullptr);
  fuse_lowlevel_notify_poll(poller);
  fuse_pollhandle_destroy(poller);
}

Ticket FuseFile::begin(fuse_req_t request) {
  const Ticket ticket = ++last_ticket_;
  auto pending = std::make_unique<Pending>(Pending{this, ticket, caller_of(request).pid});
  fuse_req_interrupt_func(request, &Operations::interrupted, pending.get());
  pending_.emplace(ticket, std::move(pending));
  return ticket;
}

// libfuse forgets the function when the request is answered, which is next.
void FuseFile::end(Ticket ticket) {
  pending_.erase(ticket);
}

}  // namespace larder::device
