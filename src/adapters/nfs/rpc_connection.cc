#include "adapters/nfs/rpc_connection.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/reply_reader.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/xdr.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "os/stream.h"

namespace larder::nfs {

namespace {

constexpr std::chrono::milliseconds kShortestDelay{10};
constexpr std::chrono::milliseconds kLongestDelay{5000};
constexpr std::chrono::milliseconds kLongestRelease{1000};

}  // namespace

Error error_of_wish(RpcCall::Wish wish) {
  if (wish == RpcCall::Wish::kTimedOut) {
    return {Errc::kTimedOut, "the server does not answer"};
  }
  return {Errc::kCancelled, "the call was given up"};
}

RpcConnection::RpcConnection(Settings settings, Executor& executor, os::StreamConnector& connector,
                             RpcCounters& counters, Owner& owner)
    : settings_(std::move(settings)),
      executor_(executor),
      connector_(connector),
      counters_(counters),
      owner_(owner),
      reader_(settings_.program, *this),
      jitter_(static_cast<std::uint64_t>(executor.clock().now().time_since_epoch().count())) {}

RpcConnection::~RpcConnection() {
  const MutexLock lock(mutex_);
  CHECK(stream_ == nullptr && calls_.empty(), "an RPC connection was not shut down");
}

MonotonicTime RpcConnection::last_progress() const {
  return MonotonicTime(Duration(last_progress_.load(std::memory_order_relaxed)));
}

void RpcConnection::note_progress() {
  last_progress_.store(executor_.clock().now().time_since_epoch().count(),
                       std::memory_order_relaxed);
}

std::string RpcConnection::trouble() const {
  const MutexLock lock(mutex_);
  return state_ == State::kWaiting || state_ == State::kConnecting ? trouble_ : std::string();
}

void RpcConnection::open() {
  const MutexLock lock(mutex_);
  if (state_ == State::kIdle) {
    schedule_connect();
  }
}

void RpcConnection::start(const RpcCallRef& call) {
  std::optional<Error> refused;
  {
    const MutexLock lock(mutex_);
    const RpcCall::Wish wish = call->wish.load();
    if (state_ == State::kShutDown) {
      refused = error_of_wish(RpcCall::Wish::kCancelled);
    } else if (wish != RpcCall::Wish::kNone) {
      refused = error_of_wish(wish);
    } else {
      add(call);
    }
  }
  if (refused) {
    owner_.on_call_ended(*this, call, fail(std::move(*refused)));
    return;
  }
  flush();
}

void RpcConnection::add(const RpcCallRef& call) {
  const bool inserted = calls_.emplace(call->xid, call).second;
  CHECK(inserted, "xid {} is in use", call->xid);
  data_calls_ += call->request.destination.empty() ? 0 : 1;
  unsent_.push_back(call);
  if (state_ == State::kIdle) {
    schedule_connect();
  }
}

RpcCallRef RpcConnection::take(std::uint32_t xid) {
  const auto found = calls_.find(xid);
  if (found == calls_.end()) {
    return nullptr;
  }
  RpcCallRef call = std::move(found->second);
  calls_.erase(found);
  data_calls_ -= call->request.destination.empty() ? 0 : 1;
  return call;
}

void RpcConnection::end(const RpcCallRef& call) {
  std::shared_ptr<os::Stream> stream;
  {
    const MutexLock lock(mutex_);
    const auto found = calls_.find(call->xid);
    if (found == calls_.end() || found->second != call) {
      return;
    }
    if (receiving_ == call) {
      stream = stream_;
    } else {
      static_cast<void>(take(call->xid));
      std::erase(unsent_, call);
    }
  }
  if (stream) {
    // The destination is the stream's thread's now. Should the stream end first, on_closed ends the
    // call, and the task is dropped.
    stream->run_on_thread([this] { let_go(); });
    return;
  }
  if (!conclude(call, fail(error_of_wish(call->wish.load())))) {
    release_soon(call);
  }
}

bool RpcConnection::conclude(const RpcCallRef& call, Result<RpcReply> result) {
  {
    const MutexLock lock(mutex_);
    if (call->body_readers > 0) {
      if (result) {  // its bytes are the reader's
        call->held_results.assign(result->results.begin(), result->results.end());
        result->results = call->held_results;
      }
      call->held = std::move(result);
      return false;
    }
  }
  owner_.on_call_ended(*this, call, std::move(result));
  return true;
}

void RpcConnection::release_body(const RpcCallRef& call) {
  std::optional<Result<RpcReply>> held;
  {
    const MutexLock lock(mutex_);
    CHECK(call->body_readers > 0);
    if (--call->body_readers > 0) {
      return;
    }
    held = std::exchange(call->held, std::nullopt);
  }
  if (held) {
    owner_.on_call_ended(*this, call, std::move(*held));
  }
}

void RpcConnection::release_soon(const RpcCallRef& call) {
  executor_.timers().schedule(kLongestRelease, [weak = weak_from_this(), call] {
    const auto self = weak.lock();
    const Gate::Pass pass = self ? self->connecting_.enter() : Gate::Pass();
    if (!pass) {
      return;
    }
    bool still_read = false;
    {
      const MutexLock lock(self->mutex_);
      still_read = call->held.has_value();
    }
    if (still_read) {
      self->break_off("the server takes no more bytes");
    }
  });
}

void RpcConnection::let_go() {
  RpcCallRef call;
  {
    const MutexLock lock(mutex_);
    if (!receiving_ || receiving_->wish.load() == RpcCall::Wish::kNone) {
      return;
    }
    call = std::move(receiving_);
    receiving_ = nullptr;
    static_cast<void>(take(call->xid));
  }
  reader_.abandon();
  owner_.on_call_ended(*this, call, fail(error_of_wish(call->wish.load())));
}

os::OutgoingMessage RpcConnection::next_message() {
  const RpcCallRef call = std::move(unsent_.front());
  unsent_.pop_front();
  ++call->transmissions;
  os::OutgoingMessage message;
  message.head = call->message;
  if (const Bytes body = call->request.body; !body.empty()) {
    ++call->body_readers;
    message.body = body;
    message.padding = xdr_padding(body.size());
    message.done = [this, call] { release_body(call); };
  }
  return message;
}

// Sends what is unsent, if there is a connection. Any thread: each message is taken by one.
void RpcConnection::flush() {
  while (true) {
    std::shared_ptr<os::Stream> stream;
    os::OutgoingMessage message;
    {
      const MutexLock lock(mutex_);
      if (state_ != State::kUp || !stream_ || unsent_.empty()) {
        return;
      }
      message = next_message();
      stream = stream_;
    }
    stream->send(std::move(message));
  }
}

void RpcConnection::break_off(const std::string& why) {
  std::shared_ptr<os::Stream> stream;
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kUp && state_ != State::kConnecting) {
      return;
    }
    break_reason_ = why;
    stream = stream_;
  }
  if (stream) {
    stream->close();
  }
}

Duration RpcConnection::next_delay() {
  if (failures_ == 0) {
    return Duration::zero();
  }
  static constexpr unsigned kMostDoublings = 9;  // 10 ms << 9 is more than 5 s
  const auto delay =
      std::min(kLongestDelay, kShortestDelay * (1U << std::min(failures_ - 1, kMostDoublings)));
  // Up to a quarter more, so that the clients of a server that comes back do not come all at once.
  jitter_ = jitter_ * 6364136223846793005U + 1442695040888963407U;
  return Duration(delay) + Duration(delay) * static_cast<std::int64_t>(jitter_ >> 56U) / 1024;
}

// Always by a timer, even at once: the stream before must not be destroyed on its own thread.
void RpcConnection::schedule_connect() {
  state_ = State::kWaiting;
  timer_ = executor_.timers().schedule(next_delay(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->connect();
    }
  });
}

void RpcConnection::connect() {
  const Gate::Pass pass = connecting_.enter();
  if (!pass) {
    return;
  }
  std::shared_ptr<os::Stream> old;
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kWaiting) {
      return;
    }
    state_ = State::kConnecting;
    break_reason_.clear();
    old = std::move(stream_);
    stream_ = nullptr;
  }
  old.reset();  // its on_closed has run, or is about to return
  std::shared_ptr<os::Stream> fresh =
      connector_.connect(settings_.endpoint, settings_.connect, *this);
  {
    const MutexLock lock(mutex_);
    stream_ = std::move(fresh);
    if (state_ == State::kWaiting) {  // it ended already, and left the timer to us
      schedule_connect();
    }
  }
  flush();
}

void RpcConnection::on_connected() {
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kConnecting) {
      return;
    }
    state_ = State::kUp;
    up_ = true;
    if (was_up_) {
      counters_.reconnects.add();
    }
    was_up_ = true;
  }
  flush();
  owner_.on_connection_up();
}

void RpcConnection::on_received(std::size_t length) {
  note_progress();
  const Result<> result = reader_.received(length);
  if (!result) {
    break_off(result.error().context());
  }
}

std::optional<ReplySink::Target> RpcConnection::begin_reply(std::uint32_t xid) {
  const MutexLock lock(mutex_);
  const auto found = calls_.find(xid);
  // Without stream_ nothing was sent yet: whoever answers has guessed the xid.
  if (found == calls_.end() || !stream_) {
    counters_.unexpected_replies.add();
    return std::nullopt;
  }
  failures_ = 0;
  receiving_ = found->second;
  return Target{receiving_->request.destination, receiving_->request.find_data};
}

void RpcConnection::end_reply(Result<RpcReply> reply) {
  RpcCallRef call;
  {
    const MutexLock lock(mutex_);
    call = std::move(receiving_);
    receiving_ = nullptr;
    CHECK(call != nullptr, "a reply ended that did not begin");
    static_cast<void>(take(call->xid));
    if (reply) {
      reply->repeated = call->transmissions > 1;
    }
  }
  conclude(call, std::move(reply));
}

// After a stream's end: those that leave the table now are returned, the others wait for the next.
std::vector<RpcCallRef> RpcConnection::sort_out(bool unreachable) {
  std::vector<RpcCallRef> ended;
  std::vector<RpcCallRef> again;
  for (const auto& [xid, call] : calls_) {
    const bool over =
        unreachable || state_ == State::kShutDown || call->wish.load() != RpcCall::Wish::kNone;
    (over ? ended : again).push_back(call);
  }
  for (const RpcCallRef& call : ended) {
    static_cast<void>(take(call->xid));
  }
  counters_.retransmissions.add(again.size() - std::min(again.size(), unsent_.size()));
  std::ranges::sort(again, {}, [](const RpcCallRef& call) { return call->id; });
  unsent_.assign(again.begin(), again.end());
  return ended;
}

void RpcConnection::on_closed(const Error& why) {
  reader_.reset();
  std::vector<RpcCallRef> ended;
  bool unreachable = false;
  {
    const MutexLock lock(mutex_);
    up_ = false;
    receiving_ = nullptr;
    unreachable = fail_when_unreachable_ && state_ == State::kConnecting;
    trouble_ = break_reason_.empty() ? why.message() : break_reason_;
    ++failures_;
    ended = sort_out(unreachable);
    if (state_ != State::kShutDown) {
      state_ = State::kWaiting;
      if (calls_.empty()) {
        state_ = State::kIdle;
      } else if (stream_) {  // else connect() has still to return, and will see it
        schedule_connect();
      }
    }
  }
  for (const RpcCallRef& call : ended) {
    const RpcCall::Wish wish = call->wish.load();
    Error error = wish == RpcCall::Wish::kNone && unreachable ? why : error_of_wish(wish);
    conclude(call, fail(std::move(error)));
  }
}

void RpcConnection::shut_down() {
  TimerId timer = 0;
  std::shared_ptr<os::Stream> stream;
  {
    const MutexLock lock(mutex_);
    state_ = State::kShutDown;
    timer = timer_;
  }
  executor_.timers().cancel(timer);
  connecting_.close_and_wait();
  {
    const MutexLock lock(mutex_);
    stream = std::move(stream_);
    stream_ = nullptr;
  }
  stream.reset();  // on_closed has run
  std::vector<RpcCallRef> ended;
  {
    const MutexLock lock(mutex_);
    ended = sort_out(false);
  }
  for (const RpcCallRef& call : ended) {
    owner_.on_call_ended(*this, call, fail(error_of_wish(RpcCall::Wish::kCancelled)));
  }
}

}  // namespace larder::nfs
