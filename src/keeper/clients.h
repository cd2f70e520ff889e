// Clients: the connections on keeper.sock, each with one request and one reply.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include <poll.h>

#include "base/error.h"
#include "base/unique_fd.h"
#include "handover/messages.h"

namespace larder::keeper {

struct Client {
  UniqueFd socket;
  std::uint32_t awaited_mount = 0;  // answered when the engine has served or refused it
  bool awaits_stop = false;
  bool answered = false;  // it may go

  [[nodiscard]] bool silent() const { return awaited_mount == 0 && !awaits_stop; }
};

// Owned by the keeper, used on its thread only; never waits.
class Clients {
 public:
  // False: the connection is over.
  using Serve = std::function<bool(Client& client, handover::ReceivedRequest request)>;

  // Takes those who wait at `listener` and are root. Too many: the oldest silent one goes.
  void accept(const UniqueFd& listener);

  // One entry for each, and what poll(2) said of those: has the requests served. Meanwhile they
  // stay where they are, also when they are answered.
  void append_to(std::vector<pollfd>& polled);
  void hear(const pollfd* polled, const Serve& serve);

  // The reply and its end, if somebody awaits that mount.
  void answer_mount(std::uint32_t mount_id, const Error* why, pid_t engine);
  void answer_stop(pid_t engine);

 private:
  std::list<Client> clients_;
};

// `why` null: done. A client that does not listen any more has itself to blame.
void reply_to(const Client& client, const Error* why, std::uint32_t mount_id, pid_t engine);

}  // namespace larder::keeper
