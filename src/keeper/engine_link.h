// EngineLink: one running engine, seen from the keeper: its process and the channel to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"
#include "handover/messages.h"
#include "keeper/engine_process.h"

namespace larder::keeper {

// Owned by the keeper's main loop, used on its thread only. Nothing here waits for the engine.
class EngineLink {
 public:
  // What outlives the engine and is handed to it; stays the keeper's.
  struct Given {
    const std::vector<UniqueFd>& tables;
    const UniqueFd& control_socket;
  };

  // Starts the program and queues its HELLO, with descriptors of its own of `tables` (all kinds, in
  // their order). `number` tells this engine from those before it.
  [[nodiscard]] static Result<std::unique_ptr<EngineLink>> start(
      std::uint64_t number, const std::string& program, const handover::EngineUser& user,
      const handover::Hello& hello, const Given& given, MonotonicTime now);

  [[nodiscard]] std::uint64_t number() const { return number_; }

  [[nodiscard]] pid_t pid() const { return process_.pid; }

  [[nodiscard]] MonotonicTime started() const { return started_; }

  // For poll(2): the pidfd becomes readable at the engine's end; the channel is -1 after hang_up().
  [[nodiscard]] int pidfd() const { return process_.pidfd.get(); }

  [[nodiscard]] int channel() const { return channel_.get(); }

  [[nodiscard]] bool wants_to_send() const { return !outgoing_.empty(); }

  // Queues and sends what the socket takes. An engine that leaves too much unread is killed.
  void send(handover::Message message);
  void flush();
  // nullopt: nothing there. An engine that sends what it must not is killed, one that hung up is
  // left to its end.
  [[nodiscard]] std::optional<handover::Message> receive();

  void kill(const char* why);

  // Once the pidfd is readable: how it ended.
  [[nodiscard]] std::string reap() { return reap_process(process_.pidfd); }

 private:
  EngineLink(std::uint64_t number, EngineProcess process, UniqueFd channel, MonotonicTime now)
      : number_(number),
        started_(now),
        process_(std::move(process)),
        channel_(std::move(channel)) {}

  const std::uint64_t number_;
  const MonotonicTime started_;
  const EngineProcess process_;
  UniqueFd channel_;
  std::deque<handover::Message> outgoing_;
};

}  // namespace larder::keeper
