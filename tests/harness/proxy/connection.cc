// Connection: moves bytes between its two sockets and lets the behaviour strike its messages.
#include "connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/endian.h"
#include "base/unique_fd.h"
#include "behaviour.h"
#include "direction.h"
#include "faults.h"
#include "message_stream.h"
#include "outbox.h"
#include "record.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{256} << 10;
constexpr std::size_t kLeastRoom = std::size_t{32} << 10;
constexpr std::size_t kMaximumPending = 65536;

}  // namespace

Connection::Connection(std::uint64_t id, UniqueFd client, UniqueFd server, Behaviour& behaviour)
    : id_(id),
      client_(std::move(client)),
      server_(std::move(server)),
      behaviour_(behaviour),
      lanes_{std::make_unique<Lane>(*this, Direction::kCalls),
             std::make_unique<Lane>(*this, Direction::kReplies)} {}

int Connection::source(Direction direction) const {
  return direction == Direction::kCalls ? client_.get() : server_.get();
}

int Connection::destination(Direction direction) const {
  return direction == Direction::kCalls ? server_.get() : client_.get();
}

void Connection::receive(Direction direction, TimePoint now) {
  now_ = now;
  lane(direction).receive(source(direction));
}

void Connection::send_due(TimePoint now) {
  for (const Direction direction : kBothWays) {
    if (destination(direction) >= 0 &&
        !lane(direction).outbox.send_due(destination(direction), now,
                                         behaviour_.shapers.at(index_of(direction)))) {
      is_broken_ = true;
    }
  }
}

void Connection::inject(Direction direction, Bytes message, TimePoint now) {
  now_ = now;
  lane(direction).inject(message);
}

void Connection::reset() {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(client_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  is_broken_ = true;
}

bool Connection::is_over() const {
  return is_broken_ || std::ranges::any_of(lanes_, [](const auto& lane) {
           return lane->ends_when_sent && lane->outbox.empty();
         });
}

bool Connection::may_receive(Direction direction) const {
  const Lane& way = lane(direction);
  return source(direction) >= 0 && !way.ends_when_sent &&
         way.outbox.waiting_bytes() < behaviour_.shapers.at(index_of(direction)).queue_limit();
}

bool Connection::is_blocked(Direction direction, TimePoint now) const {
  const auto due = lane(direction).outbox.next_due();
  return destination(direction) >= 0 && due && *due <= now;
}

std::optional<TimePoint> Connection::next_due(TimePoint now) const {
  std::optional<TimePoint> earliest;
  for (const auto& lane : lanes_) {
    const auto due = lane->outbox.next_due();
    if (due && *due > now && (!earliest || *due < *earliest)) {
      earliest = due;
    }
  }
  return earliest;
}

// Reuses the block if nothing of it waits any more, so that an idle proxy touches little memory.
void Connection::Lane::make_room() {
  if (block_ != nullptr && block_.use_count() == 1) {
    block_used_ = 0;
  }
  if (block_ == nullptr || kBlockBytes - block_used_ < kLeastRoom) {
    block_ = std::make_shared_for_overwrite<std::byte[]>(kBlockBytes);
    block_used_ = 0;
  }
}

void Connection::Lane::receive(int socket) {
  make_room();
  const ssize_t count =
      ::recv(socket, block_.get() + block_used_, kBlockBytes - block_used_, MSG_DONTWAIT);
  if (count < 0) {
    connection_.is_broken_ = connection_.is_broken_ || (errno != EAGAIN && errno != EINTR);
    return;
  }
  if (count == 0) {
    ends_when_sent = true;
    return;
  }
  const auto length = static_cast<std::size_t>(count);
  connection_.behaviour_.counts.received(direction_, length);
  Slice received{.block = block_, .begin = block_used_, .length = length};
  block_used_ += length;
  stream_.feed(std::move(received));
}

void Connection::Lane::inject(Bytes message) {
  std::vector<std::byte> record = frame_record(
      message, direction_ == Direction::kReplies ? connection_.behaviour_.fragment_bytes : 0);
  if (stream_.is_within_passed_message()) {
    injected_.push_back(std::move(record));
  } else {
    pass(copy_to_slice(record));
  }
}

MessageHandler::Decision Connection::Lane::decide(Bytes head) {
  struck_.reset();
  procedure_ = Procedure::kOther;
  if (direction_ == Direction::kCalls) {
    return decide_call(head);
  }
  return decide_reply(head);
}

MessageHandler::Decision Connection::Lane::decide_call(Bytes head) {
  Behaviour& behaviour = connection_.behaviour_;
  std::optional<CallHead> call = parse_call(head);
  if (!call) {
    return {.disposal = behaviour.swallow ? Disposal::kDrop : Disposal::kPass};
  }
  behaviour.counts.call(call->procedure, call->uid);
  if (behaviour.swallow || connection_.server_.get() < 0) {
    return {.disposal = Disposal::kDrop};
  }
  procedure_ = call->procedure;
  struck_ = behaviour.faults.strike(direction_, call->procedure, call->handle);
  if (struck_ && struck_->fault == Fault::kError) {
    behaviour.counts.struck();
    connection_.lane(Direction::kReplies)
        .inject(make_error_reply(call->xid, call->procedure, struck_->number));
    return {.disposal = Disposal::kDrop};
  }
  auto& pending = connection_.pending_;
  if (pending.size() >= kMaximumPending) {
    pending.clear();  // a client that never takes replies: forget whose they are
  }
  pending[call->xid] = {.procedure = call->procedure, .handle = std::move(call->handle)};
  behaviour.counts.in_flight(pending.size());
  return struck_ ? decide_struck(*struck_) : Decision{};
}

MessageHandler::Decision Connection::Lane::decide_reply(Bytes head) {
  Behaviour& behaviour = connection_.behaviour_;
  const std::optional<ReplyHead> reply = parse_reply(head);
  Pending answered;
  if (reply) {
    auto node = connection_.pending_.extract(reply->xid);
    if (!node.empty()) {
      answered = std::move(node.mapped());
    }
  }
  if (behaviour.swallow) {
    return {.disposal = Disposal::kDrop};
  }
  procedure_ = answered.procedure;
  behaviour.counts.reply(procedure_);
  if (procedure_ == Procedure::kRead) {
    behaviour.counts.read_data(read_reply_count(head));
  }
  struck_ = behaviour.faults.strike(direction_, procedure_, answered.handle);
  if (struck_) {
    return decide_struck(*struck_);
  }
  const bool must_change =
      behaviour.alterations.concern(procedure_) || behaviour.fragment_bytes != 0;
  return {.disposal = must_change ? Disposal::kCollect : Disposal::kPass};
}

MessageHandler::Decision Connection::Lane::decide_struck(const FaultRule& rule) {
  connection_.behaviour_.counts.struck();
  switch (rule.fault) {
    case Fault::kDrop:
    case Fault::kError:
      return {.disposal = Disposal::kDrop};
    case Fault::kCut:
      return {.disposal = Disposal::kCut, .cut_after = rule.number};
    case Fault::kHold:
    case Fault::kCorrupt:
      return {.disposal = Disposal::kCollect};
  }
  return {};
}

void Connection::Lane::pass(Slice slice) {
  if (!ends_when_sent) {
    outbox.push(std::move(slice), connection_.now_, shaper());
  }
}

void Connection::Lane::collected(std::vector<std::byte> message) {
  if (struck_ && struck_->fault == Fault::kHold) {
    hold(std::move(message));
    return;
  }
  if (direction_ == Direction::kReplies) {
    message = connection_.behaviour_.alterations.rewrite(procedure_, message);
  }
  if (struck_) {
    damage(std::move(message), struck_->damage);
  } else {
    pass(copy_to_slice(frame_record(message, connection_.behaviour_.fragment_bytes)));
  }
}

void Connection::Lane::hold(std::vector<std::byte> message) {
  Behaviour& behaviour = connection_.behaviour_;
  if (behaviour.held_bytes + message.size() > Behaviour::kMaximumHeldBytes) {
    connection_.reset();
    return;
  }
  behaviour.held_bytes += message.size();
  behaviour.held.push_back({.connection = connection_.id_,
                            .direction = direction_,
                            .procedure = procedure_,
                            .message = std::move(message)});
}

void Connection::Lane::damage(std::vector<std::byte> message, Damage kind) {
  constexpr std::size_t kXidBytes = 4;
  if (kind == Damage::kXid && message.size() >= kXidBytes) {
    message.front() = ~message.front();
  } else if (kind == Damage::kShort) {
    message.resize(message.size() / 8 * 4);
  } else if (kind == Damage::kGarbage && message.size() >= kXidBytes) {
    std::generate(message.begin() + kXidBytes, message.end(),
                  [this] { return static_cast<std::byte>(connection_.behaviour_.random() >> 8U); });
  }
  std::vector<std::byte> record = frame_record(message, 0);
  if (kind == Damage::kMark) {
    store_be(record.data(), std::uint32_t{0x7fffffff});
  }
  pass(copy_to_slice(record));
}

void Connection::Lane::cut() {
  ends_when_sent = true;
}

void Connection::Lane::message_ended() {
  for (const std::vector<std::byte>& record : std::exchange(injected_, {})) {
    pass(copy_to_slice(record));
  }
}

Shaper& Connection::Lane::shaper() const {
  return connection_.behaviour_.shapers.at(index_of(direction_));
}

}  // namespace larder::proxy
