// Names of directory entries, as the kernel's requests carry them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <string_view>

namespace larder::fuse {

inline constexpr std::size_t kMostNameBytes = 255;

// The errno that refuses a name; 0: it is good.
[[nodiscard]] inline int name_error(std::string_view name) {
  if (name.empty()) {
    return EINVAL;
  }
  return name.size() > kMostNameBytes ? ENAMETOOLONG : 0;
}

}  // namespace larder::fuse
