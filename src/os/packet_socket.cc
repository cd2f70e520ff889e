#include "os/packet_socket.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <expected>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

namespace {

constexpr int kBacklog = 64;
constexpr std::size_t kControlBytes = CMSG_SPACE(sizeof(int) * kMostPacketDescriptors);

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Errc::kInvalid,
                fmt::format("{} is too long for a socket ({} bytes at most): choose a shorter "
                            "runtime directory",
                            path, sizeof address.sun_path - 1));
  }
  std::memcpy(&address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<UniqueFd> make_socket(int flags) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
  if (!socket.valid()) {
    return fail_errno(errno, "socket");
  }
  return socket;
}

// A full socket reports EAGAIN; a peer that is gone, EPIPE or ECONNRESET.
std::unexpected<Error> transfer_failed(int error_number, const char* what) {
  if (error_number == EPIPE || error_number == ECONNRESET || error_number == ENOTCONN) {
    return fail(Errc::kNotFound, fmt::format("{}: the other side hung up", what));
  }
  return fail_errno(error_number, what);
}

std::vector<UniqueFd> take_descriptors(msghdr& header) {
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
       control = CMSG_NXTHDR(&header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(control) + i * sizeof(int), sizeof descriptor);
      descriptors.emplace_back(descriptor);
    }
  }
  return descriptors;
}

}  // namespace

Result<UniqueFd> listen_for_packets(const std::string& path, mode_t mode) {
  const sockaddr_un address = TRY(address_of(path));
  UniqueFd listener = TRY(make_socket(SOCK_NONBLOCK));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, fmt::format("old socket {}", path));
  }
  // The mode is right from the first moment on: nobody gets in between bind and chmod.
  const mode_t before = ::umask(0777 & ~mode);
  const int bound = ::bind(listener.get(), generic(address), sizeof address);
  const int error_number = errno;
  ::umask(before);
  if (bound != 0) {
    return fail_errno(error_number, fmt::format("socket {}", path));
  }
  if (::listen(listener.get(), kBacklog) != 0) {
    return fail_errno(errno, fmt::format("listen on {}", path));
  }
  return listener;
}

Result<UniqueFd> connect_for_packets(const std::string& path, Wait wait) {
  const sockaddr_un address = TRY(address_of(path));
  UniqueFd socket = TRY(make_socket(wait == Wait::kNo ? SOCK_NONBLOCK : 0));
  if (::connect(socket.get(), generic(address), sizeof address) != 0) {
    return fail_errno(errno, fmt::format("connect to {}", path));
  }
  // Each send and receive says whether it waits.
  if (wait == Wait::kNo && ::fcntl(socket.get(), F_SETFL, 0) != 0) {
    return fail_errno(errno, fmt::format("connect to {}", path));
  }
  return socket;
}

Result<UniqueFd> accept_for_packets(const UniqueFd& listener) {
  UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket.valid()) {
    return fail_errno(errno, "accept");
  }
  return socket;
}

Result<std::pair<UniqueFd, UniqueFd>> packet_socket_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, "socketpair");
  }
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Result<PeerCredentials> peer_of(const UniqueFd& socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return fail_errno(errno, "credentials of the peer");
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

Result<> send_packet(const UniqueFd& socket, std::span<const iovec> parts,
                     std::span<const int> descriptors, Wait wait) {
  CHECK(descriptors.size() <= kMostPacketDescriptors);
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  msghdr header{};
  header.msg_iov = const_cast<iovec*>(parts.data());  // sendmsg does not write there
  header.msg_iovlen = parts.size();
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const first = CMSG_FIRSTHDR(&header);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(first), descriptors.data(), descriptors.size_bytes());
  }
  const int flags = MSG_NOSIGNAL | (wait == Wait::kNo ? MSG_DONTWAIT : 0);
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket.get(), &header, flags);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    return transfer_failed(errno, "send");
  }
  return {};
}

Result<Packet> receive_packet(const UniqueFd& socket, MutableBytes buffer, Wait wait) {
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  iovec part{buffer.data(), buffer.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const int flags = MSG_CMSG_CLOEXEC | (wait == Wait::kNo ? MSG_DONTWAIT : 0);
  ssize_t received = -1;
  do {
    received = ::recvmsg(socket.get(), &header, flags);
  } while (received < 0 && errno == EINTR);
  if (received < 0) {
    return transfer_failed(errno, "receive");
  }
  Packet packet{static_cast<std::size_t>(received), take_descriptors(header)};
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return fail(Errc::kCorrupt, "a packet with more bytes or descriptors than expected");
  }
  if (received == 0) {  // also what an empty packet looks like: nobody sends one
    return fail(Errc::kNotFound, "receive: the other side hung up");
  }
  return packet;
}

}  // namespace larder::os
