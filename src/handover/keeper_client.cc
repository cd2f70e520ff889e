#include "handover/keeper_client.h"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/messages.h"
#include "os/packet_socket.h"

namespace larder::handover {

namespace {

constexpr std::chrono::seconds kShort{10};  // for what needs nothing but the keeper

Result<> limit_wait(const UniqueFd& socket, std::chrono::seconds patience) {
  const timeval limit{patience.count(), 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    if (::setsockopt(socket.get(), SOL_SOCKET, option, &limit, sizeof limit) != 0) {
      return fail_errno(errno, "timeout of a socket");
    }
  }
  return {};
}

}  // namespace

Result<std::uint32_t> KeeperClient::mount(std::string_view spec, std::uint64_t device,
                                          const UniqueFd& fuse, std::chrono::seconds patience) {
  CHECK(spec.size() <= kMostSpecBytes);
  KeeperRequest request;
  request.kind = RequestKind::kMount;
  request.device = device;
  request.spec_length = static_cast<std::uint32_t>(spec.size());
  std::memcpy(request.spec.data(), spec.data(), spec.size());
  return TRY(ask(request, &fuse, patience)).mount_id;
}

Result<> KeeperClient::unmount(std::uint32_t mount_id) {
  KeeperRequest request;
  request.kind = RequestKind::kUnmount;
  request.mount_id = mount_id;
  TRY(ask(request, nullptr, kShort));
  return {};
}

Result<> KeeperClient::stop(std::chrono::seconds patience) {
  KeeperRequest request;
  request.kind = RequestKind::kStop;
  TRY(ask(request, nullptr, patience));
  return {};
}

Result<Pids> KeeperClient::pids() {
  KeeperRequest request;
  request.kind = RequestKind::kPids;
  const KeeperReply reply = TRY(ask(request, nullptr, kShort));
  return Pids{reply.keeper_pid, reply.engine_pid};
}

Result<KeeperReply> KeeperClient::ask(const KeeperRequest& request, const UniqueFd* descriptor,
                                      std::chrono::seconds patience) {
  Result<UniqueFd> socket = os::connect_for_packets(path_);
  if (!socket) {
    const int error_number = socket.error().error_number();
    return error_number == ENOENT || error_number == ECONNREFUSED
               ? fail(Errc::kNotFound, fmt::format("no keeper listens on {}", path_))
               : fail(socket.error());
  }
  TRY(limit_wait(*socket, patience));
  const iovec part{const_cast<KeeperRequest*>(&request), sizeof request};
  const int number = descriptor == nullptr ? -1 : descriptor->get();
  const std::span<const int> descriptors(&number, descriptor == nullptr ? 0 : 1);
  TRY(os::send_packet(*socket, std::span(&part, 1), descriptors, os::Wait::kYes));
  Result<KeeperReply> reply = receive_reply(*socket);
  if (!reply) {
    switch (reply.error().code()) {
      case Errc::kBusy:
        return fail(Errc::kTimedOut,
                    fmt::format("no answer of the keeper in {} seconds", patience.count()));
      case Errc::kNotFound:
        return fail(Errc::kIo, "the keeper ended without an answer");
      default:
        return fail(reply.error());
    }
  }
  if (reply->error_number != 0) {
    return fail(received_error(reply->error_number, std::string(sentence_of(*reply))));
  }
  return *reply;
}

}  // namespace larder::handover
