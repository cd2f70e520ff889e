#include "keeper/mounts.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"

namespace larder::keeper {

std::uint32_t Mounts::add(HeldMount mount) {
  by_id_.emplace(++last_id_, std::move(mount));
  return last_id_;
}

HeldMount* Mounts::find(std::uint32_t mount_id) {
  const auto found = by_id_.find(mount_id);
  return found == by_id_.end() ? nullptr : &found->second;
}

std::vector<std::string> Mounts::end_all(MonotonicTime now) {
  std::vector<std::string> parked;
  // What is forgotten makes room: a spec takes part only while it is mounted again and again.
  std::erase_if(deaths_,
                [now](const auto& entry) { return entry.second.back() + kDeathMemory < now; });
  for (const auto& [id, mount] : by_id_) {
    std::deque<MonotonicTime>& deaths = deaths_[mount.spec];
    deaths.push_back(now);
    if (deaths.size() > kMostDeaths) {
      deaths.pop_front();
    }
    if (const Duration time = parked_for(mount.spec, now); time > Duration::zero()) {
      parked.push_back(fmt::format(
          "{} engines died while mount {} ({}) was active: it is parked for {} minutes, "
          "after `larder stop` it can be mounted at once",
          kMostDeaths, id, mount.spec.substr(0, mount.spec.find('\n')),
          std::chrono::ceil<std::chrono::minutes>(time).count()));
    }
  }
  by_id_.clear();
  return parked;
}

Duration Mounts::parked_for(const std::string& spec, MonotonicTime now) const {
  const auto found = deaths_.find(spec);
  if (found == deaths_.end() || found->second.size() < kMostDeaths) {
    return Duration::zero();
  }
  return std::max<Duration>(found->second.front() + kDeathMemory - now, Duration::zero());
}

}  // namespace larder::keeper
