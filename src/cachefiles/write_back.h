// WriteBack: has the disk take complete files soon, so that they may be registered with the kernel
// before their epoch closes.
//
// What the disk refuses to take the kernel drops from its memory, and the next read gives what the
// disk had there before. The engine's own reads find that by the checksum; those of a registered
// file do not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/epochs.h"
#include "cachefiles/stamp.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// A file is known by the nonce of its map log. Nothing here is lost that the next epoch would not
// bring: what finds no place waits for that.
// Threads: any; step() one at a time. Life: the cache's.
class WriteBack {
 public:
  struct Wanted {
    std::uint64_t nonce = 0;
    Stamp newest;            // of its data
    std::uint64_t size = 0;  // bytes
    std::uint64_t inode = 0;
  };

  explicit WriteBack(const Epochs& epochs) : epochs_(epochs) {}

  // Everything in `file` that is not durable was written through it. False: no place.
  bool add(const Wanted& wanted, std::shared_ptr<os::File> file) EXCLUDES(mutex_);
  // The disk has taken all of it.
  [[nodiscard]] bool done(std::uint64_t nonce) const EXCLUDES(mutex_);
  // Something of it is going to be written again.
  void forget(std::uint64_t nonce) EXCLUDES(mutex_);
  // The map log was written anew.
  void known_by(std::uint64_t old_nonce, std::uint64_t nonce) EXCLUDES(mutex_);
  // The file has lost its name: its descriptor is not to be held here.
  void let_go(std::uint64_t inode) EXCLUDES(mutex_);

  [[nodiscard]] bool anything() const EXCLUDES(mutex_);
  // Blocks. Writes some of what waits. An error: data were lost.
  [[nodiscard]] Result<> step() EXCLUDES(mutex_);

 private:
  struct Waiting {
    Wanted wanted;
    std::shared_ptr<os::File> file;
    std::uint64_t ticket = 0;   // tells it from the same file, added again
    std::uint64_t written = 0;  // bytes from the start
  };

  // Those taken off are to be closed without the lock.
  template <class Which>
  [[nodiscard]] std::vector<Waiting> take_off(Which which) REQUIRES(mutex_);
  void drop_durable() EXCLUDES(mutex_);

  const Epochs& epochs_;
  mutable Mutex mutex_{LockRank::kCache};
  std::deque<Waiting> waiting_ GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, Stamp> done_ GUARDED_BY(mutex_);  // by nonce
  std::uint64_t last_ticket_ GUARDED_BY(mutex_) = 0;
  bool supported_ GUARDED_BY(mutex_) = true;
};

}  // namespace larder::cachefiles
