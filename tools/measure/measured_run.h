// What the measuring programs print of a run: one line of JSON with its seconds and CPU.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include <fmt/format.h>
#include <sys/resource.h>

namespace larder {

// User and system time of this process so far.
inline double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// `what` it counts: "bytes".
inline void print_measured(const char* what, const std::function<std::uint64_t()>& run) {
  const double cpu_before = cpu_seconds();
  const auto begin = std::chrono::steady_clock::now();
  const std::uint64_t count = run();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{{\"seconds\": {:.6f}, \"cpu\": {:.6f}, \"{}\": {}}}\n", seconds,
             cpu_seconds() - cpu_before, what, count);
}

}  // namespace larder
