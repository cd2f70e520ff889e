#include "cachefilesd/caretaker.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefilesd/config.h"
#include "cachefilesd/graveyard.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"

namespace larder::cachefilesd {
namespace {

using control::CacheState;

constexpr double kStampSeconds = 60;
constexpr int kPauseFactor = 10;
constexpr Duration kRefusedFor = std::chrono::minutes(1);  // then it is tried again
constexpr std::chrono::milliseconds kLongestStep{20};      // in the graveyard, or beside a slice

// The two clocks need not agree to the second.
constexpr std::chrono::seconds kLookAgainAfter = Graveyard::kSparedFor + std::chrono::seconds(1);

bool has_same_limits(const CacheState& a, const CacheState& b) {
  return a.frun == b.frun && a.fcull == b.fcull && a.fstop == b.fstop && a.brun == b.brun &&
         a.bcull == b.bcull && a.bstop == b.bstop && a.size_bytes == b.size_bytes;
}

}  // namespace

Caretaker::Caretaker(const Parts& parts, const Settings& settings)
    : parts_(parts),
      settings_(settings),
      rotation_(parts.now().nanoseconds),  // anywhere, so that nobody is always the first
      not_before_(parts.clock.now()) {
  parts_.tree.ask([this] { return keep_going(); });
}

void Caretaker::hear(const CacheState& state) {
  released_files_ += state.released_files;
  released_blocks_ += state.released_blocks;
  const bool begins = state.culling && !state_.culling;
  if (begins) {
    estimated_.reset();
  }
  if (begins || (exhausted_ && (released_enough() || !has_same_limits(state, state_)))) {
    exhausted_ = false;
    begin_round();
  }
  graves_ = graves_ || state.graveyard;
  state_ = state;
}

bool Caretaker::released_enough() const {
  const ResumeThresholds& resume = settings_.resume;
  return (resume.files && released_files_ >= *resume.files) ||
         (resume.blocks && released_blocks_ >= *resume.blocks);
}

bool Caretaker::is_asked() const {
  return settings_.culls && state_.culling && !exhausted_ &&
         (state_.excess_bytes > 0 || state_.excess_files > 0);
}

std::optional<MonotonicTime> Caretaker::until() const {
  if (is_asked() && graves_again_) {
    return std::min(not_before_, *graves_again_);
  }
  return is_asked() ? std::optional(not_before_) : graves_again_;
}

Result<Caretaker::Next> Caretaker::step() {
  if (graves_again_ && parts_.clock.now() >= *graves_again_) {
    graves_again_.reset();
    parts_.graveyard.try_again();
    graves_ = true;
  }
  const bool due = is_asked() && parts_.clock.now() >= not_before_;
  if (due && !(graves_ && culled_last_)) {
    culled_last_ = true;
    TRY(cull());
    return Next::kMore;
  }
  culled_last_ = false;
  if (graves_) {
    TRY(reap());
    return Next::kMore;
  }
  return Next::kRest;
}

bool Caretaker::keep_going() {
  if (failure_ || parts_.waiter.told_to_stop()) {
    return false;
  }
  const Result<std::optional<CacheState>> news = parts_.channel.hear();
  if (!news) {
    failure_ = news.error();
    return false;
  }
  if (const std::optional<CacheState>& line = *news) {
    hear(*line);
  }
  return is_asked();
}

Result<culling::Share> Caretaker::share() {
  culling::Share share{state_.used_bytes, state_.objects, 0, 0};
  const bool counts = !parts_.channel.is_kernels();
  if (!counts && !estimated_) {
    estimated_ = TRY(parts_.tree.estimate());
  }
  share = counts ? share : estimated_.value_or(share);
  share.free_bytes = state_.excess_bytes;
  share.free_files = state_.excess_files;
  return share;
}

Result<> Caretaker::cull() {
  const MonotonicTime begin = parts_.clock.now();
  const std::uint64_t looked_at = rotation_.looked_at();
  if (TRY(parts_.tree.find_volumes())) {
    large_ = {};
  }
  const culling::Share share = TRY(this->share());
  TRY(find_large(share.used_bytes));
  const culling::Outcome outcome =
      TRY(rotation_.cull_slice(parts_.tree, large_, share, parts_.now(), kStampSeconds));
  if (failure_) {
    return fail(*failure_);
  }
  log_debug(
      "a slice for {} bytes and {} objects looked at {} objects and gave {} bytes, {} objects; {} "
      "in "
      "use, {} pinned",
      share.free_bytes, share.free_files, rotation_.looked_at() - looked_at, outcome.freed.bytes,
      outcome.freed.files, outcome.in_use, outcome.pinned);
  const MonotonicTime end = parts_.clock.now();
  round_ += end - begin;
  if (outcome.freed.files > 0) {
    begin_round();
  }
  note_refused(outcome);
  if (outcome.exhausted) {
    note_exhausted(outcome, end);
  }
  return look_what_is_left();
}

// A disk that takes no changes refuses all of them with one errno: that is said once.
void Caretaker::note_refused(const culling::Outcome& outcome) {
  if (outcome.freed.files > 0) {
    refused_.reset();
  }
  if (outcome.refused &&
      (!refused_ || refused_->error_number() != outcome.refused->error_number())) {
    refused_ = outcome.refused;
    log_warning("objects cannot be culled: {}", refused_->message());
  }
}

// What was released before is met in it.
void Caretaker::begin_round() {
  rotation_.begin_round();
  round_ = {};
  released_files_ = 0;
  released_blocks_ = 0;
}

// Who was refused is not told when that is over, so he tries again; in use is what is told of. What
// was released while the round was under way may have been looked at before.
void Caretaker::note_exhausted(const culling::Outcome& outcome, MonotonicTime now) {
  if (!refused_) {
    log_info("nothing can be culled: {} objects are in use, {} pinned", outcome.in_use,
             outcome.pinned);
    exhausted_ = !released_enough();
  }
  estimated_.reset();
  not_before_ =
      now + std::max<Duration>(kPauseFactor * round_, refused_ ? kRefusedFor : Duration{});
  begin_round();
}

// Some before each slice: the first does not wait until all are known.
Result<> Caretaker::find_large(std::uint64_t cache_bytes) {
  const MonotonicTime until = parts_.clock.now() + kLongestStep;
  return parts_.tree.find_large(large_, culling::large_from(cache_bytes),
                                [&] { return parts_.clock.now() >= until; });
}

Result<> Caretaker::look_what_is_left() {
  if (parts_.waiter.told_to_stop()) {
    return {};
  }
  hear(TRY(parts_.channel.ask_state()));
  if (!is_asked() && rotation_.oldest_seconds() > 0) {
    TRY(parts_.channel.tell_oldest(rotation_.oldest_seconds()));
  }
  return {};
}

Result<> Caretaker::reap() {
  const std::uint64_t before = parts_.graveyard.removed();
  // Large files take long to remove.
  const MonotonicTime until = parts_.clock.now() + kLongestStep;
  graves_ = parts_.graveyard.empty_some(
      [&] { return !parts_.waiter.told_to_stop() && parts_.clock.now() < until; });
  note_what_stays();
  // Whoever keeps the cache sees for himself that nothing is left, and says what came meanwhile.
  if (!graves_ && parts_.graveyard.removed() != before && !parts_.waiter.told_to_stop()) {
    hear(TRY(parts_.channel.ask_state()));
  }
  return {};
}

// Nobody tells when a file among the graves is old enough, or when one may be removed by now.
void Caretaker::note_what_stays() {
  if (graves_) {
    return;
  }
  if (!parts_.graveyard.anything_stays()) {
    graves_again_.reset();
  } else if (!graves_again_) {
    graves_again_ = parts_.clock.now() + kLookAgainAfter;
  }
}

}  // namespace larder::cachefilesd
