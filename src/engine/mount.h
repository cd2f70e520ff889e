// Mount: one mount that the engine serves, from the keeper's order to its end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "engine/backing_table.h"
#include "engine/hidden_name_table.h"
#include "engine/write_table.h"
#include "fscache/cache.h"
#include "fuse/backing_registrar.h"
#include "fuse/filesystem.h"
#include "fuse/session.h"
#include "handover/engine_end.h"
#include "handover/mount_spec.h"
#include "netfs/adapter.h"
#include "netfs/share.h"

namespace larder::engine {

enum class MountState : std::uint8_t {
  kConnecting,  // waits for the server
  kServing,
  kEnding,  // the kernel or the keeper ended it; its last requests run out
  kEnded,
};

[[nodiscard]] const char* name_of(MountState state);

struct MountStatus {
  std::uint32_t id = 0;
  std::uint64_t device = 0;
  handover::MountSpec spec;
  MountState state = MountState::kConnecting;
  netfs::ShareStatistics share;
  netfs::AdapterStatus adapter;
  fuse::FilesystemStatistics filesystem;
};

// Threads: any. Life: the engine's; destroyed after it ended.
class Mount {
 public:
  // In the keeper's memory, of all mounts.
  struct Tables {
    fuse::Tables fuse;
    BackingTable& backings;
    HiddenNameTable& hidden_names;
    WriteTable& writes;
  };

  // `on_end` runs once, on a thread that may destroy nothing: it posts the rest. `why` is empty
  // when the mount was unmounted or stopped.
  Mount(handover::MountOrder order, handover::MountSpec spec, Executor& executor,
        handover::EngineEnd& keeper, const Tables& tables,
        std::move_only_function<void(std::string why)> on_end);
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  [[nodiscard]] std::uint32_t id() const { return id_; }

  [[nodiscard]] const handover::MountSpec& spec() const { return spec_; }

  [[nodiscard]] std::uint64_t device() const { return device_; }

  // Connects, then serves. `done` tells whether it does; after an error the mount is over.
  void start(std::unique_ptr<netfs::Adapter> adapter, std::shared_ptr<fscache::Cache> cache,
             std::move_only_function<void(Result<>)> done);
  // Asks it to end; on_end follows when it was serving.
  void stop() EXCLUDES(mutex_);
  // Lets everything go. Blocks until the last request is answered; after on_end, or after start()
  // failed.
  void tear_down() EXCLUDES(mutex_);

  [[nodiscard]] MountStatus status() const EXCLUDES(mutex_);
  // Null unless it is serving.
  [[nodiscard]] netfs::Share* share() const EXCLUDES(mutex_);

 private:
  class Registrar;

  [[nodiscard]] Result<> serve(std::unique_ptr<netfs::Share> share) EXCLUDES(mutex_);

  const std::uint32_t id_;
  const std::uint64_t device_;
  const handover::MountSpec spec_;
  Executor& executor_;
  const fuse::Tables tables_;
  HiddenNameTable& hidden_names_;
  WriteTable& writes_;
  const std::unique_ptr<fuse::BackingRegistrar> registrar_;
  UniqueFd fuse_;
  std::move_only_function<void(std::string)> on_end_;

  mutable Mutex mutex_{LockRank::kMounts};
  MountState state_ GUARDED_BY(mutex_) = MountState::kConnecting;
  bool stop_asked_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<netfs::Adapter> failed_adapter_ GUARDED_BY(mutex_);  // until tear_down
  std::unique_ptr<netfs::Share> share_ GUARDED_BY(mutex_);
  std::unique_ptr<fuse::Filesystem> filesystem_ GUARDED_BY(mutex_);
  std::unique_ptr<fuse::Session> session_ GUARDED_BY(mutex_);
};

}  // namespace larder::engine
