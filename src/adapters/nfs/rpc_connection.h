// RpcConnection: the calls in flight on one TCP connection to a server, over all the streams that
// it is made of in the course of time.
//
// Who owns a destination buffer when
// ----------------------------------
// A destination is written by one thread only, the stream's, and only while its call is the
// connection's `receiving_` call: from begin_reply (the xid of a reply was found in the table) to
// end_reply, to let_go() or to on_closed. All three run on that same thread. So:
//
// - A call that is not receiving may be ended by any thread at any time, by taking it out of the
// table
//   under the lock. A reply that comes later finds no call with its xid and is skipped.
// - A call that is receiving is ended by the stream's thread alone. end() only leaves its wish in
// the
//   call and sends let_go() there, which runs between two receives: it takes the destination from
//   the reader and then ends the call. When the stream dies first, on_closed does it.
// - A call is sent again only after on_closed of the stream before: no two streams ever write to
// one
//   destination, and a late reply on the old one cannot come, because it is gone.
//
// `done` runs after the call has left the table and the reader, never before.
//
// Who reads a body when
// ---------------------
// A stream reads the body of a call from flush() until it says so by OutgoingMessage::done; the
// call counts its readers. A call that ends meanwhile (cancelled, timed out, or answered by a
// server that did not wait for the end) leaves the table, but its `done` runs only when the last
// reader is gone. So that a peer who takes no bytes cannot hold up a cancelled call, the stream is
// given up if it still reads after kLongestRelease.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "adapters/nfs/reply_reader.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/counter.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "os/stream.h"

namespace larder::nfs {

// A call on its way, shared by the client, the connection and timers.
struct RpcCall {
  // Why it shall end before its reply; the first wish counts.
  enum class Wish : std::uint8_t { kNone, kCancelled, kTimedOut };

  netfs::CallId id = 0;
  RpcRequest request;
  std::uint32_t xid = 0;           // changed only while no connection has it
  std::vector<std::byte> message;  // likewise
  std::atomic<Wish> wish = Wish::kNone;

  // The rest is guarded by the lock of the connection that has the call.
  unsigned transmissions = 0;            // times that it was handed to a stream
  unsigned body_readers = 0;             // of these, how many may still read the body
  std::optional<Result<RpcReply>> held;  // how it ended, while its body is still read
  std::vector<std::byte> held_results;   // of the reply in `held`

  void make_wish(Wish new_wish) {
    Wish none = Wish::kNone;
    wish.compare_exchange_strong(none, new_wish);
  }
};

using RpcCallRef = std::shared_ptr<RpcCall>;

// What a call ends with when its wish is granted.
[[nodiscard]] Error error_of_wish(RpcCall::Wish wish);

struct RpcCounters {
  Counter calls;
  Counter retransmissions;
  Counter reconnects;
  Counter unexpected_replies;  // late, repeated or invented
};

// Threads: any, but shut_down and destruction not from within a callback of it.
// Life: made by make(), shut down by its client before the last reference goes.
class RpcConnection final : public std::enable_shared_from_this<RpcConnection>,
                            private os::StreamHandler,
                            private ReplySink {
 public:
  // Called without locks, from the stream's thread or from who called start(), end(), shut_down().
  class Owner {
   public:
    Owner() = default;
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;
    virtual ~Owner() = default;

    // Exactly once for each start(). The reply's bytes are valid until this returns.
    virtual void on_call_ended(RpcConnection& connection, const RpcCallRef& call,
                               Result<RpcReply> result) = 0;
    // The connection came up: calls that wait for room may go.
    virtual void on_connection_up() = 0;
  };

  struct Settings {
    RpcProgram program;
    os::Endpoint endpoint;
    os::ConnectOptions connect;
  };

  RpcConnection(Settings settings, Executor& executor, os::StreamConnector& connector,
                RpcCounters& counters, Owner& owner);
  RpcConnection(const RpcConnection&) = delete;
  RpcConnection& operator=(const RpcConnection&) = delete;
  ~RpcConnection() override;

  // Begins to connect if there is no connection yet.
  void open() EXCLUDES(mutex_);
  // Sends the call as soon as there is a connection, and again on each new one.
  void start(const RpcCallRef& call) EXCLUDES(mutex_);
  // The call, whose wish was made before, ends soon; a call that is not here is left alone.
  void end(const RpcCallRef& call) EXCLUDES(mutex_);
  // The stream is given up and another one made; calls in flight are sent again.
  void break_off(const std::string& why) EXCLUDES(mutex_);

  // Calls are ended with the stream's error when no connection can be made, instead of waiting.
  void set_fail_when_unreachable(bool fail) { fail_when_unreachable_ = fail; }

  // Ends every call with kCancelled, and waits until the stream is gone.
  void shut_down() EXCLUDES(mutex_);

  [[nodiscard]] bool up() const { return up_.load(std::memory_order_relaxed); }

  // When bytes came last; that a connection was made is none: it may lead nowhere.
  [[nodiscard]] MonotonicTime last_progress() const;
  // Why the last stream ended, while there is no new one; else "".
  [[nodiscard]] std::string trouble() const EXCLUDES(mutex_);

 private:
  enum class State : std::uint8_t {
    kIdle,        // no stream, and nobody needs one
    kWaiting,     // a timer will make one
    kConnecting,  // made, not connected yet
    kUp,
    kShutDown,
  };

  void on_connected() override EXCLUDES(mutex_);

  [[nodiscard]] MutableBytes next_buffer() override { return reader_.next_buffer(); }

  void on_received(std::size_t length) override;
  void on_closed(const Error& why) override EXCLUDES(mutex_);

  [[nodiscard]] std::optional<Target> begin_reply(std::uint32_t xid) override EXCLUDES(mutex_);
  void end_reply(Result<RpcReply> reply) override EXCLUDES(mutex_);

  [[nodiscard]] bool expects_data() const override { return data_calls_.load() > 0; }

  void let_go() EXCLUDES(mutex_);
  void flush() EXCLUDES(mutex_);
  [[nodiscard]] os::OutgoingMessage next_message() REQUIRES(mutex_);
  // Tells the owner, as soon as nobody reads the call's body. True: at once.
  bool conclude(const RpcCallRef& call, Result<RpcReply> result) EXCLUDES(mutex_);
  void release_body(const RpcCallRef& call) EXCLUDES(mutex_);
  void release_soon(const RpcCallRef& call);
  void add(const RpcCallRef& call) REQUIRES(mutex_);
  RpcCallRef take(std::uint32_t xid) REQUIRES(mutex_);
  std::vector<RpcCallRef> sort_out(bool unreachable) REQUIRES(mutex_);
  void schedule_connect() REQUIRES(mutex_);
  void connect() EXCLUDES(mutex_);
  void note_progress();
  [[nodiscard]] Duration next_delay() REQUIRES(mutex_);

  const Settings settings_;
  Executor& executor_;
  os::StreamConnector& connector_;
  RpcCounters& counters_;
  Owner& owner_;

  std::atomic<bool> fail_when_unreachable_{false};
  std::atomic<bool> up_{false};
  std::atomic<std::int64_t> last_progress_{0};
  std::atomic<std::size_t> data_calls_{0};  // calls in the table that have a destination
  Gate connecting_;                         // holds connect()

  ReplyReader reader_;  // of the stream's thread

  mutable Mutex mutex_{LockRank::kNetwork};
  State state_ GUARDED_BY(mutex_) = State::kIdle;
  std::shared_ptr<os::Stream> stream_ GUARDED_BY(mutex_);
  TimerId timer_ GUARDED_BY(mutex_) = 0;
  unsigned failures_ GUARDED_BY(mutex_) = 0;  // streams that ended since the last good reply
  std::uint64_t jitter_ GUARDED_BY(mutex_) = 0;
  bool was_up_ GUARDED_BY(mutex_) = false;
  std::string break_reason_ GUARDED_BY(mutex_);
  std::string trouble_ GUARDED_BY(mutex_);
  std::unordered_map<std::uint32_t, RpcCallRef> calls_ GUARDED_BY(mutex_);  // by xid
  std::deque<RpcCallRef> unsent_ GUARDED_BY(mutex_);  // some may be out of the table again
  RpcCallRef receiving_ GUARDED_BY(mutex_);
};

}  // namespace larder::nfs
