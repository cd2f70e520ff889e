// EngineChannel: the cache of an engine, over its control socket (docs/protocol.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "control/channel_client.h"
#include "culling/candidate.h"

namespace larder::cachefilesd {

class EngineChannel final : public CacheChannel {
 public:
  // Asks the engine that listens in `runtime_directory` for a channel. kNotFound: nobody listens;
  // else as CacheChannel's. `waiter` outlives the channel.
  [[nodiscard]] static Result<std::unique_ptr<CacheChannel>> connect(
      const std::string& runtime_directory, Waiter& waiter);

  // On a cache channel that is open already.
  EngineChannel(control::ChannelClient client, Waiter& waiter);

  [[nodiscard]] bool is_kernels() const override { return false; }

  [[nodiscard]] std::vector<int> descriptors() const override { return {client_.descriptor()}; }

  Result<> bind(const Config& config, int directory) override;
  Result<> reconfigure(const Config& from, const Config& to) override;
  Result<control::CacheState> ask_state() override;
  Result<std::optional<control::CacheState>> hear() override;
  Result<> tell_oldest(double seconds) override;
  Result<std::vector<Result<std::uint64_t>>> cull(std::span<const ObjectGroup> groups) override;

 private:
  // All limits, whatever the engine began with; of the rest what is not as in `from`.
  [[nodiscard]] Result<> give_settings(const Config& from, const Config& to);
  // Sends the one, with a descriptor or -1, and waits for the body of its answer. What is pushed
  // before that is kept for hear().
  Result<std::string> give(const control::CacheCommand& command, int descriptor = -1);
  Result<std::string> give(control::CacheVerb verb, std::string argument, int descriptor = -1);

  control::ChannelClient client_;
  Waiter& waiter_;
};

}  // namespace larder::cachefilesd
