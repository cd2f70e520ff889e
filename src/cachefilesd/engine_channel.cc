#include "cachefilesd/engine_channel.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/limits.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "control/channel_client.h"
#include "culling/candidate.h"

namespace larder::cachefilesd {
namespace {

using control::CacheCommand;
using control::CacheState;
using control::CacheVerb;

// kCancelled when told to stop.
Result<> wait_for(const control::ChannelClient& client, Waiter& waiter) {
  const std::array<int, 1> descriptors{client.descriptor()};
  while (!waiter.told_to_stop()) {
    if (waiter.wait(descriptors, std::nullopt) == Waiter::Woken::kReady) {
      return {};
    }
  }
  return fail(Errc::kCancelled, "told to stop");
}

}  // namespace

Result<std::unique_ptr<CacheChannel>> EngineChannel::connect(const std::string& runtime_directory,
                                                             Waiter& waiter) {
  control::ChannelClient client = TRY(control::ChannelClient::connect(runtime_directory));
  do {
    TRY(wait_for(client, waiter));
  } while (!TRY(client.opened()));
  return std::make_unique<EngineChannel>(std::move(client), waiter);
}

EngineChannel::EngineChannel(control::ChannelClient client, Waiter& waiter)
    : client_(std::move(client)), waiter_(waiter) {}

Result<> EngineChannel::bind(const Config& config, int directory) {
  TRY(give(CacheVerb::kDir, config.directory, directory));
  if (config.tag) {
    TRY(give(CacheVerb::kTag, *config.tag));
  }
  if (config.security_context) {
    TRY(give(CacheVerb::kSecctx, *config.security_context));
  }
  TRY(give_settings({}, config));
  TRY(give(CacheVerb::kBind, {}));
  return {};
}

Result<> EngineChannel::reconfigure(const Config& from, const Config& to) {
  const Result<> given = give_settings(from, to);
  if (given || given.error().code() == Errc::kCacheDead ||
      given.error().code() == Errc::kCancelled) {
    return given;
  }
  if (const Result<> back = give_settings(to, from); !back) {
    return fail(given.error().code(),
                fmt::format("{}; and what was given before that holds, as it could not be taken "
                            "back: {}",
                            given.error().message(), back.error().message()));
  }
  return given;
}

Result<> EngineChannel::give_settings(const Config& from, const Config& to) {
  if (from.debug_mask != to.debug_mask) {
    TRY(give(CacheVerb::kDebug, fmt::format("{}", to.debug_mask)));
  }
  if (from.size_bytes != to.size_bytes) {
    TRY(give(CacheVerb::kSize, fmt::format("{}", to.size_bytes.value_or(0))));
  }
  for (const CacheCommand& command : limit_commands(to.limits)) {
    TRY(give(command));
  }
  return {};
}

Result<CacheState> EngineChannel::ask_state() {
  const std::string line = TRY(give(CacheVerb::kState, {}));
  return client_.take_state(line);
}

Result<> EngineChannel::tell_oldest(double seconds) {
  TRY(give(CacheVerb::kOldest, fmt::format("{:.0f}", seconds)));
  return {};
}

Result<std::optional<CacheState>> EngineChannel::hear() {
  TRY(client_.receive());  // no answer is to come: only what was pushed
  return client_.take_pushed();
}

Result<std::vector<Result<std::uint64_t>>> EngineChannel::cull(
    std::span<const ObjectGroup> groups) {
  std::vector<control::ObjectPath> paths;
  for (const ObjectGroup& group : groups) {
    for (const culling::Candidate& object : group.objects) {
      paths.push_back({group.path, object.name});
    }
  }
  std::vector<Result<std::uint64_t>> answers;
  for (std::span<const control::ObjectPath> left(paths); !left.empty();) {
    const auto [command, count] = control::objects_command(CacheVerb::kCull, left);
    left = left.subspan(count);
    Result<std::string> body = give(command);
    if (!body && count == 1 &&
        (body.error().code() == Errc::kBusy || body.error().code() == Errc::kNotFound ||
         body.error().code() == Errc::kInvalid || body.error().code() == Errc::kPermission)) {
      answers.emplace_back(fail(std::move(body).error()));
      continue;
    }
    if (!body) {
      return fail(std::move(body).error());
    }
    const std::vector<control::ObjectOutcome> outcomes = TRY(control::parse_outcomes(*body));
    if (outcomes.size() != count) {
      return fail(Errc::kCorrupt,
                  fmt::format("the engine answered for {} of {} objects", outcomes.size(), count));
    }
    for (const control::ObjectOutcome& outcome : outcomes) {
      answers.push_back(outcome.error_number == 0
                            ? Result<std::uint64_t>(outcome.bytes)
                            : fail_errno(outcome.error_number, "an object of the engine's"));
    }
  }
  return answers;
}

Result<std::string> EngineChannel::give(CacheVerb verb, std::string argument, int descriptor) {
  return give(CacheCommand{verb, std::move(argument), {}}, descriptor);
}

Result<std::string> EngineChannel::give(const CacheCommand& command, int descriptor) {
  TRY(client_.send(command, descriptor));
  for (;;) {
    TRY(wait_for(client_, waiter_));
    if (std::optional<control::ChannelPacket> answer = TRY(client_.receive())) {
      return control::body_of(std::move(*answer));
    }
  }
}

}  // namespace larder::cachefilesd
