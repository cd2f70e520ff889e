// What must not be mounted where: each check is a sentence with what, where and what to do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/mount_table.h"

namespace larder::cli {

// `path` made absolute and free of links, without touching its last component (which may be a mount
// that does not answer). kInvalid when what is above it does not exist.
[[nodiscard]] Result<std::string> resolve_parent(const std::string& path);

// The mount point, absolute and free of links: an existing directory, not one of our mounts.
[[nodiscard]] Result<std::string> check_mountpoint(const std::string& given,
                                                   const std::vector<MountEntry>& table);

// The absolute path of a cachefilesd's configuration, which must be there.
[[nodiscard]] Result<std::string> check_configuration(const std::string& given);

// The name of a cache that a cachefilesd holds: not empty, printable.
[[nodiscard]] Result<std::string> check_tag(const std::string& given);

// The cache directory, absolute and free of links; it need not exist.
[[nodiscard]] Result<std::string> resolve_cache(const std::string& given,
                                                const std::vector<MountEntry>& table);

struct Places {
  std::string mountpoint;
  std::string cache;  // "" for none
  std::string runtime_directory;
};

// None of our directories may be hidden by the mount or lie on one of our mounts.
[[nodiscard]] Result<> check_places(const Places& places, const std::vector<MountEntry>& table);

// For a source that is a local directory: not on one of our mounts, and neither it nor the mount
// point within the other. Other sources pass.
[[nodiscard]] Result<> check_source(std::string_view source, const std::string& mountpoint,
                                    const std::vector<MountEntry>& table);

}  // namespace larder::cli
