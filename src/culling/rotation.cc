#include "culling/rotation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/score.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr std::size_t kSlicePart = 8;      // an eighth of the directories
constexpr double kMostOfADirectory = 4.0;  // a quarter
constexpr std::uint64_t kSmallCacheObjects = 16384;

struct Scored {
  double score = 0;
  std::size_t directory = 0;
  Candidate candidate;
};

// The greater of the two shares: one of them is usually zero.
double fraction_of(const Share& share) {
  const auto part = [](std::uint64_t of, std::uint64_t whole) {
    return whole == 0 ? 0.0 : static_cast<double>(of) / static_cast<double>(whole);
  };
  return std::min(1.0, std::max(part(share.free_bytes, share.used_bytes),
                                part(share.free_files, share.objects)));
}

}  // namespace

// What a slice still owes.
struct Rotation::Due {
  os::FileTime now;
  double stamp_seconds = 0;
  std::uint64_t large_from = 0;
  LargeObjects* large = nullptr;
  double bytes = 0;
  double files = 0;

  [[nodiscard]] bool anything() const { return bytes > 0 || files > 0; }

  void pay(const Freed& freed) {
    bytes -= static_cast<double>(freed.bytes);
    files -= static_cast<double>(freed.files);
  }
};

std::size_t slice_of(std::size_t directories, const Share& share) {
  if (share.objects <= kSmallCacheObjects) {
    return directories;
  }
  const auto needed = static_cast<std::size_t>(
      std::ceil(fraction_of(share) * kMostOfADirectory * static_cast<double>(directories)));
  return std::clamp(needed, (directories + kSlicePart - 1) / kSlicePart, directories);
}

Result<Freed> Rotation::cull_large(FanOut& fan_out, LargeObjects& large, Due& due) {
  std::vector<Scored> known;
  std::vector<LargeObjects::Place> gone;
  for (const auto& [place, bytes] : large.all()) {
    if (fan_out.in_use(place.directory, place.name)) {
      continue;
    }
    ++looked_at_;
    Result<Candidate> candidate = fan_out.look_at(place.directory, place.name);
    if (!candidate || candidate->bytes < due.large_from) {
      gone.push_back(place);  // it is, or the cache has grown and it is one of many now
    } else if (!is_pinned(candidate->stat)) {
      const double value = score(candidate->stat, due.now, due.stamp_seconds);
      known.push_back({value, place.directory, std::move(*candidate)});
    }
  }
  for (const LargeObjects::Place& place : gone) {
    large.remove(place.directory, place.name);
  }
  std::ranges::sort(known, std::ranges::greater(), &Scored::score);
  Freed freed;
  for (const Scored& next : known) {
    if (!due.anything()) {
      break;
    }
    const Result<Freed> got = fan_out.cull(next.directory, next.candidate);
    if (got) {
      freed += *got;
      due.pay(*got);
      large.remove(next.directory, next.candidate.name);
    } else if (got.error().code() == Errc::kIo || got.error().code() == Errc::kCacheDead) {
      return fail(got.error());
    }
  }
  return freed;
}

// One sample: the directories' objects together, the highest scores first.
Result<Freed> Rotation::cull_directories(FanOut& fan_out, std::size_t begin, std::size_t count,
                                         Due& due) {
  std::vector<Scored> candidates;
  const std::size_t all = fan_out.directories();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t directory = (begin + i) % all;
    const Result<> listed = fan_out.list(directory, [&](Candidate&& candidate) {
      ++looked_at_;
      if (candidate.bytes >= due.large_from) {
        due.large->add(directory, candidate.name, candidate.bytes);
        return;
      }
      if (!is_pinned(candidate.stat) && !fan_out.in_use(directory, candidate.name)) {
        const double value = score(candidate.stat, due.now, due.stamp_seconds);
        candidates.push_back({value, directory, std::move(candidate)});
      }
    });
    if (!listed) {
      return fail(listed.error());
    }
  }
  std::ranges::make_heap(candidates, std::ranges::less(), &Scored::score);
  // No directory loses more than a quarter at once, whatever others still owe.
  std::size_t most = count == all ? candidates.size() : candidates.size() / 4 + 1;
  Freed freed;
  for (; due.anything() && !candidates.empty() && most > 0; --most) {
    std::ranges::pop_heap(candidates, std::ranges::less(), &Scored::score);
    const Scored next = std::move(candidates.back());
    candidates.pop_back();
    const Result<Freed> got = fan_out.cull(next.directory, next.candidate);
    if (got) {
      freed += *got;
      due.pay(*got);
    } else if (got.error().code() == Errc::kIo || got.error().code() == Errc::kCacheDead) {
      return fail(got.error());
    }
  }
  if (!candidates.empty()) {
    const double oldest = seconds_unused(candidates.front().candidate.stat, due.now);
    oldest_seconds_ = std::max(oldest, oldest_seconds_ * 0.99);
  }
  return freed;
}

Result<Freed> Rotation::cull_slice(FanOut& fan_out, LargeObjects& large, const Share& share,
                                   os::FileTime now, double stamp_seconds) {
  Freed freed;
  Due due;
  due.now = now;
  due.stamp_seconds = stamp_seconds;
  // A small cache is one sample, its large objects too.
  const bool small = share.objects <= kSmallCacheObjects;
  due.large_from = small ? UINT64_MAX : large_from(share.used_bytes);
  due.large = &large;
  const double large_part = share.used_bytes == 0
                                ? 0.0
                                : std::min(1.0, static_cast<double>(large.bytes()) /
                                                    static_cast<double>(share.used_bytes));
  due.bytes = static_cast<double>(share.free_bytes) * large_part;
  if (!small) {
    freed += TRY(cull_large(fan_out, large, due));
  }

  const std::size_t directories = fan_out.directories();
  if (directories == 0) {
    return freed;
  }
  const std::size_t slice = slice_of(directories, share);
  const std::size_t group = small ? slice : 1;
  // What the large ones overpaid is not asked of the others.
  const double bytes = static_cast<double>(share.free_bytes) - static_cast<double>(freed.bytes);
  const double files = static_cast<double>(share.free_files) - static_cast<double>(freed.files);
  due.bytes = 0;
  due.files = 0;
  for (std::size_t done = 0; done < slice; done += group) {
    due.bytes += bytes * static_cast<double>(group) / static_cast<double>(slice);
    due.files += files * static_cast<double>(group) / static_cast<double>(slice);
    const auto begin = static_cast<std::size_t>(cursor_ % directories);
    cursor_ = begin + group;
    freed += TRY(cull_directories(fan_out, begin, group, due));
  }
  return freed;
}

}  // namespace larder::culling
