// Connection: a client's TCP connection and the proxy's own to the server, with a lane each way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/unique_fd.h"
#include "behaviour.h"
#include "direction.h"
#include "faults.h"
#include "message_stream.h"
#include "outbox.h"
#include "rpc_message.h"

namespace larder::proxy {

// Owner: Proxy. Threads: one. Life: `behaviour` outlives it.
class Connection {
 public:
  // Sockets are non-blocking. Without `server` whatever the client sends is swallowed.
  Connection(std::uint64_t id, UniqueFd client, UniqueFd server, Behaviour& behaviour);

  [[nodiscard]] std::uint64_t id() const { return id_; }

  // The socket from which a direction's bytes come; -1 if there is none.
  [[nodiscard]] int source(Direction direction) const;
  [[nodiscard]] int destination(Direction direction) const;

  // Takes in what has arrived at the source.
  void receive(Direction direction, TimePoint now);
  // Sends what is due, both ways.
  void send_due(TimePoint now);

  // Puts a message into a direction, between two of its own messages.
  void inject(Direction direction, Bytes message, TimePoint now);

  // The connection ends at once, for the client with a reset.
  void reset();

  void break_off() { is_broken_ = true; }

  [[nodiscard]] bool is_over() const;
  [[nodiscard]] bool may_receive(Direction direction) const;
  // Something is due, and the destination did not take it yet.
  [[nodiscard]] bool is_blocked(Direction direction, TimePoint now) const;
  // The earliest moment at which something becomes due.
  [[nodiscard]] std::optional<TimePoint> next_due(TimePoint now) const;

 private:
  // A call that the server has not answered yet.
  struct Pending {
    Procedure procedure = Procedure::kOther;
    std::string handle;
  };

  // One direction: bytes from a socket, through the stream of messages, to the other socket.
  class Lane : public MessageHandler {
   public:
    Lane(Connection& connection, Direction direction)
        : connection_(connection), direction_(direction), stream_(*this) {}

    void receive(int socket);
    void inject(Bytes message);

    Decision decide(Bytes head) override;
    void pass(Slice slice) override;
    void collected(std::vector<std::byte> message) override;
    void cut() override;
    void message_ended() override;

    Outbox outbox;
    bool ends_when_sent = false;

   private:
    Decision decide_call(Bytes head);
    Decision decide_reply(Bytes head);
    Decision decide_struck(const FaultRule& rule);
    void hold(std::vector<std::byte> message);
    void damage(std::vector<std::byte> message, Damage kind);
    [[nodiscard]] Shaper& shaper() const;
    void make_room();

    Connection& connection_;
    Direction direction_;
    MessageStream stream_;
    std::shared_ptr<std::byte[]> block_;
    std::size_t block_used_ = 0;
    // What becomes of the message that is being collected.
    Procedure procedure_ = Procedure::kOther;
    std::optional<FaultRule> struck_;
    std::vector<std::vector<std::byte>> injected_;  // wait for the end of the message
  };

  [[nodiscard]] Lane& lane(Direction direction) { return *lanes_.at(index_of(direction)); }

  [[nodiscard]] const Lane& lane(Direction direction) const {
    return *lanes_.at(index_of(direction));
  }

  std::uint64_t id_;
  UniqueFd client_;
  UniqueFd server_;
  Behaviour& behaviour_;
  TimePoint now_;
  std::unordered_map<std::uint32_t, Pending> pending_;  // by xid
  std::array<std::unique_ptr<Lane>, 2> lanes_;
  bool is_broken_ = false;
};

}  // namespace larder::proxy
