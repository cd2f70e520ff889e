// The engine's status as JSON: what `larder status` shows and other programs read.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/cache_binder.h"
#include "engine/mount.h"
#include "handover/messages.h"

namespace larder::engine {

struct EngineStatus {
  handover::Hello keeper;
  std::string keeper_trouble;  // what the keeper says of its daemons; a sentence or ""
  std::chrono::seconds uptime{0};
  std::vector<CacheBinder::Status> caches;
  std::vector<MountStatus> mounts;
  std::size_t nodes = 0;
  std::uint64_t unjournaled_calls = 0;  // which found no room in the journal
};

// The fields are listed in docs/protocol.md.
[[nodiscard]] std::string status_text(const EngineStatus& status);

}  // namespace larder::engine
