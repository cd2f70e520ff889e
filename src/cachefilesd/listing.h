// Listing: one directory of fan-out, opened and looked at. Threads: any. Errors: the disk's.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

inline constexpr std::size_t kMostUnexpected = 64;  // names, of one directory, at once

// Where there is nothing to see, or nothing that we may enter: no reason to give the cache up.
[[nodiscard]] bool is_no_directory(const Error& error);

// A name that cannot stand in a command is none that an object has.
[[nodiscard]] bool is_object_name(std::string_view name);

// Below `top`, which is cache/ or maps/. nullptr: it is not there, or is none.
[[nodiscard]] Result<std::unique_ptr<os::Directory>> open_fan_out(os::Directory& top,
                                                                  const std::string& volume,
                                                                  const std::string& fan_out);

// Calls `visit` for each object until it says false; names what is none in `unexpected`, as far as
// it may.
[[nodiscard]] Result<> list_objects(os::Directory& directory,
                                    const std::function<bool(culling::Candidate&&)>& visit,
                                    std::vector<std::string>& unexpected);

}  // namespace larder::cachefilesd
