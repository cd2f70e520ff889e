// Holder: one open of the device, from open to release: a cache channel of the engine that is
// spoken to in the kernel's language.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/channel_client.h"
#include "device/settings.h"
#include "os/filesystem.h"

namespace larder::device {

// How a request ends: the bytes of a read, or the errno.
using Done = std::move_only_function<void(Result<std::string>)>;
// The number of a request, given by whoever brings it.
using Ticket = std::uint64_t;

// What the device needs of the world.
struct Surroundings {
  std::function<Result<control::ChannelClient>()> connect;
  // The cache's directory, for the engine. May wait for its disk.
  std::function<Result<UniqueFd>(const std::string& path)> open_cache;
  std::function<Result<UniqueFd>(std::uint32_t pid)> open_working_directory;
  std::function<bool(std::uint32_t pid)> is_ending;
};

// Requests are answered in their order, one at a time; each waits for the engine without a thread.
// An engine that hung up is EIO for all that come after. Settings are kept here, and given to the
// engine at bind, on another channel if a bind failed before.
// Threads: one; Done is called in any function but descriptor() and events(), and must not call
// back. Life: until it is destroyed, which is the release: what is not answered then gets EINTR.
// `surroundings` outlive it.
class Holder {
 public:
  explicit Holder(const Surroundings& surroundings) : surroundings_(surroundings) {}

  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder();

  // The first request: answered when the engine has given the channel.
  void open(Ticket ticket, Done done);
  void write(Ticket ticket, std::uint32_t pid, std::string text, Done done);
  void read(Ticket ticket, std::size_t most_bytes, Done done);
  // Answers it EINTR at once; what the engine was told it does all the same. False: no such request
  // waits.
  bool cancel(Ticket ticket);
  [[nodiscard]] bool waits(Ticket ticket) const;

  // Readable: call on_readable(). -1: there is none now.
  [[nodiscard]] int descriptor() const { return client_ != nullptr ? client_->descriptor() : -1; }

  void on_readable();

  // What poll(2) says now.
  [[nodiscard]] unsigned events() const;

 private:
  enum class Kind : std::uint8_t { kOpen, kRead, kWrite };

  struct Request {
    Kind kind = Kind::kOpen;
    Ticket ticket = 0;
    std::uint32_t pid = 0;
    std::string text;            // of a write
    std::size_t most_bytes = 0;  // of a read
    Done done;
  };

  // A command to the engine that is a part of a request, with the descriptor that travels with it.
  struct Step {
    control::CacheCommand command;
    UniqueFd descriptor;
  };

  // Turns the answer to the last step into that of the request.
  using AtEnd = std::move_only_function<Result<std::string>(std::string body)>;
  // The same for a step that the engine refused, with its errno.
  using AtRefusal = std::move_only_function<Result<std::string>(int error_number)>;

  struct Running {
    Request request;
    std::deque<Step> steps;
    AtEnd at_end;
    AtRefusal at_refusal;
  };

  void add(Request request);
  void work();
  void start(Request request);
  void ask(Request request, std::deque<Step> steps, AtEnd at_end, AtRefusal at_refusal);
  // Sends the next step once there is a channel.
  void go_on();
  void on_answer(control::ChannelPacket answer);
  void finish(Result<std::string> result);
  void lose(const Error& why);

  void start_read(Request request);
  void start_write(Request request);
  void start_bind(Request request, std::string_view argument);
  void start_cull(Request request, const control::CacheCommand& command);
  void start_telling(Request request, control::CacheCommand command);
  [[nodiscard]] Result<std::string> set(const control::CacheCommand& command);
  // What `dir` named, from where the writer stands.
  [[nodiscard]] Result<UniqueFd> open_cache(const std::string& named, std::uint32_t pid);
  [[nodiscard]] Result<std::string> state_line(std::string_view answer, std::size_t most_bytes);

  const Surroundings& surroundings_;
  std::unique_ptr<control::ChannelClient> client_;
  bool sent_ = false;  // an answer is to come
  bool gone_ = false;  // the engine hung up, or talked nonsense
  bool bound_ = false;
  bool culling_ = false;  // as the last state line said
  Settings settings_;
  std::string directory_;                // absolute
  std::unique_ptr<os::Directory> root_;  // the cache's, as it was opened at the last bind
  std::unique_ptr<Running> running_;
  std::deque<Request> queue_;
};

}  // namespace larder::device
