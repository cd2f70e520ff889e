#include "engine/source.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "adapters/localdir/localdir_adapter.h"
#include "adapters/nfs/nfs_adapter.h"
#include "adapters/nfs/options.h"
#include "adapters/nfs/url.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/result.h"
#include "handover/mount_spec.h"
#include "netfs/adapter.h"
#include "netfs/share.h"
#include "os/stream.h"

namespace larder::engine {

namespace {

constexpr std::string_view kLocaldirScheme = "localdir://";

Result<> apply_to_nfs(nfs::NfsOptions& options, const std::string& word) {
  const nfs::OptionOutcome outcome = TRY(nfs::apply_option(options, word));
  if (outcome == nfs::OptionOutcome::kUnknown) {
    return fail(
        Errc::kInvalid,
        fmt::format("unknown mount option '{}': see `larder mount --help` and larder(8)", word));
  }
  return {};
}

Result<nfs::NfsOptions> nfs_options_of(nfs::NfsOptions options,
                                       const handover::MountOptions& mount) {
  const auto apply = [&options](std::string_view key,
                                const std::optional<std::uint32_t>& value) -> Result<> {
    return value ? apply_to_nfs(options, fmt::format("{}={}", key, *value)) : Result<>();
  };
  TRY(apply("nconnect", mount.nconnect));
  TRY(apply("rsize", mount.rsize));
  TRY(apply("timeo", mount.timeo));
  TRY(apply("retrans", mount.retrans));
  options.soft = options.soft || mount.soft;  // the URL may have said it
  for (const std::string& word : mount.adapter) {
    TRY(apply_to_nfs(options, word));
  }
  return options;
}

Result<std::unique_ptr<netfs::Adapter>> make_localdir(const handover::MountSpec& spec,
                                                      Executor& executor) {
  std::string_view path = spec.source;
  if (path.starts_with(kLocaldirScheme)) {
    path.remove_prefix(kLocaldirScheme.size());
  }
  const handover::MountOptions& options = spec.options;
  if (options.nconnect || options.rsize || options.timeo || options.retrans || options.soft) {
    return fail(Errc::kInvalid,
                "options nconnect, rsize, timeo, retrans and soft are for a server: leave them out "
                "for a local directory");
  }
  if (!spec.options.adapter.empty()) {
    return fail(Errc::kInvalid, fmt::format("unknown mount option '{}' for a local directory",
                                            spec.options.adapter.front()));
  }
  return localdir::make_localdir_adapter(std::string(path), executor);
}

}  // namespace

Result<std::unique_ptr<netfs::Adapter>> make_adapter(const handover::MountSpec& spec,
                                                     Executor& executor,
                                                     os::StreamConnector& connector) {
  if (spec.source.starts_with(kLocaldirScheme) || spec.source.starts_with('/')) {
    return make_localdir(spec, executor);
  }
  const nfs::NfsUrl url = TRY(nfs::parse_nfs_url(spec.source));
  const nfs::NfsOptions options = TRY(nfs_options_of(url.options, spec.options));
  return nfs::make_nfs_adapter(url, options, executor, connector);
}

netfs::ShareOptions share_options_of(const handover::MountOptions& options) {
  netfs::ShareOptions share;
  share.times.file_least = std::chrono::seconds(options.acregmin);
  share.times.file_most = std::chrono::seconds(options.acregmax);
  share.times.directory_least = std::chrono::seconds(options.acdirmin);
  share.times.directory_most = std::chrono::seconds(options.acdirmax);
  share.no_close_to_open = options.nocto;
  share.writes_through = options.sync;
  return share;
}

}  // namespace larder::engine
