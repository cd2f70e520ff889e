#include "keeper/backing_ids.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>

#include <sys/ioctl.h>

#include "base/log.h"
#include "base/unique_fd.h"
#include "handover/messages.h"
#include "keeper/lanes.h"

namespace larder::keeper {

namespace {

// The two ioctls on a mounted /dev/fuse (kernel 6.9 on), as linux/fuse.h has them today.
struct BackingMap {
  std::int32_t descriptor;
  std::uint32_t flags;
  std::uint64_t padding;
};

constexpr unsigned long kBackingOpen = 0x4010e501;
constexpr unsigned long kBackingClose = 0x4004e502;

void close_backing(const UniqueFd& fuse, std::int32_t backing_id) {
  const auto id = static_cast<std::uint32_t>(backing_id);
  if (::ioctl(fuse.get(), kBackingClose, &id) != 0) {
    log_debug("backing id {} could not be closed: errno {}", backing_id, errno);
  }
}

}  // namespace

Job open_backing_job(std::shared_ptr<const UniqueFd> fuse, UniqueFd file) {
  Job job;
  job.work = [fuse, file = std::move(file)](handover::Message& answer) {
    const BackingMap map{file.get(), 0, 0};
    const int id = ::ioctl(fuse->get(), kBackingOpen, &map);
    answer.head.backing_id = std::max(id, 0);
    answer.head.error_number = id < 0 ? errno : 0;
  };
  job.undo = [fuse = std::move(fuse)](const handover::Message& answer) {
    if (answer.head.error_number == 0) {
      close_backing(*fuse, answer.head.backing_id);
    }
  };
  return job;
}

Job close_backing_job(std::shared_ptr<const UniqueFd> fuse, std::int32_t backing_id) {
  Job job;
  job.work = [fuse = std::move(fuse), backing_id](handover::Message& /*reply*/) {
    close_backing(*fuse, backing_id);
  };
  return job;
}

}  // namespace larder::keeper
