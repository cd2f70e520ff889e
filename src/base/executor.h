// Executor: every pool, timer and completion of the engine goes through here, so that a seed
// replays.
//
// The real form has threads; the tests' form (testing/stepper.h) runs one task at a time, in an
// order drawn from a seed, under a clock that the test moves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"

namespace larder {

using Task = std::move_only_function<void()>;

// Threads that take tasks from one queue, first in, first out.
// Threads: any may post. Life: the destructor runs what is queued, then joins.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  virtual ~Pool() = default;

  // Queues `task` and takes it, or leaves it alone and returns false because the queue is full:
  // for work that may be left out (readahead, filling the cache).
  [[nodiscard]] virtual bool try_post(Task& task) = 0;
  // Queues always: for work that must be done and whose number something else bounds (requests of
  // the kernel, calls in flight).
  virtual void post(Task task) = 0;
};

using TimerId = std::uint64_t;

// Tasks at a later time. They run on a thread of their own and must not wait for anything.
// Threads: any.
class Timers {
 public:
  Timers() = default;
  Timers(const Timers&) = delete;
  Timers& operator=(const Timers&) = delete;
  virtual ~Timers() = default;

  virtual TimerId schedule(Duration delay, Task task) = 0;
  // True: the task will not run and is gone. False: it ran, is running, or never was.
  virtual bool cancel(TimerId id) = 0;
};

// Owned by whoever starts the process; outlives everything that it was handed to.
class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  // `name` is seen in top(1), at most 15 bytes; `capacity` bounds try_post.
  [[nodiscard]] virtual std::unique_ptr<Pool> make_pool(std::string name, unsigned threads,
                                                        std::size_t capacity) = 0;
  [[nodiscard]] virtual Timers& timers() = 0;
  [[nodiscard]] virtual const Clock& clock() const = 0;
};

// The one with threads.
[[nodiscard]] std::unique_ptr<Executor> make_threaded_executor();

}  // namespace larder
