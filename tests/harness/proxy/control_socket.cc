// ControlSocket: lines in, lines out.
#include "control_socket.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "poller.h"

namespace larder::proxy {
namespace {

constexpr std::size_t kMaximumLine = 1 << 20;

}  // namespace

Result<ControlSocket> ControlSocket::open(const std::string& path, Poller& poller) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Errc::kInvalid, "the path of the control socket is too long: " + path);
  }
  std::ranges::copy(path, &address.sun_path[0]);
  ::unlink(path.c_str());
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.valid() ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), 16) != 0) {
    return fail_errno(errno, "listening on " + path);
  }
  return ControlSocket(std::move(listener), poller);
}

ControlSocket::ControlSocket(UniqueFd listener, Poller& poller)
    : listener_(std::move(listener)), poller_(&poller) {
  poller_->watch(listener_.get(), Poller::Source::kControl,
                 static_cast<std::uint64_t>(listener_.get()), EPOLLIN);
}

void ControlSocket::handle(int fd, const Execute& execute) {
  if (fd == listener_.get()) {
    accept();
    return;
  }
  const auto client = clients_.find(fd);
  if (client != clients_.end() && !serve(client->second, execute)) {
    poller_->forget(fd);
    clients_.erase(client);
  }
}

void ControlSocket::accept() {
  const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
  if (fd >= 0) {
    clients_[fd].socket.reset(fd);
    poller_->watch(fd, Poller::Source::kControl, static_cast<std::uint64_t>(fd), EPOLLIN);
  }
}

bool ControlSocket::serve(Client& client, const Execute& execute) {
  std::array<char, 4096> buffer{};
  const ssize_t count = ::recv(client.socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count <= 0) {
    return count < 0 && (errno == EAGAIN || errno == EINTR);
  }
  client.received.append(buffer.data(), static_cast<std::size_t>(count));
  for (auto end = client.received.find('\n'); end != std::string::npos;
       end = client.received.find('\n')) {
    const std::string answer = execute(std::string_view(client.received).substr(0, end)) + "\n";
    client.received.erase(0, end + 1);
    if (::send(client.socket.get(), answer.data(), answer.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(answer.size())) {
      return false;
    }
  }
  return client.received.size() <= kMaximumLine;
}

}  // namespace larder::proxy
