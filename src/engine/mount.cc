#include "engine/mount.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/executor.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/backing_table.h"
#include "engine/hidden_name_table.h"
#include "engine/source.h"
#include "engine/write_table.h"
#include "fscache/cache.h"
#include "fuse/backing_registrar.h"
#include "fuse/filesystem.h"
#include "fuse/session.h"
#include "handover/engine_end.h"
#include "handover/mount_spec.h"
#include "handover/records.h"
#include "netfs/adapter.h"
#include "netfs/share.h"
#include "os/descriptor.h"
#include "os/filesystem.h"
#include "os/fuse_device.h"

namespace larder::engine {

// Has the keeper make backing ids of this mount.
class Mount::Registrar final : public fuse::BackingRegistrar {
 public:
  Registrar(handover::EngineEnd& keeper, BackingTable& table, std::uint32_t mount_id)
      : keeper_(keeper), table_(table), mount_id_(mount_id) {}

  void open(std::uint64_t nodeid, UniqueFd file,
            std::move_only_function<void(Result<std::int32_t>)> done) override {
    const Result<os::FileStat> stat = os::stat_of(file);
    if (!stat) {
      done(fail(stat.error()));
      return;
    }
    handover::BackingRecord record{.mount_id = mount_id_,
                                   .backing_id = 0,
                                   .nodeid = nodeid,
                                   .device = stat->device,
                                   .inode = stat->inode,
                                   .charged_bytes = stat->allocated};
    keeper_.open_backing(mount_id_, std::move(file),
                         [this, record, done = std::move(done)](Result<std::int32_t> id) mutable {
                           if (id) {
                             record.backing_id = *id;
                             table_.put(record);
                           }
                           done(std::move(id));
                         });
  }

  // The record goes first: as soon as the keeper knows, the kernel may give the id out again.
  void close(std::int32_t backing_id) override {
    table_.remove(mount_id_, backing_id);
    keeper_.close_backing(mount_id_, backing_id);
  }

 private:
  handover::EngineEnd& keeper_;
  BackingTable& table_;
  const std::uint32_t mount_id_;
};

const char* name_of(MountState state) {
  switch (state) {
    case MountState::kConnecting:
      return "connecting";
    case MountState::kServing:
      return "serving";
    case MountState::kEnding:
      return "ending";
    case MountState::kEnded:
      return "ended";
  }
  return "?";
}

Mount::Mount(handover::MountOrder order, handover::MountSpec spec, Executor& executor,
             handover::EngineEnd& keeper, const Tables& tables,
             std::move_only_function<void(std::string)> on_end)
    : id_(order.mount_id),
      device_(order.device),
      spec_(std::move(spec)),
      executor_(executor),
      tables_(tables.fuse),
      hidden_names_(tables.hidden_names),
      writes_(tables.writes),
      registrar_(std::make_unique<Registrar>(keeper, tables.backings, order.mount_id)),
      fuse_(std::move(order.fuse)),
      on_end_(std::move(on_end)) {}

Mount::~Mount() = default;

void Mount::start(std::unique_ptr<netfs::Adapter> adapter, std::shared_ptr<fscache::Cache> cache,
                  std::move_only_function<void(Result<>)> done) {
  netfs::Share::start_mount(
      std::move(adapter), executor_, std::move(cache), share_options_of(spec_.options),
      [this, done = std::move(done)](Result<std::unique_ptr<netfs::Share>> share) mutable {
        if (!share) {
          {
            const MutexLock lock(mutex_);
            state_ = MountState::kEnded;
          }
          done(fail(share.error()));
          return;
        }
        done(serve(std::move(*share)));
      },
      [this](std::unique_ptr<netfs::Adapter> failed) {
        const MutexLock lock(mutex_);
        failed_adapter_ = std::move(failed);
      });
}

Result<> Mount::serve(std::unique_ptr<netfs::Share> share) {
  Result<std::unique_ptr<os::FuseDevice>> device = os::make_posix_fuse_device(std::move(fuse_));
  if (!device) {
    const MutexLock lock(mutex_);
    share_ = std::move(share);
    return fail(device.error());
  }
  if (!spec_.options.read_only) {  // which changes nothing at the server
    share->keep_hidden_names(hidden_names_.store_for(id_, share->key()));
    share->keep_writes(writes_.store_for(id_));
  }
  auto filesystem =
      std::make_unique<fuse::Filesystem>(id_, *share, tables_, *registrar_, executor_);
  auto session = std::make_unique<fuse::Session>(
      std::move(*device), executor_,
      fuse::SessionOptions{.name = std::to_string(id_),
                           .threads = std::clamp(std::thread::hardware_concurrency(), 2U, 4U),
                           .passthrough = spec_.options.passthrough,
                           .locks = !spec_.options.read_only && !spec_.options.local_lock});
  filesystem->attach(*session, {.read_only = spec_.options.read_only});
  fuse::Session& started = *session;
  fuse::Filesystem& handler = *filesystem;
  bool stop_now = false;
  {
    const MutexLock lock(mutex_);
    share_ = std::move(share);
    filesystem_ = std::move(filesystem);
    session_ = std::move(session);
    state_ = MountState::kServing;
    stop_now = stop_asked_;
  }
  started.start(handler, [this](fuse::StopReason reason, const std::string& what) {
    {
      const MutexLock lock(mutex_);
      state_ = MountState::kEnding;
    }
    on_end_(reason == fuse::StopReason::kDeviceError || reason == fuse::StopReason::kBadProtocol
                ? fmt::format("the FUSE device failed: {}", what)
                : std::string());
  });
  if (stop_now) {
    started.stop();
  }
  return {};
}

void Mount::stop() {
  const MutexLock lock(mutex_);
  stop_asked_ = true;
  if (session_ != nullptr) {
    session_->stop();
  }
}

namespace {

// Who waits for a server that may be silent.
template <class Left>
std::uint64_t wait_until_none(Left left) {
  constexpr auto kLongest = std::chrono::seconds(5);
  const auto deadline = std::chrono::steady_clock::now() + kLongest;
  std::uint64_t count = left();
  while (count != 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    count = left();
  }
  return count;
}

// What a program wrote while it closed the file (asynchronous I/O), or without closing it before
// the connection was cut, is on its way for a second at most.
void wait_for_writes(const netfs::Share& share) {
  const std::uint64_t files = wait_until_none([&] { return share.statistics().files_behind; });
  if (files != 0) {
    log_error("what was written last to {} files, and not synced, has not reached the server",
              files);
  }
}

// Of files that are open while their mount is ended by force.
void remove_hidden_names(netfs::Share& share) {
  share.let_hidden_go();
  const std::uint64_t names = wait_until_none([&] { return share.statistics().hidden_names; });
  if (names != 0) {
    log_warning(
        "{} files that were removed while open are still at the server, as .nfs...: the "
        "next mount removes them, if it comes before the keeper ends",
        names);
  }
}

}  // namespace

void Mount::tear_down() {
  std::unique_ptr<netfs::Adapter> failed_adapter;
  std::unique_ptr<netfs::Share> share;
  std::unique_ptr<fuse::Filesystem> filesystem;
  std::unique_ptr<fuse::Session> session;
  {
    const MutexLock lock(mutex_);
    failed_adapter = std::move(failed_adapter_);
    share = std::move(share_);
    filesystem = std::move(filesystem_);
    session = std::move(session_);
    state_ = MountState::kEnded;
  }
  if (failed_adapter != nullptr) {
    failed_adapter->shut_down();
  }
  if (share != nullptr) {
    wait_for_writes(*share);
    remove_hidden_names(*share);
    share->shut_down();  // ends what waits for the server
  }
  if (session != nullptr) {
    session->drain();
  }
  if (filesystem != nullptr) {
    filesystem->close();
  }
  // The session goes first: nothing sends notifications any more; then what it was about.
  session.reset();
  filesystem.reset();
  share.reset();
}

MountStatus Mount::status() const {
  MountStatus status;
  status.id = id_;
  status.device = device_;
  status.spec = spec_;
  const MutexLock lock(mutex_);
  status.state = state_;
  if (share_ != nullptr) {
    status.share = share_->statistics();
    status.adapter = share_->adapter_status();
  }
  if (filesystem_ != nullptr) {
    status.filesystem = filesystem_->statistics();
  }
  return status;
}

netfs::Share* Mount::share() const {
  const MutexLock lock(mutex_);
  return share_.get();
}

}  // namespace larder::engine
