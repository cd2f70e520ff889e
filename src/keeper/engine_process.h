// Starting the engine with the few rights that it needs, and hearing of its end.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"

namespace larder::keeper {

// The first of `places` that is a program; they are relative to the directory of this one.
[[nodiscard]] Result<std::string> find_program(const char* name,
                                               std::initializer_list<const char*> places);

// larder-engine beside this program, or ../libexec/larder/larder-engine from there.
[[nodiscard]] Result<std::string> find_engine_program();

struct EngineProcess {
  pid_t pid = 0;
  UniqueFd pidfd;
};

// Starts `program` with `channel` as descriptor handover::kChannelDescriptor: as `user`, without
// groups, without capabilities but CAP_NET_BIND_SERVICE, with no_new_privs, as many descriptors as
// the hard limit allows, umask 077 and default signals, in a process group of its own. It gets
// SIGTERM when the keeper dies. `program` is opened by us, so it may lie where `user` cannot go.
// Errors: also that of the exec itself.
[[nodiscard]] Result<EngineProcess> start_engine(const std::string& program,
                                                 const handover::EngineUser& user,
                                                 const UniqueFd& channel);

// Once the pidfd is readable: reaps, and says how it ended ("was killed by signal 11").
[[nodiscard]] std::string reap_process(const UniqueFd& pidfd);

}  // namespace larder::keeper
