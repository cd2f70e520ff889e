#include "handover/engine_user.h"

#include <fmt/format.h>
#include <pwd.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::handover {

Result<EngineUser> find_engine_user() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): who looks has one thread
  if (const passwd* const entry = ::getpwnam("larder")) {
    return EngineUser{entry->pw_uid, entry->pw_gid};
  }
  // NOLINTNEXTLINE(concurrency-mt-unsafe): as above
  if (::getpwuid(kFallbackUid) != nullptr) {
    return fail(
        Errc::kInvalid,
        fmt::format("there is no user larder, and uid {} belongs to somebody: make one with "
                    "`adduser --system --group --no-create-home larder`",
                    kFallbackUid));
  }
  return EngineUser{kFallbackUid, kFallbackUid};
}

}  // namespace larder::handover
