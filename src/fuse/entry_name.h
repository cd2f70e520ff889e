// Names of directory entries, as the kernel's requests carry them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <string_view>

namespace larder::fuse {

inline constexpr std::size_t kMostNameBytes = 255;
// Of a symbolic link: the kernel adds a zero to fill its page.
inline constexpr std::size_t kMostTargetBytes = 4095;

// The errno that refuses a name; 0: it is good.
[[nodiscard]] inline int name_error(std::string_view name) {
  if (name.empty()) {
    return EINVAL;
  }
  return name.size() > kMostNameBytes ? ENAMETOOLONG : 0;
}

}  // namespace larder::fuse
