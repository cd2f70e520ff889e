// ChannelClient: the holder's end of a cache channel: commands there, one at a time, answers and
// state back.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/line_codec.h"

namespace larder::control {

// Nothing here waits: who has sent something waits for descriptor() to become readable, however he
// waits for the rest. Closing it is the release of the cache.
// Threads: one. Errors of all: kCacheDead: the engine hung up; kCorrupt: it talks nonsense.
class ChannelClient {
 public:
  // Asks the engine that listens in `runtime_directory` for a channel. kNotFound: nobody listens;
  // kBusy: too many wait for it.
  [[nodiscard]] static Result<ChannelClient> connect(const std::string& runtime_directory);

  // On a connection that is a cache channel already.
  explicit ChannelClient(UniqueFd socket);

  [[nodiscard]] int descriptor() const { return socket_.get(); }

  // False: the engine has not made it a channel yet; nothing may be sent before. kInvalid: it
  // refuses, as a sentence.
  [[nodiscard]] Result<bool> opened();

  // Sends the one, with a descriptor or -1. Requires: what was sent before was answered.
  [[nodiscard]] Result<> send(const CacheCommand& command, int descriptor = -1);
  // The answer, which is never a state line; nullopt: not there yet. What is pushed before it is
  // kept.
  [[nodiscard]] Result<std::optional<ChannelPacket>> receive();

  // The newest state that came unasked, with all that was released since one was taken.
  [[nodiscard]] const std::optional<CacheState>& pushed() const { return pushed_; }

  [[nodiscard]] std::optional<CacheState> take_pushed();
  // The state in the answer to "state", and in it what was pushed before.
  [[nodiscard]] Result<CacheState> take_state(std::string_view answer);

 private:
  // nullopt: none there.
  Result<std::optional<std::string>> receive_text();
  Result<std::optional<ChannelPacket>> receive_packet();
  Result<> keep(std::string_view line);

  UniqueFd socket_;
  std::vector<std::byte> buffer_;
  std::unique_ptr<ReplyReader> opening_;  // null: it is a channel
  bool asked_ = false;                    // an answer is to come
  std::optional<CacheState> pushed_;
};

// The body, or the refusal: with the code that belongs to its errno, and the engine's sentence.
[[nodiscard]] Result<std::string> body_of(ChannelPacket answer);

}  // namespace larder::control
