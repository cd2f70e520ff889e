// Filesystem: answers the kernel's requests of one mount out of one share.
//
// Each operation is a short function: decode, check, start the work in netfs, answer when it is
// done. None waits: what must wait is finished by whoever delivers the last piece.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/counter.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/linger_list.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fuse/backing_registrar.h"
#include "fuse/caller.h"
#include "fuse/closed_holds.h"
#include "fuse/handle_table.h"
#include "fuse/journal.h"
#include "fuse/node_open.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "fuse/session.h"
#include "fuse/stale_retries.h"
#include "fuse/write_watch.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/directory_stream.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/lock_table.h"
#include "netfs/share.h"
#include "netfs/version.h"
#include "netfs/writer.h"

namespace larder::fuse {

struct FilesystemStatistics {
  std::uint64_t opens = 0;
  std::uint64_t opens_passthrough = 0;
  std::uint64_t opens_page_cache = 0;
  std::uint64_t backing_ids = 0;
  std::string
      passthrough_trouble;  // why complete files are not handed to the kernel; "" if they are
};

// In the keeper's memory, of all mounts.
struct Tables {
  NodeTable& nodes;
  HandleTable& handles;
  Journal& journal;
};

struct FilesystemOptions {
  bool read_only = false;  // every change is refused with EROFS
};

// Threads: any. Life: outlives its session's requests; close() before destruction.
class Filesystem final : public Handler {
 public:
  Filesystem(std::uint32_t mount_id, netfs::Share& share, const Tables& tables,
             BackingRegistrar& registrar, Executor& executor);
  ~Filesystem() override;
  Filesystem(const Filesystem&) = delete;
  Filesystem& operator=(const Filesystem&) = delete;

  // Before the session starts; the session outlives every request.
  void attach(Session& session, const FilesystemOptions& options = {});
  // The mount is over: lets go of nodes, handles and backing files.
  void close() EXCLUDES(mutex_);

  void on_negotiated(const Negotiated& negotiated) override;
  void handle(const RequestRef& request) override;
  void forget(std::uint64_t nodeid, std::uint64_t count) override;

  [[nodiscard]] FilesystemStatistics statistics() const EXCLUDES(mutex_);
  // The inode of a node, for commands that name a file by its number on the mount.
  [[nodiscard]] netfs::InodeRef inode_of(std::uint64_t nodeid) const;

 private:
  using Operation = void (Filesystem::*)(const RequestRef&);

  // What is known of an opcode.
  struct Entry {
    Operation operation = &Filesystem::not_supported;
    bool changes = false;    // refused on a read-only mount
    bool once_only = false;  // not the same when it is done twice
  };

  // One open(2) on its way to a mode.
  struct Opening {
    RequestRef request;
    std::uint64_t nodeid = 0;
    netfs::InodeRef inode;
    netfs::OpenFile open;
    netfs::Caller caller;
    // Of a CREATE, whose answer names the node and holds a reference of it.
    std::optional<netfs::LookupOutcome> created = std::nullopt;
    // The second of two by one thread, as of /proc/PID/fd: ESTALE would lead it nowhere.
    bool is_reopen = false;
    // It was looked whether the kernel failed to read the backing file.
    bool looked_for_failed_read = false;
  };

  using OpeningRef = std::shared_ptr<Opening>;

  enum class OpenStep : std::uint8_t {
    kWait,          // another open of the node is deciding
    kDecide,        // this one does
    kLook,          // for what the kernel may have failed to read
    kGrant,         // the node is latched
    kOlderVersion,  // the node goes on with that: this open needs another one
  };

  // What is to be done with an open, and how it is granted.
  struct ModeChoice {
    OpenStep step = OpenStep::kDecide;
    OpenMode mode = OpenMode::kClosed;
    bool keep_cache = false;
    std::int32_t backing_id = 0;
  };

  struct AskedLock {
    netfs::InodeRef inode;
    netfs::LockOrder order;
    bool unlocks = false;
  };

  [[nodiscard]] static netfs::OpenIntent open_intent_of(std::uint32_t flags);
  [[nodiscard]] static bool opens_for_change(const Opening& opening);
  [[nodiscard]] static Entry entry_of(std::uint32_t opcode);
  [[nodiscard]] netfs::Caller caller_of(const Request& request);
  [[nodiscard]] netfs::InodeRef inode_of(const Request& request) const;
  // What the request says is open; null: this mount has no such open of this node.
  [[nodiscard]] HandleRef handle(const Request& request, std::uint64_t fh) const;
  HandleRef remove_handle(const Request& request, std::uint64_t fh);
  [[nodiscard]] std::uint64_t inode_number(std::uint64_t fsid, std::uint64_t fileid) const;
  [[nodiscard]] fuse_attr attr_of(const netfs::Attributes& attributes) const;
  [[nodiscard]] fuse_entry_out entry_out_of(NodeId node, const netfs::LookupOutcome& outcome) const;
  // Somebody reads it in passthrough.
  [[nodiscard]] bool is_held(std::uint64_t nodeid);
  void reply_attributes(Request& request, const netfs::FreshAttributes& fresh);

  // Gives a call that must not happen twice its slot in the journal. False: an engine before us had
  // the answer, and it was given again.
  [[nodiscard]] bool begin_once_only(const RequestRef& request);
  void repeat_answer(Request& request, const JournaledCall::Answer& stored);
  void give_back_taken(const JournaledCall::Taken& taken);

  void lookup(const RequestRef& request);
  void reply_entry(Request& request, const netfs::LookupOutcome& outcome);
  void ask_to_forget_some();
  void reply_no_entry(Request& request, const netfs::InodeRef& directory);
  void getattr(const RequestRef& request);
  void readlink(const RequestRef& request);
  void statfs(const RequestRef& request);
  void open(const RequestRef& request);
  void read(const RequestRef& request);
  void release(const RequestRef& request);
  void opendir(const RequestRef& request);
  void readdir(const RequestRef& request);
  void releasedir(const RequestRef& request);
  void succeed(const RequestRef& request);
  void refuse_fallocate(const RequestRef& request);
  void not_supported(const RequestRef& request);

  void create(const RequestRef& request);
  void mknod(const RequestRef& request);
  void mkdir(const RequestRef& request);
  void symlink(const RequestRef& request);
  void link(const RequestRef& request);
  void unlink(const RequestRef& request);
  void rmdir(const RequestRef& request);
  void rename(const RequestRef& request);
  void rename2(const RequestRef& request);
  void setattr(const RequestRef& request);
  void write(const RequestRef& request);
  void flush(const RequestRef& request);
  void fsync(const RequestRef& request);
  void getlk(const RequestRef& request);
  void setlk(const RequestRef& request);

  // The directory of a change whose first name is behind `skip` bytes; null: it was refused.
  [[nodiscard]] netfs::InodeRef directory_of(const RequestRef& request, std::size_t skip) const;
  // Answer with the entry that was made, or with nothing; or with why not.
  [[nodiscard]] netfs::Done<netfs::LookupOutcome> entry_replier(const RequestRef& request);
  [[nodiscard]] static netfs::Done<void> empty_replier(const RequestRef& request);
  void open_created(const RequestRef& request, const netfs::Caller& caller, netfs::Created created);
  void make_regular(const RequestRef& request, const netfs::InodeRef& directory,
                    std::uint32_t mode);
  void rename_to(const RequestRef& request, std::uint64_t to_node, std::size_t names_at);
  void start_setattr(const RequestRef& request, const netfs::InodeRef& inode,
                     const netfs::AttributeChanges& changes, const HandleRef& open);
  // suid and sgid go, where the server has left them. `done` runs in any case.
  void clear_privileges(const netfs::InodeRef& inode, const netfs::OpenFile* open,
                        const netfs::Caller& caller, std::move_only_function<void()> done);
  void answer_write(const RequestRef& request, const WriteWatch::WriteRef& watched,
                    const fuse_write_in& in, Result<netfs::Written> written);
  void answer_write_back(Request& request, const netfs::Inode& inode, const fuse_write_in& in,
                         const Result<netfs::Written>& written);
  void reply_write(Request& request, const fuse_write_in& in,
                   const Result<netfs::Written>& written);
  void invalidate_written(std::uint64_t nodeid, const fuse_write_in& in);
  void sync(const RequestRef& request, const HandleRef& handle);

  // What a request about a lock asks; nothing: it was refused.
  [[nodiscard]] std::optional<AskedLock> asked_lock(const RequestRef& request) const;

  // Refuses an open that is on its way.
  void refuse(const OpeningRef& opening, const Error& error);
  void refuse(const OpeningRef& opening, int error_number);
  void start_open(const OpeningRef& opening, bool kill_privileges);
  [[nodiscard]] ModeChoice choice_of(const OpeningRef& opening, bool is_front,
                                     handover::NodeRecord& record, NodeOpen& open);
  void choose_mode(const OpeningRef& opening);
  void move_to_sibling(const OpeningRef& opening);
  void decide_first_open(const OpeningRef& opening);
  void on_prepared(const OpeningRef& opening, Result<netfs::VersionRef> prepared);
  void register_backing(const OpeningRef& opening);
  void on_registered(const OpeningRef& opening, Result<std::int32_t> id);
  // In passthrough with a backing id and a hold.
  void settle_mode(const OpeningRef& opening, OpenMode mode, OpenWhy why,
                   std::int32_t backing_id = 0, netfs::PassthroughHoldRef hold = nullptr);
  void grant(const OpeningRef& opening, OpenMode mode, OpenWhy why, bool keep_cache,
             std::int32_t backing_id);
  bool reply_opened(const Opening& opening, const OpenOut& out);
  void undo_open(const Opening& opening);
  void answer_stale(const OpeningRef& opening);
  void look_for_failed_read(const OpeningRef& opening);
  void read_a_little(const netfs::Version& version, std::uint64_t offset,
                     std::move_only_function<void()> done);
  void sample_backing(const netfs::Version& version);
  void close_node(std::uint64_t nodeid);
  void linger(std::uint64_t nodeid) EXCLUDES(mutex_);
  void end_lingering_later(Duration delay);
  void end_lingering() EXCLUDES(mutex_);
  // False: it was let go before, or is open again.
  bool let_backing_go(std::uint64_t nodeid);
  bool give_room() EXCLUDES(mutex_);
  // What a node held that the kernel has forgotten; null: nothing.
  void give_back(std::unique_ptr<NodeOpen> gone) EXCLUDES(mutex_);
  void start_read(const RequestRef& request, const HandleRef& handle, int attempt);
  void reply_read(const RequestRef& request, const HandleRef& handle, int attempt,
                  Result<netfs::ReadOutcome> outcome);
  void fill_directory(const RequestRef& request, const HandleRef& handle);

  class Notices;

  const std::uint32_t mount_id_;
  netfs::Share& share_;
  NodeTable& nodes_;
  HandleTable& handles_;
  Journal& journal_;
  BackingRegistrar& registrar_;
  Executor& executor_;
  CallerTable callers_;
  StaleRetries stale_retries_;
  WriteWatch write_watch_;
  const std::shared_ptr<ClosedHolds> closed_holds_;
  FilesystemOptions options_;  // set by attach()
  std::shared_ptr<Notices> notices_;
  Session* session_ = nullptr;
  NodeId root_ = 0;
  std::atomic<bool> passthrough_{false};
  std::atomic<bool> prunes_{false};  // the kernel forgets on request
  std::atomic<bool> locks_{false};   // the kernel leaves locks to us, and tells of every close
  Counter opens_passthrough_, opens_page_cache_;
  BufferPool sample_buffers_;
  std::atomic<std::uint64_t> samples_{0};
  std::shared_ptr<Gate> timers_;  // what runs later holds it weakly

  mutable Mutex mutex_{LockRank::kNode};
  std::uint64_t backing_ids_ GUARDED_BY(mutex_) = 0;
  // Nodes whose backing file stays registered for a moment after its last close. Some are open
  // again.
  LingerList<std::uint64_t> lingering_ GUARDED_BY(mutex_);
  bool linger_timer_set_ GUARDED_BY(mutex_) = false;
  std::string passthrough_trouble_ GUARDED_BY(mutex_);
};

}  // namespace larder::fuse
