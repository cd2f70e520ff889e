#include "testing/stepper.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/executor.h"

namespace larder::testing {

// What pools, timers and the stepper share; pools may outlive the stepper.
struct Stepper::State {
  struct Queue {
    unsigned threads = 1;
    std::deque<std::pair<std::uint64_t, Task>> tasks;  // with the number of their posting
  };

  std::optional<std::mt19937_64> random;
  std::uint64_t last_number = 0;
  std::vector<std::shared_ptr<Queue>> queues;
  std::shared_ptr<Queue> due_timers = std::make_shared<Queue>();

  void post(Queue& queue, Task task) { queue.tasks.emplace_back(++last_number, std::move(task)); }

  // The next task by age or by lot; empty when there is none.
  Task take() {
    Queue* chosen = choose();
    if (chosen == nullptr) {
      return {};
    }
    std::size_t index = 0;
    if (random && chosen->threads > 1) {  // its threads would race for the first few
      index = (*random)() % std::min<std::size_t>(chosen->threads, chosen->tasks.size());
    }
    const auto at = chosen->tasks.begin() + static_cast<std::ptrdiff_t>(index);
    Task task = std::move(at->second);
    chosen->tasks.erase(at);
    return task;
  }

 private:
  Queue* choose() {
    std::vector<Queue*> ready;
    for (const auto& queue : queues) {
      if (!queue->tasks.empty()) {
        ready.push_back(queue.get());
      }
    }
    if (ready.empty()) {
      return nullptr;
    }
    if (random) {
      return ready.at((*random)() % ready.size());
    }
    return *std::ranges::min_element(ready, {},
                                     [](const Queue* queue) { return queue->tasks.front().first; });
  }
};

class Stepper::StepperPool final : public Pool {
 public:
  StepperPool(std::shared_ptr<State> state, unsigned threads, std::size_t capacity)
      : state_(std::move(state)), capacity_(capacity), queue_(std::make_shared<State::Queue>()) {
    queue_->threads = threads;
    state_->queues.push_back(queue_);
  }

  StepperPool(const StepperPool&) = delete;
  StepperPool& operator=(const StepperPool&) = delete;

  ~StepperPool() override {
    while (!queue_->tasks.empty()) {
      Task task = std::move(queue_->tasks.front().second);
      queue_->tasks.pop_front();
      task();
    }
    std::erase(state_->queues, queue_);
  }

  bool try_post(Task& task) override {
    if (queue_->tasks.size() >= capacity_) {
      return false;
    }
    state_->post(*queue_, std::move(task));
    return true;
  }

  void post(Task task) override { state_->post(*queue_, std::move(task)); }

 private:
  const std::shared_ptr<State> state_;
  const std::size_t capacity_;
  const std::shared_ptr<State::Queue> queue_;
};

class Stepper::StepperTimers final : public Timers {
 public:
  explicit StepperTimers(const Clock& clock) : clock_(clock) {}

  TimerId schedule(Duration delay, Task task) override {
    const TimerId id = ++last_id_;
    by_time_.emplace(std::pair(clock_.now() + delay, id), std::move(task));
    return id;
  }

  bool cancel(TimerId id) override {
    const auto found = std::ranges::find_if(
        by_time_, [id](const auto& entry) { return entry.first.second == id; });
    if (found == by_time_.end()) {
      return false;
    }
    const Task dropped = std::move(found->second);
    by_time_.erase(found);
    return true;
  }

  // The first task that is due.
  Task take_due() {
    if (by_time_.empty() || by_time_.begin()->first.first > clock_.now()) {
      return {};
    }
    Task task = std::move(by_time_.begin()->second);
    by_time_.erase(by_time_.begin());
    return task;
  }

  [[nodiscard]] std::optional<MonotonicTime> next_due() const {
    if (by_time_.empty()) {
      return std::nullopt;
    }
    return by_time_.begin()->first.first;
  }

 private:
  const Clock& clock_;
  std::map<std::pair<MonotonicTime, TimerId>, Task> by_time_;
  TimerId last_id_ = 0;
};

Stepper::Stepper()
    : state_(std::make_shared<State>()), timers_(std::make_unique<StepperTimers>(clock_)) {
  state_->queues.push_back(state_->due_timers);
}

Stepper::Stepper(std::uint64_t seed) : Stepper() {
  state_->random.emplace(seed);
}

Stepper::~Stepper() = default;

std::unique_ptr<Pool> Stepper::make_pool(std::string /*name*/, unsigned threads,
                                         std::size_t capacity) {
  return std::make_unique<StepperPool>(state_, threads, capacity);
}

Timers& Stepper::timers() {
  return *timers_;
}

bool Stepper::step() {
  Task task = state_->take();
  if (!task) {
    return false;
  }
  task();
  return true;
}

void Stepper::run(std::size_t most) {
  std::size_t steps = 0;
  while (step()) {
    CHECK(++steps <= most, "{} tasks and no end", most);
  }
}

void Stepper::advance(Duration by) {
  clock_.advance(by);
  while (Task task = timers_->take_due()) {
    state_->post(*state_->due_timers, std::move(task));
  }
}

bool Stepper::run_until(const std::function<bool()>& done, Duration limit) {
  const MonotonicTime end = clock_.now() + limit;
  while (true) {
    while (!done() && step()) {
    }
    if (done()) {
      return true;
    }
    const std::optional<MonotonicTime> next = timers_->next_due();
    if (!next || *next > end) {
      return false;
    }
    advance(std::max(Duration::zero(), *next - clock_.now()));
  }
}

}  // namespace larder::testing
