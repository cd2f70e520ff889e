// The command line: finds out what is wanted, does it, and says in one sentence what went wrong.
#pragma once

#include "cli/keeper_start.h"

namespace larder::cli {

// main() of `larder`, and of `mount.larder` when it is called by that name. The exit code: 0 done,
// 1 refused or failed (mount.larder: 32), 2 not understood (mount.larder: 1).
[[nodiscard]] int run(int argc, char** argv, const Serve& serve);

}  // namespace larder::cli
