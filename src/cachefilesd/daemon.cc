#include "cachefilesd/daemon.h"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/growing_pause.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/cache_tree.h"
#include "cachefilesd/caretaker.h"
#include "cachefilesd/config.h"
#include "cachefilesd/graveyard.h"
#include "cachefilesd/waiter.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {
namespace {

constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::seconds kLongestPause{30};
// At the start, with whoever has the cache: one that was killed may be on its way out.
constexpr std::chrono::seconds kPatience{10};
constexpr std::chrono::seconds kLongestPauseAtStart{1};
constexpr std::chrono::minutes kLongLife{1};  // after which the pauses begin anew

// What stays as it is until the next start.
void keep_what_is_fixed(Config& config, const Config& before) {
  const auto keep = [](auto& value, const auto& old, const char* word) {
    if (value != old) {
      log_warning("`{}` has changed: that takes a restart of cachefilesd", word);
      value = old;
    }
  };
  keep(config.directory, before.directory, "dir");
  keep(config.tag, before.tag, "tag");
  keep(config.security_context, before.security_context, "secctx");
  keep(config.runtime_directory, before.runtime_directory, "runtime-dir");
  keep(config.device, before.device, "device");
}

}  // namespace

Daemon::Daemon(Parts parts, Config config, bool never_culls)
    : parts_(std::move(parts)),
      never_culls_(never_culls),
      config_(std::move(config)),
      pause_(kFirstPause, kLongestPause) {}

Result<> Daemon::run() {
  const MonotonicTime patient_until = parts_.clock.now() + kPatience;
  GrowingPause pause_at_start(kFirstPause, kLongestPauseAtStart);
  for (;;) {
    const Result<> held = hold();
    if (held || held.error().code() == Errc::kCancelled || parts_.waiter.told_to_stop()) {
      return {};
    }
    const bool may_come_free =
        !started_ && held.error().code() == Errc::kBusy && parts_.clock.now() < patient_until;
    if (!may_come_free && (!started_ || is_kernels_ || removed_)) {
      return held;
    }
    if (may_come_free) {
      note_busy(held.error());
    } else {
      note_error(held.error());
    }
    if (!pause(may_come_free ? pause_at_start.take() : pause_.take())) {
      return {};
    }
  }
}

void Daemon::note_busy(const Error& error) {
  if (trouble_ != error.message()) {
    trouble_ = error.message();
    log_info("{}; trying for {} seconds", trouble_, kPatience.count());
    parts_.on_status(fmt::format("waiting for the cache: {}", trouble_));
  }
}

void Daemon::note_error(const Error& error) {
  // That nobody listens is what follows from an engine's end; all else is news.
  const bool news = error.code() != Errc::kNotFound && trouble_ != error.message();
  if (trouble_.empty() || news) {
    trouble_ = error.message();
    log_warning("the cache {} is not online any more: {}; trying to bring it up again",
                config_.directory, trouble_);
    parts_.on_status(fmt::format("waiting for the engine: {}", trouble_));
  }
  if (bound_at_ && parts_.clock.now() - *bound_at_ >= kLongLife) {
    pause_.reset();
  }
  bound_at_.reset();
}

bool Daemon::pause(Duration length) {
  const MonotonicTime until = parts_.clock.now() + length;
  for (;;) {
    if (parts_.waiter.told_to_stop()) {
      return false;
    }
    if (parts_.waiter.told_to_reload()) {
      reload(nullptr, nullptr);
    }
    const Duration left = until - parts_.clock.now();
    if (left <= Duration{}) {
      return true;
    }
    (void)parts_.waiter.wait({}, left);
  }
}

Result<> Daemon::hold() {
  const std::unique_ptr<CacheChannel> channel = TRY(parts_.open_channel());
  is_kernels_ = channel->is_kernels();
  const auto root = TRY(parts_.open_root());
  const os::FileStat found = TRY(root->stat_self());
  removed_ = found.link_count == 0;
  if (removed_) {
    return fail(Errc::kUnsuitable,
                fmt::format("the directory {} was removed: start cachefilesd again, which makes it "
                            "anew",
                            config_.directory));
  }
  TRY(channel->bind(config_, parts_.directory.get()));
  bound_at_ = parts_.clock.now();
  Graveyard graveyard(*root, parts_.now);
  const auto tree =
      TRY(CacheTree::open(*root, *channel, parts_.clock, is_kernels_ ? &graveyard : nullptr));
  Caretaker caretaker({.channel = *channel,
                       .tree = *tree,
                       .graveyard = graveyard,
                       .waiter = parts_.waiter,
                       .clock = parts_.clock,
                       .now = parts_.now},
                      settings());
  log_info("the cache {} is online", config_.directory);
  parts_.on_status(fmt::format("the cache {} is online", config_.directory));
  trouble_.clear();
  if (!started_) {
    TRY(parts_.on_started());
    started_ = true;
  }
  return care(*channel, caretaker);
}

Result<> Daemon::care(CacheChannel& channel, Caretaker& caretaker) {
  caretaker.hear(TRY(channel.ask_state()));
  for (;;) {
    if (parts_.waiter.told_to_stop()) {
      return {};
    }
    TRY(listen(channel, caretaker));
    if (TRY(caretaker.step()) == Caretaker::Next::kMore) {
      continue;
    }
    const auto until = caretaker.until();
    (void)parts_.waiter.wait(channel.descriptors(),
                             until ? std::optional(*until - parts_.clock.now()) : std::nullopt);
  }
}

Result<> Daemon::listen(CacheChannel& channel, Caretaker& caretaker) {
  if (parts_.waiter.told_to_reload()) {
    reload(&channel, &caretaker);
    // What was pushed while limits were on their way is no reason to cull.
    caretaker.hear(TRY(channel.ask_state()));
  }
  if (const auto news = TRY(channel.hear())) {
    caretaker.hear(*news);
  }
  return {};
}

Caretaker::Settings Daemon::settings() const {
  return {.culls = config_.culls && !never_culls_, .resume = config_.resume};
}

// `channel`, `caretaker`: null while there is no cache online.
void Daemon::reload(CacheChannel* channel, Caretaker* caretaker) {
  Result<Config> config = parts_.read_config();
  if (!config) {
    log_error("the configuration stays as it was: {}", config.error().message());
    return;
  }
  keep_what_is_fixed(*config, config_);
  if (channel != nullptr) {
    const Result<> given = channel->reconfigure(config_, *config);
    // What was pushed while limits were on their way is no reason to cull. An error comes again.
    if (const auto state = channel->ask_state()) {
      caretaker->hear(*state);
    }
    // Who hung up is told at the next bind.
    if (!given && given.error().code() != Errc::kCacheDead) {
      log_error("the configuration stays as it was: {}", given.error().message());
      return;
    }
  }
  config_ = std::move(*config);
  if (caretaker != nullptr) {
    caretaker->set(settings());
  }
  log_info("the configuration was read again");
}

}  // namespace larder::cachefilesd
