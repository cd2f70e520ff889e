#include "keeper/keeper.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/growing_pause.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/cache_directory.h"
#include "handover/engine_user.h"
#include "handover/lines.h"
#include "handover/messages.h"
#include "handover/paths.h"
#include "handover/table.h"
#include "keeper/backing_ids.h"
#include "keeper/clients.h"
#include "keeper/daemons.h"
#include "keeper/engine_link.h"
#include "keeper/engine_process.h"
#include "keeper/lanes.h"
#include "keeper/log_file.h"
#include "keeper/mounts.h"
#include "keeper/runtime_directory.h"
#include "keeper/surroundings.h"
#include "os/poll_timeout.h"
#include "os/service_manager.h"

namespace larder::keeper {

namespace {

using handover::Message;
using handover::MessageKind;
using handover::RequestKind;
using std::chrono::milliseconds;

constexpr std::size_t kCacheLanes = 4;  // in which cache directories are opened
constexpr std::size_t kMostDetached = 64;
constexpr std::size_t kMessagesPerTurn = 64;  // of the engine, before others get their turn
constexpr int kLogInterval = 60'000;          // milliseconds: how often the log is looked at
constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kMostBackoff{30000};
constexpr std::chrono::seconds kHealthyLife{60};  // after that the next backoff is the first again
constexpr std::chrono::seconds kStopPatience{15};
constexpr unsigned kFuseMajor = 10;
constexpr unsigned kFuseMinor = 229;

bool is_fuse_device(const UniqueFd& descriptor) {
  struct stat status{};
  return ::fstat(descriptor.get(), &status) == 0 && S_ISCHR(status.st_mode) &&
         status.st_rdev == makedev(kFuseMajor, kFuseMinor);
}

// What it starts.
struct Programs {
  std::string engine;
  std::string daemon;  // "" when none is to run
};

// Owned by run_keeper, used on its thread only. Nothing here waits but poll(2).
class Keeper {
 public:
  Keeper(const KeeperOptions& options, RuntimeDirectory runtime, handover::EngineUser user,
         Programs programs, UniqueFd signals, UniqueFd wake)
      : hello_{options.runtime_directory, options.log_level, options.cache, options.cache_size},
        program_(std::move(programs.engine)),
        user_(user),
        runtime_(std::move(runtime)),
        signals_(std::move(signals)),
        wake_(std::move(wake)),
        daemons_(
            options.daemons,
            [this, daemon = std::move(programs.daemon)](const std::string& configuration) {
              return start_daemon(daemon, configuration, hello_.runtime_directory);
            },
            clock_,
            [this](std::string trouble) {
              trouble_ = std::move(trouble);
              tell_trouble();
            }) {}

  [[nodiscard]] Result<> start_engine();
  void run();

  [[nodiscard]] bool stuck() const { return lanes_->stuck(); }

  // Leaves the threads to the end of the process.
  void abandon_lanes() { [[maybe_unused]] const Lanes* const abandoned = lanes_.release(); }

 private:
  [[nodiscard]] Result<> make_tables();
  void turn();
  [[nodiscard]] int poll_timeout() const;
  void restart_engine_if_due();
  void on_engine_death();
  void hear_engine();
  void on_message(Message message);
  void on_ready(std::uint32_t mount_id);
  void on_failed(const Message& message);
  void on_unmounted(std::uint32_t mount_id);
  void on_backing_open(Message message);
  void on_backing_close(const Message& message);
  void on_open_cache(const Message& message);
  void on_detached(const Message& message);
  [[nodiscard]] bool may_be_a_cache(const std::string& path) const;
  void send_finished();
  void refuse(MessageKind kind, std::uint64_t request, int error_number, std::string text);

  [[nodiscard]] bool serve(Client& client, handover::ReceivedRequest received);
  [[nodiscard]] bool on_mount(Client& client, handover::ReceivedRequest received);
  [[nodiscard]] bool on_unmount(Client& client, std::uint32_t mount_id);
  void reply(const Client& client, const Error* why, std::uint32_t mount_id = 0) const;
  void answer_mount(std::uint32_t mount_id, const Error* why);
  void send_mount(std::uint32_t mount_id);
  void tell_trouble();
  void begin_stop(const char* why);

  [[nodiscard]] pid_t engine_pid() const { return engine_ ? engine_->pid() : 0; }

  handover::Hello hello_;  // of the next engine
  const std::string program_;
  const handover::EngineUser user_;
  const SteadyClock clock_;
  RuntimeDirectory runtime_;  // released when run() ends
  const LogFile log_file_{hello_.runtime_directory};
  const UniqueFd signals_;
  const UniqueFd wake_;
  std::unique_ptr<Lanes> lanes_ = std::make_unique<Lanes>(clock_, wake_.get());
  Mounts mounts_;
  Clients clients_;
  std::vector<UniqueFd> tables_;        // in the order of their kinds
  std::unique_ptr<EngineLink> engine_;  // null: dead, or not started yet
  Daemons daemons_;
  std::string trouble_;  // of the daemons
  std::uint64_t engines_started_ = 0;
  GrowingPause backoff_{kFirstBackoff, kMostBackoff};
  MonotonicTime restart_at_;
  std::optional<MonotonicTime> stop_until_;  // set: ending; then the engine is killed
  bool stop_now_ = false;
};

Result<> Keeper::make_tables() {
  std::size_t kind = 0;
  tables_.resize(handover::table_shapes().size());
  for (const handover::TableShape& shape : handover::table_shapes()) {
    UniqueFd& table = tables_[kind++];
    if (table.valid() && shape.outlives_engine) {
      continue;
    }
    table = TRY(handover::TableMemory::create(shape));
  }
  return {};
}

Result<> Keeper::start_engine() {
  TRY(make_tables());
  engine_ = TRY(EngineLink::start(++engines_started_, program_, user_, hello_,
                                  {tables_, runtime_.control_socket()}, clock_.now()));
  log_info("engine started, pid {}, uid {}", engine_->pid(), user_.uid);
  std::vector<std::uint32_t> waiting;
  for (const auto& [id, mount] : mounts_.all()) {
    waiting.push_back(id);
  }
  std::ranges::for_each(waiting, [this](std::uint32_t id) { send_mount(id); });
  if (!trouble_.empty()) {
    tell_trouble();
  }
  return {};
}

void Keeper::run() {
  while (!stop_now_) {
    turn();
  }
  runtime_.release();  // who was answered may ask or mount at once, and must not meet us
  clients_.answer_stop(engine_pid());
}

void Keeper::turn() {
  std::vector<pollfd> polled{{signals_.get(), POLLIN, 0},
                             {wake_.get(), POLLIN, 0},
                             {runtime_.keeper_socket().get(), POLLIN, 0},
                             {engine_ ? engine_->pidfd() : -1, POLLIN, 0},
                             {engine_ ? engine_->channel() : -1, POLLIN, 0}};
  if (engine_ && engine_->wants_to_send()) {
    polled[4].events |= POLLOUT;
  }
  daemons_.append_to(polled);
  const std::size_t first_client = polled.size();
  clients_.append_to(polled);
  ::poll(polled.data(), polled.size(), poll_timeout());
  signalfd_siginfo signal{};
  if (polled[0].revents != 0 && ::read(signals_.get(), &signal, sizeof signal) == sizeof signal) {
    begin_stop("a signal");
  }
  if (polled[1].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto length = ::read(wake_.get(), &count, sizeof count);
  }
  clients_.hear(polled.data() + first_client,
                [this](Client& client, handover::ReceivedRequest received) {
                  return serve(client, std::move(received));
                });
  if (polled[2].revents != 0) {
    clients_.accept(runtime_.keeper_socket());
  }
  if (engine_ && polled[4].revents != 0) {
    hear_engine();
  }
  send_finished();
  if (polled[3].revents != 0) {
    on_engine_death();
  }
  restart_engine_if_due();
  daemons_.turn();
  log_file_.bound();
}

int Keeper::poll_timeout() const {
  if (lanes_->waiting() || stop_until_) {
    return 500;
  }
  std::optional<MonotonicTime> due = daemons_.due();
  if (!engine_) {
    due = std::min(due.value_or(restart_at_), restart_at_);
  }
  if (!due) {
    return log_file_.ours() ? kLogInterval : -1;
  }
  return std::min(os::poll_timeout(*due - clock_.now()), kLogInterval);
}

void Keeper::restart_engine_if_due() {
  if (stop_until_) {
    if (!engine_) {
      stop_now_ = true;
    } else if (clock_.now() >= *stop_until_) {
      stop_until_ = clock_.now() + kStopPatience;
      engine_->kill("did not end when it was told to");
    }
    return;
  }
  if (engine_ || clock_.now() < restart_at_) {
    return;
  }
  if (const Result<> started = start_engine(); !started) {
    log_error("{}", started.error().message());
    restart_at_ = clock_.now() + backoff_.take();
  }
}

void Keeper::on_engine_death() {
  const std::string how = engine_->reap();
  if (clock_.now() - engine_->started() >= kHealthyLife) {
    backoff_.reset();
  }
  restart_at_ = clock_.now() + backoff_.next();
  if (stop_until_) {
    log_info("engine (pid {}) {}", engine_->pid(), how);
  } else {
    log_error("engine (pid {}) {}: {} mounts end, the next engine starts in {} ms", engine_->pid(),
              how, mounts_.all().size(), backoff_.take().count());
  }
  engine_.reset();
  const Error why(Errc::kIo, fmt::format("the engine {}: {} may tell why", how, log_file_.place()));
  for (const auto& [id, mount] : mounts_.all()) {
    answer_mount(id, &why);
  }
  for (const std::string& sentence : mounts_.end_all(clock_.now())) {
    log_error("{}", sentence);
  }
}

// ---- The engine's messages

void Keeper::hear_engine() {
  engine_->flush();
  for (std::size_t i = 0; i < kMessagesPerTurn && engine_->channel() >= 0; ++i) {
    std::optional<Message> message = engine_->receive();
    if (!message) {
      return;
    }
    on_message(std::move(*message));
  }
}

void Keeper::on_message(Message message) {
  switch (message.head.kind) {
    case MessageKind::kReady:
      return on_ready(message.head.mount_id);
    case MessageKind::kFailed:
      return on_failed(message);
    case MessageKind::kUnmounted:
      return on_unmounted(message.head.mount_id);
    case MessageKind::kBackingOpen:
      return on_backing_open(std::move(message));
    case MessageKind::kBackingClose:
      return on_backing_close(message);
    case MessageKind::kOpenCache:
      return on_open_cache(message);
    case MessageKind::kDetached:
    case MessageKind::kAttached:
      return on_detached(message);
    case MessageKind::kStopping:
      log_info("engine (pid {}) is ending", engine_->pid());
      return;
    default:
      engine_->kill("sends messages that are the keeper's");
  }
}

void Keeper::on_ready(std::uint32_t mount_id) {
  if (HeldMount* const mount = mounts_.find(mount_id)) {
    mount->ready = true;
    log_info("mount {} is served", mount_id);
    answer_mount(mount_id, nullptr);
  }
}

void Keeper::on_failed(const Message& message) {
  if (mounts_.find(message.head.mount_id) == nullptr) {
    return;
  }
  mounts_.remove(message.head.mount_id);
  log_warning("mount {} failed: {}", message.head.mount_id, message.text);
  const Error why = handover::received_error(message.head.error_number, message.text);
  answer_mount(message.head.mount_id, &why);
}

void Keeper::on_unmounted(std::uint32_t mount_id) {
  if (mounts_.find(mount_id) == nullptr) {
    return;
  }
  mounts_.remove(mount_id);
  log_info("mount {} was unmounted", mount_id);
  const Error why(Errc::kCancelled, "it was unmounted before the engine served it");
  answer_mount(mount_id, &why);
}

void Keeper::on_backing_open(Message message) {
  const HeldMount* const mount = mounts_.find(message.head.mount_id);
  struct stat status{};
  if (mount == nullptr || ::fstat(message.descriptors.front().get(), &status) != 0) {
    return refuse(MessageKind::kBackingOpened, message.head.request, ENODEV, "");
  }
  Job job = open_backing_job(mount->fuse, std::move(message.descriptors.front()));
  job.engine = engine_->number();
  job.reply.head.kind = MessageKind::kBackingOpened;
  job.reply.head.request = message.head.request;
  job.reply.head.mount_id = message.head.mount_id;
  if (!lanes_->post(fmt::format("disk-{}", status.st_dev), std::move(job))) {
    refuse(MessageKind::kBackingOpened, message.head.request, EBUSY, "");
  }
}

void Keeper::on_backing_close(const Message& message) {
  HeldMount* const mount = mounts_.find(message.head.mount_id);
  if (mount == nullptr) {
    return;  // the ids went with the mount
  }
  const auto node = mount->lane_of_backing.extract(message.head.backing_id);
  if (node.empty()) {
    log_warning("the engine closes backing id {} of mount {}, which it does not have",
                message.head.backing_id, message.head.mount_id);
    return;
  }
  if (!lanes_->post(node.mapped(), close_backing_job(mount->fuse, message.head.backing_id))) {
    log_warning("backing id {} stays open: the disk does not keep up", message.head.backing_id);
  }
}

void Keeper::on_open_cache(const Message& message) {
  if (!may_be_a_cache(message.text)) {
    return refuse(MessageKind::kCacheOpened, message.head.request, EACCES,
                  fmt::format("no mount names {} as its cache: let one name it, or `larder serve "
                              "--cache`, or give its descriptor with `dir`",
                              message.text.substr(0, 500)));
  }
  Job job;
  job.engine = engine_->number();
  job.reply.head.kind = MessageKind::kCacheOpened;
  job.reply.head.request = message.head.request;
  job.work = [path = message.text, user = user_](Message& answer) {
    Result<UniqueFd> directory = handover::open_cache_directory(path, user);
    if (directory) {
      answer.descriptors.push_back(std::move(*directory));
    } else {
      answer.head.error_number = directory.error().error_number();
      answer.text = directory.error().message().substr(0, handover::kMostSentenceBytes);
    }
  };
  // A disk that hangs holds up few others: by its path it has one of some lanes.
  const std::size_t lane = std::hash<std::string>{}(message.text) % kCacheLanes;
  if (!lanes_->post(fmt::format("cache-open-{}", lane), std::move(job))) {
    refuse(MessageKind::kCacheOpened, message.head.request, EBUSY, "too many caches are opened");
  }
}

void Keeper::on_detached(const Message& message) {
  std::erase(hello_.detached, message.text);
  if (message.head.kind == MessageKind::kDetached && hello_.detached.size() < kMostDetached) {
    hello_.detached.push_back(message.text);
  }
}

// The engine talks to the network; what it may have opened and given to it by root is only what
// root named in a mount.
bool Keeper::may_be_a_cache(const std::string& path) const {
  return path == handover::kDefaultCacheDirectory || path == hello_.cache ||
         std::ranges::any_of(mounts_.all(), [&path](const auto& entry) {
           return handover::has_line(entry.second.spec, "cache", path);
         });
}

void Keeper::send_finished() {
  for (Finished& finished : lanes_->take_finished()) {
    const handover::MessageHead& head = finished.reply.head;
    HeldMount* const mount = mounts_.find(head.mount_id);
    const bool opened = head.kind == MessageKind::kBackingOpened && head.error_number == 0;
    if (mount != nullptr && opened) {
      mount->lane_of_backing.emplace(head.backing_id, finished.lane);
    }
    if (engine_ && engine_->number() == finished.engine) {
      engine_->send(std::move(finished.reply));
    }
  }
}

void Keeper::refuse(MessageKind kind, std::uint64_t request, int error_number, std::string text) {
  Message message;
  message.head.kind = kind;
  message.head.request = request;
  message.head.error_number = error_number;
  message.text = std::move(text);
  engine_->send(std::move(message));
}

// ---- Clients

// False: the connection is over.
bool Keeper::serve(Client& client, handover::ReceivedRequest received) {
  switch (received.request.kind) {
    case RequestKind::kMount:
      return on_mount(client, std::move(received));
    case RequestKind::kUnmount:
      return on_unmount(client, received.request.mount_id);
    case RequestKind::kStop:
      client.awaits_stop = true;
      begin_stop("a request");
      return true;
    case RequestKind::kPids:
      reply(client, nullptr);
      return false;
  }
  return false;
}

bool Keeper::on_mount(Client& client, handover::ReceivedRequest received) {
  const std::string spec(spec_of(received.request));
  std::optional<Error> refusal;
  if (!is_fuse_device(received.descriptor)) {
    refusal = Error(Errc::kInvalid, "the descriptor that came with the mount is not /dev/fuse");
  } else if (stop_until_) {
    refusal = Error(Errc::kBusy, "the keeper is ending: try again in a moment");
  } else if (mounts_.full()) {
    refusal =
        Error(Errc::kNoSpace, fmt::format("there are {} mounts already", Mounts::kMostMounts));
  } else if (const Duration parked = mounts_.parked_for(spec, clock_.now());
             parked > Duration::zero()) {
    refusal = Error(
        Errc::kBusy,
        fmt::format("this mount is parked for {} more minutes, because the engine died {} times "
                    "under it: see {}; after `larder stop` it can be mounted at once",
                    std::chrono::ceil<std::chrono::minutes>(parked).count(), Mounts::kMostDeaths,
                    log_file_.place()));
  }
  if (refusal) {
    reply(client, &*refusal);
    return false;
  }
  HeldMount mount;
  mount.spec = spec;
  mount.device = received.request.device;
  mount.fuse = std::make_shared<const UniqueFd>(std::move(received.descriptor));
  client.awaited_mount = mounts_.add(std::move(mount));
  if (engine_) {
    send_mount(client.awaited_mount);
  }
  return true;
}

void Keeper::send_mount(std::uint32_t mount_id) {
  const HeldMount& mount = *mounts_.find(mount_id);
  Message message;
  message.head.kind = MessageKind::kTakeMount;
  message.head.mount_id = mount_id;
  message.head.device = mount.device;
  message.text = mount.spec;
  message.descriptors.emplace_back(::fcntl(mount.fuse->get(), F_DUPFD_CLOEXEC, 0));
  if (message.descriptors.back().valid()) {
    engine_->send(std::move(message));
    return;
  }
  const Error why = Error::from_errno(errno, "the keeper has no descriptor left for the mount");
  answer_mount(mount_id, &why);
  mounts_.remove(mount_id);
}

void Keeper::tell_trouble() {
  if (engine_) {
    Message message;
    message.head.kind = MessageKind::kTrouble;
    message.text = trouble_.substr(0, handover::kMostSpecBytes);
    engine_->send(std::move(message));
  }
}

bool Keeper::on_unmount(Client& client, std::uint32_t mount_id) {
  if (mounts_.find(mount_id) == nullptr) {
    const Error why(Errc::kNotFound, fmt::format("there is no mount {}", mount_id));
    reply(client, &why);
    return false;
  }
  if (engine_) {
    Message message;
    message.head.kind = MessageKind::kReleaseMount;
    message.head.mount_id = mount_id;
    engine_->send(std::move(message));
  } else {
    mounts_.remove(mount_id);
  }
  reply(client, nullptr, mount_id);
  return false;
}

void Keeper::reply(const Client& client, const Error* why, std::uint32_t mount_id) const {
  reply_to(client, why, mount_id, engine_pid());
}

void Keeper::answer_mount(std::uint32_t mount_id, const Error* why) {
  clients_.answer_mount(mount_id, why, engine_pid());
}

void Keeper::begin_stop(const char* why) {
  if (stop_until_) {
    return;
  }
  log_info("ending, because of {}", why);
  os::notify_service_manager("STOPPING=1");
  stop_until_ = clock_.now() + kStopPatience;
  daemons_.end_all();
  if (engine_) {
    Message message;
    message.head.kind = MessageKind::kStop;
    engine_->send(std::move(message));
  }
}

}  // namespace

Result<> run_keeper(const KeeperOptions& options) {
  if (::geteuid() != 0) {
    return fail(Errc::kPermission, "the keeper must be started by root");
  }
  if (!options.runtime_directory.starts_with('/')) {
    return fail(Errc::kInvalid, fmt::format("the runtime directory {} is not an absolute path",
                                            options.runtime_directory));
  }
  ::umask(077);
  raise_descriptor_limit();
  Programs programs{options.engine_program, {}};
  if (programs.engine.empty()) {
    programs.engine = TRY(find_engine_program());
  }
  if (!options.daemons.empty()) {
    programs.daemon = TRY(find_daemon_program());
  }
  const handover::EngineUser user = TRY(handover::find_engine_user());
  UniqueFd signals = TRY(watch_signals());
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    return fail_errno(errno, "eventfd");
  }
  RuntimeDirectory runtime = TRY(RuntimeDirectory::claim(options.runtime_directory));
  Keeper keeper(options, std::move(runtime), user, std::move(programs), std::move(signals),
                std::move(wake));
  TRY(keeper.start_engine());
  os::notify_service_manager("READY=1");
  if (options.on_started) {
    options.on_started();
  }
  keeper.run();
  if (keeper.stuck()) {
    keeper.abandon_lanes();
  }
  return {};
}

}  // namespace larder::keeper
