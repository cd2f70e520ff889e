// Candidate: an object that might be culled, and what it gave back.
#pragma once

#include <cstdint>
#include <string>

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

}  // namespace larder::culling
