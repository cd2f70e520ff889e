// The other side of control.sock: asks one question and waits for its answer.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"

namespace larder::control {

// Blocks until the reply's body is there, at most as long as `patience` between its packets.
// Errors: kNotFound: nobody listens; kTimedOut; kInvalid: what the engine says is wrong, as a
// sentence; kIo: the engine ended meanwhile.
[[nodiscard]] Result<std::string> ask(const std::string& runtime_directory,
                                      const std::vector<std::string>& words,
                                      std::chrono::seconds patience);

}  // namespace larder::control
