// A daemon whose other end, waiting, time and disk are the test's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/daemon.h"
#include "cachefilesd/limits.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "culling/candidate.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"
#include "testing/manual_clock.h"

namespace larder::cachefilesd {

// Each wait runs the next step of a script; the last one is followed by the signal to stop.
class FakeWaiter final : public Waiter {
 public:
  explicit FakeWaiter(testing::ManualClock& clock) : clock_(clock) {}

  void then(std::function<void()> step) { script_.push_back(std::move(step)); }

  Woken wait(std::span<const int> /*descriptors*/, std::optional<Duration> at_most) override {
    waits_.push_back(at_most);
    if (at_most) {
      clock_.advance(*at_most);
      if (on_time_) {
        on_time_();
      }
      return Woken::kTimedOut;
    }
    if (script_.empty()) {
      stop_ = true;
      return Woken::kTold;
    }
    const std::function<void()> step = std::move(script_.front());
    script_.pop_front();
    step();
    return Woken::kReady;
  }

  bool told_to_stop() override { return stop_; }

  bool told_to_reload() override { return std::exchange(reload_, false); }

  testing::ManualClock& clock_;
  std::deque<std::function<void()>> script_;
  std::function<void()> on_time_;  // a wait with an end has ended
  std::vector<std::optional<Duration>> waits_;
  bool stop_ = false;
  bool reload_ = false;
};

// What is at the other end: objects of one block each on a disk in memory, of which `size` may
// stay.
struct FakeCache {
  static constexpr std::uint64_t kBytes = 4096;

  FakeCache() {
    root = filesystem.open_root("/").value();
    for (const char* const name : {"cache", "graveyard"}) {
      EXPECT_TRUE(root->make_directory(name, 0700));
    }
  }

  std::unique_ptr<os::Directory> directory(const std::vector<std::string>& path) {
    auto at = filesystem.open_root("/").value();
    for (const std::string& name : path) {
      (void)at->make_directory(name, 0700);
      at = at->open_directory(name).value();
    }
    return at;
  }

  // Number n of a volume, last used `n` seconds after the others' begin.
  void add(const std::string& name, std::int64_t used, const std::string& volume = "Ivolume") {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    const std::size_t hash = std::hash<std::string>{}(name);
    const std::string fan_out{'@', kDigits[hash / 16 % 16], kDigits[hash % 16]};
    const auto parent = directory({"cache", volume, fan_out});
    const auto file = parent->create_file(name, 0600).value();
    const std::string content(kBytes, 'x');
    EXPECT_TRUE(file->write_at(0, bytes_of(content)));
    EXPECT_TRUE(file->set_times(os::FileTime{used, 0}, os::FileTime{used - 1000, 0}));
    EXPECT_TRUE(objects.insert(name).second);
  }

  void add_many(int count) {
    for (int i = 0; i < count; ++i) {
      add("Dobject" + std::to_string(i), 10'000 + i);
    }
  }

  // A line as if it was pushed.
  void push(std::uint64_t released_files = 0) {
    pushed = state();
    pushed->released_files = released_files;
  }

  control::CacheState state() {
    control::CacheState state;
    state.block_bytes = kBytes;
    state.objects = objects.size();
    state.used_bytes = objects.size() * kBytes;
    state.size_bytes = size * kBytes;
    state.culling = objects.size() > size;
    state.excess_bytes = state.culling ? std::min(objects.size() - size, most_excess) * kBytes : 0;
    std::size_t graves = 0;
    EXPECT_TRUE(root->open_directory("graveyard").value()->list([&](const os::DirectoryEntry&) {
      ++graves;
      return true;
    }));
    state.graveyard = graves > 0;
    return state;
  }

  Result<std::uint64_t> cull(os::Directory& parent, const std::string& name) {
    asked.push_back(name);
    if (refuses != 0) {
      return fail_errno(refuses, name);
    }
    if (in_use.contains(name)) {
      return fail(Errc::kBusy, name);
    }
    if (objects.erase(name) == 0) {
      return fail(Errc::kNotFound, name);
    }
    EXPECT_TRUE(parent.unlink(name));
    culled.push_back(name);
    return kBytes;
  }

  testing::FakeFilesystem filesystem;
  std::unique_ptr<os::Directory> root;
  std::set<std::string> objects;
  std::set<std::string> in_use;
  int refuses = 0;                             // every cull, with this errno
  std::size_t size = SIZE_MAX / (kBytes * 2);  // objects that may stay
  std::size_t most_excess = SIZE_MAX / kBytes;
  std::optional<control::CacheState> pushed;
  std::vector<std::string> asked;  // for their cull
  std::vector<std::string> culled;
  std::vector<Limits> given;  // by reconfigure()
  int binds = 0;
  int refused_binds = 0;  // of the next ones, with kBusy
  bool kernels = false;
  std::vector<double> told_oldest;
  std::optional<Error> broken;  // what every call says
  std::function<void()> on_cull;
  std::function<void()> on_hear;  // before each directory, at least
  std::function<void()> on_reconfigure;
};

class FakeChannel final : public CacheChannel {
 public:
  explicit FakeChannel(FakeCache& cache) : cache_(cache) {}

  [[nodiscard]] bool is_kernels() const override { return cache_.kernels; }

  [[nodiscard]] std::vector<int> descriptors() const override { return {-1}; }

  Result<> bind(const Config& /*config*/, int /*directory*/) override {
    TRY(look());
    ++cache_.binds;
    if (cache_.refused_binds > 0) {
      --cache_.refused_binds;
      return fail(Errc::kBusy, "held by another channel");
    }
    return {};
  }

  Result<> reconfigure(const Config& /*from*/, const Config& to) override {
    TRY(look());
    cache_.given.push_back(to.limits);
    if (cache_.on_reconfigure) {
      cache_.on_reconfigure();
    }
    return {};
  }

  Result<control::CacheState> ask_state() override {
    TRY(look());
    cache_.pushed.reset();  // which is older
    return cache_.state();
  }

  Result<std::optional<control::CacheState>> hear() override {
    TRY(look());
    if (cache_.on_hear) {
      cache_.on_hear();
    }
    return std::exchange(cache_.pushed, std::nullopt);
  }

  Result<> tell_oldest(double seconds) override {
    TRY(look());
    cache_.told_oldest.push_back(seconds);
    return {};
  }

  Result<std::vector<Result<std::uint64_t>>> cull(std::span<const ObjectGroup> groups) override {
    TRY(look());
    std::vector<Result<std::uint64_t>> answers;
    for (const ObjectGroup& group : groups) {
      for (const culling::Candidate& object : group.objects) {
        answers.push_back(cache_.cull(*group.directory, object.name));
      }
    }
    if (cache_.on_cull) {
      cache_.on_cull();
    }
    return answers;
  }

 private:
  Result<> look() {
    if (cache_.broken) {
      return fail(*cache_.broken);
    }
    return {};
  }

  FakeCache& cache_;
};

class DaemonFixture : public ::testing::Test {
 protected:
  DaemonFixture() { config_.directory = "/c"; }

  Result<> run() {
    Daemon daemon({.waiter = waiter_,
                   .clock = clock_,
                   .now = [this] { return now(); },
                   .open_channel = [this]() -> Result<std::unique_ptr<CacheChannel>> {
                     ++opened_;
                     if (refusals_ > 0) {
                       --refusals_;
                       return fail(Errc::kNotFound, "nobody listens");
                     }
                     cache_.broken.reset();
                     return std::make_unique<FakeChannel>(cache_);
                   },
                   .directory = directory_,
                   .open_root = [this] { return faulty_.open_root("/"); },
                   .read_config = [this] { return new_config_; },
                   .on_started = [this]() -> Result<> {
                     ++started_;
                     return {};
                   },
                   .on_status = [](std::string_view) {}},
                  config_, never_culls_);
    return daemon.run();
  }

  // now_, and as much later as the clock has gone on.
  os::FileTime now() {
    const auto gone = std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - began_);
    return {now_.seconds + gone.count(), now_.nanoseconds};
  }

  testing::ManualClock clock_;
  const MonotonicTime began_ = clock_.now();
  FakeWaiter waiter_{clock_};
  FakeCache cache_;
  testing::FaultyFilesystem faulty_{cache_.filesystem};  // as the daemon sees it
  Config config_;
  Result<Config> new_config_;
  os::FileTime now_{1'000'000, 0};
  bool never_culls_ = false;
  int opened_ = 0;
  int refusals_ = 0;  // of the next openings
  int started_ = 0;
  const UniqueFd directory_;
};

}  // namespace larder::cachefilesd
