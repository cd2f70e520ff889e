// The Stream of a TCP socket: one thread, epoll, nothing that blocks but epoll_wait(2).
//
// Who writes to the socket: the thread that calls send(), if nobody else is about to; so a request
// leaves without waking another thread. One thread at a time is the sender (`sending_`), the lock
// is not held while it sends; what others queue meanwhile it takes along. When the socket is full,
// the stream's thread goes on as soon as epoll says that there is room.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "os/resolver.h"
#include "os/stream.h"

namespace larder::os {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kKeepAliveIdleSeconds = 60;
constexpr int kKeepAliveIntervalSeconds = 15;
constexpr int kKeepAliveProbes = 4;
constexpr std::size_t kMostVectors = 32;
constexpr std::array<std::byte, OutgoingMessage::kMostPadding> kZeros{};
constexpr std::uint16_t kFirstPrivilegedPort = 665;  // below are services that people know
constexpr std::uint16_t kLastPrivilegedPort = 1023;

void set_option(int fd, int level, int name, int value) {
  // Without it the socket works all the same.
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof value));
}

// Wakes the stream's thread; outlives the stream where a resolver still holds it.
class WakeUp {
 public:
  WakeUp() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  [[nodiscard]] int fd() const { return fd_.get(); }

  void ring() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  }

  void clear() const {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &count, sizeof count);
  }

 private:
  const UniqueFd fd_;
};

// The answer of the resolver, shared with it.
struct Resolution {
  Mutex mutex{LockRank::kNetwork};
  std::optional<Result<Addresses>> answer GUARDED_BY(mutex);
  WakeUp wake;

  std::optional<Result<Addresses>> take_answer() EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    return std::exchange(answer, std::nullopt);
  }
};

class SocketStream final : public Stream {
 public:
  SocketStream(Endpoint endpoint, const ConnectOptions& options, StreamHandler& handler,
               std::shared_ptr<Resolver> resolver)
      : endpoint_(std::move(endpoint)),
        options_(options),
        handler_(handler),
        resolver_(std::move(resolver)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    thread_ = Thread("stream", [this] { run(); });
  }

  SocketStream(const SocketStream&) = delete;
  SocketStream& operator=(const SocketStream&) = delete;

  ~SocketStream() override {
    CHECK(!thread_.is_current(), "a stream was destroyed on its own thread");
    close();
    thread_.join();
  }

  void send(OutgoingMessage message) override EXCLUDES(mutex_);
  void close() override;
  void run_on_thread(std::move_only_function<void()> task) override EXCLUDES(mutex_);

 private:
  struct Queued {
    OutgoingMessage message;
    std::size_t sent = 0;  // bytes, of head, body and padding together
  };

  void run();
  Result<> connect();
  Result<Addresses> resolve();
  Result<UniqueFd> connect_to(const SocketAddress& address, Clock::time_point deadline);
  bool bind_privileged(int fd, int family);
  Result<> wait_connected(int fd, Clock::time_point deadline);
  Result<> become_connected(UniqueFd socket) EXCLUDES(mutex_);
  Error serve();
  void resume_sending() EXCLUDES(mutex_);
  std::optional<Error> receive();
  bool run_tasks() EXCLUDES(mutex_);
  void finish(const Error& why) EXCLUDES(mutex_);

  void pump() EXCLUDES(mutex_);
  std::size_t gather(std::span<iovec> vectors) REQUIRES(mutex_);
  void advance(std::size_t sent, std::vector<OutgoingMessage>& finished) REQUIRES(mutex_);
  void watch_for_room(bool wanted);
  [[nodiscard]] Error refusal(int error_number) const;

  [[nodiscard]] static Error cancelled() { return {Errc::kCancelled, "the connection was closed"}; }

  const Endpoint endpoint_;
  const ConnectOptions options_;
  StreamHandler& handler_;
  const std::shared_ptr<Resolver> resolver_;
  const UniqueFd epoll_;
  UniqueFd socket_;  // set by the thread before connected_, closed by it after ended_
  const std::shared_ptr<Resolution> resolution_ = std::make_shared<Resolution>();
  std::atomic<bool> closing_{false};
  std::atomic<bool> has_tasks_{false};

  CondVar sender_left_;
  Mutex mutex_{LockRank::kQueue};
  bool connected_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
  bool sending_ GUARDED_BY(mutex_) = false;  // a thread is in sendmsg, or about to
  bool no_room_ GUARDED_BY(mutex_) = false;  // epoll will tell
  int send_error_ GUARDED_BY(mutex_) = 0;
  std::deque<Queued> queue_ GUARDED_BY(mutex_);
  std::vector<std::move_only_function<void()>> tasks_ GUARDED_BY(mutex_);

  Thread thread_;  // last: it uses the members above
};

Error SocketStream::refusal(int error_number) const {
  return Error(Errc::kIo, error_number,
               fmt::format("connecting to {} port {}", endpoint_.host, endpoint_.port));
}

void SocketStream::send(OutgoingMessage message) {
  CHECK(!message.head.empty() || !message.body.empty(), "a message of nothing");
  std::move_only_function<void()> dropped;
  bool is_dropped = false;
  {
    const MutexLock lock(mutex_);
    if (!ended_) {
      queue_.push_back({std::move(message), 0});
      if (!connected_ || sending_ || no_room_) {
        return;
      }
      sending_ = true;
    } else {
      dropped = std::move(message.done);
      is_dropped = true;
    }
  }
  if (is_dropped) {
    if (dropped) {
      dropped();
    }
    return;
  }
  pump();
}

void SocketStream::close() {
  closing_ = true;
  resolution_->wake.ring();
}

void SocketStream::run_on_thread(std::move_only_function<void()> task) {
  {
    const MutexLock lock(mutex_);
    if (ended_) {
      return;
    }
    tasks_.push_back(std::move(task));
    has_tasks_ = true;
  }
  resolution_->wake.ring();
}

// Sends what is queued. The caller has made itself the sender.
void SocketStream::pump() {
  std::vector<OutgoingMessage> finished;
  std::array<iovec, kMostVectors> vectors{};
  bool more = true;
  while (more) {
    msghdr message{};
    {
      const MutexLock lock(mutex_);
      message.msg_iov = vectors.data();
      message.msg_iovlen = gather(vectors);
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    const int error_number = sent < 0 ? errno : 0;
    const MutexLock lock(mutex_);
    if (sent >= 0) {
      advance(static_cast<std::size_t>(sent), finished);
    } else if (error_number == EAGAIN) {
      no_room_ = true;
      watch_for_room(true);  // cannot wait; under the lock, so that it is not undone meanwhile
    } else if (error_number != EINTR) {
      send_error_ = error_number;
      resolution_->wake.ring();
    }
    more = !queue_.empty() && !no_room_ && send_error_ == 0 && !ended_;
    if (!more) {
      sending_ = false;
      sender_left_.notify_all();
    }
  }
  for (OutgoingMessage& message : finished) {
    message.done();
  }
}

std::size_t SocketStream::gather(std::span<iovec> vectors) {
  std::size_t used = 0;
  for (const Queued& queued : queue_) {
    std::size_t skip = queued.sent;
    const OutgoingMessage& message = queued.message;
    for (const Bytes part :
         {Bytes(message.head), message.body, Bytes(kZeros).first(message.padding)}) {
      const std::size_t skipped = std::min(skip, part.size());
      skip -= skipped;
      if (skipped < part.size() && used < vectors.size()) {
        // sendmsg only reads.
        vectors[used++] = {const_cast<std::byte*>(part.data() + skipped), part.size() - skipped};
      }
    }
  }
  return used;
}

void SocketStream::advance(std::size_t sent, std::vector<OutgoingMessage>& finished) {
  while (sent > 0) {
    Queued& first = queue_.front();
    const std::size_t size = first.message.size();
    const std::size_t step = std::min(sent, size - first.sent);
    first.sent += step;
    sent -= step;
    if (first.sent == size) {
      if (first.message.done) {
        finished.push_back(std::move(first.message));
      }
      queue_.pop_front();
    }
  }
}

void SocketStream::watch_for_room(bool wanted) {
  epoll_event event{};
  event.events = EPOLLIN | (wanted ? EPOLLOUT : 0U);
  event.data.fd = socket_.get();
  static_cast<void>(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, socket_.get(), &event));
}

void SocketStream::run() {
  if (Result<> connected = connect(); !connected) {
    finish(closing_ ? cancelled() : connected.error());
    return;
  }
  handler_.on_connected();
  bool waiting = false;
  {
    const MutexLock lock(mutex_);
    connected_ = true;
    waiting = !queue_.empty();
    sending_ = waiting;
  }
  if (waiting) {
    pump();
  }
  finish(serve());
}

Result<Addresses> SocketStream::resolve() {
  if (Result<Addresses> numeric = resolve_numeric(endpoint_)) {
    return numeric;
  }
  resolver_->resolve(endpoint_, [resolution = resolution_](Result<Addresses> answer) {
    {
      const MutexLock lock(resolution->mutex);
      resolution->answer = std::move(answer);
    }
    resolution->wake.ring();
  });
  const Clock::time_point deadline = Clock::now() + options_.connect_timeout;
  while (!closing_) {
    if (std::optional<Result<Addresses>> answer = resolution_->take_answer()) {
      return std::move(*answer);
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) {
      return fail(Errc::kTimedOut, fmt::format("looking up the address of {}", endpoint_.host));
    }
    epoll_event event{};
    static_cast<void>(::epoll_wait(epoll_.get(), &event, 1, static_cast<int>(left.count())));
    resolution_->wake.clear();
  }
  return fail(cancelled());
}

Result<> SocketStream::connect() {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = resolution_->wake.fd();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event.data.fd, &event) < 0) {
    return fail(refusal(errno));
  }
  const Addresses addresses = TRY(resolve());
  const Clock::time_point begin = Clock::now();
  Error last = refusal(EHOSTUNREACH);
  for (std::size_t i = 0; i < addresses.size() && !closing_; ++i) {
    // A dead address must not eat the time of those behind it.
    const auto share = options_.connect_timeout * (i + 1) / addresses.size();
    Result<UniqueFd> socket = connect_to(addresses[i], begin + share);
    if (socket) {
      return become_connected(std::move(*socket));
    }
    last = std::move(socket).error();
  }
  return fail(std::move(last));
}

// True: bound to a port below 1024. False: we may not, or others keep all of them for themselves.
bool SocketStream::bind_privileged(int fd, int family) {
  static constexpr unsigned kPorts = kLastPrivilegedPort - kFirstPrivilegedPort + 1;
  // A different start each time: a port that was just used may be in TIME_WAIT.
  static std::atomic<unsigned> next{static_cast<unsigned>(Clock::now().time_since_epoch().count())};
  // Without it a port counts as taken by any connection, and for a minute after; with it only for
  // the same server, which connect() finds out.
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  for (unsigned i = 0; i < kPorts; ++i) {
    const auto port = static_cast<std::uint16_t>(kLastPrivilegedPort - (next++ % kPorts));
    sockaddr_storage storage{};
    socklen_t length = sizeof(sockaddr_in);
    storage.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
      length = sizeof(sockaddr_in6);
    } else {
      reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
    }
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&storage), length) == 0) {
      return true;
    }
    if (errno != EADDRINUSE) {
      return false;
    }
  }
  return false;
}

Result<UniqueFd> SocketStream::connect_to(const SocketAddress& address,
                                          Clock::time_point deadline) {
  static constexpr int kMostAttempts = 32;
  bool privileged = options_.privileged_port;
  for (int attempt = 0;; ++attempt) {
    UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) {
      return fail(refusal(errno));
    }
    privileged = privileged && bind_privileged(fd.get(), address.storage.ss_family);
    if (::connect(fd.get(), address.get(), address.length) < 0 && errno != EINPROGRESS) {
      // This very pair of ports is in use, or in TIME_WAIT: another port, in the end any.
      if (privileged && errno == EADDRNOTAVAIL) {
        privileged = attempt < kMostAttempts;
        continue;
      }
      return fail(refusal(errno));
    }
    TRY(wait_connected(fd.get(), deadline));
    return fd;
  }
}

Result<> SocketStream::wait_connected(int fd, Clock::time_point deadline) {
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) {
    return fail(refusal(errno));
  }
  while (!closing_) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) {
      return fail(refusal(ETIMEDOUT));
    }
    const int ready = ::epoll_wait(epoll_.get(), &event, 1, static_cast<int>(left.count()));
    if (ready > 0 && event.data.fd == fd) {
      int error_number = 0;
      socklen_t length = sizeof error_number;
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error_number, &length);
      return error_number == 0 ? Result<>() : fail(refusal(error_number));
    }
    if (ready > 0) {
      resolution_->wake.clear();  // tasks run after the connection, which is soon
    }
  }
  return fail(cancelled());
}

Result<> SocketStream::become_connected(UniqueFd socket) {
  set_option(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket.get(), IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  set_option(socket.get(), IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  set_option(socket.get(), IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
  socket_ = std::move(socket);
  watch_for_room(false);
  resolution_->wake.ring();  // for tasks that came while it connected
  return {};
}

// Until the end; returns why.
Error SocketStream::serve() {
  static constexpr int kMostEvents = 2;
  std::array<epoll_event, kMostEvents> events{};
  while (true) {
    const int ready = ::epoll_wait(epoll_.get(), events.data(), kMostEvents, -1);
    for (int i = 0; i < ready; ++i) {
      const epoll_event& event = events.at(static_cast<std::size_t>(i));
      if (event.data.fd != socket_.get()) {
        resolution_->wake.clear();
        continue;
      }
      if ((event.events & EPOLLOUT) != 0) {
        resume_sending();
      }
      const bool readable = (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
      if (std::optional<Error> end = readable ? receive() : std::nullopt) {
        return std::move(*end);
      }
    }
    if (!run_tasks()) {
      return cancelled();
    }
    const MutexLock lock(mutex_);
    if (send_error_ != 0) {
      return Error(Errc::kIo, send_error_, fmt::format("sending to {}", endpoint_.host));
    }
  }
}

void SocketStream::resume_sending() {
  {
    const MutexLock lock(mutex_);
    if (!no_room_) {
      return;
    }
    no_room_ = false;
    sending_ = true;
    watch_for_room(false);
  }
  pump();
}

// Reads until the socket is empty or something else is to be done.
std::optional<Error> SocketStream::receive() {
  while (!closing_ && !has_tasks_) {
    const MutableBytes buffer = handler_.next_buffer();
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got == 0) {
      return Error(Errc::kIo, ECONNRESET, fmt::format("{} closed the connection", endpoint_.host));
    }
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) {
        return std::nullopt;
      }
      return Error(Errc::kIo, errno, fmt::format("receiving from {}", endpoint_.host));
    }
    handler_.on_received(static_cast<std::size_t>(got));
    if (static_cast<std::size_t>(got) < buffer.size()) {
      return std::nullopt;  // it is empty now, most likely; if not, epoll says so
    }
  }
  return std::nullopt;
}

// False: the stream is to end.
bool SocketStream::run_tasks() {
  while (has_tasks_ && !closing_) {
    std::vector<std::move_only_function<void()>> tasks;
    {
      const MutexLock lock(mutex_);
      tasks.swap(tasks_);
      has_tasks_ = false;
    }
    for (auto& task : tasks) {
      task();
    }
  }
  return !closing_;
}

void SocketStream::finish(const Error& why) {
  std::deque<Queued> dropped;
  std::vector<std::move_only_function<void()>> tasks;  // destroyed unrun
  {
    const MutexLock lock(mutex_);
    ended_ = true;
    while (sending_) {
      sender_left_.wait(mutex_);
    }
    dropped.swap(queue_);
    tasks.swap(tasks_);
  }
  socket_.reset();
  for (Queued& queued : dropped) {
    if (queued.message.done) {
      queued.message.done();
    }
  }
  handler_.on_closed(why);
}

class SocketConnector final : public StreamConnector {
 public:
  std::unique_ptr<Stream> connect(const Endpoint& endpoint, const ConnectOptions& options,
                                  StreamHandler& handler) override {
    return std::make_unique<SocketStream>(endpoint, options, handler, resolver_);
  }

 private:
  const std::shared_ptr<Resolver> resolver_ = std::make_shared<Resolver>();
};

}  // namespace

std::unique_ptr<StreamConnector> make_socket_connector() {
  return std::make_unique<SocketConnector>();
}

}  // namespace larder::os
