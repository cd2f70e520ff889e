// FakeConnector: streams without a network. The test plays the server: it accepts or refuses, reads
// what was sent, and feeds bytes in pieces of any size, or breaks off in the middle.
//
// Every call of a handler runs as a task of a Stepper, so that a seed draws the interleaving.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/executor.h"
#include "base/result.h"
#include "os/stream.h"

namespace larder::testing {

class FakeStream;

// The test's end of one stream; it outlives the stream.
// Threads: the Stepper's. Functions that reach the handler only queue; run the Stepper afterwards.
class FakePeer : public std::enable_shared_from_this<FakePeer> {
 public:
  FakePeer(os::Endpoint endpoint, const os::ConnectOptions& options, os::StreamHandler& handler,
           Executor& executor);

  [[nodiscard]] const os::Endpoint& endpoint() const { return endpoint_; }

  [[nodiscard]] const os::ConnectOptions& options() const { return options_; }

  void accept();
  void refuse(Error why);
  // Bytes for the client, handed over in pieces of at most `piece` bytes.
  void deliver(Bytes bytes, std::size_t piece = SIZE_MAX);
  void hang_up();

  // While held, messages do not leave the client: a peer whose window is full. They leave later, as
  // a task.
  void hold_messages(bool hold);

  // What the client has sent since the last call of it.
  [[nodiscard]] std::vector<std::byte> take_sent();

  // The client closed the stream, or let it go.
  [[nodiscard]] bool closed_by_client() const { return closed_by_client_; }

  [[nodiscard]] bool ended() const { return ended_; }

  // For tests of what may happen in the middle of a receive, all at once, without the Stepper:
  // takes the handler's buffer as recv(2) would hold it, and later fills it with the first of
  // `bytes`; returns how many went in.
  void begin_receive();
  [[nodiscard]] std::size_t finish_receive(Bytes bytes);

 private:
  friend class FakeStream;
  friend class FakeConnector;

  void post(Task task);
  void end(const Error& why);
  void receive(Bytes bytes);
  void take(const os::OutgoingMessage& message);
  void send_waiting();

  const os::Endpoint endpoint_;
  const os::ConnectOptions options_;
  os::StreamHandler& handler_;
  bool connected_ = false;
  bool ended_ = false;
  bool closed_by_client_ = false;
  std::vector<std::byte> sent_;
  bool holds_messages_ = false;
  std::vector<os::OutgoingMessage> waiting_;  // until connected, or let go
  MutableBytes held_buffer_;
  std::unique_ptr<Pool> pool_;  // last: its destructor runs tasks that use the members above
};

// Keeps the peers of all streams that were asked for, in their order.
class FakeConnector final : public os::StreamConnector {
 public:
  explicit FakeConnector(Executor& executor) : executor_(executor) {}

  [[nodiscard]] std::unique_ptr<os::Stream> connect(const os::Endpoint& endpoint,
                                                    const os::ConnectOptions& options,
                                                    os::StreamHandler& handler) override;

  [[nodiscard]] const std::vector<std::shared_ptr<FakePeer>>& peers() const { return peers_; }

  // Called with each new peer, for servers that answer by themselves.
  void set_on_connect(std::function<void(const std::shared_ptr<FakePeer>&)> callback) {
    on_connect_ = std::move(callback);
  }

  // Called, as a task, after the client has sent something.
  void set_on_sent(std::function<void(const std::shared_ptr<FakePeer>&)> callback) {
    on_sent_ = std::move(callback);
  }

 private:
  friend class FakeStream;

  Executor& executor_;
  std::vector<std::shared_ptr<FakePeer>> peers_;
  std::function<void(const std::shared_ptr<FakePeer>&)> on_connect_;
  std::function<void(const std::shared_ptr<FakePeer>&)> on_sent_;
};

}  // namespace larder::testing
