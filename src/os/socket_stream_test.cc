// Streams over real sockets on the loopback.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "os/stream.h"

namespace larder::os {
namespace {

// A listening socket, and the connections that it accepts, used with plain blocking calls.
class Listener {
 public:
  Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    CHECK(fd_.valid());
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_.get(), 4), 0);
    socklen_t length = sizeof address;
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
  }

  [[nodiscard]] int fd() const { return fd_.get(); }

  [[nodiscard]] std::uint16_t port() const { return port_; }

  UniqueFd accept() {
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    UniqueFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC));
    peer_port_ = ntohs(peer.sin_port);
    return fd;
  }

  [[nodiscard]] std::uint16_t peer_port() const { return peer_port_; }

 private:
  UniqueFd fd_;
  std::uint16_t port_ = 0;
  std::uint16_t peer_port_ = 0;
};

void send_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    ASSERT_GT(sent, 0);
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
}

std::string receive_exactly(int fd, std::size_t length) {
  std::string text(length, '\0');
  std::size_t have = 0;
  while (have < length) {
    const ssize_t got = ::recv(fd, text.data() + have, length - have, 0);
    if (got <= 0) {
      break;
    }
    have += static_cast<std::size_t>(got);
  }
  text.resize(have);
  return text;
}

// Remembers what came, in buffers of a few bytes.
class Recorder final : public StreamHandler {
 public:
  void on_connected() override EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    connected_ = true;
    changed_.notify_all();
  }

  MutableBytes next_buffer() override { return buffer_; }

  void on_received(std::size_t length) override EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    received_ += text_of(Bytes(buffer_).first(length));
    changed_.notify_all();
  }

  void on_closed(const Error& why) override EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    ++closed_times_;
    why_ = why;
    changed_.notify_all();
  }

  void wait_until_connected() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (!connected_ && !why_) {
      changed_.wait(mutex_);
    }
  }

  std::string wait_for(std::size_t length) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (received_.size() < length && !why_) {
      changed_.wait(mutex_);
    }
    return received_;
  }

  Error wait_until_closed() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (!why_) {
      changed_.wait(mutex_);
    }
    return *why_;
  }

  int closed_times() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return closed_times_;
  }

 private:
  std::array<std::byte, 1000> buffer_{};
  CondVar changed_;
  Mutex mutex_{LockRank::kNetwork};
  bool connected_ GUARDED_BY(mutex_) = false;
  std::string received_ GUARDED_BY(mutex_);
  int closed_times_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> why_ GUARDED_BY(mutex_);
};

OutgoingMessage message_of(std::string_view text) {
  OutgoingMessage message;
  const Bytes bytes = bytes_of(text);
  message.head.assign(bytes.begin(), bytes.end());
  return message;
}

class SocketStreamTest : public ::testing::Test {
 protected:
  std::unique_ptr<Stream> connect(const std::string& host, std::uint16_t port,
                                  const ConnectOptions& options = {}) {
    return connector_->connect({host, port}, options, recorder_);
  }

  std::unique_ptr<StreamConnector> connector_ = make_socket_connector();
  Listener listener_;
  Recorder recorder_;
};

TEST_F(SocketStreamTest, BytesGoBothWays) {
  const auto stream = connect("127.0.0.1", listener_.port());
  stream->send(message_of("early "));  // before there is a connection
  const UniqueFd peer = listener_.accept();
  recorder_.wait_until_connected();
  stream->send(message_of("late"));
  EXPECT_EQ(receive_exactly(peer.get(), 10), "early late");
  const std::string text(5000, 'x');
  send_all(peer.get(), text);
  EXPECT_EQ(recorder_.wait_for(text.size()), text);
}

TEST_F(SocketStreamTest, NamesAreLookedUp) {
  const auto stream = connect("localhost", listener_.port());
  const UniqueFd peer = listener_.accept();
  recorder_.wait_until_connected();
  send_all(peer.get(), "hello");
  EXPECT_EQ(recorder_.wait_for(5), "hello");
}

TEST_F(SocketStreamTest, AnUnknownHostSaysSo) {
  const auto stream = connect("no..such..host", 1);
  const Error why = recorder_.wait_until_closed();
  EXPECT_TRUE(why.context().contains("no..such..host")) << why.context();
}

TEST_F(SocketStreamTest, ARefusedConnectionSaysWhere) {
  std::uint16_t port = 0;
  {
    const Listener gone;
    port = gone.port();
  }
  const auto stream = connect("127.0.0.1", port);
  const Error why = recorder_.wait_until_closed();
  EXPECT_EQ(why.code(), Errc::kIo);
  EXPECT_EQ(why.error_number(), ECONNREFUSED);
  EXPECT_TRUE(why.context().contains(std::to_string(port)));
}

// More than the socket takes at once, from several messages with bodies: the order must hold, and a
// body may be reused once its `done` ran.
TEST_F(SocketStreamTest, AFullSocketKeepsOrderAndBodies) {
  const auto stream = connect("127.0.0.1", listener_.port());
  const UniqueFd peer = listener_.accept();
  recorder_.wait_until_connected();
  constexpr int kMessages = 40;
  constexpr std::size_t kBody = 500'000;
  std::vector<std::string> bodies;
  bodies.reserve(kMessages);
  std::atomic<int> done{0};
  for (int i = 0; i < kMessages; ++i) {
    bodies.emplace_back(kBody, static_cast<char>('a' + i % 26));
  }
  for (std::string& body : bodies) {
    OutgoingMessage message = message_of("head");
    message.body = bytes_of(body);
    message.done = [&body, &done] {
      std::ranges::fill(body, '!');
      ++done;
      done.notify_all();
    };
    stream->send(std::move(message));
  }
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_EQ(receive_exactly(peer.get(), 4), "head");
    ASSERT_EQ(receive_exactly(peer.get(), kBody),
              std::string(kBody, static_cast<char>('a' + i % 26)));
  }
  stream->send(message_of("end"));
  EXPECT_EQ(receive_exactly(peer.get(), 3), "end");
  // The bytes may be here before their sender has said so.
  for (int seen = done; seen < kMessages; seen = done) {
    done.wait(seen);
  }
}

TEST_F(SocketStreamTest, ThePeersEndIsTold) {
  const auto stream = connect("127.0.0.1", listener_.port());
  {
    const UniqueFd peer = listener_.accept();
    send_all(peer.get(), "last words");
  }
  const Error why = recorder_.wait_until_closed();
  EXPECT_EQ(why.code(), Errc::kIo);
  EXPECT_EQ(recorder_.wait_for(10), "last words");
}

TEST_F(SocketStreamTest, CloseEndsItThoughThePeerIsSilent) {
  const auto stream = connect("127.0.0.1", listener_.port());
  const UniqueFd peer = listener_.accept();
  recorder_.wait_until_connected();
  stream->close();
  EXPECT_EQ(recorder_.wait_until_closed().code(), Errc::kCancelled);
  bool dropped = false;
  OutgoingMessage message = message_of("too late");
  message.done = [&dropped] { dropped = true; };
  stream->send(std::move(message));
  EXPECT_TRUE(dropped);
}

TEST_F(SocketStreamTest, DestructionClosesAndTheHandlerHearsItOnce) {
  auto stream = connect("127.0.0.1", listener_.port());
  const UniqueFd peer = listener_.accept();
  recorder_.wait_until_connected();
  stream.reset();
  EXPECT_EQ(recorder_.closed_times(), 1);
  EXPECT_EQ(receive_exactly(peer.get(), 1), "");
}

TEST_F(SocketStreamTest, TasksRunOnTheStreamsThreadBetweenReceives) {
  const auto stream = connect("127.0.0.1", listener_.port());
  const UniqueFd peer = listener_.accept();
  std::atomic<int> ran{0};
  for (int i = 0; i < 100; ++i) {
    stream->run_on_thread([&] {
      ++ran;
      ran.notify_all();
    });
  }
  for (int seen = ran; seen < 100; seen = ran) {
    ran.wait(seen);
  }
  stream->close();
  recorder_.wait_until_closed();
  stream->run_on_thread([&] { ++ran; });
  EXPECT_EQ(ran, 100);
}

// A full backlog makes the kernel swallow SYNs: the connect must end by itself.
TEST_F(SocketStreamTest, AConnectThatIsNeverAnsweredTimesOut) {
  ASSERT_EQ(::listen(listener_.fd(), 0), 0);
  std::vector<UniqueFd> fillers;
  for (int i = 0; i < 4; ++i) {
    fillers.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(listener_.port());
    // Under way, or refused when the backlog is full: both will do.
    (void)::connect(fillers.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  ConnectOptions options;
  options.connect_timeout = std::chrono::milliseconds(50);
  const auto stream = connect("127.0.0.1", listener_.port(), options);
  const Error why = recorder_.wait_until_closed();
  EXPECT_EQ(why.code(), Errc::kIo);
  EXPECT_EQ(why.error_number(), ETIMEDOUT);
}

TEST_F(SocketStreamTest, APrivilegedPortIsTriedAndNotInsistedOn) {
  ConnectOptions options;
  options.privileged_port = true;
  const auto stream = connect("127.0.0.1", listener_.port(), options);
  const UniqueFd peer = listener_.accept();
  recorder_.wait_until_connected();
  if (::geteuid() == 0) {
    EXPECT_LT(listener_.peer_port(), 1024);
  }
  send_all(peer.get(), "hello");
  EXPECT_EQ(recorder_.wait_for(5), "hello");
}

TEST_F(SocketStreamTest, APrivilegedPortMayServeConnectionsToOtherServersToo) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "may not bind to privileged ports";
  }
  std::vector<UniqueFd> holders;
  for (std::uint16_t port = 600; port < 1024; ++port) {
    const UniqueFd& holder = holders.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    ASSERT_EQ(::setsockopt(holder.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    // Taken by somebody else: as good.
    (void)::bind(holder.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  ConnectOptions options;
  options.privileged_port = true;
  const auto stream = connect("127.0.0.1", listener_.port(), options);
  const UniqueFd peer = listener_.accept();
  EXPECT_LT(listener_.peer_port(), 1024);
}

}  // namespace
}  // namespace larder::os
