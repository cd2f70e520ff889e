#include "keeper/lanes.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "handover/messages.h"

namespace larder::keeper {

namespace {

constexpr std::size_t kMostLanes = 32;
constexpr std::size_t kMostJobs = 4096;  // waiting in one lane

handover::Message too_late(const handover::Message& prepared) {
  handover::Message reply;
  reply.head = prepared.head;
  reply.head.error_number = ETIMEDOUT;
  reply.text = "the disk of the cache does not answer";
  return reply;
}

}  // namespace

class Lanes::Lane {
 public:
  Lane(const std::string& name, int wake_descriptor)
      : wake_(wake_descriptor), thread_(name, [this] { run(); }) {}

  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  ~Lane() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  [[nodiscard]] bool post(Job job, MonotonicTime deadline) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      if (waiting_.size() >= kMostJobs) {
        return false;
      }
      waiting_.push_back(std::make_shared<Entry>(std::move(job), deadline));
    }
    changed_.notify_all();
    return true;
  }

  void take_finished(MonotonicTime now, const std::string& name, std::vector<Finished>& into)
      EXCLUDES(mutex_) {
    std::deque<std::shared_ptr<Entry>> dropped;  // their descriptors are closed without the lock
    const MutexLock lock(mutex_);
    for (auto& [engine, reply] : finished_) {
      into.push_back({engine, name, std::move(reply)});
    }
    finished_.clear();
    if (running_ != nullptr) {
      expire(*running_, now, name, into);
    }
    // Those that nobody waits for (the closing of ids) stay: they must be done at last.
    std::deque<std::shared_ptr<Entry>> kept;
    for (auto& entry : waiting_) {
      expire(*entry, now, name, into);
      (entry->answered ? dropped : kept).push_back(std::move(entry));
    }
    waiting_.swap(kept);
  }

  [[nodiscard]] bool waiting() const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return running_ != nullptr || !waiting_.empty();
  }

  [[nodiscard]] bool stuck(MonotonicTime now) const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return running_ != nullptr && running_->deadline < now;
  }

 private:
  struct Entry {
    Entry(Job its_job, MonotonicTime its_deadline)
        : job(std::move(its_job)), deadline(its_deadline) {}

    Job job;
    MonotonicTime deadline;
    bool answered = false;  // with ETIMEDOUT, before the work was done
  };

  void expire(Entry& entry, MonotonicTime now, const std::string& name, std::vector<Finished>& into)
      REQUIRES(mutex_) {
    const bool awaited = entry.job.reply.head.kind != handover::MessageKind{};
    if (awaited && !entry.answered && entry.deadline <= now) {
      entry.answered = true;
      into.push_back({entry.job.engine, name, too_late(entry.job.reply)});
    }
  }

  void run() EXCLUDES(mutex_) {
    while (const std::shared_ptr<Entry> entry = next()) {
      handover::Message reply;
      reply.head = entry->job.reply.head;
      entry->job.work(reply);
      if (!finish(*entry, reply) && entry->job.undo) {
        entry->job.undo(reply);
      }
    }
  }

  // Null when the lane stops.
  std::shared_ptr<Entry> next() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (waiting_.empty() && !stopping_) {
      changed_.wait(mutex_);
    }
    if (stopping_) {
      return nullptr;
    }
    running_ = std::move(waiting_.front());
    waiting_.pop_front();
    return running_;
  }

  // False: the answer was given without us.
  bool finish(const Entry& entry, handover::Message& reply) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      running_ = nullptr;
      if (entry.answered) {
        return false;
      }
      if (reply.head.kind == handover::MessageKind{}) {
        return true;
      }
      finished_.emplace_back(entry.job.engine, std::move(reply));
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_, &one, sizeof one);
    return true;
  }

  const int wake_;
  CondVar changed_;
  mutable Mutex mutex_{LockRank::kQueue};
  std::deque<std::shared_ptr<Entry>> waiting_ GUARDED_BY(mutex_);
  std::shared_ptr<Entry> running_ GUARDED_BY(mutex_);
  std::vector<std::pair<std::uint64_t, handover::Message>> finished_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  Thread thread_;  // last: it uses the members above
};

Lanes::Lanes(const Clock& clock, int wake_descriptor) : clock_(clock), wake_(wake_descriptor) {}

Lanes::~Lanes() = default;

bool Lanes::post(const std::string& lane, Job job) {
  auto found = lanes_.find(lane);
  if (found == lanes_.end()) {
    if (lanes_.size() >= kMostLanes) {
      return false;
    }
    found = lanes_.emplace(lane, std::make_unique<Lane>(lane, wake_)).first;
  }
  return found->second->post(std::move(job), clock_.now() + kDeadline);
}

std::vector<Finished> Lanes::take_finished() {
  std::vector<Finished> finished;
  for (const auto& [name, lane] : lanes_) {
    lane->take_finished(clock_.now(), name, finished);
  }
  return finished;
}

bool Lanes::waiting() const {
  for (const auto& [name, lane] : lanes_) {
    if (lane->waiting()) {
      return true;
    }
  }
  return false;
}

bool Lanes::stuck() const {
  for (const auto& [name, lane] : lanes_) {
    if (lane->stuck(clock_.now())) {
      return true;
    }
  }
  return false;
}

}  // namespace larder::keeper
