// CacheBinder: brings the caches online that mounts name by their directories, each once, and those
// that cache channels hold.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "cachefiles/cache.h"
#include "cachefiles/space.h"
#include "fscache/cache.h"
#include "handover/cache_keeper.h"
#include "os/filesystem.h"

namespace larder::engine {

// A backend that a channel holds.
struct HeldBackend {
  std::string tag;
  std::shared_ptr<fscache::OnlineBackend> online;
  cachefiles::DirectoryCache* directory = nullptr;  // the same
};

// What a channel says of its cache.
struct HeldSettings {
  std::string tag, path, holder;  // no holder: the engine cares for it
  cachefiles::Limits limits;
  std::function<void()> changed;  // DirectoryCache::set_caretaker
  // The administrator takes the cache away: let go of the backend. Must not wait.
  std::move_only_function<void()> detached;
};

// A cache given by its directory has the path as its tag. The size of whoever brought it online
// counts until it is withdrawn.
// Threads: any. Life: the engine's; withdraw_all() before destruction.
class CacheBinder {
 public:
  // `filesystem` has the directories whose descriptors come from the keeper or over a channel.
  CacheBinder(Executor& executor, handover::CacheKeeper& keeper, os::Filesystem& filesystem);
  ~CacheBinder();
  CacheBinder(const CacheBinder&) = delete;
  CacheBinder& operator=(const CacheBinder&) = delete;

  // The cache of this directory, online or not.
  [[nodiscard]] std::shared_ptr<fscache::Cache> find(const std::string& path) {
    return caches_.find_or_make(path);
  }

  using Ready = std::move_only_function<void(Result<>)>;

  // Begins to bring it online if it is not. `ready` runs when that has been tried, or after a while
  // in which the disk did not answer; must not wait. Its only error is kUnsuitable, a sentence for
  // whoever named it to set right: the directory is not one that a cache of `size` bytes (0: the
  // default) can be in, or it is online with another size. All other trouble is the cache's own,
  // and a mount works without one.
  void bring_online(const std::string& path, std::uint64_t size, Ready ready) EXCLUDES(mutex_);
  // The same before there is a mount: what is unsuitable about it is kept for the status, too.
  void bring_online_at_start(const std::string& path, std::uint64_t size) EXCLUDES(mutex_);

  // ---- For cache channels.

  // A mount names the tag: until a channel brings the cache online the status says what is missing.
  void expect(const std::string& tag) EXCLUDES(mutex_);

  using Held = std::move_only_function<void(Result<HeldBackend>)>;

  // Brings the cache in `directory` online for a channel, or takes over what is online there: with
  // open files that held it since it was withdrawn, too. Waits a little for a holder that is on its
  // way out. `done` on any thread; must not wait. kBusy: the tag or the directory is somebody
  // else's, or it is detached; other errors as bind_cache().
  void hold(HeldSettings settings, UniqueFd directory, Held done) EXCLUDES(mutex_);
  // The channel is over: the cache is withdrawn.
  void let_go(const std::string& tag) EXCLUDES(mutex_);

  // Takes the cache offline and keeps it so, whoever holds or names it, until attach(). The
  // backend is gone when its last open file is. kNotFound: there is none of that tag. An error of
  // its disk does the same.
  [[nodiscard]] Result<> detach(const std::string& tag) EXCLUDES(mutex_);
  // Also for a directory that could not be brought online: it is tried again.
  [[nodiscard]] Result<> attach(const std::string& tag) EXCLUDES(mutex_);
  // It was detached in an earlier engine's life. Before anything is brought online.
  void keep_away(const std::string& tag) EXCLUDES(mutex_);

  // Where what channels ask for is done: it blocks.
  [[nodiscard]] Pool& pool() { return *pool_; }

  struct Status {
    fscache::CacheStatus cache;
    std::string path;
    std::string bind_trouble;  // why it could not be brought online, as a sentence
    std::string holder;        // who cares for it, "" for the engine
    bool being_bound = false;  // somebody is at its disk for that
  };

  [[nodiscard]] std::vector<Status> status() const EXCLUDES(mutex_);

  // Takes every cache offline; waits at most `patience` for disks that do not answer.
  void withdraw_all(Duration patience);

 private:
  struct Binding {
    std::uint64_t size = 0;  // bytes; 0: the default
    bool at_start = false;   // shown whatever becomes of it
    bool trying = false;     // to bring it online, now or in a while, for mounts that name it
    unsigned at_disk = 0;    // who is opening or binding it just now
    std::optional<TimerId> deadline;  // while somebody waits for it
    std::string trouble;
    std::vector<Ready> waiting;
    std::string path;    // of a channel's
    std::string holder;  // "" when no channel has it
    std::move_only_function<void()> on_detach;
    bool detached = false;  // `trouble` says why
    // What was last online. Another with the same numbers is the same directory.
    std::weak_ptr<fscache::OnlineBackend> online;
    cachefiles::DirectoryCache* directory = nullptr;
    std::uint64_t device = 0, inode = 0;
  };

  struct Bringing;
  using BringingRef = std::shared_ptr<Bringing>;

  // ---- For mounts: the keeper opens the directory.
  void begin(const std::string& path) EXCLUDES(mutex_);
  void ask_again(const std::string& path) EXCLUDES(mutex_);
  void on_deadline(const std::string& path) EXCLUDES(mutex_);
  void on_directory(const std::string& path, Result<UniqueFd> directory) EXCLUDES(mutex_);
  void finish(const std::string& path, const Result<>& result) EXCLUDES(mutex_);

  // ---- For channels.
  void claim(const BringingRef& hold) EXCLUDES(mutex_);
  // False: somebody has it.
  [[nodiscard]] Result<bool> try_claim(Bringing& hold) EXCLUDES(mutex_);
  void give_up(const std::string& tag, const Error& error) EXCLUDES(mutex_);

  // ---- For both.
  void try_to_bring(const BringingRef& bringing) EXCLUDES(mutex_);
  [[nodiscard]] Result<HeldBackend> bring(const Bringing& bringing,
                                          std::unique_ptr<os::Directory> root) EXCLUDES(mutex_);
  [[nodiscard]] Result<std::optional<HeldBackend>> take_over(const Bringing& bringing)
      EXCLUDES(mutex_);
  [[nodiscard]] Result<HeldBackend> add(const Bringing& bringing,
                                        std::unique_ptr<cachefiles::DirectoryCache> backend)
      EXCLUDES(mutex_);
  // Nobody has detached it, and the engine goes on.
  [[nodiscard]] Result<> check_allowed(const std::string& tag) const EXCLUDES(mutex_);
  [[nodiscard]] Result<> check_allowed_locked(const std::string& tag) const REQUIRES(mutex_);
  // The tags under which this engine has, or just had, what is in that directory.
  [[nodiscard]] std::vector<std::string> tags_of(const Bringing& bringing) const EXCLUDES(mutex_);
  // It is not online there any more, but its last files or its books are not closed yet.
  [[nodiscard]] bool is_closing(const Bringing& bringing) EXCLUDES(mutex_);
  // In this engine's life, in whatever directory.
  [[nodiscard]] bool was_online(const std::string& tag) const EXCLUDES(mutex_);
  void on_error(const std::string& tag) EXCLUDES(mutex_);
  // Until attach(). False: there is none of that tag.
  [[nodiscard]] bool take_away(const std::string& tag, const std::string& why) EXCLUDES(mutex_);
  // No channel holds it, and nobody has detached it.
  [[nodiscard]] bool may_bring_online(const std::string& tag) const EXCLUDES(mutex_);
  [[nodiscard]] Result<> check_size(const std::string& path, std::uint64_t size);

  handover::CacheKeeper& keeper_;
  os::Filesystem& filesystem_;
  const Clock& clock_;
  Timers& timers_;
  fscache::Caches caches_;
  mutable Mutex mutex_{LockRank::kMounts};
  std::unordered_map<std::string, Binding> bindings_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;  // nothing is brought online any more
  std::unique_ptr<Pool> pool_;
};

}  // namespace larder::engine
