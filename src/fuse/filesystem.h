// Filesystem: answers the kernel's requests of one mount out of one share.
//
// Each operation is a short function: decode, check, start the work in netfs, answer when it is
// done. None waits: what must wait is finished by whoever delivers the last piece.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/buffer.h"
#include "base/counter.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fuse/backing_registrar.h"
#include "fuse/caller.h"
#include "fuse/handle_table.h"
#include "fuse/node_open.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "fuse/session.h"
#include "fuse/stale_retries.h"
#include "netfs/invalidation.h"
#include "netfs/share.h"
#include "netfs/version.h"

namespace larder::fuse {

struct FilesystemStatistics {
  std::uint64_t opens = 0;
  std::uint64_t opens_passthrough = 0;
  std::uint64_t opens_page_cache = 0;
  std::uint64_t backing_ids = 0;
  std::string
      passthrough_trouble;  // why complete files are not handed to the kernel; "" if they are
};

// Threads: any. Life: outlives its session's requests; close() before destruction.
class Filesystem final : public Handler {
 public:
  Filesystem(std::uint32_t mount_id, netfs::Share& share, NodeTable& nodes, HandleTable& handles,
             BackingRegistrar& registrar, Executor& executor);
  ~Filesystem() override;
  Filesystem(const Filesystem&) = delete;
  Filesystem& operator=(const Filesystem&) = delete;

  // Before the session starts; the session outlives every request.
  void attach(Session& session);
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

  // One open(2) on its way to a mode.
  struct Opening {
    RequestRef request;
    netfs::InodeRef inode;
    netfs::OpenFile open;
    netfs::Caller caller;
  };

  using OpeningRef = std::shared_ptr<Opening>;

  [[nodiscard]] static Operation operation_of(std::uint32_t opcode);
  [[nodiscard]] netfs::Caller caller_of(const Request& request);
  [[nodiscard]] netfs::InodeRef inode_of(const Request& request) const;
  // What the request says is open; null: this mount has no such open of this node.
  [[nodiscard]] HandleRef handle(const Request& request, std::uint64_t fh) const;
  HandleRef remove_handle(const Request& request, std::uint64_t fh);
  [[nodiscard]] std::uint64_t inode_number(std::uint64_t fsid, std::uint64_t fileid) const;
  [[nodiscard]] fuse_attr attr_of(const netfs::Attributes& attributes) const;

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
  void refuse_write(const RequestRef& request);
  void not_supported(const RequestRef& request);

  void choose_mode(const OpeningRef& opening);
  void decide_first_open(const OpeningRef& opening);
  void on_prepared(const OpeningRef& opening, Result<netfs::VersionRef> prepared);
  void register_backing(const OpeningRef& opening);
  void settle_mode(const OpeningRef& opening, OpenMode mode, OpenWhy why, std::int32_t backing_id);
  void grant(const OpeningRef& opening, OpenMode mode, OpenWhy why, bool keep_cache,
             std::int32_t backing_id);
  void answer_stale(const OpeningRef& opening);
  void sample_backing(const netfs::Version& version);
  void close_node(std::uint64_t nodeid);
  void let_backing_go(std::uint64_t nodeid, std::uint64_t round);
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
  BackingRegistrar& registrar_;
  Executor& executor_;
  CallerTable callers_;
  StaleRetries stale_retries_;
  std::shared_ptr<Notices> notices_;
  Session* session_ = nullptr;
  NodeId root_ = 0;
  std::atomic<bool> passthrough_{false};
  std::atomic<bool> prunes_{false};  // the kernel forgets on request
  Counter opens_passthrough_, opens_page_cache_;
  BufferPool sample_buffers_;
  std::atomic<std::uint64_t> samples_{0};
  std::shared_ptr<Gate> timers_;  // what runs later holds it weakly

  mutable Mutex mutex_{LockRank::kNode};
  std::uint64_t backing_ids_ GUARDED_BY(mutex_) = 0;
  std::string passthrough_trouble_ GUARDED_BY(mutex_);
};

}  // namespace larder::fuse
