#include "adapters/nfs/rpc_client.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_connection.h"
#include "adapters/nfs/rpc_message.h"
#include "adapters/nfs/xdr.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "os/stream.h"

namespace larder::nfs {

namespace {

constexpr std::chrono::milliseconds kLongestConnect{10'000};
constexpr std::chrono::seconds kProbeTimeout{10};  // whatever is set for later calls
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::milliseconds kLongestPause{5'000};
// How much longer than `timeout` a call may take while its connection brings other replies.
constexpr int kMostExtensions = 4;
// How many times `timeout` a call waits at most, once it has timed out often enough.
constexpr unsigned kMostGrowth = 10;

}  // namespace

std::shared_ptr<RpcClient> RpcClient::make(RpcClientSettings settings, Executor& executor,
                                           os::StreamConnector& connector) {
  CHECK(settings.connections > 0 && settings.retrans > 0);
  std::shared_ptr<RpcClient> client(new RpcClient(std::move(settings), executor));
  const RpcClientSettings& given = client->settings_;
  const os::ConnectOptions connect{std::min(given.timeout, kLongestConnect), given.privileged_port};
  for (unsigned i = 0; i < given.connections; ++i) {
    client->connections_.push_back(std::make_shared<RpcConnection>(
        RpcConnection::Settings{given.program, given.endpoint, connect}, executor, connector,
        client->counters_, static_cast<RpcConnection::Owner&>(*client)));
  }
  client->set_patience(given.patience);
  return client;
}

RpcClient::RpcClient(RpcClientSettings settings, Executor& executor)
    : settings_(std::move(settings)),
      executor_(executor),
      patience_(settings_.patience),
      // A server remembers answers by xid for a while: a restarted client should not repeat them.
      last_xid_(static_cast<std::uint32_t>(
          static_cast<std::uint64_t>(executor.clock().now().time_since_epoch().count()) >> 10U)),
      loads_(settings_.connections) {}

RpcClient::~RpcClient() {
  const MutexLock lock(mutex_);
  CHECK(stopped_ || (calls_.empty() && connections_.empty()), "an RPC client was not shut down");
}

void RpcClient::open() {
  for (const auto& connection : connections_) {
    connection->open();
  }
}

void RpcClient::set_patience(Patience patience) {
  patience_ = patience;
  for (const auto& connection : connections_) {
    connection->set_fail_when_unreachable(patience == Patience::kProbe);
  }
}

bool RpcClient::connected() const {
  return std::ranges::any_of(connections_, [](const auto& each) { return each->up(); });
}

std::string RpcClient::trouble() const {
  for (const auto& connection : connections_) {
    if (std::string why = connection->trouble(); !why.empty()) {
      return fmt::format("{} at {} port {}: {}", settings_.program.name, settings_.endpoint.host,
                         settings_.endpoint.port, why);
    }
  }
  return {};
}

Duration RpcClient::timeout() const {
  return patience_ == Patience::kProbe ? kProbeTimeout : Duration(settings_.timeout);
}

void RpcClient::give_new_xid(RpcCall& call) {
  call.xid = ++last_xid_;
  set_call_xid(call.message, call.xid);
}

void RpcClient::submit(netfs::CallId id, RpcRequest request) {
  auto call = std::make_shared<RpcCall>();
  call->id = id;
  const std::size_t body_bytes = request.body.size() + xdr_padding(request.body.size());
  call->message = encode_call(0, settings_.program, request.procedure, request.credential.get(),
                              request.arguments, body_bytes);
  call->request = std::move(request);
  counters_.calls.add();
  bool refused = false;
  {
    const MutexLock lock(mutex_);
    refused = stopped_;
    if (!refused) {
      enqueue(call);
    }
  }
  if (refused) {
    call->request.done(fail(error_of_wish(RpcCall::Wish::kCancelled)));
    return;
  }
  dispatch();
}

void RpcClient::enqueue(const RpcCallRef& call) {
  give_new_xid(*call);
  const MonotonicTime now = executor_.clock().now();
  const bool inserted =
      calls_.emplace(call->id, Entry{call, kQueued, now, now + timeout(), 0, 0, 0}).second;
  CHECK(inserted, "call {} is in flight", call->id);
  if (call->request.pause > Duration::zero()) {
    rest(calls_.at(call->id), call->request.pause);
  } else {
    queues_.at(static_cast<std::size_t>(call->request.call_class)).push_back(call);
  }
  if (!armed_) {
    arm(timeout());
  }
}

// Hands on what has room, one call at a time: no lock is held while a connection sends.
void RpcClient::dispatch() {
  const Gate::Pass pass = active_.enter();
  while (pass) {
    Placement next;
    {
      const MutexLock lock(mutex_);
      next = place_next();
    }
    if (!next.call) {
      return;
    }
    connections_[next.connection]->start(next.call);
  }
}

RpcClient::Placement RpcClient::place_next() {
  if (stopped_) {
    return {};
  }
  for (std::deque<RpcCallRef>& queue : queues_) {
    if (queue.empty()) {
      continue;
    }
    const RpcRequest& request = queue.front()->request;
    const std::size_t index = choose_connection(request);
    if (index == kQueued) {
      continue;  // a smaller call of a later class may still have room
    }
    Placement placement{std::move(queue.front()), index};
    queue.pop_front();
    loads_[index].calls += 1;
    loads_[index].bytes += request.expected_bytes;
    calls_.at(placement.call->id).place = index;
    return placement;
  }
  return {};
}

std::size_t RpcClient::choose_connection(const RpcRequest& request) const {
  const bool large = request.expected_bytes > kLargeReply;
  std::optional<std::tuple<bool, bool, std::size_t, std::size_t>> best;
  std::size_t chosen = kQueued;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    const Load& load = loads_[i];
    const bool up = connections_[i]->up();
    const bool kept_free = large && i == 0 && connections_.size() > 1;
    const bool others_up = kept_free && std::any_of(connections_.begin() + 1, connections_.end(),
                                                    [](const auto& other) { return other->up(); });
    if (others_up && request.call_class != CallClass::kRead) {
      continue;  // rather wait than lengthen the queue of small calls
    }
    const std::size_t most = others_up ? kMostBytesOnFirst : kMostBytes;
    const bool full =
        load.calls >= kMostCalls || (load.bytes > 0 && load.bytes + request.expected_bytes > most);
    if (full) {
      continue;
    }
    const std::tuple rank(!up, kept_free, load.bytes, load.calls);
    if (!best || rank < *best) {
      best = rank;
      chosen = i;
    }
  }
  return chosen;
}

std::size_t RpcClient::index_of(const RpcConnection& connection) const {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (connections_[i].get() == &connection) {
      return i;
    }
  }
  CHECK(false, "a connection of somebody else");
  std::unreachable();
}

void RpcClient::on_call_ended(RpcConnection& connection, const RpcCallRef& call,
                              Result<RpcReply> result) {
  bool paused = false;
  {
    const MutexLock lock(mutex_);
    Load& load = loads_[index_of(connection)];
    load.calls -= 1;
    load.bytes -= call->request.expected_bytes;
    paused = pause(call, result);
    if (!paused) {
      calls_.erase(call->id);
    }
  }
  if (!paused) {
    call->request.done(std::move(result));
  }
  dispatch();
}

bool RpcClient::pause(const RpcCallRef& call, const Result<RpcReply>& result) {
  if (stopped_ || !result || settings_.asks_to_wait == nullptr ||
      !settings_.asks_to_wait(result->results) || call->wish.load() != RpcCall::Wish::kNone) {
    return false;
  }
  static constexpr unsigned kMostDoublings = 6;
  Entry& entry = calls_.at(call->id);
  const Duration delay = std::min<Duration>(
      kLongestPause, kFirstPause * (1U << std::min(entry.pauses, kMostDoublings)));
  ++entry.pauses;
  rest(entry, delay);
  return true;
}

void RpcClient::rest(Entry& entry, Duration delay) {
  entry.place = kPausing;
  entry.pause_timer =
      executor_.timers().schedule(delay, [weak = weak_from_this(), id = entry.call->id] {
        if (const auto self = weak.lock()) {
          self->resume(id);
        }
      });
}

void RpcClient::resume(netfs::CallId id) {
  const Gate::Pass pass = active_.enter();
  if (!pass) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    const auto found = calls_.find(id);
    if (found == calls_.end() || found->second.place != kPausing) {
      return;
    }
    Entry& entry = found->second;
    // With its old xid the server might repeat its old answer.
    give_new_xid(*entry.call);
    if (entry.call->transmissions == 1) {
      entry.call->transmissions = 0;  // what the server put off it has not done
    }
    entry.place = kQueued;
    queues_.at(static_cast<std::size_t>(entry.call->request.call_class)).push_back(entry.call);
  }
  dispatch();
}

void RpcClient::unqueue(const RpcCallRef& call) {
  std::erase(queues_.at(static_cast<std::size_t>(call->request.call_class)), call);
}

void RpcClient::cancel(netfs::CallId id) {
  const Gate::Pass pass = active_.enter();
  if (!pass) {
    return;  // shut_down ends it
  }
  end_early({id}, RpcCall::Wish::kCancelled);
}

void RpcClient::end_early(const std::vector<netfs::CallId>& ids, RpcCall::Wish wish) {
  std::vector<RpcCallRef> ended;
  std::vector<Placement> in_flight;
  {
    const MutexLock lock(mutex_);
    for (const netfs::CallId id : ids) {
      const auto found = calls_.find(id);
      if (found == calls_.end()) {
        continue;
      }
      const RpcCallRef call = found->second.call;
      // Under the lock: once a call carries a wish it is not paused any more (see pause()).
      call->make_wish(wish);
      if (found->second.place < connections_.size()) {
        in_flight.push_back({call, found->second.place});
        continue;
      }
      unqueue(call);
      calls_.erase(found);
      ended.push_back(call);
    }
  }
  for (const Placement& each : in_flight) {
    connections_[each.connection]->end(each.call);
  }
  for (const RpcCallRef& call : ended) {
    call->request.done(fail(error_of_wish(call->wish.load())));
  }
}

void RpcClient::arm(Duration delay) {
  armed_ = true;
  deadline_timer_ = executor_.timers().schedule(delay, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->check_deadlines();
    }
  });
}

bool RpcClient::out_of_patience(const Entry& entry) const {
  switch (patience_.load()) {
    case Patience::kProbe:
      return true;
    case Patience::kSoft:
      return entry.timeouts >= settings_.retrans;
    case Patience::kHard:
      return false;
  }
  std::unreachable();
}

// How long the call may wait this time. Where it waits for ever, each time longer: a server that is
// slower than `timeout`, or far away, would otherwise never be heard.
Duration RpcClient::timeout_of(const Entry& entry) const {
  return patience_ == Patience::kHard ? timeout() * std::min(entry.timeouts + 1U, kMostGrowth)
                                      : timeout();
}

// True when the server is at work for somebody and the call may wait a little longer.
bool RpcClient::extend(Entry& entry, MonotonicTime now) const {
  if (entry.place == kPausing) {
    return false;
  }
  MonotonicTime progress{};
  if (entry.place < connections_.size()) {
    progress = connections_[entry.place]->last_progress();
    if (now >= entry.tried_at + kMostExtensions * timeout_of(entry)) {
      return false;
    }
  } else {
    for (const auto& connection : connections_) {
      progress = std::max(progress, connection->last_progress());
    }
  }
  if (progress + timeout_of(entry) <= now) {
    return false;
  }
  entry.deadline = progress + timeout_of(entry);
  return true;
}

bool RpcClient::timed_out(Entry& entry, MonotonicTime now) const {
  if (entry.deadline > now || extend(entry, now)) {
    return false;
  }
  ++entry.timeouts;
  entry.tried_at = now;
  entry.deadline = now + timeout_of(entry);
  return true;
}

void RpcClient::check_deadlines() {
  const Gate::Pass pass = active_.enter();
  if (!pass) {
    return;
  }
  std::vector<netfs::CallId> over;
  std::vector<std::size_t> hit;  // places of calls that timed out
  {
    const MutexLock lock(mutex_);
    armed_ = false;
    const MonotonicTime now = executor_.clock().now();
    std::optional<MonotonicTime> next;
    for (auto& [id, entry] : calls_) {
      if (timed_out(entry, now)) {
        hit.push_back(entry.place);
        over.insert(over.end(), out_of_patience(entry) ? 1 : 0, id);
      }
      next = next ? std::min(*next, entry.deadline) : entry.deadline;
    }
    if (next && !stopped_) {
      arm(*next - now);
    }
  }
  end_early(over, RpcCall::Wish::kTimedOut);
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (std::ranges::find(hit, i) != hit.end()) {
      connections_[i]->break_off(
          fmt::format("no answer for {} ms",
                      std::chrono::duration_cast<std::chrono::milliseconds>(timeout()).count()));
    }
  }
}

void RpcClient::shut_down() {
  std::vector<netfs::CallId> waiting;
  std::vector<TimerId> timers;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    timers.push_back(deadline_timer_);
    for (const auto& [id, entry] : calls_) {
      if (entry.place >= connections_.size()) {
        waiting.push_back(id);
        timers.push_back(entry.pause_timer);
      }
    }
  }
  for (const TimerId timer : timers) {
    executor_.timers().cancel(timer);
  }
  active_.close_and_wait();
  end_early(waiting, RpcCall::Wish::kCancelled);
  for (const auto& connection : connections_) {
    connection->shut_down();
  }
}

}  // namespace larder::nfs
