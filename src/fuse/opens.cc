// Opens of files: OPEN and RELEASE, and the mode that a node is latched to meanwhile.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fcntl.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/node_open.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "handover/records.h"
#include "netfs/call_scope.h"
#include "netfs/coherency.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/version.h"

namespace larder::fuse {

namespace {

// How long a backing file stays registered after the last close: opened again, it costs no ioctl.
constexpr std::chrono::seconds kBackingLinger{5};

// Of a backing file, to see whether the disk gives it.
constexpr std::uint64_t kSampleBytes = 4096;

// Whether all pages that the kernel has of the node are of this version.
bool binds(const handover::NodeRecord& record, const netfs::Version& version) {
  return (record.flags & handover::kNodePagesUnsure) == 0 && record.size == version.size() &&
         record.coherency == netfs::coherency_of(version.attributes);
}

// Remembers which version's pages the kernel has from now on. One that is too young cannot be told
// from its successor: the next open drops its pages.
void bind(handover::NodeRecord& record, const netfs::Version& version) {
  record.size = version.size();
  record.coherency = netfs::coherency_of(version.attributes);
  record.flags &= static_cast<std::uint8_t>(~handover::kNodePagesUnsure);
  record.flags |= version.racy ? handover::kNodePagesUnsure : 0;
}

// Of a complete file that lost bytes on the disk the kernel would go on to show those.
bool is_sound(const NodeOpen& open) {
  return open.version != nullptr && open.version->cookie->cache_usable() &&
         open.version->cookie->complete();
}

// The node is latched in passthrough, or is so again. False: somebody writes.
bool may_go_on(NodeOpen& open, netfs::File& file) {
  return open.mode == OpenMode::kPassthrough || file.hold_again(*open.hold);
}

// What CREATE is answered with.
struct Created {
  fuse_entry_out entry;
  OpenOut open;
};

}  // namespace

netfs::OpenIntent Filesystem::open_intent_of(std::uint32_t flags) {
  const std::uint32_t access = flags & O_ACCMODE;
  const bool execute = (flags & kOpenForExecution) != 0;
  return {.read = access != O_WRONLY,
          .execute = execute,
          .write = access != O_RDONLY,
          .truncate = (flags & O_TRUNC) != 0};
}

bool Filesystem::opens_for_change(const Opening& opening) {
  // CREATE's argument begins with the same word.
  const netfs::OpenIntent intent = open_intent_of(opening.request->argument<fuse_open_in>()->flags);
  return intent.write || intent.truncate;
}

void Filesystem::open(const RequestRef& request) {
  const auto* const in = request->argument<fuse_open_in>();
  const netfs::InodeRef inode = inode_of(*request);
  if (in == nullptr || inode == nullptr) {
    request->reply_error(in == nullptr ? EINVAL : ESTALE);
    return;
  }
  const netfs::OpenIntent intent = open_intent_of(in->flags);
  const bool changes = intent.write || intent.truncate;
  if (changes && options_.read_only) {
    request->reply_error(EROFS);
    return;
  }
  if (changes && is_held(request->nodeid())) {
    // Before anything is cut off: who can write gets a node of his own.
    nodes_.retire(request->nodeid());
    request->reply_error(ESTALE);
    return;
  }
  const netfs::Caller caller = caller_of(*request);
  share_.open(inode, intent, caller,
              [this, request, inode, caller, intent](Result<netfs::OpenFile> opened) {
                if (!opened) {
                  request->reply_error(opened.error());
                  return;
                }
                const auto flags = request->argument<fuse_open_in>()->open_flags;
                start_open(std::make_shared<Opening>(Opening{request, request->nodeid(), inode,
                                                             std::move(*opened), caller}),
                           intent.truncate && (flags & FUSE_OPEN_KILL_SUIDGID) != 0);
              });
}

void Filesystem::start_open(const OpeningRef& opening, bool kill_privileges) {
  if (!kill_privileges) {
    choose_mode(opening);
    return;
  }
  clear_privileges(opening->inode, &opening->open, opening->caller,
                   [this, opening] { choose_mode(opening); });
}

void Filesystem::refuse(const OpeningRef& opening, const Error& error) {
  refuse(opening, error.error_number());
}

void Filesystem::refuse(const OpeningRef& opening, int error_number) {
  opening->request->reply_error(error_number);
  if (opening->created) {
    give_back(nodes_.forget(opening->nodeid, 1));  // the kernel never saw this reference
  }
}

// The node is open: as it is latched. Else this is its first open, which decides.
Filesystem::ModeChoice Filesystem::choice_of(const OpeningRef& opening, bool is_front,
                                             handover::NodeRecord& record, NodeOpen& open) {
  const netfs::VersionRef& version = opening->open.version;
  const bool sound = is_sound(open);
  const bool usable = sound && !netfs::Share::is_for_page_cache_only(opening->open) &&
                      netfs::same_version(open.version->attributes, version->attributes);
  if (open.deciding) {
    open.waiting.push_back([this, opening] { choose_mode(opening); });
    return {.step = OpenStep::kWait};
  }
  if (open.mode == OpenMode::kPageCache) {
    const bool keep_cache = binds(record, *version) && !version->racy;
    bind(record, *version);
    ++open.handles;
    return {OpenStep::kGrant, open.mode, keep_cache};
  }
  if (open.mode == OpenMode::kPassthrough && !usable) {
    if (!sound) {
      record.flags |= handover::kNodeAbandoned;
    }
    return {.step = OpenStep::kOlderVersion};
  }
  if (open.mode == OpenMode::kClosed && !is_front) {
    return {.step = OpenStep::kOlderVersion};
  }
  if (open.backing_id != 0 && usable && !opening->looked_for_failed_read) {
    return {.step = OpenStep::kLook};
  }
  if (open.backing_id != 0 && usable && may_go_on(open, *opening->open.file)) {
    // Latched, or registered still since a moment ago.
    open.mode = OpenMode::kPassthrough;
    open.file = opening->open.file;
    ++open.handles;
    return {OpenStep::kGrant, open.mode, false, open.backing_id};
  }
  open.deciding = true;
  return {.step = OpenStep::kDecide};
}

void Filesystem::choose_mode(const OpeningRef& opening) {
  const bool is_front = nodes_.is_front(opening->nodeid, *opening->inode) || opening->is_reopen;
  ModeChoice choice;
  const auto choose = [&](handover::NodeRecord& record, NodeOpen& open) {
    choice = choice_of(opening, is_front, record, open);
  };
  if (!nodes_.with_node(opening->nodeid, choose)) {
    refuse(opening, ESTALE);
    return;
  }
  switch (choice.step) {
    case OpenStep::kWait:
      break;
    case OpenStep::kDecide:
      decide_first_open(opening);
      break;
    case OpenStep::kLook:
      look_for_failed_read(opening);
      break;
    case OpenStep::kGrant:
      grant(opening, choice.mode, OpenWhy::kLatched, choice.keep_cache, choice.backing_id);
      break;
    case OpenStep::kOlderVersion:
      answer_stale(opening);
      break;
  }
}

// Who holds the node reads an older version, and goes on doing so; this open shall have the newer
// one, on a node of its own. The same for a node beside which there is a newer one: two that are
// open in page-cache mode would not see each other's writes.
void Filesystem::answer_stale(const OpeningRef& opening) {
  const Request& request = *opening->request;
  if (opening->created) {
    move_to_sibling(opening);
    return;
  }
  if (stale_retries_.may_answer_stale(request.header().pid, opening->nodeid)) {
    nodes_.retire(opening->nodeid);
    opening->request->reply_error(ESTALE);
    return;
  }
  // A reopen of /proc/PID/fd: there is no newer node that it could lead to.
  const bool may_share = !opens_for_change(*opening);
  OpenMode mode = OpenMode::kClosed;
  std::int32_t backing_id = 0;
  nodes_.with_node(opening->nodeid, [&](handover::NodeRecord&, NodeOpen& open) {
    mode = open.mode;
    if (mode == OpenMode::kPassthrough && may_share) {
      ++open.handles;
      backing_id = open.backing_id;
    }
  });
  if (mode != OpenMode::kPassthrough) {
    opening->is_reopen = true;
    choose_mode(opening);  // closed by everybody meanwhile
  } else if (may_share) {
    grant(opening, mode, OpenWhy::kLatched, false, backing_id);
  } else {
    opening->request->reply_error(ESTALE);
  }
}

// What CREATE found was there already, and is open by others in a way that this open cannot share.
// Its answer may name any node: it needs no ESTALE.
void Filesystem::move_to_sibling(const OpeningRef& opening) {
  const std::uint64_t before = opening->nodeid;
  nodes_.retire(before);
  const Result<NodeId> node = nodes_.reference(mount_id_, opening->inode);
  if (!node) {
    refuse(opening, node.error());
    return;
  }
  opening->nodeid = *node;
  if (opening->request->journal() != nullptr) {
    opening->request->journal()->note_node(*node);
  }
  give_back(nodes_.forget(before, 1));
  choose_mode(opening);
}

void Filesystem::decide_first_open(const OpeningRef& opening) {
  if (netfs::Share::is_for_page_cache_only(opening->open)) {
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kWritten);
    return;
  }
  const netfs::VersionRef& version = opening->open.version;
  bool kernel_has_it = false;
  nodes_.with_node(opening->nodeid, [&](handover::NodeRecord& record, NodeOpen&) {
    kernel_has_it = binds(record, *version) && !version->racy;
  });
  // The kernel most likely has the pages of a small file that did not change: a READ says if not.
  if (version->small() && kernel_has_it) {
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kSmall);
    return;
  }
  share_.prepare(opening->open, opening->caller,
                 [this, opening](Result<netfs::VersionRef> prepared) {
                   on_prepared(opening, std::move(prepared));
                 });
}

void Filesystem::on_prepared(const OpeningRef& opening, Result<netfs::VersionRef> prepared) {
  if (!prepared) {
    std::vector<std::move_only_function<void()>> waiting;
    nodes_.with_node(opening->nodeid, [&](handover::NodeRecord&, NodeOpen& open) {
      open.deciding = false;
      waiting = std::move(open.waiting);
    });
    refuse(opening, prepared.error());
    for (auto& waiter : waiting) {
      waiter();  // the next of them decides
    }
    return;
  }
  opening->open.version = *prepared;
  const netfs::Version& version = **prepared;
  if (version.small()) {
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kSmall);
  } else if (!passthrough_) {
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kTurnedOff);
  } else if (version.racy || !version.cookie->complete() || !version.cookie->cache_usable()) {
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kIncomplete);
  } else {
    register_backing(opening);
  }
}

void Filesystem::register_backing(const OpeningRef& opening) {
  opening->open.version->cookie->start_open_for_passthrough([this, opening](Result<UniqueFd> file) {
    if (!file) {
      const bool soon = file.error().code() == Errc::kBusy;
      settle_mode(opening, OpenMode::kPageCache, soon ? OpenWhy::kUnwritten : OpenWhy::kRefused);
      return;
    }
    registrar_.open(opening->nodeid, std::move(*file), [this, opening](Result<std::int32_t> id) {
      on_registered(opening, std::move(id));
    });
  });
}

void Filesystem::on_registered(const OpeningRef& opening, Result<std::int32_t> id) {
  if (!id) {
    {
      const MutexLock lock(mutex_);
      passthrough_trouble_ = id.error().message();
    }
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kRefused);
  } else if (netfs::PassthroughHoldRef hold =
                 netfs::Share::hold_for_passthrough(opening->open, opening->nodeid)) {
    settle_mode(opening, OpenMode::kPassthrough, OpenWhy::kComplete, *id, std::move(hold));
  } else {
    registrar_.close(*id);  // somebody opened it for writing meanwhile
    settle_mode(opening, OpenMode::kPageCache, OpenWhy::kWritten);
  }
}

// The first open has its mode: the node is latched to it, and those who waited follow.
void Filesystem::settle_mode(const OpeningRef& opening, OpenMode mode, OpenWhy why,
                             std::int32_t backing_id, netfs::PassthroughHoldRef hold) {
  std::vector<std::move_only_function<void()>> waiting;
  bool keep_cache = false;
  std::int32_t unused_id = 0;
  const netfs::VersionRef version = opening->open.version;
  const auto latch = [&](handover::NodeRecord& record, NodeOpen& open) {
    keep_cache = mode == OpenMode::kPageCache && binds(record, *version) && !version->racy;
    bind(record, *version);
    open.deciding = false;
    open.mode = mode;
    ++open.handles;
    open.file = opening->open.file;
    open.version = version;
    hold.swap(open.hold);
    unused_id = std::exchange(open.backing_id, backing_id);  // of an older version, lingering
    waiting = std::move(open.waiting);
    open.waiting.clear();
  };
  if (!nodes_.with_node(opening->nodeid, latch)) {
    // The open was interrupted, and the kernel has forgotten the file since.
    if (backing_id != 0) {
      registrar_.close(backing_id);
    }
    refuse(opening, ESTALE);
    return;
  }
  if (unused_id != 0) {
    registrar_.close(unused_id);
    closed_holds_->add(std::move(hold));
  }
  if (backing_id != 0) {
    const MutexLock lock(mutex_);
    backing_ids_ += unused_id == 0 ? 1 : 0;
  } else if (unused_id != 0) {
    const MutexLock lock(mutex_);
    --backing_ids_;
  }
  grant(opening, mode, why, keep_cache, backing_id);
  for (auto& waiter : waiting) {
    waiter();
  }
}

void Filesystem::grant(const OpeningRef& opening, OpenMode mode, OpenWhy why, bool keep_cache,
                       std::int32_t backing_id) {
  const std::uint64_t nodeid = opening->nodeid;
  const auto* const in = opening->request->argument<fuse_open_in>();
  const Result<std::uint64_t> fh =
      handles_.add({mount_id_, nodeid, in->flags, mode, opening->open, nullptr});
  if (!fh) {
    opening->request->reply_error(fh.error());
    undo_open(*opening);
    return;
  }
  if (opening->request->journal() != nullptr) {
    opening->request->journal()->note_handle(*fh);
  }
  OpenOut out{};
  out.fh = *fh;
  // Who cannot write has nothing to flush when he closes, unless he may have locks.
  out.open_flags = locks_ || opens_for_change(*opening) ? 0 : kOpenNoFlush;
  if (mode == OpenMode::kPassthrough) {
    out.open_flags |= kOpenPassthrough;
    out.backing_id = backing_id;
    opens_passthrough_.add();
    sample_backing(*opening->open.version);
  } else {
    out.open_flags |= keep_cache ? FOPEN_KEEP_CACHE : 0;
    opens_page_cache_.add();
  }
  // Else reads of this open end where the older version ended.
  if (opening->inode->take_front_outdated()) {
    session_->invalidate_attributes(nodeid);
  }
  log_debug("open node {:x}: {} because {}", nodeid,
            mode == OpenMode::kPassthrough ? "passthrough" : "page cache", name_of(why));
  if (!reply_opened(*opening, out)) {
    // Interrupted at the last moment: there will be no RELEASE.
    if (handles_.remove(mount_id_, nodeid, *fh) != nullptr) {
      undo_open(*opening);
    }
  }
}

// The kernel knows nothing of it.
void Filesystem::undo_open(const Opening& opening) {
  close_node(opening.nodeid);
  if (opening.created) {
    give_back(nodes_.forget(opening.nodeid, 1));
  }
}

bool Filesystem::reply_opened(const Opening& opening, const OpenOut& out) {
  if (!opening.created) {
    return opening.request->reply(out);
  }
  const Created created{entry_out_of(opening.nodeid, *opening.created), out};
  return opening.request->reply(created);
}

// The kernel reads a registered file by itself and tells nobody of a disk that fails: whoever opens
// the file would get EIO for as long as somebody holds it. So before the file is opened once more
// the place is read that somebody may have met an error at. It would end the use of the cache, and
// this open takes the server.
void Filesystem::look_for_failed_read(const OpeningRef& opening) {
  opening->looked_for_failed_read = true;
  const netfs::Version& version = *opening->open.version;
  if (const std::optional<std::uint64_t> offset = version.cookie->find_failed_read()) {
    read_a_little(version, *offset, [this, opening] { choose_mode(opening); });
  } else {
    choose_mode(opening);
  }
}

// To know of an error before somebody meets it, each such open reads a little of the file, never
// the same place. It does not wait.
void Filesystem::sample_backing(const netfs::Version& version) {
  constexpr std::uint64_t kScatter = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio: spreads evenly
  const std::uint64_t pages = version.size() / kSampleBytes;
  if (pages > 0) {
    const std::uint64_t page = ((samples_.fetch_add(1) + 1) * kScatter >> 32U) % pages;
    read_a_little(version, page * kSampleBytes, [] {});
  }
}

void Filesystem::read_a_little(const netfs::Version& version, std::uint64_t offset,
                               std::move_only_function<void()> done) {
  const Buffer buffer = sample_buffers_.allocate(kSampleBytes);
  const std::uint64_t length = std::min(kSampleBytes, version.size() - offset);
  version.cookie->start_read(offset, buffer, buffer.bytes().first(static_cast<std::size_t>(length)),
                             [done = std::move(done)](const Result<>&) mutable { done(); });
}

void Filesystem::release(const RequestRef& request) {
  const auto* const in = request->argument<fuse_release_in>();
  const HandleRef handle = in == nullptr ? nullptr : remove_handle(*request, in->fh);
  if (handle == nullptr) {
    request->reply_error(EBADF);
    return;
  }
  if (locks_ && handle->open.file != nullptr) {
    share_.locks().close_open(*handle->open.file->inode(), in->fh);
  }
  close_node(handle->nodeid);
  request->reply_empty();
}

void Filesystem::close_node(std::uint64_t nodeid) {
  std::shared_ptr<netfs::File> closed;
  bool lingers = false;
  nodes_.with_node(nodeid, [&](handover::NodeRecord&, NodeOpen& open) {
    if (open.handles == 0) {
      return;
    }
    --open.handles;
    if (open.handles > 0) {
      return;
    }
    closed = std::move(open.file);
    open.mode = OpenMode::kClosed;
    if (open.backing_id != 0) {
      open.hold->note_closed();
      lingers = true;
    } else {
      open.version = nullptr;
    }
  });
  if (closed != nullptr) {
    share_.closed(closed);
  }
  if (lingers) {
    linger(nodeid);
  }
}

void Filesystem::linger(std::uint64_t nodeid) {
  bool set_timer = false;
  {
    const MutexLock lock(mutex_);
    lingering_.add(nodeid, executor_.clock().now() + kBackingLinger);
    set_timer = !std::exchange(linger_timer_set_, true);
  }
  if (set_timer) {
    end_lingering_later(kBackingLinger);
  }
}

void Filesystem::end_lingering_later(Duration delay) {
  executor_.timers().schedule(delay, [this, weak = std::weak_ptr<Gate>(timers_)] {
    const auto gate = weak.lock();
    if (const Gate::Pass pass = gate ? gate->enter() : Gate::Pass()) {
      end_lingering();
    }
  });
}

void Filesystem::end_lingering() {
  std::vector<std::uint64_t> over;
  std::optional<Duration> again;
  {
    const MutexLock lock(mutex_);
    const MonotonicTime now = executor_.clock().now();
    over = lingering_.take_over(now);
    again = lingering_.next_look(now);
    linger_timer_set_ = again.has_value();
  }
  for (const std::uint64_t nodeid : over) {
    let_backing_go(nodeid);
  }
  if (again) {
    end_lingering_later(*again);
  }
}

// The cache is pressed: some before their time.
bool Filesystem::give_room() {
  std::vector<std::uint64_t> given;
  {
    const MutexLock lock(mutex_);
    given = lingering_.take_part();
  }
  bool any = false;
  for (const std::uint64_t nodeid : given) {
    any = let_backing_go(nodeid) || any;
  }
  return any;
}

bool Filesystem::let_backing_go(std::uint64_t nodeid) {
  std::int32_t backing_id = 0;
  netfs::VersionRef version;
  netfs::PassthroughHoldRef hold;
  nodes_.with_node(nodeid, [&](handover::NodeRecord&, NodeOpen& open) {
    if (open.mode == OpenMode::kClosed && !open.deciding) {
      backing_id = std::exchange(open.backing_id, 0);
      version = std::move(open.version);
      open.version = nullptr;
      hold = std::move(open.hold);
    }
  });
  if (backing_id != 0) {
    registrar_.close(backing_id);
    closed_holds_->add(std::move(hold));
    const MutexLock lock(mutex_);
    --backing_ids_;
  }
  return backing_id != 0;
}

// The kernel may forget a file while its registration lingers, and before it is told that the last
// RELEASE has been read: the timer and close_node() then find no node any more.
void Filesystem::give_back(std::unique_ptr<NodeOpen> gone) {
  if (gone == nullptr || gone->backing_id == 0) {
    return;
  }
  registrar_.close(gone->backing_id);
  const MutexLock lock(mutex_);
  --backing_ids_;
}

}  // namespace larder::fuse
