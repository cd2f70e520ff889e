// A stand-in for the engine: what it does with a mount is the mount's source.
//
//   ready      answers INIT with passthrough allowed and every other request with EIO
//   fail       refuses it with a sentence
//   die        aborts
//   silent     never says anything about it
//   nonsense   sends what only the keeper may send
//   backing    as ready, but asks for a backing id of an unnamed file first, closes it again and
//              tells in the sentence of a failure what came out
//   gone       the probe refuses it
//   cache      asks for the cache directory of the spec and for /etc, and tells as above
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <future>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "control/server.h"
#include "handover/engine_end.h"
#include "handover/messages.h"
#include "handover/mount_spec.h"
#include "os/fuse_device.h"
#include "os/packet_socket.h"

namespace larder {
namespace {

constexpr std::uint32_t kInitExt = 1U << 30U;
constexpr std::uint32_t kPassthroughHigh = 1U << 5U;  // FUSE_PASSTHROUGH, 1 << 37

// fuse_init_out of protocol 7.40 on, with flags2 and max_stack_depth.
struct InitReply {
  std::uint32_t major = 7, minor = 40, max_readahead = 65536, flags = kInitExt;
  std::uint16_t max_background = 12, congestion_threshold = 9;
  std::uint32_t max_write = 65536, time_gran = 1;
  std::uint16_t max_pages = 0, map_alignment = 0;
  std::uint32_t flags2 = kPassthroughHigh, max_stack_depth = 1;
  std::array<std::uint32_t, 6> unused{};
};

static_assert(sizeof(InitReply) == 64);

class ScriptedEngine {
 public:
  explicit ScriptedEngine(handover::EngineEnd& end) : end_(end) {}

  void take(handover::MountOrder order) {
    const auto spec = handover::decode_spec(order.spec);
    const std::string script = spec ? spec->source : "fail";
    if (script == "die") {
      std::abort();
    }
    if (script == "nonsense") {
      handover::Message message;
      message.head.kind = handover::MessageKind::kStop;
      const UniqueFd channel(::dup(handover::kChannelDescriptor));
      [[maybe_unused]] const auto sent = send_message(channel, message, os::Wait::kYes);
    } else if (script == "fail") {
      end_.report_failed(order.mount_id, Error(Errc::kInvalid, "told to fail"));
    } else if (script == "cache") {
      ask_for_caches(order.mount_id, spec->cache);
    } else if (script == "ready" || script == "backing") {
      Mount& mount = mounts_.emplace_back();
      mount.id = order.mount_id;
      std::shared_ptr<os::FuseDevice> device =
          os::make_posix_fuse_device(std::move(order.fuse)).value();
      mount.device = device;
      mount.thread = Thread("fuse", [this, &mount, script, device = std::move(device)]() mutable {
        serve(*device, mount.id, script == "backing");
        device.reset();  // before the word that nothing uses the mount any more
        end_.report_unmounted(mount.id);
      });
    } else {
      silent_.push_back(std::move(order.fuse));
    }
  }

  void release(std::uint32_t mount_id) {
    for (const Mount& mount : mounts_) {
      if (mount.id == mount_id) {
        stop(mount);
      }
    }
  }

  void stop_all() {
    for (const Mount& mount : mounts_) {
      stop(mount);
    }
    mounts_.clear();
  }

 private:
  struct Mount {
    std::uint32_t id = 0;
    std::weak_ptr<os::FuseDevice> device;
    Thread thread;
  };

  static void stop(const Mount& mount) {
    if (const auto device = mount.device.lock()) {
      device->stop();
    }
  }

  void serve(os::FuseDevice& device, std::uint32_t mount_id, bool with_backing) {
    std::array<std::byte, std::size_t{256} * 1024> buffer{};
    while (const auto request = device.read_request(buffer)) {
      fuse_in_header in{};
      std::memcpy(&in, request->data(), sizeof in);
      const InitReply init;
      const bool is_init = in.opcode == FUSE_INIT;
      if (in.opcode != FUSE_FORGET && in.opcode != FUSE_BATCH_FORGET) {
        answer(device, in.unique, is_init ? 0 : -EIO, is_init ? bytes_of_object(init) : Bytes());
      }
      if (is_init && with_backing) {
        ask_for_backing(mount_id);
      } else if (is_init) {
        end_.report_ready(mount_id);
      }
    }
  }

  static void answer(os::FuseDevice& device, std::uint64_t unique, int error, Bytes body) {
    fuse_out_header out{};
    out.len = static_cast<std::uint32_t>(sizeof out + body.size());
    out.error = error;
    out.unique = unique;
    const std::array<iovec, 2> parts{
        {{&out, sizeof out}, {const_cast<std::byte*>(body.data()), body.size()}}};
    [[maybe_unused]] const auto written = device.write_reply(parts);
  }

  void ask_for_backing(std::uint32_t mount_id) {
    std::promise<std::string> heard;
    UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    end_.open_backing(mount_id, std::move(file), [&](Result<std::int32_t> id) {
      if (id) {
        end_.close_backing(mount_id, *id);
      }
      heard.set_value(id ? fmt::format("id {}", *id)
                         : fmt::format("errno {}", id.error().error_number()));
    });
    const std::string file_result = heard.get_future().get();
    std::promise<int> refused;
    end_.open_backing(
        mount_id, UniqueFd(::open("/", O_PATH | O_CLOEXEC)),
        [&](Result<std::int32_t> id) { refused.set_value(id ? 0 : id.error().error_number()); });
    end_.report_failed(mount_id,
                       Error(Errc::kInvalid, fmt::format("{}, a directory errno {}", file_result,
                                                         refused.get_future().get())));
  }

  void ask_for_caches(std::uint32_t mount_id, const std::string& path) {
    end_.open_cache_directory(path, [this, mount_id](Result<UniqueFd> own) {
      struct stat status{};
      std::string text = own ? "" : own.error().context();
      if (own && ::fstat(own->get(), &status) == 0) {
        text = fmt::format("{:o} of {}", status.st_mode & 07777U,
                           status.st_uid == ::getuid() ? "me" : "others");
      }
      end_.open_cache_directory("/etc", [this, mount_id, text](Result<UniqueFd> etc) {
        end_.report_failed(
            mount_id, Error(Errc::kInvalid,
                            fmt::format("{}; {}", text, etc ? "/etc!" : etc.error().context())));
      });
    });
  }

  handover::EngineEnd& end_;
  std::list<Mount> mounts_;
  std::list<UniqueFd> silent_;
};

control::Handlers handlers() {
  control::Handlers by_name;
  by_name["version"] = [](const control::Request&, control::Responder responder) {
    responder.answer("scripted");
  };
  by_name["status"] = [](const control::Request&, control::Responder responder) {
    responder.answer(R"({"engine":{"pid":7,"uptime_s":1},"caches":[],"mounts":[]})");
  };
  by_name["flush"] = [](const control::Request& request, control::Responder responder) {
    responder.answer(request.arguments[0]);
  };
  by_name["probe"] = [](const control::Request& request, control::Responder responder) {
    const bool with_options = request.arguments.size() > 1;
    if (request.arguments[0] == "gone") {
      responder.answer(fail(Errc::kInvalid, "the server is gone"));
    } else if (with_options && request.arguments[1].find("fancy") != std::string::npos) {
      responder.answer(fail(Errc::kInvalid, "unknown option \"fancy\""));
    } else {
      responder.answer("");
    }
  };
  return by_name;
}

int run() {
  set_log_name("scripted-engine");
  auto end = handover::EngineEnd::adopt(UniqueFd(handover::kChannelDescriptor));
  if (!end) {
    log_error("{}", end.error().message());
    return 1;
  }
  const SteadyClock clock;
  const auto control = control::Server::start((*end)->take_control_socket(), handlers(), clock);
  ScriptedEngine engine(**end);
  std::promise<void> stopped;
  (*end)->start({.take_mount = [&](handover::MountOrder order) { engine.take(std::move(order)); },
                 .release_mount = [&](std::uint32_t id) { engine.release(id); },
                 .stop = [&] { stopped.set_value(); }});
  stopped.get_future().get();
  (*end)->report_stopping();
  engine.stop_all();
  end->reset();
  return 0;
}

}  // namespace
}  // namespace larder

int main() {
  return larder::run();
}
