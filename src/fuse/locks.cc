// Locks of files: GETLK, SETLK, SETLKW. FLUSH (writes.cc) and RELEASE (opens.cc) end them.
#include <cerrno>
#include <cstdint>
#include <limits>
#include <optional>

#include <fcntl.h>

#include "base/byte_range.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "netfs/lock_table.h"
#include "netfs/range_locks.h"
#include "netfs/share.h"

namespace larder::fuse {

namespace {

// "To the end of the file, however long it becomes" (the kernel's OFFSET_MAX).
constexpr std::uint64_t kLastOffset = std::numeric_limits<std::int64_t>::max();

// Nothing: what it says makes no sense.
std::optional<netfs::LockOrder> order_of(const fuse_lk_in& in, std::uint32_t opcode) {
  const fuse_file_lock& lock = in.lk;
  const bool known = lock.type == F_RDLCK || lock.type == F_WRLCK || lock.type == F_UNLCK;
  if (!known || lock.start > lock.end || lock.end > kLastOffset) {
    return std::nullopt;
  }
  return netfs::LockOrder{.kind = (in.lk_flags & FUSE_LK_FLOCK) != 0 ? netfs::LockKind::kWholeFile
                                                                     : netfs::LockKind::kRecord,
                          .lock = {.range = ByteRange::between(lock.start, lock.end + 1),
                                   .mode = lock.type == F_RDLCK ? netfs::LockMode::kShared
                                                                : netfs::LockMode::kExclusive,
                                   .owner = in.owner,
                                   .pid = lock.pid,
                                   .open = in.fh},
                          .waits = opcode == FUSE_SETLKW};
}

fuse_lk_out answer_of(const std::optional<netfs::FileLock>& found) {
  fuse_lk_out out{};
  out.lk.type = F_UNLCK;
  if (found) {
    out.lk.start = found->range.offset;
    out.lk.end = found->range.end() - 1;
    out.lk.type = found->mode == netfs::LockMode::kShared ? F_RDLCK : F_WRLCK;
    out.lk.pid = found->pid;
  }
  return out;
}

}  // namespace

std::optional<Filesystem::AskedLock> Filesystem::asked_lock(const RequestRef& request) const {
  const auto* const in = request->argument<fuse_lk_in>();
  const HandleRef file = in == nullptr ? nullptr : handle(*request, in->fh);
  if (!locks_) {
    request->reply_error(ENOSYS);
  } else if (file == nullptr || file->open.file == nullptr) {
    request->reply_error(EBADF);
  } else if (const auto order = order_of(*in, request->header().opcode)) {
    return AskedLock{file->open.file->inode(), *order, in->lk.type == F_UNLCK};
  } else {
    request->reply_error(EINVAL);
  }
  return std::nullopt;
}

void Filesystem::getlk(const RequestRef& request) {
  if (const auto asked = asked_lock(request)) {
    // F_OFD_GETLK with F_UNLCK asks what the asker has himself.
    const netfs::LockTable& locks = share_.locks();
    request->reply(answer_of(asked->unlocks
                                 ? locks.find_own(*asked->inode, asked->order.lock)
                                 : locks.find_conflict(*asked->inode, asked->order.lock)));
  }
}

// SETLKW too.
void Filesystem::setlk(const RequestRef& request) {
  const auto asked = asked_lock(request);
  if (!asked) {
    return;
  }
  if (asked->unlocks) {
    empty_replier(request)(share_.locks().unlock(*asked->inode, asked->order));
  } else {
    share_.locks().lock(asked->inode, asked->order, request->scope(), empty_replier(request));
  }
}

}  // namespace larder::fuse
