// Where things are when nobody says otherwise.
#pragma once

namespace larder::handover {

inline constexpr const char* kDefaultRuntimeDirectory = "/run/larder";
inline constexpr const char* kDefaultCacheDirectory = "/var/cache/larder";

}  // namespace larder::handover
