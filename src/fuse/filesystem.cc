#include "fuse/filesystem.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fuse/backing_registrar.h"
#include "fuse/closed_holds.h"
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

namespace {

// The opcodes above are of other protocols, or newer than what we speak.
constexpr std::uint32_t kMostOpcode = 63;

}  // namespace

// Tells the kernel that a file changed. The share keeps it beyond the life of the mount.
class Filesystem::Notices final : public netfs::InvalidationSink {
 public:
  // `open`: closed before the session goes, and the filesystem.
  Notices(Filesystem& filesystem, Session& session, const std::shared_ptr<Gate>& open)
      : filesystem_(filesystem), open_(open), session_(&session) {}

  void data_changed(const netfs::Inode& inode) override EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (session_ == nullptr) {
      return;
    }
    if (const auto node = filesystem_.nodes_.forget_contents(inode)) {
      session_->invalidate(*node);
    }
  }

  void attributes_changed(std::uint64_t holder) override EXCLUDES(mutex_) {
    const auto gate = open_.lock();
    const Gate::Pass pass = gate ? gate->enter() : Gate::Pass();
    Session* session = nullptr;
    {
      const MutexLock lock(mutex_);
      session = session_;
    }
    if (pass && session != nullptr) {
      session->invalidate_attributes(holder);
    }
  }

  bool give_room() override {
    const auto gate = open_.lock();
    const Gate::Pass pass = gate ? gate->enter() : Gate::Pass();
    return pass && filesystem_.give_room();
  }

  void close() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    session_ = nullptr;
  }

 private:
  Filesystem& filesystem_;
  const std::weak_ptr<Gate> open_;
  Mutex mutex_{LockRank::kSession};
  Session* session_ GUARDED_BY(mutex_);
};

Filesystem::Filesystem(std::uint32_t mount_id, netfs::Share& share, const Tables& tables,
                       BackingRegistrar& registrar, Executor& executor)
    : mount_id_(mount_id),
      share_(share),
      nodes_(tables.nodes),
      handles_(tables.handles),
      journal_(tables.journal),
      registrar_(registrar),
      executor_(executor),
      callers_(executor.clock()),
      stale_retries_(executor.clock()),
      closed_holds_(std::make_shared<ClosedHolds>(executor)),
      timers_(std::make_shared<Gate>()) {}

Filesystem::~Filesystem() = default;

void Filesystem::attach(Session& session, const FilesystemOptions& options) {
  session_ = &session;
  options_ = options;
  notices_ = std::make_shared<Notices>(*this, session, timers_);
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
  closed_holds_->close();
  journal_.drop_mount(mount_id_);
  handles_.drop_mount(mount_id_);
  // The kernel dropped its ids with the connection; versions and their backing files go here.
  nodes_.drop_mount(mount_id_, [](NodeOpen&& /*dropped with its references*/) {});
}

void Filesystem::on_negotiated(const Negotiated& negotiated) {
  passthrough_ = negotiated.passthrough;
  locks_ = negotiated.locks;
  prunes_ = negotiated.minor >= kPruneMinorVersion;
  if (!negotiated.passthrough) {
    const MutexLock lock(mutex_);
    passthrough_trouble_ =
        "passthrough is turned off, or this kernel has none (Linux 6.9 or newer has it)";
  }
}

Filesystem::Entry Filesystem::entry_of(std::uint32_t opcode) {
  constexpr auto kTable = [] {
    constexpr bool kChanges = true;
    constexpr bool kOnceOnly = true;
    std::array<Entry, kMostOpcode + 1> table{};
    table[FUSE_LOOKUP] = {&Filesystem::lookup};
    table[FUSE_GETATTR] = {&Filesystem::getattr};
    table[FUSE_READLINK] = {&Filesystem::readlink};
    table[FUSE_STATFS] = {&Filesystem::statfs};
    table[FUSE_OPEN] = {&Filesystem::open};
    table[FUSE_READ] = {&Filesystem::read};
    table[FUSE_FLUSH] = {&Filesystem::flush};
    table[FUSE_FSYNC] = {&Filesystem::fsync};
    table[FUSE_GETLK] = {&Filesystem::getlk};
    table[FUSE_SETLK] = {&Filesystem::setlk};
    table[FUSE_SETLKW] = {&Filesystem::setlk};
    table[FUSE_RELEASE] = {&Filesystem::release};
    table[FUSE_OPENDIR] = {&Filesystem::opendir};
    table[FUSE_READDIR] = {&Filesystem::readdir};
    table[FUSE_FSYNCDIR] = {&Filesystem::succeed};  // names are changed at the server at once
    table[FUSE_RELEASEDIR] = {&Filesystem::releasedir};
    table[FUSE_DESTROY] = {&Filesystem::succeed};
    table[FUSE_SETATTR] = {&Filesystem::setattr, kChanges};
    table[FUSE_SYMLINK] = {&Filesystem::symlink, kChanges, kOnceOnly};
    table[FUSE_MKNOD] = {&Filesystem::mknod, kChanges, kOnceOnly};
    table[FUSE_MKDIR] = {&Filesystem::mkdir, kChanges, kOnceOnly};
    table[FUSE_UNLINK] = {&Filesystem::unlink, kChanges, kOnceOnly};
    table[FUSE_RMDIR] = {&Filesystem::rmdir, kChanges, kOnceOnly};
    table[FUSE_RENAME] = {&Filesystem::rename, kChanges, kOnceOnly};
    table[FUSE_RENAME2] = {&Filesystem::rename2, kChanges, kOnceOnly};
    table[FUSE_LINK] = {&Filesystem::link, kChanges, kOnceOnly};
    table[FUSE_WRITE] = {&Filesystem::write, kChanges, kOnceOnly};
    table[FUSE_CREATE] = {&Filesystem::create, kChanges, kOnceOnly};
    table[FUSE_FALLOCATE] = {&Filesystem::refuse_fallocate, kChanges};
    return table;
  }();
  return opcode <= kMostOpcode ? kTable.at(opcode) : Entry{};
}

void Filesystem::handle(const RequestRef& request) {
  const std::uint32_t opcode = request->header().opcode;
  // The kernel asks for attributes before it opens, whichever way it came to the node.
  if (opcode != FUSE_OPEN && opcode != FUSE_GETATTR) {
    stale_retries_.note_other_request(request->header().pid);
  }
  const Entry entry = entry_of(opcode);
  if (entry.changes && options_.read_only) {
    request->reply_error(EROFS);
    return;
  }
  if (entry.once_only && !begin_once_only(request)) {
    return;
  }
  (this->*entry.operation)(request);
}

void Filesystem::forget(std::uint64_t nodeid, std::uint64_t count) {
  if (nodeid != FUSE_ROOT_ID) {
    give_back(nodes_.forget(nodeid, count));
  }
}

void Filesystem::succeed(const RequestRef& request) {
  request->reply_empty();
}

// Programs then write zeros, or do without; what has no answer (ENOSYS), the kernel does by itself.
void Filesystem::refuse_fallocate(const RequestRef& request) {
  request->reply_error(EOPNOTSUPP);
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
  return {callers_.credential(header.uid, header.gid, header.pid), request.scope(),
          request.journal()};
}

HandleRef Filesystem::handle(const Request& request, std::uint64_t fh) const {
  return handles_.find(mount_id_, request.nodeid(), fh);
}

HandleRef Filesystem::remove_handle(const Request& request, std::uint64_t fh) {
  return handles_.remove(mount_id_, request.nodeid(), fh);
}

}  // namespace larder::fuse
