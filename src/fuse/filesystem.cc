#include "fuse/filesystem.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fuse/backing_registrar.h"
#include "fuse/handle_table.h"
#include "fuse/node_open.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "fuse/session.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/share.h"

namespace larder::fuse {

// Tells the kernel that a file changed. The share keeps it beyond the life of the mount.
class Filesystem::Notices final : public netfs::InvalidationSink {
 public:
  Notices(NodeTable& nodes, Session& session) : nodes_(nodes), session_(&session) {}

  void data_changed(const netfs::Inode& inode) override EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (session_ == nullptr) {
      return;
    }
    if (const auto node = nodes_.forget_contents(inode)) {
      session_->invalidate(*node);
    }
  }

  void close() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    session_ = nullptr;
  }

 private:
  NodeTable& nodes_;
  Mutex mutex_{LockRank::kSession};
  Session* session_ GUARDED_BY(mutex_);
};

Filesystem::Filesystem(std::uint32_t mount_id, netfs::Share& share, NodeTable& nodes,
                       HandleTable& handles, BackingRegistrar& registrar, Executor& executor)
    : mount_id_(mount_id),
      share_(share),
      nodes_(nodes),
      handles_(handles),
      registrar_(registrar),
      executor_(executor),
      callers_(executor.clock()),
      stale_retries_(executor.clock()),
      timers_(std::make_shared<Gate>()) {}

Filesystem::~Filesystem() = default;

void Filesystem::attach(Session& session) {
  session_ = &session;
  notices_ = std::make_shared<Notices>(nodes_, session);
  share_.set_invalidation_sink(notices_);
  const Result<NodeId> root = nodes_.reference(mount_id_, share_.root());
  CHECK(root.has_value(), "no room for the root of mount {}", mount_id_);
  root_ = *root;
}

void Filesystem::close() {
  if (notices_ != nullptr) {
    notices_->close();
  }
  timers_->close_and_wait();
  handles_.drop_mount(mount_id_);
  // The kernel dropped its ids with the connection; versions and their backing files go here.
  nodes_.drop_mount(mount_id_, [](NodeOpen&& /*dropped with its references*/) {});
}

void Filesystem::on_negotiated(const Negotiated& negotiated) {
  passthrough_ = negotiated.passthrough;
  prunes_ = negotiated.minor >= kPruneMinorVersion;
  if (!negotiated.passthrough) {
    const MutexLock lock(mutex_);
    passthrough_trouble_ =
        "passthrough is turned off, or this kernel has none (Linux 6.9 or newer has it)";
  }
}

Filesystem::Operation Filesystem::operation_of(std::uint32_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP:
      return &Filesystem::lookup;
    case FUSE_GETATTR:
      return &Filesystem::getattr;
    case FUSE_READLINK:
      return &Filesystem::readlink;
    case FUSE_STATFS:
      return &Filesystem::statfs;
    case FUSE_OPEN:
      return &Filesystem::open;
    case FUSE_READ:
      return &Filesystem::read;
    case FUSE_RELEASE:
      return &Filesystem::release;
    case FUSE_OPENDIR:
      return &Filesystem::opendir;
    case FUSE_READDIR:
      return &Filesystem::readdir;
    case FUSE_RELEASEDIR:
      return &Filesystem::releasedir;
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_DESTROY:
      return &Filesystem::succeed;
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_WRITE:
    case FUSE_CREATE:
    case FUSE_FALLOCATE:
      return &Filesystem::refuse_write;
    default:
      return &Filesystem::not_supported;
  }
}

void Filesystem::handle(const RequestRef& request) {
  const std::uint32_t opcode = request->header().opcode;
  if (opcode != FUSE_OPEN) {
    stale_retries_.note_other_request(request->header().pid);
  }
  (this->*operation_of(opcode))(request);
}

void Filesystem::forget(std::uint64_t nodeid, std::uint64_t count) {
  if (nodeid != FUSE_ROOT_ID) {
    give_back(nodes_.forget(nodeid, count));
  }
}

void Filesystem::succeed(const RequestRef& request) {
  request->reply_empty();
}

void Filesystem::refuse_write(const RequestRef& request) {
  request->reply_error(EROFS);
}

void Filesystem::not_supported(const RequestRef& request) {
  request->reply_error(ENOSYS);
}

FilesystemStatistics Filesystem::statistics() const {
  FilesystemStatistics statistics;
  statistics.opens_passthrough = opens_passthrough_.value();
  statistics.opens_page_cache = opens_page_cache_.value();
  statistics.opens = statistics.opens_passthrough + statistics.opens_page_cache;
  const MutexLock lock(mutex_);
  statistics.backing_ids = backing_ids_;
  statistics.passthrough_trouble = passthrough_trouble_;
  return statistics;
}

netfs::InodeRef Filesystem::inode_of(std::uint64_t nodeid) const {
  return nodeid == FUSE_ROOT_ID ? share_.root() : nodes_.inode(nodeid);
}

netfs::InodeRef Filesystem::inode_of(const Request& request) const {
  return inode_of(request.nodeid());
}

netfs::Caller Filesystem::caller_of(const Request& request) {
  const fuse_in_header& header = request.header();
  return {callers_.credential(header.uid, header.gid, header.pid), request.scope()};
}

HandleRef Filesystem::handle(const Request& request, std::uint64_t fh) const {
  return handles_.find(mount_id_, request.nodeid(), fh);
}

HandleRef Filesystem::remove_handle(const Request& request, std::uint64_t fh) {
  return handles_.remove(mount_id_, request.nodeid(), fh);
}

}  // namespace larder::fuse
