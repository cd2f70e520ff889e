// NfsUrl: which share of which server, as a person wrote it.
#pragma once

#include <string>
#include <string_view>

#include "adapters/nfs/options.h"
#include "base/result.h"

namespace larder::nfs {

struct NfsUrl {
  std::string host;    // a name or a numeric address, without brackets
  std::string port;    // of NFS, as given; "" when it was not
  std::string path;    // the export, from its '/' on, percent-decoded, without a '/' at its end
  NfsOptions options;  // what the query said
};

// nfs://HOST[:PORT]/EXPORT[?nfsport=N&mountport=N&OPTION...] or HOST:/EXPORT; an IPv6 address
// stands in brackets. Percent signs mean something in the first form only.
// Errors: kInvalid with a sentence: what, where, what to do.
[[nodiscard]] Result<NfsUrl> parse_nfs_url(std::string_view text);

}  // namespace larder::nfs
