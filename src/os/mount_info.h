// What /proc says of the filesystem that a directory is on, and how much of it a crash may take.
//
// Pure functions over texts, so that every kind of filesystem can be tested; posix_filesystem.cc
// reads the files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "os/filesystem.h"

namespace larder::os {

// A line of /proc/self/mountinfo.
struct MountLine {
  std::uint64_t mount_id = 0;
  unsigned device_major = 0, device_minor = 0;
  std::string type;           // "ext4"
  std::string super_options;  // "rw,data=writeback"
};

// The line of the mount `mount_id`; nullopt when there is none that makes sense.
[[nodiscard]] std::optional<MountLine> find_mount(std::string_view mountinfo,
                                                  std::uint64_t mount_id);

// `ext4_options` is /proc/fs/ext4/<device>/options, "" when it cannot be read. It names a data mode
// only when the filesystem has a journal, which nothing else tells an unprivileged process.
// When in doubt: kUnordered.
[[nodiscard]] CrashSafety crash_safety_of(std::string_view type, std::string_view super_options,
                                          std::string_view ext4_options);

}  // namespace larder::os
