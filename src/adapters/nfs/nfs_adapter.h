// An NFSv3 server as netfs sees it.
#pragma once

#include <memory>

#include "adapters/nfs/options.h"
#include "adapters/nfs/url.h"
#include "base/executor.h"
#include "netfs/adapter.h"
#include "os/stream.h"

namespace larder::nfs {

// `options` are those of the URL with whatever was said besides. `executor` and `connector` outlive
// the adapter. Calls before start_connect has ended well end with kInvalid.
//
// Errors are those of netfs/adapter.h, and one more that start_readdir may give: kStale with EAGAIN
// when the server does not know the position any more (BAD_COOKIE): the listing begins again.
[[nodiscard]] std::unique_ptr<netfs::Adapter> make_nfs_adapter(const NfsUrl& url,
                                                               const NfsOptions& options,
                                                               Executor& executor,
                                                               os::StreamConnector& connector);

}  // namespace larder::nfs
