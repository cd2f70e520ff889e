// Proxy: one thread, one epoll loop.
#include "proxy.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/result.h"
#include "base/unique_fd.h"
#include "behaviour.h"
#include "commands.h"
#include "connection.h"
#include "control_socket.h"
#include "direction.h"
#include "poller.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

constexpr int kBacklog = 1024;

template <class T>
const sockaddr* generic(const T& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<UniqueFd> bound_socket(const sockaddr_in& address) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!socket.valid() ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(socket.get(), generic(address), sizeof address) != 0) {
    return fail_errno(errno, fmt::format("binding port {}", ntohs(address.sin_port)));
  }
  return socket;
}

sockaddr_in address_of(const UniqueFd& socket) {
  sockaddr_in address{};
  unsigned int length = sizeof address;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return address;
}

void send_at_once(const UniqueFd& socket) {
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// A socket that is connected, or will be.
UniqueFd connect_to(const sockaddr_in& server) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return {};
  }
  if (::connect(socket.get(), generic(server), sizeof server) != 0 && errno != EINPROGRESS) {
    return {};
  }
  send_at_once(socket);
  return socket;
}

Result<UniqueFd> open_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) {
    return fail_errno(errno, "signalfd");
  }
  return fd;
}

Poller::Source source_of(Direction direction) {
  return direction == Direction::kCalls ? Poller::Source::kCalls : Poller::Source::kReplies;
}

}  // namespace

Result<std::unique_ptr<Proxy>> Proxy::open(const Route& nfs, const Route& mount,
                                           const std::string& control_path) {
  std::unique_ptr<Proxy> proxy(new Proxy);
  TRY(proxy->listen(0, nfs));
  TRY(proxy->listen(1, mount));
  proxy->control_.emplace(TRY(ControlSocket::open(control_path, proxy->poller_)));
  proxy->signals_ = TRY(open_signals());
  proxy->poller_.watch(proxy->signals_.get(), Poller::Source::kSignal, 0, EPOLLIN);
  return proxy;
}

// A port that the kernel chose is bound again by its number: only then does it stay ours while
// refuse() stops the listening.
Result<> Proxy::listen(std::size_t index, const Route& route) {
  UniqueFd socket = TRY(bound_socket(route.listen));
  if (route.listen.sin_port == 0) {
    const sockaddr_in chosen = address_of(socket);
    socket.reset();
    socket = TRY(bound_socket(chosen));
  }
  if (::listen(socket.get(), kBacklog) != 0) {
    return fail_errno(errno, "listen");
  }
  poller_.watch(socket.get(), Poller::Source::kListener, index, EPOLLIN);
  listeners_.at(index) = {.socket = std::move(socket), .server = route.server};
  return {};
}

std::array<std::uint16_t, 2> Proxy::ports() const {
  return {ntohs(address_of(listeners_[0].socket).sin_port),
          ntohs(address_of(listeners_[1].socket).sin_port)};
}

Result<> Proxy::run() {
  while (!quits_) {
    const TimePoint before = std::chrono::steady_clock::now();
    const std::optional<TimePoint> due = serve_connections(before);
    const auto events = poller_.wait(due ? std::optional(*due - before) : std::nullopt);
    const TimePoint now = std::chrono::steady_clock::now();
    for (const Poller::Event& event : events) {
      handle(event, now);
    }
  }
  return {};
}

void Proxy::handle(const Poller::Event& event, TimePoint now) {
  switch (event.source) {
    case Poller::Source::kListener:
      accept(event.id, now);
      break;
    case Poller::Source::kControl:
      if (control_) {
        control_->handle(static_cast<int>(event.id),
                         [this](std::string_view line) { return execute_command(*this, line); });
      }
      break;
    case Poller::Source::kSignal:
      quits_ = true;
      break;
    case Poller::Source::kCalls:
      handle_connection(event.id, Direction::kCalls, event.events, now);
      break;
    case Poller::Source::kReplies:
      handle_connection(event.id, Direction::kReplies, event.events, now);
      break;
  }
}

void Proxy::accept(std::size_t index, TimePoint now) {
  const Listener& listener = listeners_.at(index);
  UniqueFd client(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client.valid()) {
    return;
  }
  behaviour_.counts.accepted();
  send_at_once(client);
  UniqueFd server;
  if (!behaviour_.swallow) {
    server = connect_to(listener.server);
    if (!server.valid()) {
      return;
    }
  }
  const std::uint64_t id = next_connection_++;
  auto connection =
      std::make_unique<Connection>(id, std::move(client), std::move(server), behaviour_);
  update_interest(*connection, now);
  connections_.emplace(id, std::move(connection));
}

void Proxy::handle_connection(std::uint64_t id, Direction direction, std::uint32_t events,
                              TimePoint now) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) {
    return;
  }
  Connection& connection = *found->second;
  if ((events & EPOLLERR) != 0) {
    connection.break_off();
  } else if ((events & (EPOLLIN | EPOLLHUP)) != 0) {
    connection.receive(direction, now);
  }
}

std::optional<TimePoint> Proxy::serve_connections(TimePoint now) {
  std::optional<TimePoint> earliest;
  for (auto next = connections_.begin(); next != connections_.end();) {
    const auto current = next++;
    Connection& connection = *current->second;
    connection.send_due(now);
    if (connection.is_over()) {
      for (const Direction direction : kBothWays) {
        poller_.forget(connection.source(direction));
      }
      forget_held_of(connection.id());
      connections_.erase(current);
      continue;
    }
    update_interest(connection, now);
    const std::optional<TimePoint> due = connection.next_due(now);
    if (due && (!earliest || *due < *earliest)) {
      earliest = due;
    }
  }
  return earliest;
}

void Proxy::update_interest(const Connection& connection, TimePoint now) {
  for (const Direction direction : kBothWays) {
    const Direction back = direction == Direction::kCalls ? Direction::kReplies : Direction::kCalls;
    const int socket = connection.source(direction);
    if (socket < 0) {
      continue;
    }
    const std::uint32_t events = (connection.may_receive(direction) ? EPOLLIN : 0U) |
                                 (connection.is_blocked(back, now) ? EPOLLOUT : 0U);
    poller_.watch(socket, source_of(direction), connection.id(), events);
  }
}

std::string Proxy::counts_json() const {
  return behaviour_.counts.json(connections_.size(), behaviour_.held.size());
}

void Proxy::cut_all() {
  for (const auto& [id, connection] : connections_) {
    connection->reset();
  }
}

Result<> Proxy::refuse(bool refuse) {
  for (const Listener& listener : listeners_) {
    const int socket = listener.socket.get();
    // On a listening socket shutdown() ends the listening and keeps the port.
    const int result = refuse ? ::shutdown(socket, SHUT_RD) : ::listen(socket, kBacklog);
    if (result != 0 && errno != ENOTCONN) {
      return fail_errno(errno, refuse ? "shutdown" : "listen");
    }
    poller_.forget(socket);
    if (!refuse) {
      poller_.watch(socket, Poller::Source::kListener,
                    static_cast<std::size_t>(&listener - listeners_.data()), EPOLLIN);
    }
  }
  return {};
}

void Proxy::swallow(bool swallow) {
  if (behaviour_.swallow && !swallow) {
    cut_all();  // what was swallowed is lost: these connections cannot go on
  }
  behaviour_.swallow = swallow;
}

std::size_t Proxy::release(std::optional<Procedure> procedure) {
  const TimePoint now = std::chrono::steady_clock::now();
  std::size_t released = 0;
  for (HeldMessage& held : std::exchange(behaviour_.held, {})) {
    if (procedure && held.procedure != *procedure) {
      behaviour_.held.push_back(std::move(held));
      continue;
    }
    behaviour_.held_bytes -= held.message.size();
    const auto connection = connections_.find(held.connection);
    if (connection != connections_.end()) {
      connection->second->inject(held.direction, held.message, now);
      ++released;
    }
  }
  return released;
}

void Proxy::forget_held_of(std::uint64_t connection) {
  for (HeldMessage& held : std::exchange(behaviour_.held, {})) {
    if (held.connection == connection) {
      behaviour_.held_bytes -= held.message.size();
    } else {
      behaviour_.held.push_back(std::move(held));
    }
  }
}

}  // namespace larder::proxy
