// Settings: what the holder of the device has set before bind. Everything is checked when it is
// written, against what was written before, and the engine hears of it at bind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/cache_limits.h"
#include "control/cache_protocol.h"

namespace larder::device {

using Limits = control::CacheLimits;

// Threads: one.
class Settings {
 public:
  // dir, tag and the limits. kInvalid: it makes no sense; kExists: given already. After bind limits
  // are taken, and change nothing, as with the kernel.
  [[nodiscard]] Result<> set(const control::CacheCommand& command);

  // At bind who gave no tag has the kernel's.
  void settle();

  [[nodiscard]] const std::optional<std::string>& directory() const { return directory_; }

  [[nodiscard]] const Limits& blocks() const { return blocks_; }

  [[nodiscard]] const Limits& files() const { return files_; }

  // What an engine is to be told between `dir` and `bind`: it begins with other limits, and
  // compares each with the others, too. A kernel's cache has no size but its filesystem's.
  [[nodiscard]] std::vector<control::CacheCommand> commands(std::uint64_t filesystem_bytes) const;

 private:
  [[nodiscard]] Result<> set_limit(control::CacheVerb verb, std::string_view argument);

  std::optional<std::string> directory_;
  std::optional<std::string> tag_;
  Limits blocks_, files_;
};

}  // namespace larder::device
