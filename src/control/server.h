// Server: answers the commands of control.sock.
//
// Anybody on the machine may connect, so nothing that a client does may cost the engine more than a
// slot of a short table: requests are short, one at a time per connection; who does not read its
// reply, or says nothing, loses the connection after a while. Root, the user that this process runs
// as, everybody else and the cache channels have places of their own, which the others cannot fill.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/mailbox.h"
#include "os/packet_socket.h"

namespace larder::control {

struct Request {
  std::vector<std::string> arguments;
  os::PeerCredentials peer;  // root, where commands.def says so
};

class CacheSession;
class Responder;
class StatePusher;

// Called on the server's thread, so it must not wait: what takes time keeps the responder and
// answers later, from any thread.
using Handler = std::function<void(const Request& request, Responder responder)>;

// By name of the command. Those of commands.def that are missing here are answered with a sentence;
// "help" is the server's own.
using Handlers = std::map<std::string, Handler, std::less<>>;

// Makes the session of a connection that becomes a cache channel; on the server's thread.
using OpenSession =
    std::function<std::unique_ptr<CacheSession>(const os::PeerCredentials& peer, StatePusher push)>;

// Threads: made and destroyed by the owner. Life: the destructor closes every connection and joins;
// responders may outlive the server, their answers are dropped then.
class Server {
 public:
  // Of root, and once more of all users that are neither root nor ours. Without cache channels.
  static constexpr std::size_t kMostConnections = 64;
  static constexpr std::size_t kMostConnectionsPerUser = 16;  // other than root
  static constexpr std::size_t kMostChannels = 16;            // for caches, beside the others
  static constexpr std::chrono::seconds kPatience{30};        // with a client that is due

  // `listener` does not block and may be shared with others. `clock` outlives the server. Without
  // `open_session` there are no cache channels.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(UniqueFd listener, Handlers handlers,
                                                             const Clock& clock,
                                                             OpenSession open_session = {});

  Server() = default;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  virtual ~Server() = default;
};

// The one answer to a request. Life: destroyed unused, it answers that there is no answer.
class Responder {
 public:
  // How an answer is written.
  enum class Dialect : std::uint8_t { kText, kChannel };

  Responder(std::shared_ptr<Mailbox> mailbox, std::uint64_t connection, Dialect dialect)
      : mailbox_(std::move(mailbox)), connection_(connection), dialect_(dialect) {}

  Responder(Responder&& other) noexcept = default;
  Responder& operator=(Responder&& other) noexcept = default;
  Responder(const Responder&) = delete;
  Responder& operator=(const Responder&) = delete;
  ~Responder();

  // Once. The error's context is what the person is told.
  void answer(Result<std::string> body);

 private:
  std::shared_ptr<Mailbox> mailbox_;
  std::uint64_t connection_;
  Dialect dialect_;
};

// What "help" says: a line for each command.
[[nodiscard]] std::string help_text();

}  // namespace larder::control
