// Starting a keeper: in the background, or through systemd where that has a unit for it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace larder::cli {

struct ServeOptions {
  std::string runtime_directory;
  std::string engine_program;  // "": the one that belongs to this program
  std::string log_level = "info";
  std::string cache = {};  // as keeper::KeeperOptions
  std::uint64_t cache_size = 0;
  std::vector<std::string> daemons = {};
};

// The keeper's main function, given by the program: calls `started` once it answers, returns when
// it has ended.
using Serve = std::function<Result<>(const ServeOptions& options, std::function<void()> started)>;

// Runs the keeper in a process of its own that nothing of ours' terminal or directory holds,
// logging to <runtime directory>/keeper.log. Returns when it answers, or with what it said instead.
[[nodiscard]] Result<> start_in_background(const Serve& serve, const ServeOptions& options);

// Does nothing if a keeper runs.
[[nodiscard]] Result<> ensure_keeper(const Serve& serve, const ServeOptions& options);

}  // namespace larder::cli
