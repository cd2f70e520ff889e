// Proxy: listens for NFS and MOUNT clients, connects each to the server, moves what they say.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <netinet/in.h>

#include "base/result.h"
#include "base/unique_fd.h"
#include "behaviour.h"
#include "connection.h"
#include "control_socket.h"
#include "direction.h"
#include "poller.h"
#include "rpc_message.h"

namespace larder::proxy {

// A listening port (0: any) and where its connections go.
struct Route {
  sockaddr_in listen{};
  sockaddr_in server{};
};

// Threads: one, in run(). Life: from open() until run() returns.
class Proxy {
 public:
  static Result<std::unique_ptr<Proxy>> open(const Route& nfs, const Route& mount,
                                             const std::string& control_path);

  // The ports on which it listens: NFS, MOUNT.
  [[nodiscard]] std::array<std::uint16_t, 2> ports() const;

  // Returns after SIGTERM, SIGINT or quit().
  Result<> run();

  // What the commands do; see commands.cc.
  [[nodiscard]] Behaviour& behaviour() { return behaviour_; }

  [[nodiscard]] std::string counts_json() const;
  void cut_all();
  // New connections are refused, or accepted again.
  Result<> refuse(bool refuse);
  void swallow(bool swallow);
  // Sends what was held; of one procedure, if it is given. Returns how many messages.
  std::size_t release(std::optional<Procedure> procedure);

  void quit() { quits_ = true; }

 private:
  struct Listener {
    UniqueFd socket;
    sockaddr_in server{};
  };

  Proxy() = default;

  Result<> listen(std::size_t index, const Route& route);
  void handle(const Poller::Event& event, TimePoint now);
  void accept(std::size_t index, TimePoint now);
  void handle_connection(std::uint64_t id, Direction direction, std::uint32_t events,
                         TimePoint now);
  // Sends what is due everywhere; returns when the next bytes are due.
  std::optional<TimePoint> serve_connections(TimePoint now);
  void update_interest(const Connection& connection, TimePoint now);
  void forget_held_of(std::uint64_t connection);

  Poller poller_;
  std::array<Listener, 2> listeners_;
  std::optional<ControlSocket> control_;
  UniqueFd signals_;
  Behaviour behaviour_;
  std::map<std::uint64_t, std::unique_ptr<Connection>> connections_;
  std::uint64_t next_connection_ = 1;
  bool quits_ = false;
};

}  // namespace larder::proxy
