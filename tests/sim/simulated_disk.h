// SimulatedDisk: what a simulated engine keeps its cache on, with the ways in which it can go
// wrong.
//
// It outlives engines: each life of one begins with bring_online() and ends in order or suddenly.
#pragma once

#include <functional>
#include <memory>
#include <random>

#include "base/clock.h"
#include "base/result.h"
#include "fscache/backend.h"

namespace larder {

using Random = std::mt19937_64;

// Threads: one (the Stepper's). Everything that is random is drawn from the `Random` it was made
// with, so that a seed replays.
class SimulatedDisk {
 public:
  SimulatedDisk() = default;
  SimulatedDisk(const SimulatedDisk&) = delete;
  SimulatedDisk& operator=(const SimulatedDisk&) = delete;
  virtual ~SimulatedDisk() = default;

  // Begins a life; whatever was brought online before is destroyed. May fail only when faults were
  // let happen.
  [[nodiscard]] virtual Result<std::unique_ptr<fscache::Backend>> bring_online() = 0;
  // Other faults than before may happen from now on, or none.
  virtual void disturb() = 0;
  // No faults until the next disturb(); what one broke stays broken until the next life.
  virtual void calm() = 0;
  // The engine is killed, or the power fails: nothing more reaches the disk.
  virtual void end_suddenly() = 0;
  // Time passes for the stamps of files.
  virtual void advance(Duration by) = 0;
  // So much room that every file of the simulation must find it.
  [[nodiscard]] virtual bool roomy() const = 0;
};

using MakeDisk = std::function<std::unique_ptr<SimulatedDisk>(Random&, const Clock&)>;

// testing/memory_backend.
[[nodiscard]] std::unique_ptr<SimulatedDisk> make_memory_disk(Random& random, const Clock& clock);
// The real backend on a filesystem in memory.
[[nodiscard]] std::unique_ptr<SimulatedDisk> make_cachefiles_disk(Random& random,
                                                                  const Clock& clock);

}  // namespace larder
