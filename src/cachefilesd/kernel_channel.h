// KernelChannel: the cache of a kernel, over /dev/cachefiles, in the kernel's own language.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// The kernel says when culling begins and ends, not how much is to go: that is looked up, and made
// a little more, so that what the cache takes meanwhile does not keep the end away. It does not
// speak of its graveyard: that is watched. It culls what lies in our working directory, which is
// the object's from then on.
class KernelChannel final : public CacheChannel {
 public:
  // Errors are sentences: no such device, or it is in other hands.
  // `waiter` outlives the channel.
  [[nodiscard]] static Result<std::unique_ptr<CacheChannel>> open(const std::string& device,
                                                                  Waiter& waiter);

  // On an open device.
  KernelChannel(UniqueFd device, Waiter& waiter);

  [[nodiscard]] bool is_kernels() const override { return true; }

  [[nodiscard]] std::vector<int> descriptors() const override {
    return {device_.get(), graveyard_watch_.get()};
  }

  Result<> bind(const Config& config, int directory) override;
  // Limits are taken, but count from the next bind on, which the log says.
  Result<> reconfigure(const Config& from, const Config& to) override;
  Result<control::CacheState> ask_state() override;
  Result<std::optional<control::CacheState>> hear() override;

  Result<> tell_oldest(double /*seconds*/) override { return {}; }

  Result<std::vector<Result<std::uint64_t>>> cull(std::span<const ObjectGroup> groups) override;

 private:
  // Adds an answer for each.
  [[nodiscard]] Result<> cull_group(const ObjectGroup& group,
                                    std::vector<Result<std::uint64_t>>& answers) const;
  // The answer for one object, in the working directory, which is `path`.
  [[nodiscard]] Result<Result<std::uint64_t>> cull_one(const std::string& path,
                                                       const culling::Candidate& object) const;
  // 0, or the errno.
  [[nodiscard]] int write(std::string_view command) const;
  [[nodiscard]] Result<> give(const control::CacheCommand& command) const;
  void watch_graveyard(const std::string& directory);
  void hear_graveyard();
  // What the kernel's line leaves open.
  [[nodiscard]] Result<> complete(control::CacheState& state);

  const UniqueFd device_;
  Waiter& waiter_;
  UniqueFd graveyard_watch_;
  std::unique_ptr<os::Directory> root_;  // null: not bound
  bool graves_ = false;                  // something was buried since the last line
  bool culling_ = false;                 // until a little more than enough is free
};

}  // namespace larder::cachefilesd
