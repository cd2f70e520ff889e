#include "os/capabilities.h"

#include <array>
#include <cerrno>
#include <cstdint>

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace larder::os {

bool set_capabilities(std::uint64_t wanted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const auto low = static_cast<std::uint32_t>(wanted);
  const auto high = static_cast<std::uint32_t>(wanted >> 32U);
  std::array<__user_cap_data_struct, 2> data{{{low, low, low}, {high, high, high}}};
  return ::syscall(SYS_capset, &header, data.data()) == 0;
}

bool drop_bounding_set(std::uint64_t kept) {
  for (unsigned capability = 0; capability <= 63; ++capability) {
    const bool wanted = (kept >> capability & 1U) != 0;
    if (!wanted && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) {
      return false;  // EINVAL: this kernel has no such capability
    }
  }
  return true;
}

bool keep_only(std::uint64_t kept) {
  return drop_bounding_set(kept) && set_capabilities(kept) &&
         ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

}  // namespace larder::os
