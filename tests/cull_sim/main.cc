// larder_cull_sim: how good the culling library is, on made loads, against an exact LRU of the same
// size.
//
//   larder_cull_sim [--short] [--seeds N] [--seed FIRST] [--cull PERCENT] [--only WORDS]
//
// A line a load: hit ratios in per cent of requests and of bytes, the differences in points (mean
// and worst of the seeds), and the objects looked at for each one that was culled, and for the room
// of one of mean size among those in the cache. Exit status 1: an aim was missed. --short takes
// seconds: one seed and half of the requests, of which the aims allow for.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "exact_lru.h"
#include "loads.h"
#include "sliced_cache.h"
#include "trace.h"

namespace larder::cull_sim {
namespace {

// Objects looked at for the room of a mean one. Each sample gives a quarter at most.
constexpr double kMostLooks = 5.5;
// In points, for --short: one seed is not the mean of ten, and a cache has hardly settled.
constexpr double kAllowance = 1;

struct Options {
  bool brief = false;
  std::uint64_t seeds = 10;
  std::uint64_t first_seed = 1;
  double cull_percent = 3;
  std::string only;
};

std::optional<Options> parse(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name == "--short") {
      options.brief = true;
      options.seeds = 1;
      continue;
    }
    if (++i == arguments.size()) {
      return std::nullopt;
    }
    const std::string& value = arguments[i];
    if (name == "--seeds") {
      options.seeds = std::stoull(value);
    } else if (name == "--seed") {
      options.first_seed = std::stoull(value);
    } else if (name == "--cull") {
      options.cull_percent = std::stod(value);
    } else if (name == "--only") {
      options.only = value;
    } else {
      return std::nullopt;
    }
  }
  if (options.seeds == 0 || !(options.cull_percent > 0 && options.cull_percent < 100)) {
    return std::nullopt;
  }
  return options;
}

double percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(whole);
}

// A figure of each seed.
class Figure {
 public:
  void add(double value) { values_.push_back(value); }

  [[nodiscard]] double mean() const {
    double sum = 0;
    for (const double value : values_) {
      sum += value;
    }
    return sum / static_cast<double>(values_.size());
  }

  [[nodiscard]] double least() const { return *std::ranges::min_element(values_); }

  [[nodiscard]] double most() const { return *std::ranges::max_element(values_); }

 private:
  std::vector<double> values_;
};

struct Figures {
  Figure slices, lru, points;
  Figure slices_bytes, lru_bytes, points_bytes;
  Figure looks, looks_for_room;
};

Figures measure(const Load& load, const Options& options) {
  Scale scale;
  if (options.brief) {
    scale.requests /= 2;
  }
  const double part = options.cull_percent / 100;
  Figures result;
  for (std::uint64_t i = 0; i < options.seeds; ++i) {
    const std::uint64_t seed = options.first_seed + i;
    const Trace trace = load.make(scale, seed);
    const Hits lru = run_exact_lru(trace, part);
    const SlicedRun slices = run_slices(trace, part, seed);
    result.slices.add(percent(slices.hits.hits, slices.hits.requests));
    result.lru.add(percent(lru.hits, lru.requests));
    result.points.add(percent(slices.hits.hits, slices.hits.requests) -
                      percent(lru.hits, lru.requests));
    result.slices_bytes.add(percent(slices.hits.hit_bytes, slices.hits.bytes));
    result.lru_bytes.add(percent(lru.hit_bytes, lru.bytes));
    result.points_bytes.add(percent(slices.hits.hit_bytes, slices.hits.bytes) -
                            percent(lru.hit_bytes, lru.bytes));
    const auto looked_at = static_cast<double>(slices.looked_at);
    result.looks.add(looked_at / static_cast<double>(slices.culled.files));
    result.looks_for_room.add(looked_at / slices.culled_room);
  }
  return result;
}

// True: the aims are met.
bool show(const Load& load, const Figures& result, const Options& options) {
  const double aim = load.aim - (options.brief ? kAllowance : 0);
  const bool good = result.points.mean() >= aim;
  const bool few = !load.stats_counted || result.looks_for_room.mean() <= kMostLooks;
  fmt::print(
      "{:<43} {:6.2f} {:6.2f} {:+6.2f} {:+6.2f}   {:6.2f} {:6.2f} {:+6.2f} {:+6.2f}   {:4.1f} "
      "{:4.1f} "
      "{:5.1f}   {:+.1f}{}{}\n",
      load.name, result.slices.mean(), result.lru.mean(), result.points.mean(),
      result.points.least(), result.slices_bytes.mean(), result.lru_bytes.mean(),
      result.points_bytes.mean(), result.points_bytes.least(), result.looks.mean(),
      result.looks.most(), result.looks_for_room.mean(), aim, good ? "" : " MISSED",
      few ? "" : " TOO MANY LOOKS");
  std::fflush(stdout);
  return good && few;
}

int run(const Options& options) {
  fmt::print("{:<43} {:^27}   {:^27}   {:^15}\n", "", "requests", "bytes", "looks for one");
  fmt::print("{:<43} {:>6} {:>6} {:>6} {:>6}   {:>6} {:>6} {:>6} {:>6}   {:>4} {:>4} {:>5}   aim\n",
             "load", "slices", "LRU", "points", "worst", "slices", "LRU", "points", "worst", "mean",
             "worst", "room");
  std::size_t missed = 0;
  std::size_t shown = 0;
  for (const Load& load : all_loads()) {
    if (load.name.find(options.only) != std::string::npos) {
      missed += show(load, measure(load, options), options) ? 0 : 1;
      ++shown;
    }
  }
  fmt::print("{} loads, {} seeds from {}, culls of {} %: {} aims missed\n", shown, options.seeds,
             options.first_seed, options.cull_percent, missed);
  return missed == 0 && shown > 0 ? 0 : 1;
}

}  // namespace
}  // namespace larder::cull_sim

int main(int count, char** arguments) {
  try {
    const auto options =
        larder::cull_sim::parse(std::vector<std::string>(arguments + 1, arguments + count));
    if (!options) {
      fmt::print(stderr,
                 "usage: larder_cull_sim [--short] [--seeds N] [--seed FIRST] [--cull PERCENT] "
                 "[--only WORDS]\n");
      return 2;
    }
    return larder::cull_sim::run(*options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "larder_cull_sim: {}\n", error.what());
    return 2;
  }
}
