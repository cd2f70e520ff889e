// The simulation of a share: random reads, opens, changes on the server, faults of the cache and
// restarts, all from one seed, under a stepper. Its one property is the second law: what a read
// returns the server held, in one piece, at a moment that the coherency rule allows.
//
// LARDER_SEED=N replays one run; LARDER_SIM_RUNS=N changes how many there are.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/coherency.h"
#include "netfs/share.h"
#include "testing/fake_server.h"
#include "testing/memory_backend.h"
#include "testing/stepper.h"

namespace larder {
namespace {

using testing::FakeAdapter;
using testing::FakeServer;
using testing::MemoryDisk;
using testing::Stepper;

constexpr auto kLongEnough = std::chrono::hours(1);
// A change that leaves the stamps as they are is seen, at the latest, by an open this long after
// it: the settling time of 2 s, from when the stamps were first seen.
constexpr auto kSettling = std::chrono::milliseconds(2001);

std::uint64_t environment_number(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

std::string random_bytes(std::mt19937_64& random, std::size_t size) {
  std::string bytes(size, '\0');
  std::uint64_t word = random();
  for (std::size_t i = 0; i < size; ++i) {
    if (i % 4096 == 0) {
      word = random();  // every page of every version differs from every other
    }
    bytes[i] = static_cast<char>((word >> (i % 8 * 8)) + i / 8);
  }
  return bytes;
}

class Simulation {
 public:
  explicit Simulation(std::uint64_t seed)
      : random_(seed), stepper_(seed), server_(stepper_.clock()) {
    server_.granularity = pick<netfs::Timestamp>({{0, 1}, {0, 4'000'000}, {1, 0}});
    server_.say_granularity = chance(50);
    server_.post_op_attributes = chance(85);
    server_.read_size = pick<std::uint32_t>({4096, 32768, 50'000, 1024 * 1024});
    server_.clock_offset_seconds = pick<std::int64_t>({-3600, 0, 3600});
    for (int i = 0; i < kFiles; ++i) {
      server_.add_file(name_of(i), random_bytes(random_, random_size()));
    }
    stepper_.advance(std::chrono::seconds(pick<int>({0, 100})));
    mount();
  }

  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  ~Simulation() {
    unmount();
    caches_.reset();
    stepper_.run();
  }

  void run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      step();
      for (std::uint64_t left = random_() % 12; left > 0 && stepper_.step(); --left) {
      }
    }
    finish_reads();
  }

  [[nodiscard]] std::uint64_t reads() const { return reads_checked_; }

  [[nodiscard]] std::uint64_t cached_bytes() const { return cached_bytes_; }

 private:
  static constexpr int kFiles = 5;

  struct Open {
    int file;
    MonotonicTime since;  // when open(2) began
    netfs::OpenFile open;
  };

  template <class T>
  T pick(std::initializer_list<T> choices) {
    return *(choices.begin() + random_() % choices.size());
  }

  bool chance(unsigned percent) { return random_() % 100 < percent; }

  static std::string name_of(int file) { return fmt::format("file{}", file); }

  std::size_t random_size() {
    return pick<std::size_t>({0, 1, 4095, 4096, 4097, 65'536, 65'537, 200'000, 1'500'000}) +
           random_() % 3;
  }

  std::uint64_t fileid(int file) const {
    return FakeServer::kRoot + 1 + static_cast<std::uint64_t>(file);
  }

  void mount() {
    caches_ = std::make_unique<fscache::Caches>(stepper_);
    auto cache = caches_->find_or_make("sim");
    disk_.dead = false;
    ASSERT_TRUE(cache->add_backend(testing::make_memory_backend(disk_)));
    auto adapter = std::make_unique<FakeAdapter>(server_, stepper_);
    control_ = adapter->control();
    std::optional<Result<std::unique_ptr<netfs::Share>>> mounted;
    netfs::Share::start_mount(
        std::move(adapter), stepper_, cache, {},
        [&](Result<std::unique_ptr<netfs::Share>> share) { mounted = std::move(share); },
        [](const std::unique_ptr<netfs::Adapter>& failed) { failed->shut_down(); });
    stepper_.run();
    ASSERT_TRUE(mounted && mounted->has_value());
    share_ = std::move(**mounted);
  }

  void unmount() {
    control_->errors.clear();
    control_->release();
    opens_.clear();
    if (share_ != nullptr) {
      cached_bytes_ += share_->statistics().bytes_from_cache;
      share_->shut_down();
      stepper_.run();
      share_.reset();
    }
    stepper_.run();
  }

  void step() {
    const std::uint64_t what = random_() % 100;
    if (what < 20) {
      open();
    } else if (what < 60) {
      read();
    } else if (what < 68) {
      change();
    } else if (what < 74) {
      close();
    } else if (what < 84) {
      stepper_.advance(pick<Duration>({std::chrono::milliseconds(1), std::chrono::milliseconds(300),
                                       std::chrono::seconds(3), std::chrono::seconds(100)}));
    } else if (what < 88) {
      disk_.fail_reads = static_cast<int>(random_() % 3);
      disk_.fail_writes = static_cast<int>(random_() % 3);
    } else if (what < 92) {
      control_->hold = !control_->hold;
      if (!control_->hold) {
        control_->release();
      }
    } else if (what < 94) {
      control_->errors.push_back(Error(Errc::kRemote, EIO, "the server has trouble"));
    } else if (what == 94) {
      disk_.dead = chance(20);
    } else if (what < 97) {
      restart();
    } else {
      const std::size_t steps = random_() % 50;
      for (std::size_t i = 0; i < steps && stepper_.step(); ++i) {
      }
    }
  }

  void restart() {
    finish_reads();
    unmount();
    caches_.reset();
    stepper_.run();
    mount();
  }

  void change() {
    const int file = static_cast<int>(random_() % kFiles);
    const std::string& before = server_.content(fileid(file));
    switch (random_() % 3) {
      case 0:  // equal size, and perhaps equal stamps
        server_.write_file(fileid(file), random_bytes(random_, before.size()));
        break;
      case 1:
        server_.write_file(fileid(file), random_bytes(random_, random_size()));
        break;
      default:
        server_.append(fileid(file), random_bytes(random_, 1 + random_() % 5000));
        break;
    }
  }

  void open() {
    const int file = static_cast<int>(random_() % kFiles);
    const MonotonicTime since = stepper_.clock().now();
    share_->lookup(
        share_->root(), name_of(file), caller_, [=, this](Result<netfs::LookupOutcome> found) {
          if (!found) {
            return;
          }
          share_->open(found->inode, {}, caller_, [=, this](Result<netfs::OpenFile> opened) {
            if (!opened) {
              return;
            }
            share_->prepare(*opened, caller_,
                            [=, this, opened = *opened](const Result<netfs::VersionRef>& ready) {
                              if (ready) {
                                opens_.push_back({file, since, opened});
                              }
                            });
          });
        });
  }

  void read() {
    if (opens_.empty()) {
      return;
    }
    const Open open = opens_[random_() % opens_.size()];
    const std::uint64_t size = server_.content(fileid(open.file)).size();
    const ByteRange range{random_() % (size + 1000),
                          1 + random_() % pick<std::uint64_t>({4096, 131'072, 1'048'576})};
    ++reads_under_way_;
    share_->read(open.open, range, std::make_shared<netfs::CallScope>(),
                 [this, open, range](const Result<netfs::ReadOutcome>& outcome) {
                   --reads_under_way_;
                   if (outcome) {
                     check(open, range, *outcome);
                   }
                 });
  }

  void close() {
    if (!opens_.empty()) {
      const std::size_t which = random_() % opens_.size();
      share_->closed(opens_[which].open.file);
      opens_.erase(opens_.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }

  void finish_reads() {
    control_->errors.clear();
    control_->release();
    stepper_.run_until([this] { return reads_under_way_ == 0; }, kLongEnough);
    EXPECT_EQ(reads_under_way_, 0U) << "reads were never answered";
  }

  // The second law.
  void check(const Open& open, ByteRange range, const netfs::ReadOutcome& outcome) {
    std::string got;
    for (const auto& slice : outcome.slices) {
      got += text_of(slice.bytes);
    }
    ++reads_checked_;
    const auto& history = server_.history(fileid(open.file));
    // Contents with equal stamps cannot be told apart while they are young: they count as one
    // version, of which a read may have a piece of each.
    for (std::size_t first = 0, end = 0; first < history.size(); first = end) {
      end = first + 1;
      while (end < history.size() &&
             netfs::same_version(history[end].attributes, history[first].attributes)) {
        ++end;
      }
      // Over before the open began, even with the time that equal stamps need to settle.
      const bool over = end < history.size() && history[end].from + kSettling < open.since;
      if (!over && is_made_of(got, range, history, first, end, outcome.version == nullptr)) {
        return;
      }
    }
    std::string versions;
    for (const auto& moment : history) {
      const bool matches = range.offset < moment.content.size()
                               ? moment.content.substr(range.offset, range.length) == got
                               : got.empty();
      versions += fmt::format("{}{} bytes since {} ms", versions.empty() ? "" : ", ",
                              moment.content.size(), ms(moment.from - open.since));
      versions += matches ? " (these)" : "";
    }
    ADD_FAILURE() << fmt::format(
        "{} bytes at {} of {}, read {} ms after the open, are of no version that it may see; "
        "versions, "
        "relative to the open: {}",
        got.size(), range.offset, name_of(open.file), ms(stepper_.clock().now() - open.since),
        versions);
  }

  // Whether every byte is one of the contents [first, end) at its place, up to where the file ends
  // (or before it, if the read may be short: the kernel asks again).
  static bool is_made_of(const std::string& got, ByteRange range,
                         const std::vector<FakeServer::Moment>& history, std::size_t first,
                         std::size_t end, bool may_be_short) {
    const std::uint64_t size = history[first].content.size();
    const std::uint64_t length = range.intersection({0, size}).length;
    if (got.size() != length && !(may_be_short && got.size() < length)) {
      return false;
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      bool found = false;
      for (std::size_t at = first; at < end && !found; ++at) {
        found = history[at].content[range.offset + i] == got[i];
      }
      if (!found) {
        return false;
      }
    }
    return true;
  }

  static std::int64_t ms(Duration time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
  }

  std::mt19937_64 random_;
  Stepper stepper_;
  FakeServer server_;
  MemoryDisk disk_;
  std::unique_ptr<fscache::Caches> caches_;
  std::shared_ptr<FakeAdapter::Control> control_;
  std::unique_ptr<netfs::Share> share_;
  const netfs::Caller caller_{std::make_shared<const netfs::Credential>(), nullptr};
  std::vector<Open> opens_;
  unsigned reads_under_way_ = 0;
  std::uint64_t reads_checked_ = 0;
  std::uint64_t cached_bytes_ = 0;
};

TEST(ShareSimulation, EveryReadIsOfOneVersionThatTheOpenMaySee) {
  set_log_level(LogLevel::kError);
  const std::uint64_t only = environment_number("LARDER_SEED", 0);
  const std::uint64_t runs = only != 0 ? 1 : environment_number("LARDER_SIM_RUNS", 150);
  const std::uint64_t first = only != 0 ? only : std::random_device{}();
  std::cout << "seeds " << first << " to " << first + runs - 1 << "\n";
  std::uint64_t reads = 0;
  std::uint64_t cached_bytes = 0;
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    SCOPED_TRACE(fmt::format("replay with LARDER_SEED={}", seed));
    {
      Simulation simulation(seed);
      simulation.run(400);
      reads += simulation.reads();
      cached_bytes += simulation.cached_bytes();
    }
    if (::testing::Test::HasFailure()) {
      return;
    }
  }
  // A simulation that reads nothing, or nothing from the cache, proves nothing.
  if (runs > 20) {
    EXPECT_GT(reads, runs * 20);
    EXPECT_GT(cached_bytes, runs * 1000);
  }
  std::cout << reads << " reads checked, " << cached_bytes << " bytes of them from the cache\n";
}

}  // namespace
}  // namespace larder
