// Opening a directory for the engine to keep a cache in.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/engine_process.h"

namespace larder::keeper {

// Opens `path`, absolute and without symbolic links, as a directory of mode 0700 that belongs to
// `user`; makes it (but not its parents) if it does not exist. It changes hands only if it is
// empty; a cache of ours that belongs to somebody else, and any directory with other files, are
// refused. Blocks on the disk. Errors are sentences; kUnsuitable: what whoever named the directory
// must set right.
[[nodiscard]] Result<UniqueFd> open_cache_directory(const std::string& path,
                                                    const EngineUser& user);

}  // namespace larder::keeper
