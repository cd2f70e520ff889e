// What a process that was root may still do.
#pragma once

#include <cstdint>

namespace larder::os {

// Sets are bits, 1 << CAP_... All may be called between fork and exec; the errno says why not.

// Those that this process has and may hand on.
[[nodiscard]] bool set_capabilities(std::uint64_t wanted);
// Those that it may ever have again.
[[nodiscard]] bool drop_bounding_set(std::uint64_t kept);
// Both, and no program that it executes gives it more.
[[nodiscard]] bool keep_only(std::uint64_t kept);

}  // namespace larder::os
