// Engine: the process between the kernel, the servers and the cache: puts the parts together.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "control/server.h"
#include "engine/backing_table.h"
#include "engine/cache_binder.h"
#include "engine/hidden_name_table.h"
#include "engine/mount.h"
#include "engine/write_table.h"
#include "fuse/handle_table.h"
#include "fuse/node_table.h"
#include "handover/engine_end.h"
#include "os/filesystem.h"
#include "os/stream.h"

namespace larder::engine {

// Threads: run() blocks the caller until the keeper says stop. Life: one a process.
class Engine {
 public:
  explicit Engine(std::unique_ptr<handover::EngineEnd> keeper);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Serves mounts until the keeper ends it; then ends every mount and takes the caches offline.
  [[nodiscard]] Result<> run();

 private:
  void take_mount(handover::MountOrder order) EXCLUDES(mutex_);
  void start_mount(const std::shared_ptr<Mount>& mount);
  void connect(const std::shared_ptr<Mount>& mount, std::shared_ptr<fscache::Cache> cache);
  void end_mount(std::uint32_t id, const std::string& why) EXCLUDES(mutex_);
  void fail_mount(std::uint32_t id, const Error& error) EXCLUDES(mutex_);
  [[nodiscard]] std::shared_ptr<Mount> find_mount(std::uint32_t id) const EXCLUDES(mutex_);
  [[nodiscard]] std::vector<std::shared_ptr<Mount>> mounts() const EXCLUDES(mutex_);

  [[nodiscard]] control::Handlers handlers();
  void answer_probe(const control::Request& request, control::Responder responder);
  void answer_flush(const control::Request& request, control::Responder responder);
  [[nodiscard]] std::string status_json() const EXCLUDES(mutex_);
  void tell_of_left_writes() const;
  void shut_down();

  const std::unique_ptr<Executor> executor_;
  const std::unique_ptr<os::StreamConnector> connector_;
  const std::unique_ptr<handover::EngineEnd> keeper_;
  const MonotonicTime started_;
  fuse::NodeTable nodes_;
  fuse::HandleTable handles_;
  fuse::Journal journal_;
  BackingTable backings_;
  HiddenNameTable hidden_names_;
  WriteTable writes_;
  const std::unique_ptr<os::Filesystem> filesystem_;
  CacheBinder caches_;
  std::unique_ptr<Pool> mount_pool_;  // connects and tears down; may block
  std::unique_ptr<control::Server> control_;

  mutable Mutex mutex_{LockRank::kMounts};
  CondVar changed_;
  std::unordered_map<std::uint32_t, std::shared_ptr<Mount>> mounts_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::string keeper_trouble_ GUARDED_BY(mutex_);
};

}  // namespace larder::engine
