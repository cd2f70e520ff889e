#include "fuse/session.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "netfs/call_scope.h"
#include "os/ending.h"
#include "os/fuse_device.h"

namespace larder::fuse {

namespace {

// Requests of background reads that the kernel may have under way before it makes others wait: all
// of them must be able to be stuck on a stalled server.
constexpr std::uint16_t kMostBackground = 1024;
constexpr std::uint16_t kCongestion = 768;
constexpr std::size_t kMostQueuedNotices = 65536;
// A page that is being read is waited for: that of one file must not hold up another's.
constexpr unsigned kPageDroppers = 2;
// How soon a thread that was killed is noticed when it had been sent another signal before.
constexpr std::chrono::milliseconds kInterruptAgain{200};

bool has_no_answer(std::uint32_t opcode) {
  return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

}  // namespace

Session::Session(std::unique_ptr<os::FuseDevice> device, Executor& executor, SessionOptions options)
    : device_(std::move(device)),
      executor_(executor),
      options_(std::move(options)),
      notifier_(executor.make_pool("notify", 1, kMostQueuedNotices)),
      page_droppers_(executor.make_pool("drop-page", kPageDroppers, kMostQueuedNotices)),
      timers_(std::make_shared<Gate>()) {}

Session::~Session() {
  stop();
  threads_.clear();
  drain();
}

void Session::start(Handler& handler,
                    std::move_only_function<void(StopReason, std::string)> on_end) {
  handler_ = &handler;
  {
    const MutexLock lock(mutex_);
    on_end_ = std::move(on_end);
    readers_ = options_.threads;
  }
  for (unsigned i = 0; i < options_.threads; ++i) {
    threads_.emplace_back(fmt::format("fuse-{}-{}", options_.name, i), [this] { read_requests(); });
  }
}

void Session::stop() {
  device_->stop();
}

void Session::cancel_all() {
  std::vector<std::shared_ptr<netfs::CallScope>> scopes;
  {
    const MutexLock lock(mutex_);
    for (const auto& [unique, one] : under_way_) {
      if (auto scope = one.scope.lock()) {
        scopes.push_back(std::move(scope));
      }
    }
  }
  for (const auto& scope : scopes) {
    scope->cancel();
  }
}

void Session::read_requests() {
  std::vector<std::byte> buffer(kRequestBufferBytes);
  while (true) {
    const Result<MutableBytes> request = device_->read_request(buffer);
    if (request) {
      process(*request);
      continue;
    }
    const Error& error = request.error();
    if (error.code() == Errc::kCancelled) {
      end(StopReason::kStopped, "");
    } else if (error.code() == Errc::kNotFound) {
      end(StopReason::kUnmounted, "");
    } else {
      end(StopReason::kDeviceError, error.message());
    }
    return;
  }
}

void Session::end(StopReason reason, const std::string& what) {
  std::move_only_function<void(StopReason, std::string)> on_end;
  std::string why;
  {
    const MutexLock lock(mutex_);
    // kStopped is what the others see after the first real reason.
    if (reason_ == StopReason::kStopped) {
      reason_ = reason;
      what_ = what;
    }
    if (--readers_ == 0) {
      on_end = std::move(on_end_);
    }
    reason = reason_;
    why = what_;
  }
  device_->stop();  // the other readers
  if (on_end) {
    on_end(reason, why);
  }
}

void Session::process(Bytes bytes) {
  fuse_in_header header{};
  if (bytes.size() < sizeof header) {
    log_warning("fuse: a request of {} bytes is too short", bytes.size());
    return;
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.len < sizeof header || header.len > bytes.size()) {
    log_warning("fuse: a request says it has {} bytes and has {}", header.len, bytes.size());
    return;
  }
  const Bytes body = bytes.first(header.len).subspan(sizeof header);
  if (has_no_answer(header.opcode)) {
    forget(header, body);
    return;
  }
  Gate::Pass pass = requests_.enter();
  if (!pass) {
    return;  // the session has ended: nobody waits for an answer any more
  }
  auto request = std::make_shared<Request>(*this, std::move(pass), header, body);
  bool ready = false;
  {
    const MutexLock lock(mutex_);
    ready = negotiated_;
    if (header.opcode != FUSE_INTERRUPT) {
      under_way_.insert_or_assign(
          request->unique(), UnderWay{request->scope(), header.pid, header.opcode == FUSE_SETLKW});
    }
  }
  if (header.opcode == FUSE_INIT) {
    negotiate(*request);
  } else if (header.opcode == FUSE_INTERRUPT) {
    interrupt(request);
  } else if (!ready) {
    request->reply_error(EIO);
  } else {
    handler_->handle(request);
  }
}

void Session::negotiate(Request& request) {
  const auto* const in = request.argument<fuse_init_in>();
  const bool short_form = in == nullptr && request.body().size() >= 16;  // before 7.36
  if (in == nullptr && !short_form) {
    request.reply_error(EPROTO);
    return;
  }
  fuse_init_in asked{};
  std::memcpy(&asked, request.body().data(), std::min(sizeof asked, request.body().size()));
  if (asked.major != kMajorVersion || asked.minor < kLeastMinorVersion) {
    log_error("fuse: the kernel speaks {}.{}, at least {}.{} is needed: use Linux 5.11 or newer",
              asked.major, asked.minor, kMajorVersion, kLeastMinorVersion);
    request.reply_error(EPROTO);
    return;
  }
  const bool extended = (asked.flags & FUSE_INIT_EXT) != 0;
  const std::uint64_t offered = asked.flags | (extended ? std::uint64_t{asked.flags2} << 32U : 0);
  // Not FUSE_ASYNC_DIO: the pieces of one O_DIRECT append would arrive in any order. No
  // FUSE_WRITEBACK_CACHE: write(2) tells what the server says.
  constexpr std::uint64_t kWanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
                                    FUSE_ATOMIC_O_TRUNC | FUSE_HANDLE_KILLPRIV_V2 |
                                    FUSE_EXPLICIT_INVAL_DATA | FUSE_MAX_PAGES | FUSE_INIT_EXT |
                                    kInitHasResend;
  const std::uint64_t wanted =
      kWanted | (options_.passthrough ? kInitPassthrough : 0) | (options_.locks ? kInitLocks : 0);
  const std::uint64_t agreed = offered & wanted;

  InitOut out{};
  out.major = kMajorVersion;
  out.minor = std::min(asked.minor, kMinorVersion);
  out.max_readahead = kMostIoBytes;
  out.flags = static_cast<std::uint32_t>(agreed);
  out.flags2 = static_cast<std::uint32_t>(agreed >> 32U);
  out.max_background = kMostBackground;
  out.congestion_threshold = kCongestion;
  out.max_write = kMostIoBytes;
  out.time_gran = 1;
  out.max_pages = kMostPages;
  out.max_stack_depth = (agreed & kInitPassthrough) != 0 ? 1 : 0;
  handler_->on_negotiated({.minor = out.minor,
                           .passthrough = (agreed & kInitPassthrough) != 0,
                           .locks = (agreed & kInitLocks) == kInitLocks});
  {
    const MutexLock lock(mutex_);
    negotiated_ = true;
  }
  request.reply(out);
}

// EAGAIN has the kernel send the interrupt again if it still matters; any other answer would be a
// protocol error.
void Session::interrupt(const RequestRef& request) {
  const auto* const in = request->argument<fuse_interrupt_in>();
  if (in == nullptr) {
    request->reply_error(EINVAL);
    return;
  }
  std::optional<UnderWay> waiting;
  {
    const MutexLock lock(mutex_);
    const auto found = under_way_.find(in->unique & ~kUniqueResend);
    if (found != under_way_.end()) {
      waiting = found->second;
    }
  }
  if (!waiting) {
    request->reply_error(EAGAIN);  // not read yet by another thread, or answered a moment ago
    return;
  }
  // A lock is waited for as on a local disk: the kernel makes of our EINTR what the signal's
  // handler wants, which may be to begin again.
  if (!waiting->any_signal_ends && !os::is_thread_ending(options_.read_proc, waiting->pid)) {
    // Only a signal that the program handles, once we have answered. It sends no second INTERRUPT
    // by itself when it is killed later.
    ask_again_later(request);
    return;
  }
  request->end_without_reply();
  if (const auto scope = waiting->scope.lock()) {
    scope->cancel();
  }
}

void Session::ask_again_later(const RequestRef& interrupt) {
  {
    const MutexLock lock(mutex_);
    held_interrupts_.push_back(interrupt);
    if (std::exchange(interrupt_timer_set_, true)) {
      return;
    }
  }
  executor_.timers().schedule(kInterruptAgain, [this, weak = std::weak_ptr<Gate>(timers_)] {
    const auto gate = weak.lock();
    if (const Gate::Pass pass = gate ? gate->enter() : Gate::Pass()) {
      answer_held_interrupts();
    }
  });
}

void Session::answer_held_interrupts() {
  std::vector<RequestRef> held;
  {
    const MutexLock lock(mutex_);
    interrupt_timer_set_ = false;
    held.swap(held_interrupts_);
  }
  for (const RequestRef& interrupt : held) {
    interrupt->reply_error(EAGAIN);
  }
}

void Session::forget(const fuse_in_header& header, Bytes body) {
  if (header.opcode == FUSE_FORGET) {
    if (body.size() >= sizeof(fuse_forget_in)) {
      fuse_forget_in in{};
      std::memcpy(&in, body.data(), sizeof in);
      handler_->forget(header.nodeid, in.nlookup);
    }
    return;
  }
  fuse_batch_forget_in batch{};
  if (body.size() < sizeof batch) {
    return;
  }
  std::memcpy(&batch, body.data(), sizeof batch);
  body = body.subspan(sizeof batch);
  for (std::uint32_t i = 0; i < batch.count && body.size() >= sizeof(fuse_forget_one); ++i) {
    fuse_forget_one one{};
    std::memcpy(&one, body.data(), sizeof one);
    handler_->forget(one.nodeid, one.nlookup);
    body = body.subspan(sizeof one);
  }
}

bool Session::send_reply(const Request& request, int error_number, std::span<const iovec> parts) {
  {
    const MutexLock lock(mutex_);
    under_way_.erase(request.unique());
  }
  constexpr std::size_t kMostParts = 512;
  if (parts.size() >= kMostParts) {
    error_number = EIO;
    parts = {};
  }
  fuse_out_header out{};
  out.unique = request.header().unique;
  out.error = -error_number;
  std::vector<iovec> all;
  all.reserve(parts.size() + 1);
  all.push_back({&out, sizeof out});
  std::size_t length = sizeof out;
  for (const iovec& part : parts) {
    all.push_back(part);
    length += part.iov_len;
  }
  out.len = static_cast<std::uint32_t>(length);
  const Result<> written = device_->write_reply(all);
  if (!written && written.error().code() != Errc::kNotFound) {
    log_warning("fuse: the reply to request {} (opcode {}) was refused: {}", request.unique(),
                request.header().opcode, written.error().message());
  }
  return written.has_value();
}

void Session::drain() {
  timers_->close_and_wait();
  answer_held_interrupts();
  requests_.close_and_wait();
}

void Session::invalidate(std::uint64_t nodeid) {
  invalidate(nodeid, 0, 0);  // length 0: to the end
}

void Session::invalidate(std::uint64_t nodeid, std::int64_t offset, std::int64_t length) {
  // Never from a thread that answers requests: the kernel may wait for one of them meanwhile.
  notifier_->post([this, nodeid, offset, length] { write_invalidation(nodeid, offset, length); });
}

void Session::drop_page(std::uint64_t nodeid, std::uint64_t offset, Task then) {
  page_droppers_->post([this, nodeid, offset, then = std::move(then)]() mutable {
    write_invalidation(nodeid, static_cast<std::int64_t>(offset), 1);
    then();
  });
}

void Session::invalidate_attributes(std::uint64_t nodeid) {
  write_invalidation(nodeid, -1, 0);  // a negative offset: no pages
}

void Session::write_invalidation(std::uint64_t nodeid, std::int64_t offset, std::int64_t length) {
  fuse_notify_inval_inode_out notice{};
  notice.ino = nodeid;
  notice.off = offset;
  notice.len = length;
  const iovec body{&notice, sizeof notice};
  write_notification(FUSE_NOTIFY_INVAL_INODE, {&body, 1});
}

void Session::ask_to_forget(std::vector<std::uint64_t> nodeids) {
  notifier_->post([this, nodeids = std::move(nodeids)]() mutable {
    NotifyPruneOut notice{static_cast<std::uint32_t>(nodeids.size()), 0, 0};
    const std::array<iovec, 2> body = {
        {{&notice, sizeof notice}, {nodeids.data(), nodeids.size() * sizeof(std::uint64_t)}}};
    write_notification(kNotifyPrune, body);
  });
}

void Session::write_notification(std::int32_t code, std::span<const iovec> body) {
  fuse_out_header out{};
  out.len = sizeof out;
  out.error = code;
  std::vector<iovec> parts{{&out, sizeof out}};
  for (const iovec& part : body) {
    parts.push_back(part);
    out.len += static_cast<std::uint32_t>(part.iov_len);
  }
  // ENOENT: the kernel does not know the node any more, and that is as good.
  const Result<> written = device_->write_reply(parts);
  if (!written && written.error().code() != Errc::kNotFound) {
    log_debug("fuse: notification {} refused: {}", code, written.error().message());
  }
}

}  // namespace larder::fuse
