#include "keeper/clients.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/messages.h"
#include "os/packet_socket.h"

namespace larder::keeper {

namespace {

constexpr std::size_t kMostClients = 64;

// False: the connection is over.
bool serve_one(Client& client, const Clients::Serve& serve) {
  Result<handover::ReceivedRequest> received =
      handover::receive_request(client.socket, os::Wait::kNo);
  if (!received) {
    if (received.error().code() != Errc::kNotFound) {
      reply_to(client, &received.error(), 0, 0);
    }
    return false;  // one that hung up leaves its mount being served
  }
  // A second request before the first reply is nobody's of ours.
  return client.silent() && serve(client, std::move(*received));
}

}  // namespace

void Clients::accept(const UniqueFd& listener) {
  while (Result<UniqueFd> socket = os::accept_for_packets(listener)) {
    const Result<os::PeerCredentials> peer = os::peer_of(*socket);
    if (!peer || peer->uid != 0) {
      continue;
    }
    clients_.push_back({.socket = std::move(*socket)});
    if (clients_.size() > kMostClients) {
      const auto silent = std::ranges::find_if(clients_, &Client::silent);
      clients_.erase(silent == clients_.end() ? clients_.begin() : silent);
    }
  }
}

void Clients::append_to(std::vector<pollfd>& polled) {
  std::erase_if(clients_, [](const Client& client) { return client.answered; });
  for (const Client& client : clients_) {
    polled.push_back({client.socket.get(), POLLIN, 0});
  }
}

void Clients::hear(const pollfd* polled, const Serve& serve) {
  for (auto client = clients_.begin(); client != clients_.end(); ++polled) {
    const bool keep = polled->revents == 0 || client->answered || serve_one(*client, serve);
    client = keep ? std::next(client) : clients_.erase(client);
  }
}

void Clients::answer_mount(std::uint32_t mount_id, const Error* why, pid_t engine) {
  const auto client = std::ranges::find(clients_, mount_id, &Client::awaited_mount);
  if (client != clients_.end()) {
    reply_to(*client, why, mount_id, engine);
    client->awaited_mount = 0;
    client->answered = true;
  }
}

void Clients::answer_stop(pid_t engine) {
  for (const Client& client : clients_) {
    if (client.awaits_stop) {
      reply_to(client, nullptr, 0, engine);
    }
  }
}

void reply_to(const Client& client, const Error* why, std::uint32_t mount_id, pid_t engine) {
  handover::KeeperReply answer;
  answer.mount_id = mount_id;
  answer.keeper_pid = ::getpid();
  answer.engine_pid = engine;
  if (why != nullptr) {
    answer.error_number = why->error_number();
    put_sentence(answer, why->message());
  }
  const iovec part{&answer, sizeof answer};
  [[maybe_unused]] const Result<> sent =
      os::send_packet(client.socket, std::span(&part, 1), {}, os::Wait::kNo);
}

}  // namespace larder::keeper
