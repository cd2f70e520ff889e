#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "control/cache_session.h"
#include "control/server.h"
#include "engine/cache_binder.h"
#include "engine/flush_walk.h"
#include "engine/held_cache.h"
#include "engine/mount.h"
#include "engine/source.h"
#include "engine/status.h"
#include "engine/write_table.h"
#include "fscache/cache.h"
#include "handover/engine_end.h"
#include "handover/mount_spec.h"
#include "netfs/adapter.h"
#include "netfs/share.h"
#include "os/filesystem.h"
#include "os/packet_socket.h"
#include "os/stream.h"

namespace larder::engine {

namespace {

constexpr std::size_t kMostQueuedMountWork = 1024;
// Mounts that end at the same time; each may wait for its last requests.
constexpr unsigned kMountThreads = 4;
constexpr std::chrono::seconds kStopPatience{10};

// "a,b=c" as mount(8) gives options.
std::vector<std::string> words_in(const std::string& options) {
  std::vector<std::string> words;
  std::size_t at = 0;
  while (at < options.size()) {
    const std::size_t comma = std::min(options.find(',', at), options.size());
    if (comma > at) {
      words.push_back(options.substr(at, comma - at));
    }
    at = comma + 1;
  }
  return words;
}

}  // namespace

Engine::Engine(std::unique_ptr<handover::EngineEnd> keeper)
    : executor_(make_threaded_executor()),
      connector_(os::make_socket_connector()),
      keeper_(std::move(keeper)),
      started_(executor_->clock().now()),
      nodes_(keeper_->take_nodes()),
      handles_(keeper_->take_handles()),
      journal_(keeper_->take_journal()),
      backings_(keeper_->take_backings()),
      hidden_names_(keeper_->take_hidden_names()),
      writes_(keeper_->take_writes(), keeper_->take_write_pages(), *executor_),
      filesystem_(os::make_posix_filesystem()),
      caches_(*executor_, *keeper_, *filesystem_),
      mount_pool_(executor_->make_pool("mounts", kMountThreads, kMostQueuedMountWork)) {}

Engine::~Engine() = default;

Result<> Engine::run() {
  control_ = TRY(
      control::Server::start(keeper_->take_control_socket(), handlers(), executor_->clock(),
                             [this](const os::PeerCredentials& peer, control::StatePusher push) {
                               return open_cache_session(caches_, *keeper_, peer, std::move(push));
                             }));
  keeper_->start({
      .take_mount = [this](handover::MountOrder order) { take_mount(std::move(order)); },
      .release_mount =
          [this](std::uint32_t id) {
            if (const auto mount = find_mount(id)) {
              mount->stop();
            } else {
              keeper_->report_unmounted(id);
            }
          },
      .stop =
          [this] {
            const MutexLock lock(mutex_);
            stopping_ = true;
            changed_.notify_all();
          },
      .trouble =
          [this](std::string trouble) {
            const MutexLock lock(mutex_);
            keeper_trouble_ = std::move(trouble);
          },
  });
  if (LogLevel level{}; parse_log_level(keeper_->hello().log_level, level)) {
    set_log_level(level);
  }
  for (const std::string& tag : keeper_->hello().detached) {
    caches_.keep_away(tag);
  }
  if (const handover::Hello& hello = keeper_->hello(); !hello.cache.empty()) {
    caches_.bring_online_at_start(hello.cache, hello.cache_size);
  }
  tell_of_left_writes();
  log_info("engine {} is ready", LARDER_VERSION);
  {
    const MutexLock lock(mutex_);
    while (!stopping_) {
      changed_.wait(mutex_);
    }
  }
  shut_down();
  return {};
}

// The programs that wrote them were told that they are written, and nothing since.
void Engine::tell_of_left_writes() const {
  if (const LeftWrites& left = writes_.left(); left.bytes != 0) {
    log_error(
        "{} bytes that were written to {} files, and not confirmed by fsync or close, may not have "
        "reached the server before the engine died",
        left.bytes, left.files);
  }
}

void Engine::take_mount(handover::MountOrder order) {
  const std::uint32_t id = order.mount_id;
  Result<handover::MountSpec> spec = handover::decode_spec(order.spec);
  if (!spec) {
    keeper_->report_failed(id, spec.error());
    return;
  }
  auto mount = std::make_shared<Mount>(
      std::move(order), std::move(*spec), *executor_, *keeper_,
      Mount::Tables{{nodes_, handles_, journal_}, backings_, hidden_names_, writes_},
      [this, id](const std::string& why) {
        mount_pool_->post([this, id, why] { end_mount(id, why); });
      });
  {
    const MutexLock lock(mutex_);
    mounts_.insert_or_assign(id, mount);
  }
  mount_pool_->post([this, mount] { start_mount(mount); });
}

// The cache first: what is read before it is there would be read from the server for nothing.
void Engine::start_mount(const std::shared_ptr<Mount>& mount) {
  const handover::MountSpec& spec = mount->spec();
  if (spec.cache.empty()) {
    connect(mount, nullptr);
    return;
  }
  if (!spec.cache.starts_with('/')) {
    caches_.expect(spec.cache);
    connect(mount, caches_.find(spec.cache));
    return;
  }
  caches_.bring_online(spec.cache, spec.cache_size, [this, mount](const Result<>& suitable) {
    mount_pool_->post([this, mount, suitable] {
      if (suitable) {
        connect(mount, caches_.find(mount->spec().cache));
      } else {
        fail_mount(mount->id(), suitable.error());
      }
    });
  });
}

void Engine::connect(const std::shared_ptr<Mount>& mount, std::shared_ptr<fscache::Cache> cache) {
  Result<std::unique_ptr<netfs::Adapter>> adapter =
      make_adapter(mount->spec(), *executor_, *connector_);
  if (!adapter) {
    fail_mount(mount->id(), adapter.error());
    return;
  }
  mount->start(std::move(*adapter), std::move(cache), [this, mount](const Result<>& result) {
    if (!result) {
      mount_pool_->post(
          [this, id = mount->id(), error = result.error()] { fail_mount(id, error); });
      return;
    }
    log_info("mount {}: {} on {}", mount->id(), mount->spec().source, mount->spec().mountpoint);
    keeper_->report_ready(mount->id());
  });
}

void Engine::fail_mount(std::uint32_t id, const Error& error) {
  log_error("mount {}: {}", id, error.message());
  if (const auto mount = find_mount(id)) {
    mount->tear_down();
  }
  keeper_->report_failed(id, error);
  const MutexLock lock(mutex_);
  mounts_.erase(id);
  changed_.notify_all();
}

void Engine::end_mount(std::uint32_t id, const std::string& why) {
  const auto mount = find_mount(id);
  if (mount == nullptr) {
    return;
  }
  mount->tear_down();
  if (why.empty()) {
    log_info("mount {}: unmounted", id);
  } else {
    log_error("mount {}: {}", id, why);
  }
  keeper_->report_unmounted(id);
  const MutexLock lock(mutex_);
  mounts_.erase(id);
  changed_.notify_all();
}

std::shared_ptr<Mount> Engine::find_mount(std::uint32_t id) const {
  const MutexLock lock(mutex_);
  const auto found = mounts_.find(id);
  return found == mounts_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<Mount>> Engine::mounts() const {
  std::vector<std::shared_ptr<Mount>> all;
  const MutexLock lock(mutex_);
  all.reserve(mounts_.size());
  for (const auto& [id, mount] : mounts_) {
    all.push_back(mount);
  }
  return all;
}

control::Handlers Engine::handlers() {
  control::Handlers handlers;
  handlers["status"] = [this](const control::Request&, control::Responder responder) {
    responder.answer(status_json());
  };
  handlers["log"] = [](const control::Request&, control::Responder responder) {
    responder.answer(fmt::format("{}\n", fmt::join(recent_log_lines(), "\n")));
  };
  handlers["version"] = [](const control::Request&, control::Responder responder) {
    responder.answer(std::string(LARDER_VERSION));
  };
  handlers["probe"] = [this](const control::Request& request, control::Responder responder) {
    answer_probe(request, std::move(responder));
  };
  for (const auto& [name, change] :
       {std::pair("detach", &CacheBinder::detach), std::pair("attach", &CacheBinder::attach)}) {
    handlers[name] = [this, change](const control::Request& request, control::Responder responder) {
      const Result<> done = (caches_.*change)(request.arguments.at(0));
      responder.answer(done ? Result<std::string>("") : fail(done.error()));
    };
  }
  handlers["flush"] = [this](const control::Request& request, control::Responder responder) {
    answer_flush(request, std::move(responder));
  };
  return handlers;
}

// Connects as a mount would, and lets go again: whoever mounts is told what is wrong before there
// is anything to undo.
void Engine::answer_probe(const control::Request& request, control::Responder responder) {
  handover::MountSpec spec;
  spec.source = request.arguments.at(0);
  for (const std::string& word :
       words_in(request.arguments.size() > 1 ? request.arguments[1] : "")) {
    if (Result<> applied = handover::apply_option(spec.options, word); !applied) {
      responder.answer(fail(applied.error()));
      return;
    }
  }
  Result<std::unique_ptr<netfs::Adapter>> adapter = make_adapter(spec, *executor_, *connector_);
  if (!adapter) {
    responder.answer(fail(adapter.error()));
    return;
  }
  auto shared_responder = std::make_shared<control::Responder>(std::move(responder));
  netfs::Share::start_mount(
      std::move(*adapter), *executor_, nullptr, {},
      [this, shared_responder](Result<std::unique_ptr<netfs::Share>> share) {
        if (!share) {
          shared_responder->answer(fail(share.error()));
          return;
        }
        shared_responder->answer(std::string());
        // Shutting down waits for the thread that runs this.
        mount_pool_->post([probed = std::move(*share)] { probed->shut_down(); });
      },
      [this](std::unique_ptr<netfs::Adapter> failed) {
        mount_pool_->post([failed = std::move(failed)] { failed->shut_down(); });
      });
}

void Engine::answer_flush(const control::Request& request, control::Responder responder) {
  const std::string& path = request.arguments.at(0);
  std::shared_ptr<Mount> best;
  for (const auto& mount : mounts()) {
    const std::string& mountpoint = mount->spec().mountpoint;
    const bool below = path == mountpoint || path.starts_with(mountpoint + "/");
    if (below && (best == nullptr || mountpoint.size() > best->spec().mountpoint.size())) {
      best = mount;
    }
  }
  netfs::Share* const share = best == nullptr ? nullptr : best->share();
  if (share == nullptr) {
    responder.answer(
        fail(Errc::kInvalid,
             fmt::format("{} is not on a mount of larder: see `larder status` for what is", path)));
    return;
  }
  auto shared_responder = std::make_shared<control::Responder>(std::move(responder));
  FlushWalk::start(*share, path.substr(best->spec().mountpoint.size()),
                   [shared_responder, best](Result<std::uint64_t> files) {
                     if (!files) {
                       shared_responder->answer(fail(files.error()));
                       return;
                     }
                     shared_responder->answer(fmt::format("{} files flushed\n", *files));
                   });
}

std::string Engine::status_json() const {
  std::vector<MountStatus> mount_status;
  for (const auto& mount : mounts()) {
    mount_status.push_back(mount->status());
  }
  const auto uptime =
      std::chrono::duration_cast<std::chrono::seconds>(executor_->clock().now() - started_);
  std::string keeper_trouble;
  {
    const MutexLock lock(mutex_);
    keeper_trouble = keeper_trouble_;
  }
  return status_text({keeper_->hello(), std::move(keeper_trouble), uptime, caches_.status(),
                      std::move(mount_status), nodes_.size(), journal_.unjournaled()});
}

void Engine::shut_down() {
  control_.reset();
  for (const auto& mount : mounts()) {
    mount->stop();
  }
  const MonotonicTime deadline = executor_->clock().now() + kStopPatience;
  {
    const MutexLock lock(mutex_);
    while (!mounts_.empty() && changed_.wait_until(mutex_, deadline)) {
    }
    if (!mounts_.empty()) {
      log_warning("{} mounts did not end in time", mounts_.size());
    }
  }
  caches_.withdraw_all(kStopPatience);
  keeper_->report_stopping();
}

}  // namespace larder::engine
