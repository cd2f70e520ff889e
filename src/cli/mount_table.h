// The mounts of this process's namespace, as /proc/self/mountinfo lists them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace larder::cli {

inline constexpr std::string_view kMountType = "fuse.larder";

struct MountEntry {
  unsigned device_major = 0;
  unsigned device_minor = 0;
  std::string mountpoint;
  std::string type;
  std::string source;

  [[nodiscard]] bool is_ours() const { return type == kMountType; }
};

// In the order in which they were mounted. Lines that make no sense are left out.
[[nodiscard]] std::vector<MountEntry> parse_mount_table(std::string_view text);
[[nodiscard]] Result<std::vector<MountEntry>> read_mount_table();

// Whether `path` is `directory` or lies below it; both absolute and clean.
[[nodiscard]] bool is_within(std::string_view path, std::string_view directory);
// The mount that shows `path`; null only for an empty table.
[[nodiscard]] const MountEntry* mount_of(const std::vector<MountEntry>& table,
                                         std::string_view path);

}  // namespace larder::cli
