// What the daemon may still do once everything that root must open is open.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"

namespace larder::cachefilesd {

// For an engine's cache: this process is `user`'s from now on, without groups, capabilities and
// ways to get any back. Whoever started as that user stays it; kPermission: somebody else.
[[nodiscard]] Result<> become(const handover::EngineUser& user);

// For a kernel's cache, whose files are root's: no capabilities, and no way to get any back.
// Deleting in one's own directories takes none, nor does writing to the open device.
[[nodiscard]] Result<> drop_capabilities();

// Landlock: below `cache` directories can be read and names removed and moved; files can be read in
// the directory of `config_path`, to read it again; all other files are out of reach. Where the
// kernel has no such thing the log says so.
void confine(const UniqueFd& cache, const std::string& config_path);

// What others want of disk and processor goes first.
void give_way();

}  // namespace larder::cachefilesd
