// The user that the engine runs as, and whose the caches are.
#pragma once

#include <sys/types.h>

#include "base/result.h"

namespace larder::handover {

// Used when there is no user "larder": outside of what Debian and systemd give to anybody.
inline constexpr uid_t kFallbackUid = 60950;

struct EngineUser {
  uid_t uid = 0;
  gid_t gid = 0;
};

// User and group "larder", or the fallback; kInvalid if somebody else has that. Threads: while
// there is one.
[[nodiscard]] Result<EngineUser> find_engine_user();

}  // namespace larder::handover
