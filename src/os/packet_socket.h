// Unix sockets that keep message boundaries (SOCK_SEQPACKET), with descriptors as passengers.
//
// Threads: any; one send or receive is one system call and is never mixed with another's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

// More in one packet are refused.
inline constexpr std::size_t kMostPacketDescriptors = 8;

enum class Wait : std::uint8_t { kNo, kYes };

struct Packet {
  std::size_t length = 0;  // bytes at the start of the buffer
  std::vector<UniqueFd> descriptors;
};

struct PeerCredentials {
  pid_t pid = 0;  // 0: in a pid namespace that we do not see
  uid_t uid = 0;
  gid_t gid = 0;
};

// Binds `path` (what stands there is replaced) with mode bits `mode`, and listens. kInvalid: the
// path is too long for a socket.
[[nodiscard]] Result<UniqueFd> listen_for_packets(const std::string& path, mode_t mode);
// kBusy: would have had to wait, for those who wait for the listener already.
[[nodiscard]] Result<UniqueFd> connect_for_packets(const std::string& path, Wait wait = Wait::kYes);
// kBusy: nobody is waiting (listeners do not block).
[[nodiscard]] Result<UniqueFd> accept_for_packets(const UniqueFd& listener);
[[nodiscard]] Result<std::pair<UniqueFd, UniqueFd>> packet_socket_pair();
// Who connected or listens at the other end, as the kernel noted it then.
[[nodiscard]] Result<PeerCredentials> peer_of(const UniqueFd& socket);

// All parts as one packet. kBusy: would have had to wait; kNotFound: the peer hung up.
[[nodiscard]] Result<> send_packet(const UniqueFd& socket, std::span<const iovec> parts,
                                   std::span<const int> descriptors, Wait wait);
// The next packet. kBusy: none there; kNotFound: the peer hung up; kCorrupt: it does not fit
// `buffer`, or carried too many descriptors (all of them are closed then; the socket stays usable).
[[nodiscard]] Result<Packet> receive_packet(const UniqueFd& socket, MutableBytes buffer, Wait wait);

}  // namespace larder::os
