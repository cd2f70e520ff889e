// Becoming a daemon: a process without terminal and parent, whose start the caller waits for.
#pragma once

#include <functional>

#include "base/result.h"

namespace larder::cachefilesd {

// Runs `work` in such a process, in "/", with null input and output (and errors, unless
// `keep_stderr`). `work` calls what it is given once it has started; what it returns, an error is
// logged then, is its process's end. Returns in the caller when it has started, or with the error
// with which it ended before. Requires: one thread.
[[nodiscard]] Result<> run_in_background(
    bool keep_stderr, const std::function<Result<>(const std::function<void()>& started)>& work);

}  // namespace larder::cachefilesd
