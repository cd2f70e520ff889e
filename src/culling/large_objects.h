// LargeObjects: the few objects that hold much, known one by one.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

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

  // Looks for more in the directories, of so many, that were not looked at yet: in one, and then in
  // others until `is_enough`. `look` adds what it finds; its error ends that.
  [[nodiscard]] Result<> find_more(std::size_t directories,
                                   const std::function<Result<>(std::size_t directory)>& look,
                                   const std::function<bool()>& is_enough);
  // Those of the directories before that one are known.
  void note_looked_at(std::size_t directories);

  [[nodiscard]] const std::map<Place, std::uint64_t>& all() const { return objects_; }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::map<Place, std::uint64_t> objects_;
  std::uint64_t bytes_ = 0;
  std::size_t looked_at_ = 0;  // directories
};

// Above this an object belongs in LargeObjects.
[[nodiscard]] std::uint64_t large_from(std::uint64_t cache_bytes);

}  // namespace larder::culling
