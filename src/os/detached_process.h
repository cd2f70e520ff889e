// Becoming a daemon: a process without terminal and parent, whose start the caller waits for.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

// The whole report of one that has started; anything else is why it has not.
inline constexpr std::string_view kStarted = "\n";

// Runs `work` in such a process; it ends when `work` returns, if not before. `work` writes its
// report and closes it. Returns in the caller when that is done: an error, kIo, with the report, or
// with `silence` if there is none. Requires: one thread.
[[nodiscard]] Result<> start_detached(const std::function<void(UniqueFd report)>& work,
                                      const std::string& silence);

}  // namespace larder::os
