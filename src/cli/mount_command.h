// larder mount, larder umount: what happens in the caller's namespaces.
#pragma once

#include <string>

#include "base/result.h"
#include "cli/keeper_start.h"
#include "cli/mount_options.h"

namespace larder::cli {

struct MountRequest {
  std::string source;
  std::string mountpoint;
  OptionWords words;
  ServeOptions keeper;      // started so if none runs
  bool only_check = false;  // mount -f
};

// Blocks until the mount is served, or leaves nothing behind. Errors are sentences.
[[nodiscard]] Result<> mount_source(const MountRequest& request, const Serve& serve);

// `lazily`: also while it is in use; it disappears when the last user is gone.
[[nodiscard]] Result<> unmount(const std::string& mountpoint, bool lazily);

}  // namespace larder::cli
