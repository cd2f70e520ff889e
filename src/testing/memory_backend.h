// MemoryBackend: a cache in memory, for tests of what is above the backend's seam.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/range_set.h"
#include "base/result.h"
#include "fscache/backend.h"

namespace larder::testing {

// What is kept; outlives backends, as a disk outlives engines.
struct MemoryDisk {
  struct Stored {
    fscache::ObjectDescription description;
    std::string bytes;
    RangeSet present;
    bool complete = false;
    bool superseded = false;
    bool overwritten = false;
    bool open_elsewhere = false;  // what the backend says of it
  };

  std::map<std::string, std::map<std::string, std::shared_ptr<Stored>>> volumes;

  // ---- Faults.
  int fail_reads = 0;                        // the next reads fail with kCorrupt
  int fail_writes = 0;                       // the next writes fail with kNoSpace
  int fail_overwrites = 0;                   // the next overwrite() or resize() fail with kNoSpace
  int fail_completions = 0;                  // the next mark_complete() fail with kNoSpace
  bool full = false;                         // writes fail with kNoSpace, and room is short
  bool dead = false;                         // everything fails with kIo
  std::optional<std::uint64_t> failed_read;  // where the kernel met an error, as objects say
  std::function<void()> before_read = {};    // may let time pass: the disk hangs
  std::function<void()> before_overwrite = {};
  std::function<void()> after_look = {};  // for readers, before what was found is told

  // ---- What the backend has to say.
  int looks = 0;         // for readers
  bool pressed = false;  // since it was last asked
  std::shared_ptr<std::move_only_function<void()>> wake = nullptr;
};

// Threads: one (the Stepper's). `disk` outlives it.
[[nodiscard]] std::unique_ptr<fscache::Backend> make_memory_backend(MemoryDisk& disk);

}  // namespace larder::testing
