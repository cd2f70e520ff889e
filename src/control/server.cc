#include "control/server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/cache_session.h"
#include "control/line_codec.h"
#include "control/mailbox.h"
#include "os/packet_socket.h"
#include "os/poll_timeout.h"

namespace larder::control {

namespace {

// kService: root, and the user that this process runs as.
enum class Who : std::uint8_t { kEveryone, kRoot, kService };
using enum Who;

struct Command {
  std::string_view name;
  std::string_view syntax;
  std::string_view help;
  std::size_t fewest;
  std::size_t most;
  Who who;
};

constexpr auto kCommands = std::to_array<Command>({
#define COMMAND(name, syntax, help, fewest, most, who) {name, syntax, help, fewest, most, who},
#include "control/commands.def"
#undef COMMAND
});

// The most that the user may be.
Who who_is(uid_t uid) {
  return uid == 0 ? kRoot : uid == ::getuid() ? kService : kEveryone;
}

// Who may give a command that not everybody may.
std::string_view name_of(Who who) {
  return who == kRoot ? "root" : "root and the engine's user";
}

Result<const Command*> find_command(const std::vector<std::string>& words, uid_t uid) {
  const auto* const command = std::ranges::find(kCommands, words.front(), &Command::name);
  if (command == kCommands.end()) {
    return fail(Errc::kInvalid, fmt::format("unknown command \"{}\": help lists them all",
                                            words.front().substr(0, 100)));
  }
  const std::size_t arguments = words.size() - 1;
  if (arguments < command->fewest || arguments > command->most) {
    return fail(Errc::kInvalid,
                fmt::format("{0} with {1} arguments: write {0}{2}{3}", command->name, arguments,
                            command->syntax.empty() ? "" : " ", command->syntax));
  }
  const Who who = who_is(uid);
  if (command->who != kEveryone && who != kRoot && who != command->who) {
    return fail(Errc::kPermission,
                fmt::format("{} is for {} only", command->name, name_of(command->who)));
  }
  return command;
}

}  // namespace

Responder::~Responder() {
  if (mailbox_) {
    answer(fail(Errc::kCancelled, "the engine gave no answer: it is ending"));
  }
}

void Responder::answer(Result<std::string> body) {
  std::exchange(mailbox_, nullptr)
      ->put({connection_,
             dialect_ == Dialect::kText ? encode_reply(body)
                                        : std::vector{encode_channel_packet(channel_reply(body))},
             std::nullopt, false});
}

void StatePusher::hang_up() const {
  mailbox_->put({connection_, {}, std::nullopt, true});
}

void StatePusher::push(const CacheState& state) const {
  mailbox_->put({connection_, {}, state, false});
}

namespace {

// Wakes the server's thread.
class WakingMailbox final : public Mailbox {
 public:
  explicit WakingMailbox(UniqueFd wake) : wake_(std::move(wake)) {}

  void put(Letter letter) override EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      letters_.push_back(std::move(letter));
    }
    ring();
  }

  // In the order in which they were put.
  std::vector<Letter> take() EXCLUDES(mutex_) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto length = ::read(wake_.get(), &count, sizeof count);
    const MutexLock lock(mutex_);
    return std::exchange(letters_, {});
  }

  void stop() EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    ring();
  }

  [[nodiscard]] bool stopping() const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return stopping_;
  }

  [[nodiscard]] int wake_descriptor() const { return wake_.get(); }

 private:
  void ring() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
  }

  const UniqueFd wake_;
  mutable Mutex mutex_{LockRank::kChannel};
  std::vector<Letter> letters_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
};

struct Connection {
  std::uint64_t id = 0;
  UniqueFd socket;
  os::PeerCredentials peer;
  MonotonicTime due;  // until then it asks, or reads its reply
  bool busy = false;  // a request is being worked on
  std::deque<std::string> outgoing;
  std::unique_ptr<CacheSession> session;  // it is a cache channel
  std::optional<CacheState> state;        // to be sent behind the rest

  [[nodiscard]] bool is_channel() const { return session != nullptr; }

  [[nodiscard]] bool has_time_limit() const { return !busy && !is_channel(); }
};

void send_state_next(Connection& connection) {
  if (const std::optional<CacheState> state = std::exchange(connection.state, std::nullopt)) {
    connection.outgoing.push_back(
        encode_channel_packet({ChannelPacket::Kind::kState, 0, encode_cache_state(*state)}));
  }
}

class PacketServer final : public Server {
 public:
  PacketServer(UniqueFd listener, UniqueFd wake, Handlers handlers, const Clock& clock,
               OpenSession open_session)
      : listener_(std::move(listener)),
        handlers_(std::move(handlers)),
        open_session_(std::move(open_session)),
        clock_(clock),
        mailbox_(std::make_shared<WakingMailbox>(std::move(wake))),
        thread_("control", [this] { run(); }) {}

  PacketServer(const PacketServer&) = delete;
  PacketServer& operator=(const PacketServer&) = delete;

  ~PacketServer() override {
    mailbox_->stop();
    thread_.join();
  }

 private:
  void run() {
    while (!mailbox_->stopping()) {
      turn();
    }
    connections_.clear();
  }

  void turn();
  [[nodiscard]] int poll_timeout() const;
  void accept_all();
  // False: there is no place for it.
  [[nodiscard]] bool make_room(uid_t uid);
  // False: the connection is over.
  [[nodiscard]] bool receive(Connection& connection);
  void execute(Connection& connection, std::string_view line);
  void open_channel(Connection& connection, Responder responder);
  static void execute_for_cache(Connection& connection, std::string_view packet,
                                std::vector<UniqueFd> descriptors, Responder responder);
  [[nodiscard]] bool flush(Connection& connection);
  [[nodiscard]] Responder responder_of(const Connection& connection) const;
  void deliver();
  void post(Connection& connection, Letter letter);

  void extend(Connection& connection) { connection.due = clock_.now() + kPatience; }

  const UniqueFd listener_;
  const Handlers handlers_;
  const OpenSession open_session_;
  const Clock& clock_;
  const std::shared_ptr<WakingMailbox> mailbox_;
  std::list<Connection> connections_;  // oldest first; the thread's
  std::uint64_t last_id_ = 0;
  Thread thread_;  // last: it uses the members above
};

void PacketServer::turn() {
  std::vector<pollfd> polled{{mailbox_->wake_descriptor(), POLLIN, 0},
                             {listener_.get(), POLLIN, 0}};
  for (const Connection& connection : connections_) {
    // A busy one is only watched for its end.
    const bool may_ask = !connection.busy && connection.outgoing.empty();
    const int events = connection.outgoing.empty() ? (may_ask ? POLLIN : 0) : POLLOUT;
    polled.push_back({connection.socket.get(), static_cast<short>(events), 0});
  }
  ::poll(polled.data(), polled.size(), poll_timeout());
  std::size_t index = 2;
  for (auto at = connections_.begin(); at != connections_.end();) {
    const int events = polled[index++].revents;
    bool keep = (events & (POLLERR | POLLHUP | POLLNVAL)) == 0 || (events & POLLIN) != 0;
    keep = keep && ((events & POLLIN) == 0 || receive(*at));
    keep = keep && ((events & POLLOUT) == 0 || flush(*at));
    keep = keep && (!at->has_time_limit() || at->due > clock_.now());
    at = keep ? std::next(at) : connections_.erase(at);
  }
  if (polled[1].revents != 0) {
    accept_all();
  }
  deliver();
}

int PacketServer::poll_timeout() const {
  std::optional<Duration> left;
  for (const Connection& connection : connections_) {
    if (connection.has_time_limit()) {
      const Duration until = connection.due - clock_.now();
      left = std::min(left.value_or(until), until);
    }
  }
  return os::poll_timeout(left);
}

void PacketServer::accept_all() {
  while (Result<UniqueFd> socket = os::accept_for_packets(listener_)) {
    const Result<os::PeerCredentials> peer = os::peer_of(*socket);
    if (!peer) {
      continue;
    }
    Connection connection;
    connection.id = ++last_id_;
    connection.socket = std::move(*socket);
    connection.peer = *peer;
    extend(connection);
    if (make_room(peer->uid)) {
      connections_.push_back(std::move(connection));
    }
  }
}

// Where its user has no place left, a new connection takes that of the user's oldest, of one that
// waits for nothing if there is such a one. A channel is a cache online: it gives way to nobody.
bool PacketServer::make_room(uid_t uid) {
  const Who who = who_is(uid);
  const auto is_own = [uid](const Connection& other) {
    return !other.is_channel() && other.peer.uid == uid;
  };
  const auto is_alike = [who](const Connection& other) {
    return !other.is_channel() && who_is(other.peer.uid) == who;
  };
  const auto count = [this](const auto& kind) {
    return static_cast<std::size_t>(std::ranges::count_if(connections_, kind));
  };
  if (count(is_alike) < kMostConnections &&
      (who == kRoot || count(is_own) < kMostConnectionsPerUser)) {
    return true;
  }
  auto victim = std::ranges::find_if(
      connections_, [&is_own](const Connection& other) { return is_own(other) && !other.busy; });
  if (victim == connections_.end()) {
    victim = std::ranges::find_if(connections_, is_own);
  }
  if (victim == connections_.end()) {
    return false;
  }
  connections_.erase(victim);
  return true;
}

bool PacketServer::receive(Connection& connection) {
  std::array<std::byte, kMostChannelPacketBytes + 1> buffer{};
  Result<os::Packet> packet = os::receive_packet(connection.socket, buffer, os::Wait::kNo);
  if (!packet) {
    if (packet.error().code() == Errc::kBusy) {
      return true;
    }
    if (packet.error().code() == Errc::kCorrupt) {
      // Never busy: the answer comes with the next turn.
      connection.busy = true;
      responder_of(connection).answer(fail(Errc::kNotSupported, "the request is too long"));
      return true;
    }
    return false;
  }
  connection.busy = true;
  const std::string_view text = text_of(Bytes(buffer).first(packet->length));
  if (connection.is_channel()) {
    execute_for_cache(connection, text, std::move(packet->descriptors), responder_of(connection));
  } else {
    execute(connection, text);
  }
  return true;
}

Responder PacketServer::responder_of(const Connection& connection) const {
  return {mailbox_, connection.id,
          connection.is_channel() ? Responder::Dialect::kChannel : Responder::Dialect::kText};
}

void PacketServer::execute_for_cache(Connection& connection, std::string_view packet,
                                     std::vector<UniqueFd> descriptors, Responder responder) {
  Result<CacheCommand> command = parse_cache_command(packet);
  if (!command) {
    return responder.answer(fail(command.error()));
  }
  connection.session->execute(std::move(*command), std::move(descriptors), std::move(responder));
}

// From the next packet on; this is still answered as text.
void PacketServer::open_channel(Connection& connection, Responder responder) {
  const auto channels = std::ranges::count_if(
      connections_, [](const Connection& other) { return other.is_channel(); });
  if (!open_session_ || std::cmp_greater_equal(channels, kMostChannels)) {
    return responder.answer(
        fail(Errc::kBusy, fmt::format("there are {} cache channels: no more", channels)));
  }
  connection.session = open_session_(connection.peer, StatePusher(mailbox_, connection.id));
  responder.answer(std::string());
}

void PacketServer::execute(Connection& connection, std::string_view line) {
  Responder responder = responder_of(connection);
  if (line.size() > kMostLineBytes) {
    return responder.answer(fail(Errc::kInvalid, "the request is too long"));
  }
  Result<std::vector<std::string>> words = decode_line(line);
  if (!words) {
    return responder.answer(fail(words.error()));
  }
  const Result<const Command*> command = find_command(*words, connection.peer.uid);
  if (!command) {
    return responder.answer(fail(command.error()));
  }
  if ((*command)->name == "help") {
    return responder.answer(help_text());
  }
  if ((*command)->name == "cache") {
    return open_channel(connection, std::move(responder));
  }
  const auto handler = handlers_.find((*command)->name);
  if (handler == handlers_.end()) {
    return responder.answer(
        fail(Errc::kNotSupported, fmt::format("this engine does not know {}", (*command)->name)));
  }
  words->erase(words->begin());
  handler->second({std::move(*words), connection.peer}, std::move(responder));
}

bool PacketServer::flush(Connection& connection) {
  while (!connection.outgoing.empty()) {
    std::string& packet = connection.outgoing.front();
    const iovec part{packet.data(), packet.size()};
    const Result<> sent =
        os::send_packet(connection.socket, std::span(&part, 1), {}, os::Wait::kNo);
    if (!sent) {
      return sent.error().code() == Errc::kBusy;
    }
    connection.outgoing.pop_front();
    extend(connection);
    if (connection.outgoing.empty()) {
      send_state_next(connection);
    }
  }
  return true;
}

void PacketServer::deliver() {
  for (Letter& letter : mailbox_->take()) {
    const auto connection = std::ranges::find(connections_, letter.connection, &Connection::id);
    if (connection == connections_.end()) {
      continue;  // it hung up
    }
    const bool over = letter.closes;
    post(*connection, std::move(letter));
    if (over || !flush(*connection)) {
      connections_.erase(connection);
    }
  }
}

// What is sent tells the order in which it was true.
void PacketServer::post(Connection& connection, Letter letter) {
  if (letter.closes) {
    return;
  }
  if (letter.state) {
    if (connection.state) {
      add_released(*letter.state, *connection.state);
    }
    connection.state = letter.state;
    if (connection.outgoing.empty()) {
      send_state_next(connection);
    }
    return;
  }
  send_state_next(connection);
  std::ranges::move(letter.packets, std::back_inserter(connection.outgoing));
  connection.busy = false;
  extend(connection);
}

}  // namespace

Result<std::unique_ptr<Server>> Server::start(UniqueFd listener, Handlers handlers,
                                              const Clock& clock, OpenSession open_session) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    return fail_errno(errno, "eventfd");
  }
  return std::make_unique<PacketServer>(std::move(listener), std::move(wake), std::move(handlers),
                                        clock, std::move(open_session));
}

std::string help_text() {
  std::string text;
  for (const Command& command : kCommands) {
    const std::string usage =
        fmt::format("{}{}{}", command.name, command.syntax.empty() ? "" : " ", command.syntax);
    text += fmt::format("{:26}{}", usage, command.help);
    text += command.who == kEveryone ? "\n" : fmt::format(" ({} only)\n", name_of(command.who));
  }
  return text;
}

}  // namespace larder::control
