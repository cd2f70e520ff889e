// URLs and options as anybody may type them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "adapters/nfs/options.h"
#include "adapters/nfs/url.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace larder::nfs;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto url = parse_nfs_url(text)) {
    CHECK(!url->host.empty() && url->path.starts_with('/') && !url->path.contains('\0'));
  } else {
    CHECK(!url.error().context().empty());
  }
  NfsOptions options;
  if (!apply_option(options, text)) {
    CHECK(options == NfsOptions());
  }
  return 0;
}
