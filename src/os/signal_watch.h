// Signals as a descriptor, for a process that waits in one poll(2).
#pragma once

#include <initializer_list>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

// From now on `signals` are read from the descriptor, as signalfd_siginfo, without waiting; SIGPIPE
// is ignored, since stderr may be a pipe whose reader is gone. Requires: one thread.
[[nodiscard]] Result<UniqueFd> watch_signals(std::initializer_list<int> signals);

}  // namespace larder::os
