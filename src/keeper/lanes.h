// Lanes: the keeper's calls that may hang with a disk, each disk's on a thread of its own.
//
// The keeper's main loop must go on whatever a cache's disk does. So everything that touches one is
// a job with a deadline; a disk that hangs holds up its own lane only.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "handover/messages.h"

namespace larder::keeper {

struct Job {
  std::uint64_t engine = 0;  // which engine asked: an answer is for no other
  handover::Message reply;   // prepared with kind and request; kind 0: nobody waits for one
  std::move_only_function<void(handover::Message& reply)> work;
  // Takes back what `work` did after the deadline had passed; may be empty.
  std::move_only_function<void(const handover::Message& reply)> undo;
};

struct Finished {
  std::uint64_t engine = 0;
  std::string lane;
  handover::Message reply;
};

// Owned by the keeper, used by its main thread. Life: abandon() or destruction; the destructor
// joins, so it hangs with a disk that hangs.
class Lanes {
 public:
  static constexpr std::chrono::seconds kDeadline{10};

  // `wake_descriptor`, an eventfd of the owner's, becomes readable when something has finished.
  Lanes(const Clock& clock, int wake_descriptor);

  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;
  ~Lanes();

  // False, and the job dropped: too many lanes, or too many jobs wait in this one.
  [[nodiscard]] bool post(const std::string& lane, Job job);
  // What has finished since the last call, and what is too late (ETIMEDOUT).
  [[nodiscard]] std::vector<Finished> take_finished();
  // Whether take_finished should be called within a second, for the sake of deadlines.
  [[nodiscard]] bool waiting() const;
  // Whether a call is stuck beyond its deadline: then destruction would hang.
  [[nodiscard]] bool stuck() const;

 private:
  class Lane;

  const Clock& clock_;
  const int wake_;
  std::map<std::string, std::unique_ptr<Lane>> lanes_;
};

}  // namespace larder::keeper
