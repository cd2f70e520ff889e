#include "sliced_cache.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"
#include "culling/score.h"
#include "os/filesystem.h"
#include "trace.h"

namespace larder::cull_sim {
namespace {

constexpr double kLeastStampSeconds = 60;  // the engine's default

os::FileTime time_of(double seconds) {
  const double whole = std::floor(seconds);
  return {static_cast<std::int64_t>(whole), static_cast<std::uint32_t>((seconds - whole) * 1e9)};
}

std::uint32_t object_of(std::string_view name) {
  std::uint32_t object = 0;
  (void)std::from_chars(name.data(), name.data() + name.size(), object);
  return object;
}

class SlicedCache final : public culling::FanOut {
 public:
  SlicedCache(const Trace& trace, std::uint64_t seed)
      : trace_(trace), objects_(trace.bytes.size()) {
    std::mt19937_64 random(seed);
    const std::size_t volumes = *std::ranges::max_element(trace.volumes) + std::size_t{1};
    directories_.resize(volumes * culling::kSamples);
    for (std::size_t i = 0; i < objects_.size(); ++i) {
      objects_[i].directory = static_cast<std::uint32_t>(trace.volumes[i] * culling::kSamples +
                                                         random() % culling::kSamples);
    }
  }

  [[nodiscard]] bool has(std::uint32_t object) const { return objects_[object].kept; }

  [[nodiscard]] std::uint64_t used_bytes() const { return used_bytes_; }

  [[nodiscard]] std::uint64_t count() const { return count_; }

  // Of one that it has.
  void use(std::uint32_t object, double now, double stamp_seconds) {
    if (now - objects_[object].accessed >= stamp_seconds) {
      objects_[object].accessed = now;
    }
  }

  void add(std::uint32_t object, double now) {
    Object& added = objects_[object];
    std::vector<std::uint32_t>& directory = directories_[added.directory];
    added = {now, now, added.directory, static_cast<std::uint32_t>(directory.size()), true};
    directory.push_back(object);
    used_bytes_ += trace_.bytes[object];
    ++count_;
  }

  std::size_t directories() override { return directories_.size(); }

  Result<> list(std::size_t directory,
                const std::function<bool(culling::Candidate&&)>& visit) override {
    for (const std::uint32_t object : directories_[directory]) {
      if (!visit(candidate(object))) {
        break;
      }
    }
    return {};
  }

  bool in_use(std::size_t, std::string_view) override { return false; }

  Result<std::vector<Result<culling::Freed>>> cull(
      std::span<const culling::Placed> objects) override {
    std::vector<Result<culling::Freed>> answers;
    answers.reserve(objects.size());
    for (const auto& [directory, object] : objects) {
      remove(directory, object_of(object.name));
      answers.emplace_back(culling::Freed{object.bytes, 1});
    }
    return answers;
  }

  Result<culling::Candidate> look_at(std::size_t, std::string_view name) override {
    const std::uint32_t object = object_of(name);
    if (!has(object)) {
      return fail(Errc::kNotFound, std::string(name));
    }
    return candidate(object);
  }

  bool keep_going() override { return true; }

 private:
  struct Object {
    double filled = 0;    // seconds
    double accessed = 0;  // seconds
    std::uint32_t directory = 0;
    std::uint32_t place = 0;  // in it
    bool kept = false;
  };

  [[nodiscard]] culling::Candidate candidate(std::uint32_t object) const {
    culling::Candidate found;
    found.name = std::to_string(object);
    found.bytes = trace_.bytes[object];
    found.stat.accessed = time_of(objects_[object].accessed);
    found.stat.modified = time_of(objects_[object].filled);
    return found;
  }

  void remove(std::size_t directory, std::uint32_t object) {
    CHECK(has(object) && objects_[object].directory == directory);
    std::vector<std::uint32_t>& others = directories_[directory];
    objects_[others.back()].place = objects_[object].place;
    others[objects_[object].place] = others.back();
    others.pop_back();
    objects_[object].kept = false;
    used_bytes_ -= trace_.bytes[object];
    --count_;
  }

  const Trace& trace_;
  std::vector<Object> objects_;
  std::vector<std::vector<std::uint32_t>> directories_;
  std::uint64_t used_bytes_ = 0;
  std::uint64_t count_ = 0;
};

void make_room(SlicedCache& cache, culling::Rotation& rotation, culling::LargeObjects& large,
               std::uint64_t left, os::FileTime now, SlicedRun& run) {
  while (cache.used_bytes() > left) {
    const culling::Share share{cache.used_bytes(), cache.count(), cache.used_bytes() - left, 0};
    const Result<culling::Outcome> outcome =
        rotation.cull_slice(cache, large, share, now, kLeastStampSeconds);
    CHECK(outcome && !outcome->exhausted);
    run.culled += outcome->freed;
    run.culled_room += static_cast<double>(outcome->freed.bytes) *
                       static_cast<double>(share.objects) / static_cast<double>(share.used_bytes);
  }
}

}  // namespace

SlicedRun run_slices(const Trace& trace, double cull_part, std::uint64_t seed) {
  SlicedCache cache(trace, seed);
  culling::LargeObjects large;
  culling::Rotation rotation(seed);
  SlicedRun run;
  double stamp_seconds = kLeastStampSeconds;
  for (std::size_t i = 0; i < trace.requests.size(); ++i) {
    const std::uint32_t object = trace.requests[i];
    const double now = trace.seconds[i];
    const bool hit = cache.has(object);
    if (hit) {
      cache.use(object, now, stamp_seconds);
    } else {
      cache.add(object, now);
    }
    if (i >= trace.counted_from) {
      run.hits.count(hit, trace.bytes[object]);
    }
    if (cache.used_bytes() > trace.limit_bytes) {
      make_room(cache, rotation, large, run_bytes(trace, cull_part), time_of(now), run);
      stamp_seconds = culling::stamp_after(rotation.oldest_seconds(), kLeastStampSeconds);
    }
  }
  run.looked_at = rotation.looked_at();
  return run;
}

}  // namespace larder::cull_sim
