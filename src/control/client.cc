#include "control/client.h"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <expected>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/line_codec.h"
#include "os/packet_socket.h"

namespace larder::control {

namespace {

std::unexpected<Error> no_reply(const Error& why, std::chrono::seconds patience) {
  switch (why.code()) {
    case Errc::kBusy:
      return fail(Errc::kTimedOut,
                  fmt::format("no answer of the engine in {} seconds", patience.count()));
    case Errc::kNotFound:
      return fail(Errc::kIo, "the engine hung up without an answer");
    default:
      return fail(why);
  }
}

}  // namespace

Result<std::string> ask(const std::string& runtime_directory, const std::vector<std::string>& words,
                        std::chrono::seconds patience) {
  std::string line = TRY(encode_line(words));
  const std::string path = runtime_directory + "/control.sock";
  Result<UniqueFd> socket = os::connect_for_packets(path);
  if (!socket) {
    const int error_number = socket.error().error_number();
    return error_number == ENOENT || error_number == ECONNREFUSED
               ? fail(Errc::kNotFound, fmt::format("nobody listens on {}", path))
               : fail(socket.error());
  }
  const timeval limit{patience.count(), 0};
  if (::setsockopt(socket->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0) {
    return fail_errno(errno, "timeout of a socket");
  }
  const iovec part{line.data(), line.size()};
  TRY(os::send_packet(*socket, std::span(&part, 1), {}, os::Wait::kYes));
  ReplyReader reader;
  std::vector<std::byte> buffer(kMostPacketBytes);
  while (true) {
    const Result<os::Packet> packet = os::receive_packet(*socket, buffer, os::Wait::kYes);
    if (!packet) {
      return no_reply(packet.error(), patience);
    }
    if (TRY(reader.add(text_of(Bytes(buffer).first(packet->length))))) {
      return reader.take();
    }
  }
}

}  // namespace larder::control
