// Which adapter serves a mount: the only place that knows them all.
#pragma once

#include <memory>

#include "base/executor.h"
#include "base/result.h"
#include "handover/mount_spec.h"
#include "netfs/adapter.h"
#include "netfs/share.h"
#include "os/stream.h"

namespace larder::engine {

// The adapter of the spec's source, with the spec's options. Errors: kInvalid with a sentence.
[[nodiscard]] Result<std::unique_ptr<netfs::Adapter>> make_adapter(const handover::MountSpec& spec,
                                                                   Executor& executor,
                                                                   os::StreamConnector& connector);

[[nodiscard]] netfs::ShareOptions share_options_of(const handover::MountOptions& options);

}  // namespace larder::engine
