// RpcClient: calls of one remote program over several connections, with queues, deadlines and the
// patience that a mount asked for.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_connection.h"
#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "os/stream.h"

namespace larder::nfs {

// What happens to a call that the server does not answer.
enum class Patience : std::uint8_t {
  kProbe,  // somebody waits at a prompt: no connection, or ten seconds' silence, ends the call
  kSoft,   // kTimedOut after `retrans` timeouts
  kHard,   // for ever, until cancel() or shut_down()
};

struct RpcClientSettings {
  RpcProgram program;
  os::Endpoint endpoint;
  bool privileged_port = false;
  unsigned connections = 1;
  // Without an answer and without progress; a probe has its own.
  std::chrono::milliseconds timeout{60'000};
  unsigned retrans = 2;
  Patience patience = Patience::kProbe;
  // True for results by which the server asks to come back later; null: it never does.
  bool (*asks_to_wait)(Bytes results) = nullptr;
};

// Which call goes where: the reply bytes that are expected on each connection are counted. Small
// calls go where the fewest are expected, on any connection; large reads share all connections but
// the first, which so stays free of long replies. Only when all others are full, readers (nobody
// else) get kMostBytesOnFirst there: what the server does not answer must not hold up all others.
// Each connection has at most kMostCalls calls and about kMostBytes of replies in flight; the rest
// waits here, in the order of CallClass.
//
// Deadlines: a call times out when it has waited for `timeout` and its connection brought nothing
// in that time; while bytes come in (a slow link under many reads) it may take up to four times as
// long. A timeout breaks the connection, and all its calls are sent again on the next.
//
// Threads: any; shut_down not from within a `done`. Life: shut_down before the last reference goes.
class RpcClient final : public std::enable_shared_from_this<RpcClient>,
                        private RpcConnection::Owner {
 public:
  [[nodiscard]] static std::shared_ptr<RpcClient> make(RpcClientSettings settings,
                                                       Executor& executor,
                                                       os::StreamConnector& connector);
  RpcClient(const RpcClient&) = delete;
  RpcClient& operator=(const RpcClient&) = delete;
  ~RpcClient() override;

  // Begins to connect before the first call asks for it.
  void open();
  // `id` is the caller's choice, unique among the calls in flight.
  void submit(netfs::CallId id, RpcRequest request) EXCLUDES(mutex_);
  // Asks that the call end soon with kCancelled; unknown ids are ignored.
  void cancel(netfs::CallId id) EXCLUDES(mutex_);
  void set_patience(Patience patience);
  // Ends every call with kCancelled; every done has run when it returns, and no thread is left.
  void shut_down() EXCLUDES(mutex_);

  [[nodiscard]] const RpcCounters& counters() const { return counters_; }

  [[nodiscard]] bool connected() const;
  // A sentence while the server cannot be reached, else "".
  [[nodiscard]] std::string trouble() const;

  static constexpr std::size_t kMostCalls = 128;
  static constexpr std::size_t kMostBytes = 16U << 20;
  static constexpr std::size_t kMostBytesOnFirst = kMostBytes / 4;  // of large ones, if not alone
  static constexpr std::size_t kLargeReply = 64U << 10;

 private:
  static constexpr std::size_t kQueued = SIZE_MAX;
  static constexpr std::size_t kPausing = SIZE_MAX - 1;  // to be sent later

  struct Entry {
    RpcCallRef call;
    std::size_t place = kQueued;  // or the index of its connection
    MonotonicTime tried_at;       // the start of the present timeout
    MonotonicTime deadline;
    unsigned timeouts = 0;
    unsigned pauses = 0;
    TimerId pause_timer = 0;
  };

  struct Load {
    std::size_t calls = 0;
    std::size_t bytes = 0;
  };

  struct Placement {
    RpcCallRef call;
    std::size_t connection = 0;
  };

  RpcClient(RpcClientSettings settings, Executor& executor);

  void on_call_ended(RpcConnection& connection, const RpcCallRef& call,
                     Result<RpcReply> result) override EXCLUDES(mutex_);

  void on_connection_up() override { dispatch(); }

  void dispatch() EXCLUDES(mutex_);
  [[nodiscard]] Placement place_next() REQUIRES(mutex_);
  [[nodiscard]] std::size_t choose_connection(const RpcRequest& request) const REQUIRES(mutex_);
  [[nodiscard]] std::size_t index_of(const RpcConnection& connection) const;
  void give_new_xid(RpcCall& call) REQUIRES(mutex_);
  [[nodiscard]] bool pause(const RpcCallRef& call, const Result<RpcReply>& result) REQUIRES(mutex_);
  void rest(Entry& entry, Duration delay) REQUIRES(mutex_);
  void resume(netfs::CallId id) EXCLUDES(mutex_);
  void unqueue(const RpcCallRef& call) REQUIRES(mutex_);

  [[nodiscard]] Duration timeout() const;
  void arm(Duration delay) REQUIRES(mutex_);
  void check_deadlines() EXCLUDES(mutex_);
  void enqueue(const RpcCallRef& call) REQUIRES(mutex_);
  // True: the entry's present timeout is over; counts it.
  [[nodiscard]] bool timed_out(Entry& entry, MonotonicTime now) const REQUIRES(mutex_);
  [[nodiscard]] Duration timeout_of(const Entry& entry) const;
  [[nodiscard]] bool extend(Entry& entry, MonotonicTime now) const REQUIRES(mutex_);
  [[nodiscard]] bool out_of_patience(const Entry& entry) const;
  void end_early(const std::vector<netfs::CallId>& ids, RpcCall::Wish wish) EXCLUDES(mutex_);

  const RpcClientSettings settings_;
  Executor& executor_;
  RpcCounters counters_;
  std::vector<std::shared_ptr<RpcConnection>> connections_;  // filled by make()
  std::atomic<Patience> patience_;
  Gate active_;  // holds whoever may end or start calls besides the connections' own threads

  mutable Mutex mutex_{LockRank::kNetwork};
  bool stopped_ GUARDED_BY(mutex_) = false;
  bool armed_ GUARDED_BY(mutex_) = false;
  TimerId deadline_timer_ GUARDED_BY(mutex_) = 0;
  std::uint32_t last_xid_ GUARDED_BY(mutex_);
  std::unordered_map<netfs::CallId, Entry> calls_ GUARDED_BY(mutex_);
  std::array<std::deque<RpcCallRef>, kCallClasses> queues_ GUARDED_BY(mutex_);
  std::vector<Load> loads_ GUARDED_BY(mutex_);  // by connection
};

}  // namespace larder::nfs
