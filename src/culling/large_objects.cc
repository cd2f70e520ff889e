#include "culling/large_objects.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace larder::culling {
namespace {

constexpr std::uint64_t kLargePart = 256;

}  // namespace

bool LargeObjects::add(std::size_t directory, std::string_view name, std::uint64_t bytes) {
  const auto [known, added] = objects_.try_emplace({directory, std::string(name)}, 0);
  bytes_ += bytes - known->second;
  known->second = bytes;
  return added;
}

void LargeObjects::remove(std::size_t directory, std::string_view name) {
  const auto found = objects_.find({directory, std::string(name)});
  if (found != objects_.end()) {
    bytes_ -= found->second;
    objects_.erase(found);
  }
}

Result<> LargeObjects::find_more(std::size_t directories,
                                 const std::function<Result<>(std::size_t directory)>& look,
                                 const std::function<bool()>& is_enough) {
  while (looked_at_ < directories) {
    TRY(look(looked_at_));
    ++looked_at_;
    if (is_enough()) {
      break;
    }
  }
  return {};
}

void LargeObjects::note_looked_at(std::size_t directories) {
  looked_at_ = std::max(looked_at_, directories);
}

std::uint64_t large_from(std::uint64_t cache_bytes) {
  return cache_bytes / kLargePart + 1;
}

}  // namespace larder::culling
