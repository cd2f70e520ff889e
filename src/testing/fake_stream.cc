#include "testing/fake_stream.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/executor.h"
#include "os/stream.h"

namespace larder::testing {

class FakeStream final : public os::Stream {
 public:
  FakeStream(FakeConnector& connector, std::shared_ptr<FakePeer> peer)
      : connector_(connector), peer_(std::move(peer)) {}

  FakeStream(const FakeStream&) = delete;
  FakeStream& operator=(const FakeStream&) = delete;

  ~FakeStream() override {
    peer_->closed_by_client_ = true;
    peer_->end(Error(Errc::kCancelled, "the stream was destroyed"));
  }

  void send(os::OutgoingMessage message) override {
    if (!peer_->ended_ && (!peer_->connected_ || peer_->holds_messages_)) {
      peer_->waiting_.push_back(std::move(message));
      return;
    }
    if (!peer_->ended_) {
      peer_->take(message);
      tell_sent();
    }
    if (message.done) {
      message.done();
    }
  }

  void close() override {
    peer_->closed_by_client_ = true;
    peer_->post([peer = peer_.get()] { peer->end(Error(Errc::kCancelled, "closed")); });
  }

  void run_on_thread(Task task) override {
    peer_->post([peer = peer_.get(), task = std::move(task)]() mutable {
      if (!peer->ended_) {
        peer->held_buffer_ = {};
        task();
      }
    });
  }

 private:
  void tell_sent() {
    if (!connector_.on_sent_) {
      return;
    }
    peer_->post([&connector = connector_, peer = peer_.get()] {
      if (!peer->ended_ && connector.on_sent_) {
        connector.on_sent_(peer->shared_from_this());
      }
    });
  }

  FakeConnector& connector_;
  const std::shared_ptr<FakePeer> peer_;
};

FakePeer::FakePeer(os::Endpoint endpoint, const os::ConnectOptions& options,
                   os::StreamHandler& handler, Executor& executor)
    : endpoint_(std::move(endpoint)),
      options_(options),
      handler_(handler),
      pool_(executor.make_pool("fake-stream", 1, SIZE_MAX)) {}

void FakePeer::post(Task task) {
  pool_->post(std::move(task));
}

void FakePeer::accept() {
  post([this] {
    if (ended_ || closed_by_client_) {
      return;
    }
    connected_ = true;
    send_waiting();
    handler_.on_connected();
  });
}

void FakePeer::take(const os::OutgoingMessage& message) {
  sent_.insert(sent_.end(), message.head.begin(), message.head.end());
  sent_.insert(sent_.end(), message.body.begin(), message.body.end());
  sent_.insert(sent_.end(), message.padding, std::byte{0});
}

void FakePeer::send_waiting() {
  for (os::OutgoingMessage& message : std::exchange(waiting_, {})) {
    if (!ended_) {
      take(message);
    }
    if (message.done) {
      message.done();
    }
  }
}

void FakePeer::hold_messages(bool hold) {
  holds_messages_ = hold;
  if (!hold) {
    post([this] {
      if (!holds_messages_) {
        send_waiting();
      }
    });
  }
}

void FakePeer::refuse(Error why) {
  post([this, why = std::move(why)] { end(why); });
}

void FakePeer::hang_up() {
  post([this] { end(Error(Errc::kIo, "the server closed the connection")); });
}

void FakePeer::deliver(Bytes bytes, std::size_t piece) {
  while (!bytes.empty()) {
    const Bytes first = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(first.size());
    post([this, copy = std::vector<std::byte>(first.begin(), first.end())] { receive(copy); });
  }
}

void FakePeer::receive(Bytes bytes) {
  while (!bytes.empty() && !ended_ && !closed_by_client_) {
    begin_receive();
    bytes = bytes.subspan(finish_receive(bytes));
  }
}

void FakePeer::begin_receive() {
  CHECK(connected_ && !ended_);
  held_buffer_ = handler_.next_buffer();
  CHECK(!held_buffer_.empty(), "a handler gave an empty buffer");
}

std::size_t FakePeer::finish_receive(Bytes bytes) {
  CHECK(!held_buffer_.empty());
  const std::size_t length = std::min(bytes.size(), held_buffer_.size());
  std::memcpy(held_buffer_.data(), bytes.data(), length);
  held_buffer_ = {};
  handler_.on_received(length);
  return length;
}

void FakePeer::end(const Error& why) {
  if (std::exchange(ended_, true)) {
    return;
  }
  held_buffer_ = {};
  send_waiting();  // drops them
  handler_.on_closed(why);
}

std::vector<std::byte> FakePeer::take_sent() {
  return std::exchange(sent_, {});
}

std::unique_ptr<os::Stream> FakeConnector::connect(const os::Endpoint& endpoint,
                                                   const os::ConnectOptions& options,
                                                   os::StreamHandler& handler) {
  peers_.push_back(std::make_shared<FakePeer>(endpoint, options, handler, executor_));
  if (on_connect_) {
    on_connect_(peers_.back());
  }
  return std::make_unique<FakeStream>(*this, peers_.back());
}

}  // namespace larder::testing
