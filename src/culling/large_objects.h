// LargeObjects: the few objects that hold much, known one by one.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace larder::culling {

// The objects that hold more than 1/256 of the cache each, as much as all of a sample, so
// at most 256 of them.
// Threads: one.
class LargeObjects {
 public:
  struct Place {
    std::size_t directory = 0;
    std::string name;

    auto operator<=>(const Place&) const = default;
  };

  // True: it was not known.
  bool add(std::size_t directory, std::string_view name, std::uint64_t bytes);
  void remove(std::size_t directory, std::string_view name);

  [[nodiscard]] const std::map<Place, std::uint64_t>& all() const { return objects_; }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::map<Place, std::uint64_t> objects_;
  std::uint64_t bytes_ = 0;
};

// Above this an object belongs in LargeObjects.
[[nodiscard]] std::uint64_t large_from(std::uint64_t cache_bytes);

}  // namespace larder::culling
