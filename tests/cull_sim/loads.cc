#include "loads.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "sizes.h"
#include "trace.h"
#include "zipf.h"

namespace larder::cull_sim {
namespace {

constexpr double kBegin = 1e9;           // seconds since 1970
constexpr double kGap = 1;               // mean seconds between two requests
constexpr double kScanGap = 0.1;         // of somebody who reads a tree
constexpr double kHurriedGap = 0.02;     // a cache that is turned over within a quarter of an hour
constexpr std::uint32_t kUniverse = 20;  // times what the cache holds, of objects at the server

// A trace in the making.
class Maker {
 public:
  Maker(Sizes sizes, const Scale& scale, std::uint64_t seed)
      : sizes_(sizes), scale_(scale), random_(seed) {}

  [[nodiscard]] std::mt19937_64& random() { return random_; }

  [[nodiscard]] std::size_t requests() const { return trace_.requests.size(); }

  // Returns the first of so many new objects.
  std::uint32_t add_objects(std::uint32_t count, std::uint8_t volume = 0) {
    const std::size_t first = trace_.volumes.size();
    trace_.volumes.resize(first + count, volume);
    return static_cast<std::uint32_t>(first);
  }

  void ask(std::uint32_t object, double gap = kGap) {
    now_ += std::exponential_distribution<double>(1 / gap)(random_);
    trace_.requests.push_back(object);
    trace_.seconds.push_back(now_);
  }

  // True with this probability.
  [[nodiscard]] bool chance(double probability) {
    return std::uniform_real_distribution<double>()(random_) < probability;
  }

  void count_from_here() { trace_.counted_from = trace_.requests.size(); }

  // The cache holds scale.cached objects of mean size, or `objects` from `first` on and `times`
  // their bytes.
  Trace finish() && {
    draw();
    const double mean = bytes_of(0, trace_.bytes.size()) / static_cast<double>(trace_.bytes.size());
    trace_.limit_bytes = static_cast<std::uint64_t>(mean * scale_.cached);
    return std::move(trace_);
  }

  Trace finish(std::uint32_t first, std::size_t objects, double times) && {
    draw();
    trace_.limit_bytes = static_cast<std::uint64_t>(bytes_of(first, objects) * times);
    return std::move(trace_);
  }

 private:
  void draw() { trace_.bytes = draw_sizes(sizes_, trace_.volumes.size(), random_); }

  [[nodiscard]] double bytes_of(std::size_t first, std::size_t objects) const {
    const auto begin = trace_.bytes.begin() + static_cast<std::ptrdiff_t>(first);
    return static_cast<double>(
        std::reduce(begin, begin + static_cast<std::ptrdiff_t>(objects), std::uint64_t{0}));
  }

  const Sizes sizes_;
  const Scale scale_;
  std::mt19937_64 random_;
  double now_ = kBegin;
  Trace trace_;
};

// The same objects are popular all the time.
Trace zipf(double alpha, double gap, Sizes sizes, const Scale& scale, std::uint64_t seed) {
  Maker maker(sizes, scale, seed);
  const std::uint32_t objects = scale.cached * kUniverse;
  const std::uint32_t first = maker.add_objects(objects);
  const Zipf ranks(objects, alpha);
  for (std::uint32_t i = 0; i < scale.requests; ++i) {
    if (i == scale.requests / 5 * 2) {
      maker.count_from_here();
    }
    maker.ask(first + ranks.draw(maker.random()), gap);
  }
  return std::move(maker).finish();
}

// Each object is popular for about kUses uses, then another takes its place.
Trace shifting(Sizes sizes, const Scale& scale, std::uint64_t seed) {
  constexpr std::uint32_t kUses = 30;
  Maker maker(sizes, scale, seed);
  const std::uint32_t objects = scale.cached * kUniverse;
  const std::uint32_t first = maker.add_objects(objects);
  const Zipf ranks(objects, 0.9);
  std::vector<std::uint32_t> by_rank(objects);
  std::iota(by_rank.begin(), by_rank.end(), first);
  for (std::uint32_t i = 0; i < scale.requests; ++i) {
    if (i == scale.requests / 5 * 2) {
      maker.count_from_here();
    }
    if (i % kUses == 0) {
      std::swap(by_rank[ranks.draw(maker.random())], by_rank[maker.random()() % objects]);
    }
    maker.ask(by_rank[ranks.draw(maker.random())]);
  }
  return std::move(maker).finish();
}

// A working set is read round and round, in a cache that held other things before.
struct Loop {
  static constexpr std::uint32_t kRounds = 17;

  double times = 1;        // as large as the working set is the cache
  double strangers = 0;    // the part of the requests for what nobody asks for again
  std::uint32_t from = 1;  // the round from which on hits are counted; in the first all miss
};

Trace looping(const Loop& loop, Sizes sizes, const Scale& scale, std::uint64_t seed) {
  Maker maker(sizes, scale, seed);
  const std::uint32_t before = maker.add_objects(scale.cached * 2);
  const Zipf ranks(scale.cached * 2, 0.8);
  for (std::uint32_t i = 0; i < scale.cached * 4; ++i) {
    maker.ask(before + ranks.draw(maker.random()));
  }
  const auto objects = static_cast<std::uint32_t>(scale.cached / loop.times);
  const std::uint32_t first = maker.add_objects(objects);
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < objects * Loop::kRounds; ++i) {
    if (next == objects * loop.from) {
      maker.count_from_here();
    }
    const bool stranger = maker.chance(loop.strangers);
    maker.ask(stranger ? maker.add_objects(1) : first + next++ % objects);
  }
  return std::move(maker).finish(first, objects, loop.times);
}

// Now and then somebody reads a tree as large as half of the cache that nobody reads again.
Trace scanning(double alpha, Sizes sizes, const Scale& scale, std::uint64_t seed) {
  Maker maker(sizes, scale, seed);
  const std::uint32_t objects = scale.cached * kUniverse;
  const std::uint32_t first = maker.add_objects(objects);
  const Zipf ranks(objects, alpha);
  for (std::uint32_t i = 0; i < scale.requests; ++i) {
    if (i == scale.requests / 5 * 2) {
      maker.count_from_here();
    }
    if (i % (scale.requests / 10) == scale.requests / 20) {
      for (std::uint32_t scanned = 0; scanned < scale.cached / 2; ++scanned) {
        maker.ask(maker.add_objects(1), kScanGap);
      }
    }
    maker.ask(first + ranks.draw(maker.random()));
  }
  return std::move(maker).finish();
}

// One volume filled the cache, and is seldom used since another came; later there is a third.
Trace volumes(Sizes sizes, const Scale& scale, std::uint64_t seed) {
  Maker maker(sizes, scale, seed);
  const std::uint32_t objects = scale.cached * 2;
  const Zipf ranks(objects, 0.8);
  const std::uint32_t first = maker.add_objects(objects, 0);
  maker.add_objects(objects, 1);
  maker.add_objects(objects, 2);
  for (std::uint32_t i = 0; i < scale.cached * 4; ++i) {
    maker.ask(first + ranks.draw(maker.random()));
  }
  maker.count_from_here();
  for (std::uint32_t i = 0; i < scale.requests; ++i) {
    const bool third = i > scale.requests / 2 && maker.chance(0.4);
    const std::uint32_t volume = maker.chance(0.05) ? 0 : third ? 2 : 1;
    maker.ask(first + volume * objects + ranks.draw(maker.random()));
  }
  return std::move(maker).finish();
}

}  // namespace

std::vector<Load> all_loads() {
  std::vector<Load> loads;
  const auto add = [&loads](const std::string& name, double aim, const auto& make) {
    for (const Sizes sizes : kAllSizes) {
      loads.push_back(
          {fmt::format("{}, {}", name, name_of(sizes)), aim, true,
           [=](const Scale& scale, std::uint64_t seed) { return make(sizes, scale, seed); }});
    }
  };
  add("zipf 0.8", kBetter, std::bind_front(zipf, 0.8, kGap));
  add("zipf 1.0", kBetter, std::bind_front(zipf, 1.0, kGap));
  add("zipf 0.8, in a hurry", kBetter, std::bind_front(zipf, 0.8, kHurriedGap));
  add("shifting zipf 0.9", kBetter, shifting);
  add("zipf 0.8, scans", kBetter, std::bind_front(scanning, 0.8));
  add("zipf 1.0, scans", kBetter, std::bind_front(scanning, 1.0));
  add("three volumes", kNotWorse, volumes);
  add("loop, cache 0.9 of it", kNotWorse, std::bind_front(looping, Loop{0.9, 0, 1}));
  add("loop, cache 1.05 of it", kNotWorse, std::bind_front(looping, Loop{1.05, 0, 6}));
  add("the same from the change on", kChange, std::bind_front(looping, Loop{1.05, 0, 1}));
  add("loop and strangers, cache 1.2 of it", kNotWorse,
      std::bind_front(looping, Loop{1.2, 0.02, 6}));
  add("loop and strangers, cache 1.1 of it", kNotWorse,
      std::bind_front(looping, Loop{1.1, 0.02, 6}));
  const auto small = [](const Scale& scale, std::uint64_t seed) {
    return zipf(0.8, kGap, Sizes::kLogNormal, {scale.cached / 5, scale.requests}, seed);
  };
  loads.push_back({"zipf 0.8, small cache", kBetter, false, small});
  return loads;
}

}  // namespace larder::cull_sim
