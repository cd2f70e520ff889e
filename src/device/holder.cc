#include "device/holder.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <poll.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/channel_client.h"
#include "device/command.h"
#include "device/working_directory.h"
#include "os/filesystem.h"

namespace larder::device {
namespace {

using control::CacheCommand;
using control::CacheState;
using control::CacheVerb;
using control::ChannelPacket;

constexpr std::size_t kMostNameBytes = 255;

std::unexpected<Error> refuse(int error_number) {
  return fail_errno(error_number, "refused");
}

// Of those that a holder of the kernel's device knows.
int kernels_errno(int error_number) {
  return error_number == EMEDIUMTYPE ? EINVAL : error_number;
}

// What a kernel's cull and inuse say of anything else is EIO.
int kernels_cull_errno(int error_number) {
  return error_number == EBUSY || error_number == ENOENT || error_number == ESTALE ||
                 error_number == ENOMEM
             ? error_number
             : EIO;
}

bool is_new(const std::optional<CacheState>& pushed, bool culling) {
  return pushed && (pushed->culling != culling || pushed->released_files > 0);
}

Result<std::unique_ptr<os::Directory>> look_into(const UniqueFd& directory) {
  UniqueFd copy(::fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return fail_errno(errno, "dup");
  }
  return os::adopt_directory(std::move(copy));
}

// An object, or the errno with which a cull of it ends already.
struct Victim {
  WorkingPlace place;
  os::NodeType type = os::NodeType::kFile;
};

Result<Victim> find_victim(const std::string& name, UniqueFd standing, os::Directory& root) {
  Result<WorkingPlace> place = find_place(std::move(standing), root);
  if (!place) {
    log_debug("a cull of {}: {}", name, place.error().message());
    return refuse(EIO);
  }
  if (place->kind == PlaceKind::kDead) {
    return refuse(ESTALE);
  }
  const Result<os::FileStat> found = place->directory->stat(name);
  if (!found) {
    return refuse(kernels_cull_errno(found.error().error_number()));
  }
  if (place->kind == PlaceKind::kAbove) {
    return refuse(EBUSY);
  }
  return Victim{std::move(*place), found->type};
}

}  // namespace

Holder::~Holder() {
  if (running_ != nullptr) {
    finish(refuse(EINTR));
  }
  while (!queue_.empty()) {
    Request request = std::move(queue_.front());
    queue_.pop_front();
    request.done(refuse(EINTR));
  }
}

void Holder::open(Ticket ticket, Done done) {
  add({Kind::kOpen, ticket, 0, {}, 0, std::move(done)});
}

void Holder::write(Ticket ticket, std::uint32_t pid, std::string text, Done done) {
  add({Kind::kWrite, ticket, pid, std::move(text), 0, std::move(done)});
}

void Holder::read(Ticket ticket, std::size_t most_bytes, Done done) {
  add({Kind::kRead, ticket, 0, {}, most_bytes, std::move(done)});
}

bool Holder::cancel(Ticket ticket) {
  if (running_ != nullptr && running_->request.done && running_->request.ticket == ticket) {
    std::exchange(running_->request.done, {})(refuse(EINTR));
    return true;
  }
  const auto waiting = std::ranges::find(queue_, ticket, &Request::ticket);
  if (waiting == queue_.end()) {
    return false;
  }
  Done done = std::move(waiting->done);
  queue_.erase(waiting);
  done(refuse(EINTR));
  return true;
}

bool Holder::waits(Ticket ticket) const {
  return (running_ != nullptr && running_->request.done && running_->request.ticket == ticket) ||
         std::ranges::find(queue_, ticket, &Request::ticket) != queue_.end();
}

unsigned Holder::events() const {
  if (gone_) {
    return POLLIN | POLLERR;
  }
  const std::optional<CacheState> pushed = client_ != nullptr ? client_->pushed() : std::nullopt;
  const bool culling = pushed ? pushed->culling : culling_;
  return (is_new(pushed, culling_) ? unsigned{POLLIN} : 0U) | (culling ? unsigned{POLLOUT} : 0U);
}

void Holder::on_readable() {
  while (client_ != nullptr) {
    if (running_ != nullptr && !sent_) {
      go_on();  // it has waited for the channel
      if (!sent_) {
        break;
      }
    }
    Result<std::optional<ChannelPacket>> received = client_->receive();
    if (!received) {
      lose(received.error());
      break;
    }
    std::optional<ChannelPacket>& answer = *received;
    if (!answer) {
      break;
    }
    on_answer(std::move(*answer));
  }
  work();
}

void Holder::add(Request request) {
  queue_.push_back(std::move(request));
  work();
}

void Holder::work() {
  while (running_ == nullptr && !queue_.empty()) {
    Request request = std::move(queue_.front());
    queue_.pop_front();
    start(std::move(request));
  }
}

void Holder::start(Request request) {
  if (gone_) {
    return request.done(refuse(EIO));
  }
  switch (request.kind) {
    case Kind::kOpen:
      return ask(std::move(request), {}, [](const std::string&) { return std::string(); }, {});
    case Kind::kRead:
      return start_read(std::move(request));
    case Kind::kWrite:
      return start_write(std::move(request));
  }
}

void Holder::ask(Request request, std::deque<Step> steps, AtEnd at_end, AtRefusal at_refusal) {
  running_ = std::make_unique<Running>(
      Running{std::move(request), std::move(steps), std::move(at_end), std::move(at_refusal)});
  go_on();
}

void Holder::go_on() {
  if (client_ == nullptr) {
    Result<control::ChannelClient> client = surroundings_.connect();
    if (!client) {
      return lose(client.error());
    }
    client_ = std::make_unique<control::ChannelClient>(std::move(*client));
  }
  const Result<bool> opened = client_->opened();
  if (!opened) {
    return lose(opened.error());
  }
  if (!*opened) {
    return;
  }
  if (running_->steps.empty()) {  // a channel was all that was wanted
    return finish(running_->at_end({}));
  }
  const Step& step = running_->steps.front();
  const Result<> sent = client_->send(step.command, step.descriptor.get());
  if (!sent) {
    return lose(sent.error());
  }
  sent_ = true;
}

void Holder::on_answer(ChannelPacket answer) {
  sent_ = false;
  const Step step = std::move(running_->steps.front());
  running_->steps.pop_front();
  if (answer.kind == ChannelPacket::Kind::kError) {
    if (step.command.verb != CacheVerb::kCull && step.command.verb != CacheVerb::kInuse) {
      log_warning("{}: {}", name_of(step.command.verb), answer.text);
    }
    return finish(running_->at_refusal ? running_->at_refusal(answer.error_number)
                                       : refuse(kernels_errno(answer.error_number)));
  }
  if (!running_->steps.empty()) {
    return go_on();
  }
  finish(running_->at_end(std::move(answer.text)));
}

void Holder::finish(Result<std::string> result) {
  Done done = std::move(running_->request.done);
  running_.reset();
  if (done) {
    done(std::move(result));
  }
}

void Holder::lose(const Error& why) {
  log_warning("the engine's cache cannot be held: {}", why.message());
  client_.reset();
  sent_ = false;
  gone_ = true;
  if (running_ != nullptr) {
    finish(refuse(running_->request.kind == Kind::kOpen ? ENXIO : EIO));
  }
}

void Holder::start_read(Request request) {
  if (!bound_) {
    return request.done(std::string());
  }
  std::deque<Step> steps;
  steps.push_back({{CacheVerb::kState, {}, {}}, {}});
  const std::size_t most_bytes = request.most_bytes;
  ask(std::move(request), std::move(steps),
      [this, most_bytes](const std::string& body) { return state_line(body, most_bytes); }, {});
}

// As with the kernel, a line that does not fit counts as read.
Result<std::string> Holder::state_line(std::string_view answer, std::size_t most_bytes) {
  Result<CacheState> state = client_->take_state(answer);
  if (!state) {
    return refuse(EIO);
  }
  culling_ = state->culling;
  state->block_bytes = 0;  // the kernel's keys alone
  std::string line = control::encode_cache_state(*state);
  if (line.size() > most_bytes) {
    return refuse(EMSGSIZE);
  }
  return line;
}

void Holder::start_write(Request request) {
  Result<CacheCommand> command = parse_write(request.text);
  if (!command) {
    return request.done(fail(command.error()));
  }
  switch (command->verb) {
    case CacheVerb::kBind:
      return start_bind(std::move(request), command->argument);
    case CacheVerb::kCull:
    case CacheVerb::kInuse:
      return start_cull(std::move(request), *command);
    case CacheVerb::kDebug:
    case CacheVerb::kSecctx:
      return start_telling(std::move(request), std::move(*command));
    default:
      return request.done(set(*command));
  }
}

Result<std::string> Holder::set(const CacheCommand& command) {
  TRY(settings_.set(command));
  return "";
}

// What the engine has to say itself.
void Holder::start_telling(Request request, CacheCommand command) {
  if (command.verb == CacheVerb::kDebug) {
    const Result<std::uint64_t> mask = parse_mask(command.argument);
    if (!mask) {
      return request.done(fail(mask.error()));
    }
    command.argument = std::to_string(*mask);
  }
  std::deque<Step> steps;
  steps.push_back({std::move(command), {}});
  ask(std::move(request), std::move(steps), [](const std::string&) { return std::string(); }, {});
}

void Holder::start_bind(Request request, std::string_view argument) {
  const std::optional<std::string>& named = settings_.directory();
  if (!named || (!bound_ && !argument.empty())) {
    return request.done(refuse(EINVAL));
  }
  if (bound_) {
    return request.done(refuse(EBUSY));
  }
  settings_.settle();
  Result<UniqueFd> directory = open_cache(*named, request.pid);
  const Result<os::FilesystemSpace> space =
      directory ? root_->space() : Result<os::FilesystemSpace>(fail(directory.error()));
  if (!space) {
    log_warning("bind: {}", space.error().message());
    return request.done(refuse(kernels_errno(space.error().error_number())));
  }
  std::deque<Step> steps;
  steps.push_back({{CacheVerb::kDir, directory_, {}}, std::move(*directory)});
  for (CacheCommand& command : settings_.commands(space->blocks * space->block_size)) {
    steps.push_back({std::move(command), {}});
  }
  steps.push_back({{CacheVerb::kBind, {}, {}}, {}});
  ask(
      std::move(request), std::move(steps),
      [this](const std::string&) {
        bound_ = true;
        log_info("the cache {} is held", directory_);
        return std::string();
      },
      [this](int error_number) {
        client_.reset();  // it has its settings; the next one gets them anew
        return refuse(kernels_errno(error_number));
      });
}

Result<UniqueFd> Holder::open_cache(const std::string& named, std::uint32_t pid) {
  directory_ = named;
  if (!directory_.starts_with('/')) {
    const UniqueFd standing = TRY(surroundings_.open_working_directory(pid));
    directory_ = TRY(path_of(standing)) + '/' + directory_;
  }
  UniqueFd directory = TRY(surroundings_.open_cache(directory_));
  root_ = TRY(look_into(directory));
  return directory;
}

void Holder::start_cull(Request request, const CacheCommand& command) {
  const std::string& name = command.argument;
  if (name.find('/') != std::string::npos) {
    return request.done(refuse(EINVAL));
  }
  if (!bound_ || name.empty() || name == "." || name == ".." || name.size() > kMostNameBytes) {
    return request.done(refuse(EIO));
  }
  Result<UniqueFd> standing = surroundings_.open_working_directory(request.pid);
  Result<Victim> victim =
      standing ? find_victim(name, std::move(*standing), *root_) : Result<Victim>(refuse(EIO));
  if (!victim) {
    return request.done(fail(victim.error()));
  }
  std::deque<Step> steps;
  steps.push_back({{command.verb, victim->place.path + '/' + name, {}}, {}});
  ask(
      std::move(request), std::move(steps), [](const std::string&) { return std::string(); },
      [victim = std::move(*victim), name](int error_number) -> Result<std::string> {
        const bool there = victim.place.directory->stat(name).has_value();
        if (error_number == ENOENT && !there && victim.type != os::NodeType::kFile) {
          return "";  // the engine does not count what it buries
        }
        // What is no object's name it leaves alone.
        return refuse(error_number == EINVAL ? EBUSY : kernels_cull_errno(error_number));
      });
}

}  // namespace larder::device
