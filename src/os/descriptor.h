// What is known of an open descriptor, whoever opened it.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::os {

[[nodiscard]] Result<FileStat> stat_of(const UniqueFd& descriptor);

}  // namespace larder::os
