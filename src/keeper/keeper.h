// The keeper: the small root process that holds what must outlive an engine.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "handover/paths.h"

namespace larder::keeper {

struct KeeperOptions {
  std::string runtime_directory = handover::kDefaultRuntimeDirectory;
  std::string engine_program;  // "": the larder-engine that belongs to this program
  std::string log_level = "info";
  std::string cache = {};        // absolute: brought online by each engine at its start; may be ""
  std::uint64_t cache_size = 0;  // bytes, 0: the default
  // Absolute paths of configurations: a cachefilesd is kept running for each.
  std::vector<std::string> daemons = {};
  std::function<void()> on_started = {};  // called once it answers; may be empty
};

// Runs until it is told to stop (STOP, SIGTERM, SIGINT), on the calling thread, which should be the
// only one. Errors, all before anything was started, are sentences: not root, another keeper runs,
// a runtime directory that others may write to.
[[nodiscard]] Result<> run_keeper(const KeeperOptions& options);

}  // namespace larder::keeper
