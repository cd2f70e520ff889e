// What the keeper settles with the system that it runs in: signals, limits.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::keeper {

// SIGTERM and SIGINT are read from the descriptor from now on; SIGPIPE and SIGHUP are ignored.
[[nodiscard]] Result<UniqueFd> watch_signals();
// As many descriptors as the hard limit allows: two a mount, one a message under way.
void raise_descriptor_limit();

}  // namespace larder::keeper
