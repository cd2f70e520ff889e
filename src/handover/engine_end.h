// EngineEnd: the engine's end of the channel to the keeper.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "handover/cache_keeper.h"
#include "handover/messages.h"
#include "handover/records.h"
#include "handover/table.h"

namespace larder::handover {

// A mount that the keeper wants served.
struct MountOrder {
  std::uint32_t mount_id = 0;
  std::uint64_t device = 0;  // st_dev of the mount: nothing of ours may be touched on it
  std::string spec;          // handover/mount_spec.h reads it
  UniqueFd fuse;
};

// What the keeper sends on its own account. Called on the receiving thread, one at a time, until
// the EngineEnd is destroyed; must not wait for an answer of the keeper.
struct KeeperOrders {
  std::move_only_function<void(MountOrder order)> take_mount;
  // To be answered by report_unmounted when nothing uses the mount any more.
  std::move_only_function<void(std::uint32_t mount_id)> release_mount;
  // Once at most: the keeper wants us to end, or is gone itself.
  std::move_only_function<void()> stop;
  // What the keeper has to tell to whoever asks for the status; "": nothing any more.
  std::move_only_function<void(std::string trouble)> trouble = {};
};

// Owned by the engine. Threads: any, unless said otherwise; calls may wait for room in the socket,
// which the keeper always makes soon, and hold no lock meanwhile. Life: adopt, take what it
// brought, start, then the rest; the destructor hangs up, ends every question with kCancelled and
// joins.
class EngineEnd final : public CacheKeeper {
 public:
  // Blocks for the keeper's HELLO and maps the tables. `channel` is descriptor kChannelDescriptor
  // in a started engine.
  [[nodiscard]] static Result<std::unique_ptr<EngineEnd>> adopt(UniqueFd channel);
  ~EngineEnd() override;

  EngineEnd(const EngineEnd&) = delete;
  EngineEnd& operator=(const EngineEnd&) = delete;

  // ---- Between adopt and start; each once.

  [[nodiscard]] const Hello& hello() const { return hello_; }

  [[nodiscard]] Table<NodeRecord> take_nodes() { return Table<NodeRecord>(std::move(nodes_)); }

  [[nodiscard]] Table<HandleRecord> take_handles() {
    return Table<HandleRecord>(std::move(handles_));
  }

  [[nodiscard]] Table<BackingRecord> take_backings() {
    return Table<BackingRecord>(std::move(backings_));
  }

  [[nodiscard]] Table<HiddenNameRecord> take_hidden_names() {
    return Table<HiddenNameRecord>(std::move(hidden_names_));
  }

  [[nodiscard]] Table<JournalRecord> take_journal() {
    return Table<JournalRecord>(std::move(journal_));
  }

  [[nodiscard]] Table<WriteRecord> take_writes() { return Table<WriteRecord>(std::move(writes_)); }

  [[nodiscard]] Table<WritePage> take_write_pages() {
    return Table<WritePage>(std::move(write_pages_));
  }

  // Listens on <runtime>/control.sock; does not block.
  [[nodiscard]] UniqueFd take_control_socket() { return std::move(control_socket_); }

  // From now on the keeper's orders arrive.
  void start(KeeperOrders orders);

  // ---- Questions. `done` runs once, on the receiving thread (or before the call returns, when
  // nothing could be sent), and must not wait. The keeper answers within a deadline (kTimedOut), so
  // no question needs one here.

  // The kernel's id for passthrough of `file`, which is closed here as soon as it was sent.
  void open_backing(std::uint32_t mount_id, UniqueFd file,
                    std::move_only_function<void(Result<std::int32_t>)> done) EXCLUDES(mutex_);
  void open_cache_directory(const std::string& path,
                            std::move_only_function<void(Result<UniqueFd>)> done) override
      EXCLUDES(mutex_);

  // ---- News. They are dropped when the keeper is gone.

  void close_backing(std::uint32_t mount_id, std::int32_t backing_id);
  void report_ready(std::uint32_t mount_id);
  // The mount is over; the descriptor may be closed. Errors are shown to the person who mounts.
  void report_failed(std::uint32_t mount_id, const Error& why);
  // Unmounted by the kernel or after release_mount: the last word about that mount.
  void report_unmounted(std::uint32_t mount_id);
  void report_detached(const std::string& tag, bool detached) override;
  // Before ending on purpose.
  void report_stopping();

 private:
  using Answer = std::move_only_function<void(Result<Message>)>;

  explicit EngineEnd(UniqueFd channel) : channel_(std::move(channel)) {}

  void ask(Message question, Answer answer) EXCLUDES(mutex_);
  void tell(const Message& news);
  void receive() EXCLUDES(mutex_);
  void dispatch(Message message) EXCLUDES(mutex_);
  void answer(Message message) EXCLUDES(mutex_);
  void give_up() EXCLUDES(mutex_);

  const UniqueFd channel_;
  Hello hello_;
  TableMemory nodes_, handles_, backings_, hidden_names_, journal_, writes_, write_pages_;
  UniqueFd control_socket_;
  KeeperOrders orders_;  // of the receiving thread

  Mutex mutex_{LockRank::kChannel};
  std::uint64_t last_request_ GUARDED_BY(mutex_) = 0;
  bool hung_up_ GUARDED_BY(mutex_) = false;
  std::unordered_map<std::uint64_t, Answer> unanswered_ GUARDED_BY(mutex_);

  Thread receiver_;  // last: it uses the members above
};

}  // namespace larder::handover
