// The engine's status, for people.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace larder::cli {

// `json` is what the control command status says; unknown keys are ignored, missing ones shown as
// What comes from elsewhere must not steer a terminal: control characters become '?'.
[[nodiscard]] std::string printable(std::string text);

// "-". kCorrupt: it is not JSON.
[[nodiscard]] Result<std::string> status_text(std::string_view json);

// "1.5 GiB"
[[nodiscard]] std::string readable_bytes(double bytes);

}  // namespace larder::cli
