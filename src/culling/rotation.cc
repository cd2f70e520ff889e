#include "culling/rotation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/score.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

// Why these: docs/decisions/0012-how-culling-chooses.md
constexpr double kOfASample = 0.24;  // is asked for
constexpr double kMostOfASample = 0.25;
constexpr double kForOthers = 2;       // times what is asked for beyond that
constexpr double kOldPart = 1.0 / 32;  // of a sample: what goes in any case
constexpr double kNotSoOld = 1.0 / 8;  // of the least score of those: what stays in any case
constexpr std::uint64_t kSmallCacheObjects = 8192;
constexpr std::uint64_t kLeastTogether = 1024;  // objects that are judged together
constexpr std::uint64_t kAskEvery = 256;        // objects looked at, between two questions
constexpr std::size_t kMostSorted = 4096;       // objects that go, brought into order at once

// Some samples that are neighbours.
struct Samples {
  std::size_t begin = 0;
  std::size_t count = 0;
};

struct Scored {
  double score = 0;
  bool used_again = false;
  Placed object;
};

// What is still owed.
struct Due {
  double bytes = 0;
  double files = 0;

  [[nodiscard]] bool anything() const { return bytes >= 0.5 || files >= 0.5; }

  void pay(const Freed& freed) {
    bytes -= static_cast<double>(freed.bytes);
    files -= static_cast<double>(freed.files);
  }
};

double part_of(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : std::min(1.0, static_cast<double>(part) / static_cast<double>(whole));
}

// How much of the cache must go.
double part_of_all(const Share& share) {
  return std::max(part_of(share.free_bytes, share.used_bytes),
                  part_of(share.free_files, share.objects));
}

// A little more than is asked of each, so that one pays for what is in use in another. Where much
// must go all are asked at once, and some hold less, as they were culled a moment ago: what these
// cannot give is not worth another look at all.
double most_of_a_sample(const Share& share) {
  const double beyond = std::max(0.0, part_of_all(share) - kOfASample);
  return std::min(1.0, kMostOfASample + beyond * kForOthers);
}

// What is much younger than the oldest of a sample waits for its next turn, though the sample gave
// less than a quarter: others have something that is older. `sample` has one at least.
double least_score(std::vector<Scored>& sample) {
  const auto old =
      sample.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(sample.size()) * kOldPart);
  std::ranges::nth_element(sample, old, std::ranges::greater(), &Scored::score);
  return old->score * kNotSoOld;
}

// The next of a heap of candidates, as many as are due by what they hold themselves; those of one
// directory together, since a directory is worth being opened for many, and in the order in which
// inodes lie on a disk, since neighbours share blocks that each cull changes. None below `least`.
std::vector<Placed> take_due(std::vector<Scored>& heap, std::size_t most, double least, Due due) {
  std::vector<Placed> taken;
  while (due.anything() && !heap.empty() && taken.size() < most && heap.front().score >= least) {
    std::ranges::pop_heap(heap, std::ranges::less(), &Scored::score);
    due.pay({heap.back().object.candidate.bytes, 1});
    taken.push_back(std::move(heap.back().object));
    heap.pop_back();
  }
  std::ranges::sort(taken, [](const Placed& a, const Placed& b) {
    return std::tie(a.directory, a.candidate.stat.inode) <
           std::tie(b.directory, b.candidate.stat.inode);
  });
  return taken;
}

}  // namespace

// One slice at work.
class Rotation::Slice {
 public:
  Slice(Rotation& rotation, FanOut& fan_out, LargeObjects& large, os::FileTime now,
        double stamp_seconds)
      : rotation_(rotation),
        fan_out_(fan_out),
        large_(large),
        now_(now),
        stamp_seconds_(stamp_seconds) {}

  void owe(double bytes, double files) {
    due_.bytes += bytes;
    due_.files += files;
  }

  void forgive() { due_ = {}; }

  [[nodiscard]] const Due& due() const { return due_; }

  [[nodiscard]] const Outcome& outcome() const { return outcome_; }

  // Of the objects that are known to be large, and still have `large_from` bytes.
  Result<> cull_large(std::uint64_t large_from);
  // Of samples together, the `next` to come after them; objects from `large_from` bytes on become
  // known. At most `part` of the candidates go, whatever is still owed, and of a quarter only what
  // is old beside the oldest.
  Result<> cull_samples(Samples chosen, Samples next, std::uint64_t large_from, double part);

 private:
  [[nodiscard]] bool may_go_on() {
    outcome_.stopped = outcome_.stopped || !fan_out_.keep_going();
    return !outcome_.stopped;
  }

  // False: stop.
  [[nodiscard]] bool look() { return ++rotation_.looked_at_ % kAskEvery != 0 || may_go_on(); }

  void consider(std::size_t directory, Candidate&& candidate);
  Result<> list(std::size_t directory, std::uint64_t large_from);
  // Those of a sample, of all volumes.
  [[nodiscard]] std::vector<std::size_t> directories_of(Samples samples) const;
  Result<> cull_best(std::size_t most, bool only_old);
  // What is in use among the candidates tells what the others weigh.
  void learn_weight();
  void score_all();

  // Of the candidates; 0: there are none.
  struct Ages {
    double youngest = 0;
    double oldest = 0;
  };

  [[nodiscard]] Ages ages() const;
  Result<std::size_t> cull_batch(std::span<const Placed> batch);
  Result<std::size_t> cull_taken(std::vector<Placed> taken);

  Rotation& rotation_;
  FanOut& fan_out_;
  LargeObjects& large_;
  const os::FileTime now_;
  const double stamp_seconds_;
  Due due_;
  std::vector<Scored> candidates_;
  Outcome outcome_;
};

void Rotation::Slice::consider(std::size_t directory, Candidate&& candidate) {
  if (is_pinned(candidate.stat)) {
    ++outcome_.pinned;
  } else if (fan_out_.in_use(directory, candidate.name)) {
    ++outcome_.in_use;
  } else {
    const bool used_again = is_used_again(candidate.stat, stamp_seconds_);
    candidates_.push_back({0, used_again, {directory, std::move(candidate)}});
  }
}

Result<> Rotation::Slice::list(std::size_t directory, std::uint64_t large_from) {
  return fan_out_.list(directory, [&](Candidate&& candidate) {
    if (candidate.bytes < large_from) {
      consider(directory, std::move(candidate));
    } else if (large_.add(directory, candidate.name, candidate.bytes)) {
      rotation_.in_vain_ = 0;  // something new that the next slice may cull
    }
    return look();
  });
}

// Returns how many went.
Result<std::size_t> Rotation::Slice::cull_batch(std::span<const Placed> batch) {
  std::size_t went = 0;
  const std::vector<Result<Freed>> answers = TRY(fan_out_.cull(batch));
  CHECK(answers.size() == batch.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (answers[i]) {
      ++went;
      outcome_.freed += *answers[i];
      due_.pay(*answers[i]);
    } else if (answers[i].error().code() == Errc::kBusy) {
      ++outcome_.in_use;
    } else if (answers[i].error().code() != Errc::kNotFound && !outcome_.refused) {
      outcome_.refused = answers[i].error();
    }
    if (answers[i] || answers[i].error().code() == Errc::kNotFound) {
      large_.remove(batch[i].directory, batch[i].candidate.name);
    }
  }
  return went;
}

// Those that were taken for it, by batches. Returns how many went; what stays is a candidate again.
Result<std::size_t> Rotation::Slice::cull_taken(std::vector<Placed> taken) {
  std::size_t went = 0;
  std::span<Placed> left(taken);
  while (due_.anything() && !left.empty() && may_go_on()) {
    const std::size_t count = std::min(left.size(), kMostInBatch);
    went += TRY(cull_batch(left.first(count)));
    left = left.subspan(count);
  }
  for (Placed& stays : left) {  // more was freed than it said, or we are to stop
    candidates_.push_back({0, true, std::move(stays)});
  }
  return went;
}

// The highest scores first, until nothing is owed, `most` are gone, or no other is old. Those that
// turned out to be in use do not say what is.
Result<> Rotation::Slice::cull_best(std::size_t most, bool only_old) {
  std::size_t went = 0;
  double least = 0;
  while (due_.anything() && !candidates_.empty() && went < most && may_go_on()) {
    if (went == 0) {
      least = only_old ? least_score(candidates_) : 0;
      std::ranges::make_heap(candidates_, std::ranges::less(), &Scored::score);
    }
    const std::size_t at_once = std::min(most - went, kMostSorted);
    std::vector<Placed> taken = take_due(candidates_, at_once, least, due_);
    if (taken.empty()) {
      break;
    }
    went += TRY(cull_taken(std::move(taken)));
  }
  return {};
}

Result<> Rotation::Slice::cull_large(std::uint64_t large_from) {
  std::vector<LargeObjects::Place> gone;
  candidates_.clear();
  for (const auto& [place, bytes] : large_.all()) {
    Result<Candidate> candidate = fan_out_.look_at(place.directory, place.name);
    if (!candidate || candidate->bytes < large_from) {
      gone.push_back(place);  // it is, or the cache has grown and it is one of many now
    } else {
      consider(place.directory, std::move(*candidate));
    }
    if (!look()) {
      return {};
    }
  }
  for (const LargeObjects::Place& place : gone) {
    large_.remove(place.directory, place.name);
  }
  score_all();
  return cull_best(candidates_.size(), false);
}

void Rotation::Slice::learn_weight() {
  std::vector<double> unused;
  for (const Scored& each : candidates_) {
    if (each.used_again) {
      unused.push_back(seconds_unused(each.object.candidate.stat, now_));
    }
  }
  rotation_.weight_ = weight_of_never_used_again(std::move(unused)).value_or(rotation_.weight_);
}

void Rotation::Slice::score_all() {
  for (Scored& each : candidates_) {
    const double weight = each.used_again ? kUsedAgain : rotation_.weight_;
    each.score = score(each.object.candidate, now_, weight);
  }
}

std::vector<std::size_t> Rotation::Slice::directories_of(Samples samples) const {
  const std::size_t directories = fan_out_.directories();
  const std::size_t numbers = std::min(directories, kSamples);
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < samples.count; ++i) {
    const std::size_t number = (samples.begin + i) % numbers;
    for (std::size_t directory = number; directory < directories; directory += kSamples) {
      found.push_back(directory);
    }
  }
  return found;
}

Result<> Rotation::Slice::cull_samples(Samples chosen, Samples next, std::uint64_t large_from,
                                       double part) {
  candidates_.clear();
  rotation_.cursor_ = next.begin;
  for (const std::size_t directory : directories_of(chosen)) {
    if (!may_go_on()) {
      break;
    }
    TRY(list(directory, large_from));
  }
  if (outcome_.stopped) {
    rotation_.cursor_ = chosen.begin;  // nothing of them was culled
    return {};
  }
  fan_out_.expect(directories_of(next));
  rotation_.in_vain_ += chosen.count;
  learn_weight();
  score_all();
  const std::size_t listed = candidates_.size();
  const double youngest = ages().youngest;
  const auto most = static_cast<std::size_t>(static_cast<double>(listed) * part) + 1;
  TRY(cull_best(most, part <= kMostOfASample));
  if (outcome_.stopped && candidates_.size() == listed) {
    rotation_.cursor_ = chosen.begin;
  }
  const double oldest = candidates_.empty() ? youngest : ages().oldest;
  rotation_.oldest_seconds_ = std::max(rotation_.oldest_seconds_ * 0.99, oldest);
  return {};
}

Rotation::Slice::Ages Rotation::Slice::ages() const {
  Ages ages;
  for (const Scored& each : candidates_) {
    const double age = seconds_unused(each.object.candidate.stat, now_);
    ages.youngest = &each == candidates_.data() ? age : std::min(ages.youngest, age);
    ages.oldest = std::max(ages.oldest, age);
  }
  return ages;
}

std::size_t slice_of(std::size_t samples, const Share& share) {
  if (share.objects <= kSmallCacheObjects || samples == 0) {
    return samples;
  }
  const auto needed = static_cast<std::size_t>(
      std::ceil(part_of_all(share) / kOfASample * static_cast<double>(samples)));
  return std::clamp(needed, std::size_t{1}, samples);
}

std::size_t together_of(std::size_t samples, std::uint64_t objects) {
  if (objects <= kSmallCacheObjects) {
    return samples;
  }
  return std::max<std::size_t>(1, kLeastTogether * samples / objects);
}

Result<Outcome> Rotation::cull_slice(FanOut& fan_out, LargeObjects& large, const Share& share,
                                     os::FileTime now, double stamp_seconds) {
  Slice slice(*this, fan_out, large, now, stamp_seconds);
  const auto free_bytes = static_cast<double>(share.free_bytes);
  const auto free_files = static_cast<double>(share.free_files);
  // A small cache is one sample, its large objects too.
  const bool small = share.objects <= kSmallCacheObjects;
  const std::uint64_t from = small ? UINT64_MAX : large_from(share.used_bytes);
  const double large_part = small ? 0 : part_of(large.bytes(), share.used_bytes);
  slice.owe(free_bytes * large_part - large_ahead_,
            free_files * part_of(large.all().size(), share.objects));
  if (!small && slice.due().anything()) {
    TRY(slice.cull_large(from));
  }
  const Freed of_large = slice.outcome().freed;

  const std::size_t samples = std::min(fan_out.directories(), kSamples);
  const std::size_t width = slice_of(samples, share);
  const std::size_t together = together_of(samples, share.objects);
  const double most = small ? 1.0 : most_of_a_sample(share);
  // What the large ones overpaid is not asked of the others.
  const double bytes = free_bytes - static_cast<double>(of_large.bytes);
  const double files = free_files - static_cast<double>(of_large.files);
  slice.forgive();
  std::size_t count = 0;
  for (std::size_t done = 0; done < width && !slice.outcome().stopped; done += count) {
    count = std::min(together, width - done);
    const double part = static_cast<double>(count) / static_cast<double>(width);
    slice.owe(bytes * part, files * part);
    if (!slice.due().anything()) {
      continue;  // those before gave more than their share: the next keep their turn
    }
    const Samples chosen{cursor_ % samples, count};
    const Samples next{(chosen.begin + count) % samples, std::min(together, width - done - count)};
    TRY(slice.cull_samples(chosen, next, from, most));
  }
  fan_out.expect({});
  return finish(slice.outcome(), of_large, large_part, samples);
}

// One large object may give many times its share; it counts for what is asked for next.
Outcome Rotation::finish(Outcome outcome, const Freed& of_large, double large_part,
                         std::size_t samples) {
  large_ahead_ = std::max(0.0, large_ahead_ + static_cast<double>(of_large.bytes) -
                                   large_part * static_cast<double>(outcome.freed.bytes));
  if (outcome.freed.files > 0) {
    in_vain_ = 0;
  } else if (large_ahead_ > 0) {
    large_ahead_ = 0;  // nobody else can give
    in_vain_ = 0;
  }
  outcome.exhausted = in_vain_ >= samples && !outcome.stopped;
  if (outcome.exhausted) {
    in_vain_ = 0;
  }
  return outcome;
}

}  // namespace larder::culling
