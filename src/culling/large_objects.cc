#include "culling/large_objects.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

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

std::uint64_t large_from(std::uint64_t cache_bytes) {
  return cache_bytes / kLargePart + 1;
}

}  // namespace larder::culling
