// Readahead: lists directories before culling asks for them, while the other end is busy with what
// it was told to cull.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// A directory that is asked for soon.
struct ExpectedDirectory {
  std::size_t number = 0;
  std::string volume, fan_out;  // where it is, below cache/
};

// What there was in it.
struct Listing {
  std::vector<culling::Candidate> objects;
  std::vector<std::string> unexpected;
};

// Memory: what is in the directories that are expected. Its thread begins with the first of them,
// so that it has no more rights than the daemon has by then. Threads: the daemon's one.
class Readahead {
 public:
  // `cache` outlives it.
  explicit Readahead(os::Directory& cache) : cache_(cache) {}

  Readahead(const Readahead&) = delete;
  Readahead& operator=(const Readahead&) = delete;
  ~Readahead();

  // These are asked for next, in this order. What was expected before is forgotten.
  void expect(std::vector<ExpectedDirectory> directories) EXCLUDES(mutex_);

  // The listing of one, if it was begun; waits while it is in work. nullopt: list it yourself, or
  // `keep_going`, which is asked now and then, said no. Errors: the disk's.
  [[nodiscard]] std::optional<Result<Listing>> take(std::size_t number,
                                                    const std::function<bool()>& keep_going)
      EXCLUDES(mutex_);

 private:
  void work() EXCLUDES(mutex_);
  // The next of the queue, in work from now on; waits for one. nullopt: the end.
  [[nodiscard]] std::optional<ExpectedDirectory> next() EXCLUDES(mutex_);
  // Of what is in work, unless it was forgotten.
  void keep(std::size_t number, Result<Listing> listing) EXCLUDES(mutex_);
  [[nodiscard]] Result<Listing> list(const ExpectedDirectory& directory) EXCLUDES(mutex_);
  // Somebody may still ask for what is in work.
  [[nodiscard]] bool is_wanted() EXCLUDES(mutex_);
  // What was listed. One that is still in the queue is taken out of it.
  [[nodiscard]] std::optional<Result<Listing>> find_locked(std::size_t number) REQUIRES(mutex_);

  os::Directory& cache_;
  Mutex mutex_{LockRank::kQueue};
  CondVar changed_;
  std::deque<ExpectedDirectory> queue_ GUARDED_BY(mutex_);
  std::optional<std::size_t> in_work_ GUARDED_BY(mutex_);  // until it is forgotten
  bool ends_ GUARDED_BY(mutex_) = false;
  std::map<std::size_t, Result<Listing>> listed_ GUARDED_BY(mutex_);
  Thread thread_;
};

}  // namespace larder::cachefilesd
