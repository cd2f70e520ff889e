// Stepper: an Executor without threads. The test runs queued tasks one at a time, first come first
// served or in an order drawn from a seed, and moves the clock; the same seed replays the same run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "testing/manual_clock.h"

namespace larder::testing {

// Threads: one. Life: pools may be destroyed before or after it.
class Stepper final : public Executor {
 public:
  // In order of posting.
  Stepper();
  // In an order drawn from `seed`; each pool still is first in, first out when it has one thread.
  explicit Stepper(std::uint64_t seed);
  ~Stepper() override;

  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  std::unique_ptr<Pool> make_pool(std::string name, unsigned threads,
                                  std::size_t capacity) override;
  Timers& timers() override;

  [[nodiscard]] const Clock& clock() const override { return clock_; }

  // Runs one task; false when none is queued.
  bool step();
  // Runs tasks until none is queued; fails the program after `most` of them (an endless loop).
  void run(std::size_t most = 1'000'000);
  // Moves the clock and queues the timers that are due, in their order; does not run them.
  void advance(Duration by);
  // run() and advance() to the next timer, until `done` or nothing is left to happen, or `limit` of
  // time has passed; returns done().
  bool run_until(const std::function<bool()>& done, Duration limit);

 private:
  class StepperPool;
  class StepperTimers;
  struct State;

  ManualClock clock_;
  std::shared_ptr<State> state_;
  std::unique_ptr<StepperTimers> timers_;
};

}  // namespace larder::testing
