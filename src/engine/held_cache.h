// HeldCache: a cache at the end of a cache channel: what its holder says becomes the cache's
// settings, its life and its culls.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/executor.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/cache.h"
#include "cachefiles/space.h"
#include "control/cache_protocol.h"
#include "control/cache_session.h"
#include "engine/cache_binder.h"
#include "engine/serial_queue.h"
#include "handover/cache_keeper.h"
#include "os/packet_socket.h"

namespace larder::engine {

// The states of a channel are those of the kernel's device: settings, then bind, then culls.
// Threads: execute() and hang_up() on the control server's thread, all else on the pool, one task
// after the other. Life: shared with its tasks; `binder` and `keeper` outlive it.
class HeldCache : public std::enable_shared_from_this<HeldCache> {
 public:
  HeldCache(CacheBinder& binder, handover::CacheKeeper& keeper, std::string holder,
            control::StatePusher push);

  // As CacheSession.
  void execute(control::CacheCommand command, std::vector<UniqueFd> descriptors,
               control::Responder responder);
  // The cache is withdrawn, now or as soon as it is bound.
  void hang_up();

 private:
  using Answer = Result<std::string>;

  [[nodiscard]] Answer obey(const control::CacheCommand& command,
                            std::vector<UniqueFd> descriptors);

  [[nodiscard]] bool is_bound() const { return held_.directory != nullptr; }

  [[nodiscard]] Result<> check_time(control::CacheVerb verb) const;
  [[nodiscard]] Answer set_directory(std::string_view path, std::vector<UniqueFd> descriptors);
  [[nodiscard]] Answer set_tag(std::string_view tag);
  [[nodiscard]] Answer set_percentage(control::CacheVerb verb, std::string_view argument);
  [[nodiscard]] Answer set_size(std::string_view argument);
  [[nodiscard]] Answer set_oldest(std::string_view argument);
  [[nodiscard]] Answer cull(const control::CacheCommand& command);
  [[nodiscard]] Answer look_in_use(const control::CacheCommand& command);
  [[nodiscard]] Answer apply_limits(const cachefiles::Limits& limits);
  [[nodiscard]] std::vector<control::ObjectOutcome> cull_some(
      std::span<const control::ObjectPath> objects);

  void bind(std::string_view argument, control::Responder responder);
  void on_directory(Result<UniqueFd> directory, control::Responder responder);
  void on_bound(Result<HeldBackend> held, control::Responder responder);

  // The state line of now, which counts as told.
  [[nodiscard]] Answer tell_state();
  void note_told(const cachefiles::CareState& care);
  void note_change();
  void push_news();

  CacheBinder& binder_;
  handover::CacheKeeper& keeper_;
  const std::string holder_;  // "cachefilesd, process 12"
  const control::StatePusher push_;
  const std::shared_ptr<SerialQueue> queue_;
  std::atomic<bool> looking_{false};  // push_news() is queued
  std::atomic<bool> gone_{false};     // nobody hears any answer

  // ---- Of the queue's tasks.
  std::string path_, tag_;
  UniqueFd directory_;
  cachefiles::Limits limits_;
  bool binding_ = false;
  HeldBackend held_;  // its directory null: not bound
  control::CacheState told_;
  std::uint64_t told_buried_ = 0;
  std::optional<VerboseLog> debugs_;  // as long as the channel's holder wants it
};

// The session of a channel. Threads and life: control::CacheSession's.
[[nodiscard]] std::unique_ptr<control::CacheSession> open_cache_session(
    CacheBinder& binder, handover::CacheKeeper& keeper, const os::PeerCredentials& peer,
    control::StatePusher push);

}  // namespace larder::engine
