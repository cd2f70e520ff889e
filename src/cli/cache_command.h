// `larder cache detach`: takes a cache offline and says who still holds files of its mounts.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace larder::cli {

// Asks the engine; as control::ask().
using AskEngine = std::function<Result<std::string>(const std::vector<std::string>& words)>;

// A process with a file open, or mapped, below one of some directories.
struct FileHolder {
  std::string pid, command, path;

  friend bool operator==(const FileHolder&, const FileHolder&) = default;
};

// Each process and file once. `proc`: "/proc", or what plays it. What ends meanwhile, or may not be
// looked at, is left out.
[[nodiscard]] std::vector<FileHolder> file_holders(const std::string& proc,
                                                   const std::vector<std::string>& directories);

// Where the mounts are that use the cache, by the engine's status.
[[nodiscard]] std::vector<std::string> mountpoints_of(std::string_view status,
                                                      const std::string& tag);
// Its directory, by the engine's status.
[[nodiscard]] std::vector<std::string> directories_of(std::string_view status,
                                                      const std::string& tag);
// The engine holds nothing of the cache's disk any more.
[[nodiscard]] bool is_let_go(std::string_view status, const std::string& tag);

// The tag of the cache that is named so, by its tag or its directory; `name` if there is none.
[[nodiscard]] std::string tag_of(std::string_view status, const std::string& name);

// Detaches, waits at most `patience` until the cache's disk is let go, and returns what is to be
// printed: that it is free, or who keeps it, be it by files of mounts or by the cache's directory.
[[nodiscard]] Result<std::string> detach_cache(const AskEngine& ask, const std::string& name,
                                               std::chrono::seconds patience);

}  // namespace larder::cli
