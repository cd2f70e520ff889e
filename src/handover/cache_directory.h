// Opening a directory for the engine to keep a cache in, as root: by the keeper, or by the daemon
// that brings the cache up.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"

namespace larder::handover {

// Opens `path`, absolute and without symbolic links, as a directory of mode 0700 that belongs to
// `user`; makes it (but not its parents) if it does not exist. It changes hands only if it is
// empty; a cache of ours that belongs to somebody else, and any directory with other files, are
// refused. Blocks on the disk. Errors are sentences; kUnsuitable: what whoever named the directory
// must set right.
[[nodiscard]] Result<UniqueFd> open_cache_directory(const std::string& path,
                                                    const EngineUser& user);

}  // namespace larder::handover
