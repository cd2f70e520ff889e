// The mounts that the keeper holds, and its memory of those under which engines died.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace larder::keeper {

struct HeldMount {
  std::string spec;  // never read, only passed on and compared
  std::uint64_t device = 0;
  // Shared with jobs that are under way: an ioctl must not meet somebody else's descriptor.
  std::shared_ptr<const UniqueFd> fuse;
  bool ready = false;
  std::map<std::int32_t, std::string> lane_of_backing;  // where each backing id is to be closed
};

// Owned by the keeper, used on its thread only.
class Mounts {
 public:
  static constexpr std::size_t kMostMounts = 1024;
  // When engines died three times within this time under the same mount, it is parked until the
  // first of them is forgotten.
  static constexpr std::size_t kMostDeaths = 3;
  static constexpr std::chrono::minutes kDeathMemory{10};

  // Ids are never used twice.
  std::uint32_t add(HeldMount mount);
  [[nodiscard]] HeldMount* find(std::uint32_t mount_id);

  void remove(std::uint32_t mount_id) { by_id_.erase(mount_id); }

  [[nodiscard]] const std::map<std::uint32_t, HeldMount>& all() const { return by_id_; }

  [[nodiscard]] bool full() const { return by_id_.size() >= kMostMounts; }

  // Lets every mount go (its users get ENOTCONN) and notes the death for each; the sentences tell
  // which mounts are parked by it.
  [[nodiscard]] std::vector<std::string> end_all(MonotonicTime now);
  // How long a mount of this spec is refused because engines died under it; zero: it is not.
  [[nodiscard]] Duration parked_for(const std::string& spec, MonotonicTime now) const;

 private:
  std::map<std::uint32_t, HeldMount> by_id_;
  std::uint32_t last_id_ = 0;
  std::map<std::string, std::deque<MonotonicTime>> deaths_;  // by spec, at most kMostDeaths each
};

}  // namespace larder::keeper
