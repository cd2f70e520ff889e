// Trace: who asks for which object when, and how large each is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace larder::cull_sim {

// An object is a number; it is of the volume, and has the bytes, at that place of the two vectors.
struct Trace {
  std::vector<std::uint32_t> requests;
  std::vector<double> seconds;  // of each request, since 1970
  std::vector<std::uint8_t> volumes;
  std::vector<std::uint64_t> bytes;
  std::size_t counted_from = 0;   // requests before fill the cache and are not counted
  std::uint64_t limit_bytes = 0;  // of the cache
};

// What a cache did with it.
struct Hits {
  std::uint64_t requests = 0;
  std::uint64_t hits = 0;
  std::uint64_t bytes = 0;
  std::uint64_t hit_bytes = 0;

  void count(bool hit, std::uint64_t size) {
    ++requests;
    bytes += size;
    hits += hit ? 1 : 0;
    hit_bytes += hit ? size : 0;
  }
};

// What is left when a cull ends, which begins at the limit and frees `part` of it.
[[nodiscard]] inline std::uint64_t run_bytes(const Trace& trace, double part) {
  return static_cast<std::uint64_t>(static_cast<double>(trace.limit_bytes) * (1 - part));
}

}  // namespace larder::cull_sim
