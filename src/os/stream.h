// A connected stream of bytes to a server, with one thread of its own that reads and writes.
//
// The owner implements StreamHandler: it says where the next bytes belong, so that a file's data
// goes from the socket straight to its destination. The real form is a TCP socket under epoll
// (socket_stream.cc); the tests' form is fed by hand.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace larder::os {

// What a stream tells its owner. Every call comes on the stream's thread, one at a time, in the
// order on_connected, (next_buffer, on_received)*, on_closed; none after on_closed.
class StreamHandler {
 public:
  StreamHandler() = default;
  StreamHandler(const StreamHandler&) = delete;
  StreamHandler& operator=(const StreamHandler&) = delete;
  virtual ~StreamHandler() = default;

  virtual void on_connected() = 0;
  // Where the next bytes go: not empty. Asked anew before every receive: the answer counts until
  // on_received, on_closed or a task of run_on_thread, whichever comes first.
  [[nodiscard]] virtual MutableBytes next_buffer() = 0;
  // The first `length` bytes of what next_buffer gave have arrived.
  virtual void on_received(std::size_t length) = 0;
  // The end, exactly once: refused, reset, closed by the peer (kIo), or by close() (kCancelled).
  virtual void on_closed(const Error& why) = 0;
};

// Bytes to be sent in one go: a head and, for writes, a body that stays the sender's until `done`.
struct OutgoingMessage {
  std::vector<std::byte> head;
  Bytes body;
  std::size_t padding = 0;               // zero bytes behind the body, at most kMostPadding
  std::move_only_function<void()> done;  // may be empty; runs when body is no longer read

  static constexpr std::size_t kMostPadding = 3;

  [[nodiscard]] std::size_t size() const { return head.size() + body.size() + padding; }
};

// Threads: send and close from any, also from within the handler. Life: the destructor closes and
// waits until the handler has had its last call; it must not be destroyed from within the handler.
class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  virtual ~Stream() = default;

  // Queues; messages keep their order. Before on_connected they wait; after the end they are
  // dropped (with `done` called). The sender bounds how many it has under way.
  virtual void send(OutgoingMessage message) = 0;
  // Begins to end it; on_closed follows, at once also when the peer is silent. Called from within
  // the handler, on_closed is the handler's next call.
  virtual void close() = 0;
  // Task that runs on the stream's thread between two calls of the handler; dropped after the end.
  virtual void run_on_thread(std::move_only_function<void()> task) = 0;
};

struct Endpoint {
  std::string host;  // a name or a numeric address
  std::uint16_t port = 0;
};

struct ConnectOptions {
  std::chrono::milliseconds connect_timeout{10000};
  bool privileged_port = false;  // bind to a port below 1024 first, as NFS servers may insist
};

class StreamConnector {
 public:
  StreamConnector() = default;
  StreamConnector(const StreamConnector&) = delete;
  StreamConnector& operator=(const StreamConnector&) = delete;
  virtual ~StreamConnector() = default;

  // Never blocks: resolving and connecting happen on the stream's thread. `handler` outlives the
  // stream.
  [[nodiscard]] virtual std::unique_ptr<Stream> connect(const Endpoint& endpoint,
                                                        const ConnectOptions& options,
                                                        StreamHandler& handler) = 0;
};

// TCP with TCP_NODELAY and keep-alive.
[[nodiscard]] std::unique_ptr<StreamConnector> make_socket_connector();

}  // namespace larder::os
