// Backing ids: files that the kernel reads by itself, registered with a mounted /dev/fuse.
#pragma once

#include <cstdint>
#include <memory>

#include "base/unique_fd.h"
#include "keeper/lanes.h"

namespace larder::keeper {

// Jobs for a lane: these calls hang with the file's disk. The first puts the id or the errno into
// its reply, and closes the id if its answer came too late.
[[nodiscard]] Job open_backing_job(std::shared_ptr<const UniqueFd> fuse, UniqueFd file);
[[nodiscard]] Job close_backing_job(std::shared_ptr<const UniqueFd> fuse, std::int32_t backing_id);

}  // namespace larder::keeper
