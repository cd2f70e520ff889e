// CacheChannel: the way to who keeps the cache, an engine or a kernel: commands there, state back.
//
// Closing it is the release: the cache is withdrawn.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cachefilesd/config.h"
#include "control/cache_protocol.h"
#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// Objects of one directory, to be culled.
struct ObjectGroup {
  std::string path;                          // of the directory below cache/, "Ikey/@3f"
  std::shared_ptr<os::Directory> directory;  // the same, open
  std::vector<culling::Candidate> objects;
};

// Threads: the daemon's one. Everything but hear() may wait for the other end. Errors of all:
// kCancelled: we were told to stop meanwhile; kCacheDead: the other end is gone; others as it gave
// them, of which kIo says that its cache has failed.
class CacheChannel {
 public:
  CacheChannel() = default;
  CacheChannel(const CacheChannel&) = delete;
  CacheChannel& operator=(const CacheChannel&) = delete;
  virtual ~CacheChannel() = default;

  // A kernel does not say what there is, nor does it bury what has no business in its cache.
  [[nodiscard]] virtual bool is_kernels() const = 0;
  // For Waiter::wait(): once one can be read, hear() has something.
  [[nodiscard]] virtual std::vector<int> descriptors() const = 0;

  // Brings the cache online. `directory`: the descriptor of the one that the configuration names.
  [[nodiscard]] virtual Result<> bind(const Config& config, int directory) = 0;
  // Once bound: gives what has changed and may. An error: an engine's is as it was, unless the
  // sentence says otherwise; a kernel's rest is not given.
  [[nodiscard]] virtual Result<> reconfigure(const Config& from, const Config& to) = 0;

  // The state, now.
  [[nodiscard]] virtual Result<control::CacheState> ask_state() = 0;
  // The state, if it came unasked since the last line. Never waits.
  [[nodiscard]] virtual Result<std::optional<control::CacheState>> hear() = 0;

  // For how long the object has been unused, in seconds, that is unused longest of those that stay.
  // A kernel does not want to know.
  [[nodiscard]] virtual Result<> tell_oldest(double seconds) = 0;

  // Takes objects out of the cache, and answers for each, in the order of groups and objects: the
  // bytes that it gave back, or why not. kBusy: it is in use; kNotFound: it is gone.
  [[nodiscard]] virtual Result<std::vector<Result<std::uint64_t>>> cull(
      std::span<const ObjectGroup> groups) = 0;
};

}  // namespace larder::cachefilesd
