#include "keeper/engine_link.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"
#include "handover/messages.h"
#include "keeper/engine_process.h"
#include "os/packet_socket.h"

namespace larder::keeper {

namespace {

using handover::Message;
using handover::MessageKind;

constexpr std::size_t kMostOutgoing = 8192;  // messages that a living engine would have read

Result<UniqueFd> duplicate(const UniqueFd& descriptor) {
  UniqueFd copy(::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return fail_errno(errno, "a descriptor for the engine");
  }
  return copy;
}

Result<Message> make_hello(const handover::Hello& hello, const EngineLink::Given& given) {
  Message message;
  message.head.kind = MessageKind::kHello;
  message.text = encode_hello(hello);
  for (const UniqueFd& table : given.tables) {
    message.descriptors.push_back(TRY(duplicate(table)));
  }
  message.descriptors.push_back(TRY(duplicate(given.control_socket)));
  return message;
}

}  // namespace

Result<std::unique_ptr<EngineLink>> EngineLink::start(std::uint64_t number,
                                                      const std::string& program,
                                                      const handover::EngineUser& user,
                                                      const handover::Hello& hello,
                                                      const Given& given, MonotonicTime now) {
  Message greeting = TRY(make_hello(hello, given));
  auto [ours, theirs] = TRY(os::packet_socket_pair());
  EngineProcess process = TRY(start_engine(program, user, theirs));
  std::unique_ptr<EngineLink> link(
      new EngineLink(number, std::move(process), std::move(ours), now));
  link->send(std::move(greeting));
  return link;
}

void EngineLink::send(Message message) {
  if (outgoing_.size() >= kMostOutgoing) {
    kill("does not read what it is told");
    return;
  }
  outgoing_.push_back(std::move(message));
  flush();
}

void EngineLink::flush() {
  while (!outgoing_.empty() && channel_.valid()) {
    const Result<> sent = send_message(channel_, outgoing_.front(), os::Wait::kNo);
    if (!sent && sent.error().code() == Errc::kBusy) {
      return;
    }
    if (!sent && sent.error().code() != Errc::kNotFound) {
      log_error("a message to the engine was lost: {}", sent.error().message());
    }
    outgoing_.pop_front();
  }
}

std::optional<Message> EngineLink::receive() {
  Result<Message> message = handover::receive_message(channel_, os::Wait::kNo);
  if (message) {
    return std::move(*message);
  }
  if (message.error().code() == Errc::kNotFound) {
    channel_.reset();  // it is ending: the pidfd will tell
    outgoing_.clear();
  } else if (message.error().code() != Errc::kBusy) {
    log_error("from the engine: {}", message.error().message());
    kill("sends what makes no sense");
  }
  return std::nullopt;
}

void EngineLink::kill(const char* why) {
  log_error("the engine (pid {}) {}: killed", pid(), why);
  ::syscall(SYS_pidfd_send_signal, pidfd(), SIGKILL, nullptr, 0);
  channel_.reset();
  outgoing_.clear();
}

}  // namespace larder::keeper
