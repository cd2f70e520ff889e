// Culling: which objects make room. By slices, without a table of everything.
//
// Keys are hashed over the directories of fan-out, so that each directory is a random sample of the
// cache. To free something, the next directories in rotation each give their share of it, those
// with the highest score first. Large objects are few, but hold much: they are known one by one.
// Pure: stat results in, decisions out. Memory: one directory's candidates.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "os/filesystem.h"

namespace larder::culling {

// An object that might be culled.
struct Candidate {
  std::string name;  // in its directory
  os::FileStat stat;
  std::uint64_t bytes = 0;  // real blocks that it would give back
};

struct Freed {
  std::uint64_t bytes = 0;
  std::uint64_t files = 0;

  Freed& operator+=(const Freed& other) {
    bytes += other.bytes;
    files += other.files;
    return *this;
  }
};

// Pinned objects have the sticky bit.
[[nodiscard]] bool is_pinned(const os::FileStat& stat);

// Seconds since last use, four times that for what was never used again after it was filled: its
// access and modification times are less than `stamp_seconds` apart.
[[nodiscard]] double score(const os::FileStat& stat, os::FileTime now, double stamp_seconds);

// The directories of fan-out of all volumes, in an order that stays while volumes come at the end.
// Threads: the caller's. All of it may block on the disk.
class FanOut {
 public:
  FanOut() = default;
  FanOut(const FanOut&) = delete;
  FanOut& operator=(const FanOut&) = delete;
  virtual ~FanOut() = default;

  [[nodiscard]] virtual std::size_t directories() = 0;
  // Calls `visit` for every object of a directory. One that is not there has none.
  [[nodiscard]] virtual Result<> list(std::size_t directory,
                                      const std::function<void(Candidate&&)>& visit) = 0;
  // A hint: cull() decides.
  [[nodiscard]] virtual bool in_use(std::size_t directory, std::string_view name) = 0;
  // Takes the object out of the cache. kBusy: it came into use; kNotFound: it is gone.
  [[nodiscard]] virtual Result<Freed> cull(std::size_t directory, const Candidate& object) = 0;
  // As stat now; kNotFound when it is gone.
  [[nodiscard]] virtual Result<Candidate> look_at(std::size_t directory, std::string_view name) = 0;
};

// The objects that hold more than 1/4096 of the cache each, so at most 4096 of them.
// Threads: one.
class LargeObjects {
 public:
  struct Place {
    std::size_t directory = 0;
    std::string name;

    auto operator<=>(const Place&) const = default;
  };

  void add(std::size_t directory, std::string_view name, std::uint64_t bytes);
  void remove(std::size_t directory, std::string_view name);

  [[nodiscard]] const std::map<Place, std::uint64_t>& all() const { return objects_; }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::map<Place, std::uint64_t> objects_;
  std::uint64_t bytes_ = 0;
};

// How much there is and how much of it must go.
struct Share {
  std::uint64_t used_bytes = 0;
  std::uint64_t objects = 0;
  std::uint64_t free_bytes = 0;  // to be freed
  std::uint64_t free_files = 0;  // to be freed
};

// Above this an object belongs in LargeObjects.
[[nodiscard]] std::uint64_t large_from(std::uint64_t cache_bytes);

// Life: the cache's, its cursor is kept over restarts. Threads: one.
class Rotation {
 public:
  explicit Rotation(std::uint64_t cursor) : cursor_(cursor) {}

  [[nodiscard]] std::uint64_t cursor() const { return cursor_; }

  // Culls one slice's worth, at most. Returns what it freed; the caller looks at real use and calls
  // again. `now` and `stamp_seconds` as in score().
  [[nodiscard]] Result<Freed> cull_slice(FanOut& fan_out, LargeObjects& large, const Share& share,
                                         os::FileTime now, double stamp_seconds);

  // Seconds since last use of the longest unused object that was seen and stays; 0: none yet.
  [[nodiscard]] double oldest_seconds() const { return oldest_seconds_; }

  // Directories looked at and objects looked at, ever.
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }

 private:
  struct Due;

  Result<Freed> cull_large(FanOut& fan_out, LargeObjects& large, Due& due);
  Result<Freed> cull_directories(FanOut& fan_out, std::size_t begin, std::size_t count, Due& due);

  std::uint64_t cursor_;
  double oldest_seconds_ = 0;
  std::uint64_t looked_at_ = 0;
};

// How many of `directories` one slice takes.
[[nodiscard]] std::size_t slice_of(std::size_t directories, const Share& share);

}  // namespace larder::culling
