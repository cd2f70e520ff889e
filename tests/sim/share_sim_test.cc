// The simulation of a share: random reads, opens, changes on the server and by ourselves, faults of
// the cache and restarts, all from one seed, under a stepper. Its one property is the second law:
// what a read returns the server held, in one piece, at a moment that the coherency rule allows;
// what we wrote it holds as local_writers.h says. It runs over a cache in memory and over the real
// one on a filesystem in memory, whose engine is killed, whose power fails and whose disk has
// errors and little room.
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
#include "local_writers.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/coherency.h"
#include "netfs/directory_stream.h"
#include "netfs/share.h"
#include "simulated_disk.h"
#include "testing/fake_server.h"
#include "testing/stepper.h"

namespace larder {
namespace {

using testing::FakeAdapter;
using testing::FakeServer;
using testing::Stepper;

constexpr auto kLongEnough = std::chrono::hours(1);
// A change that leaves the stamps as they are is seen, at the latest, by an open this long after
// it: the settling time of 2 s, from when the stamps were first seen.
constexpr auto kSettling = std::chrono::milliseconds(2001);

std::uint64_t environment_number(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
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
  Simulation(std::uint64_t seed, const MakeDisk& make_disk)
      : random_(seed),
        stepper_(seed),
        server_(stepper_.clock()),
        disk_(make_disk(random_, stepper_.clock())) {
    server_.granularity = pick<netfs::Timestamp>({{0, 1}, {0, 4'000'000}, {1, 0}});
    server_.say_granularity = chance(50);
    server_.post_op_attributes = chance(85);
    server_.read_size = pick<std::uint32_t>({4096, 32768, 50'000, 1024 * 1024});
    server_.write_size = pick<std::uint32_t>({4096, 50'000, 1024 * 1024});
    server_.tells_before = chance(70);
    server_.writes_through = chance(20);
    writes_ = chance(60);
    server_.clock_offset_seconds = pick<std::int64_t>({-3600, 0, 3600});
    for (int i = 0; i < kFiles; ++i) {
      files_.push_back(server_.add_file(name_of(i), random_bytes(random_, random_size())));
    }
    advance(std::chrono::seconds(pick<int>({0, 100})));
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

  // What was read in one life, in peace, comes from the cache in the next.
  void read_all_again() {
    if (::testing::Test::HasFailure()) {
      return;
    }
    calm();
    finish_reads();
    restart();
    read_all();  // what is too young for its stamps is fetched once more when it is older
    advance(std::chrono::seconds(10));
    read_all();
    restart();
    const std::uint64_t before = server_.bytes_read;
    read_all();
    warm_bytes_ = share_->statistics().bytes_from_cache;
    if (disk_->roomy()) {
      EXPECT_EQ(server_.bytes_read, before) << "not all of it came from the cache";
    }
  }

  [[nodiscard]] std::uint64_t reads() const { return reads_checked_; }

  [[nodiscard]] std::uint64_t warm_bytes() const { return warm_bytes_; }

  [[nodiscard]] std::uint64_t cached_bytes() const { return cached_bytes_; }

  [[nodiscard]] const LocalWriters& writers() const { return writers_; }

 private:
  static constexpr int kFiles = 5;

  struct Open {
    int file;
    MonotonicTime since;  // when open(2) began
    netfs::OpenFile open;
    std::uint64_t next = 0;  // where its last read ended
  };

  // What was so when a read began.
  struct Begun {
    MonotonicTime at;
    std::uint64_t order;  // as LocalWriters::now() says
    bool written;         // by ourselves, at that time
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

  [[nodiscard]] std::uint64_t fileid(int file) const {
    return files_.at(static_cast<std::size_t>(file));
  }

  // What had the name before, and when it went.
  struct Removed {
    MonotonicTime at;
    std::vector<FakeServer::Moment> history;
  };

  static std::uint64_t fileid(const Open& open) {
    return open.open.file->inode()->attributes().attributes.fileid;
  }

  [[nodiscard]] const std::vector<FakeServer::Moment>& history(const Open& open) const {
    const auto removed = removed_.find(fileid(open));
    return removed == removed_.end() ? server_.history(fileid(open)) : removed->second.history;
  }

  void mount() {
    caches_ = std::make_unique<fscache::Caches>(stepper_);
    auto cache = caches_->find_or_make("sim");
    Result<std::unique_ptr<fscache::Backend>> backend = disk_->bring_online();
    const bool still_held = !backend && backend.error().code() == Errc::kBusy;
    EXPECT_FALSE(still_held) << "something of the last life holds its backend, and so the lock";
    EXPECT_TRUE(backend || disturbed_) << backend.error().message();
    if (backend) {  // else there is no cache in this life
      ASSERT_TRUE(cache->add_backend(std::move(*backend)));
    }
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
    if (share_ != nullptr) {
      cached_bytes_ += share_->statistics().bytes_from_cache;
      share_->shut_down();
      stepper_.run();
      opens_.clear();  // also those that came through at last
      writers_.end_life();
      share_.reset();
    }
    stepper_.run();
    opens_.clear();  // and those that the end of the share itself let through
    stepper_.run();
  }

  void step() {
    // An error that waits may strike any call until the next step.
    if (std::exchange(trouble_, !control_->errors.empty()) || trouble_) {
      writers_.note_trouble();
    }
    const std::uint64_t what = random_() % 100;
    if (what < 2) {
      list();
    } else if (what < 20) {
      open(static_cast<int>(random_() % kFiles));
    } else if (what < 45 && writes_) {
      writers_.step(*share_, name_of(static_cast<int>(random_() % kFiles)));
    } else if (what < 60) {
      read();
    } else if (what < 61 && writes_) {
      log_debug("the server restarts");
      server_.restart();
      writers_.note_trouble();
    } else if (what < 68) {
      change();
    } else if (what < 74) {
      close();
    } else if (what < 84) {
      advance(pick<Duration>({std::chrono::milliseconds(1), std::chrono::milliseconds(300),
                              std::chrono::seconds(3), std::chrono::seconds(100)}));
    } else if (what < 88) {
      disk_->disturb();
      disturbed_ = true;
    } else if (what < 92) {
      control_->hold = !control_->hold;
      if (!control_->hold) {
        control_->release();
      }
    } else if (what < 95) {
      control_->errors.push_back(Error(Errc::kRemote, EIO, "the server has trouble"));
      trouble_ = true;
    } else if (what < 97) {
      end_life();
    } else {
      const std::size_t steps = random_() % 50;
      for (std::size_t i = 0; i < steps && stepper_.step(); ++i) {
      }
    }
  }

  void end_life() {
    if (chance(50)) {
      disk_->end_suddenly();
      const std::size_t steps = random_() % 20;  // the engine's last moments
      for (std::size_t i = 0; i < steps && stepper_.step(); ++i) {
      }
    } else {
      writers_.sync_all(*share_);
      finish_reads();
    }
    if (chance(90)) {
      calm();
    }
    restart();
  }

  void calm() {
    disk_->calm();
    disturbed_ = false;
  }

  void restart() {
    unmount();
    caches_.reset();
    stepper_.run();
    EXPECT_EQ(reads_under_way_, 0U) << "reads were never answered";
    mount();
  }

  void advance(Duration by) {
    disk_->advance(by);
    stepper_.advance(by);
  }

  // The first megabyte of every file, in one read each: nothing is read ahead of it.
  void read_all() {
    for (int file = 0; file < kFiles; ++file) {
      opens_.clear();
      open(file);
      finish_reads();
      stepper_.run();
      EXPECT_EQ(opens_.size(), 1U);
      if (!opens_.empty()) {
        read(opens_.front(), {0, 1U << 20U});
      }
      finish_reads();
    }
    stepper_.run();
  }

  void change() {
    const int file = static_cast<int>(random_() % kFiles);
    const std::string& before = server_.content(fileid(file));
    writers_.note_change(fileid(file));
    switch (random_() % 5) {
      case 0:
        replace(file);
        break;
      case 1:
        server_.write_file(fileid(file), before.substr(0, random_() % (before.size() + 1)));
        break;
      case 2:  // equal size, and perhaps equal stamps
        server_.write_file(fileid(file), random_bytes(random_, before.size()));
        break;
      case 3:
        server_.write_file(fileid(file), random_bytes(random_, random_size()));
        break;
      default:
        server_.append(fileid(file), random_bytes(random_, 1 + random_() % 5000));
        break;
    }
  }

  // Another file gets the name, as editors and package managers do it.
  void replace(int file) {
    removed_[fileid(file)] = {stepper_.clock().now(), server_.history(fileid(file))};
    server_.remove(name_of(file));
    files_.at(static_cast<std::size_t>(file)) =
        server_.add_file(name_of(file), random_bytes(random_, random_size()));
  }

  void open(int file) {
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
                                opens_.push_back({file, since, opened, 0});
                              }
                            });
          });
        });
  }

  // The lookups that follow are answered from it.
  void list() {
    share_->open_directory(share_->root(), caller_,
                           [this](const Result<std::shared_ptr<netfs::DirectoryStream>>& stream) {
                             if (stream) {
                               (*stream)->load(kFiles, caller_, [stream](const Result<>&) {});
                             }
                           });
  }

  void read() {
    if (opens_.empty()) {
      return;
    }
    Open& open = opens_[random_() % opens_.size()];
    const std::uint64_t size = history(open).back().content.size();
    const std::uint64_t begin = chance(50) ? open.next : random_() % (size + 1000);
    const ByteRange range{begin, 1 + random_() % pick<std::uint64_t>({4096, 131'072, 1'048'576})};
    open.next = range.end();
    read(open, range);
  }

  void read(const Open& open, ByteRange range) {
    ++reads_under_way_;
    const Begun begun{stepper_.clock().now(), writers_.now(), is_written(open)};
    share_->read(open.open, range, std::make_shared<netfs::CallScope>(),
                 [this, open, range, begun](const Result<netfs::ReadOutcome>& outcome) {
                   --reads_under_way_;
                   if (outcome) {
                     check(open, begun, range, *outcome);
                   }
                 });
  }

  static bool is_written(const Open& open) {
    return netfs::Share::is_for_page_cache_only(open.open);
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
    stepper_.run_until([this] { return reads_under_way_ == 0 && writers_.idle(); }, kLongEnough);
    EXPECT_EQ(reads_under_way_, 0U) << "reads were never answered";
    EXPECT_TRUE(writers_.idle()) << "changes were never answered";
  }

  // The second law.
  void check(const Open& open, const Begun& begun, ByteRange range,
             const netfs::ReadOutcome& outcome) {
    std::string got;
    for (const auto& slice : outcome.slices) {
      got += text_of(slice.bytes);
    }
    ++reads_checked_;
    log_debug("file {}: {} bytes read at {}, of {}, begun as {}", fileid(open), got.size(),
              range.offset, name_of_source(outcome), begun.order);
    if (trouble_) {
      writers_.note_trouble();  // it may have struck what was written since the step began
    }
    writers_.check_read(fileid(open), begun.order, range, got);
    if ((begun.written || is_written(open) || writers_.wrote_since(fileid(open), begun.order)) &&
        was_there_since(history(open), begun.at, range, got)) {
      return;  // from the server, one READ after the other, while the file was being written
    }
    if (outcome.version != nullptr && outcome.version->content != nullptr &&
        was_there_since(history(open), open.since - kSettling, range, got)) {
      return;  // from what we wrote ourselves: others' changes with equal stamps are not in it yet
    }
    const auto& history = this->history(open);
    const auto removed = removed_.find(fileid(open));
    EXPECT_TRUE(removed == removed_.end() || removed->second.at >= open.since)
        << "a name was opened that had gone to another file before";
    // Contents with equal stamps cannot be told apart while they are young: they count as one
    // version, of which a read may have a piece of each. They need not follow each other: a file
    // that changes its size and then changes it back within one tick of the server's clock has
    // the stamps and the size that it had before, and who looks before and after sees no change.
    for (std::size_t first = 0; first < history.size(); ++first) {
      std::vector<const std::string*> contents;
      std::size_t last = first;
      for (std::size_t at = first; at < history.size(); ++at) {
        if (netfs::same_version(history[at].attributes, history[first].attributes)) {
          contents.push_back(&history[at].content);
          last = at;
        }
      }
      // Over before the open began, even with the time that equal stamps need to settle.
      const bool over =
          last + 1 < history.size() && history[last + 1].from + kSettling < open.since;
      if (!over && is_made_of(got, range, contents, outcome.version == nullptr)) {
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

  static std::string_view name_of_source(const netfs::ReadOutcome& outcome) {
    if (outcome.version == nullptr) {
      return "no version";
    }
    return outcome.version->content != nullptr ? "our own content" : "a version";
  }

  // Whether every byte was the server's at some moment since `since`, and so was a short end.
  static bool was_there_since(const std::vector<FakeServer::Moment>& history, MonotonicTime since,
                              ByteRange range, const std::string& got) {
    std::vector<const std::string*> contents;
    for (std::size_t at = 0; at < history.size(); ++at) {
      if (at + 1 == history.size() || history[at + 1].from >= since) {
        contents.push_back(&history[at].content);
      }
    }
    const auto ends_there = [&](const std::string* content) {
      return content->size() <= range.offset + got.size();  // one READ among several saw the end
    };
    if (got.size() < range.length && std::ranges::none_of(contents, ends_there)) {
      return false;
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::ranges::none_of(contents, [&](const std::string* content) {
            return range.offset + i < content->size() && (*content)[range.offset + i] == got[i];
          })) {
        return false;
      }
    }
    return true;
  }

  // Whether every byte is one of the contents' at its place, up to where the file ends (or before
  // it, if the read may be short: the kernel asks again). They are of one size.
  static bool is_made_of(const std::string& got, ByteRange range,
                         const std::vector<const std::string*>& contents, bool may_be_short) {
    const std::uint64_t length = range.intersection({0, contents.front()->size()}).length;
    if (got.size() != length && !(may_be_short && got.size() < length)) {
      return false;
    }
    const auto is_at_its_place = [&](const std::string* content) {
      return content->compare(range.offset, got.size(), got) == 0;
    };
    if (got.empty() || std::ranges::any_of(contents, is_at_its_place)) {
      return true;  // the rule; a mixture takes longer to find
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::ranges::none_of(contents, [&](const std::string* content) {
            return (*content)[range.offset + i] == got[i];
          })) {
        return false;
      }
    }
    return true;
  }

  static std::int64_t ms(Duration time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
  }

  Random random_;
  Stepper stepper_;
  FakeServer server_;
  const std::unique_ptr<SimulatedDisk> disk_;
  bool disturbed_ = false;  // the cache may fail to come online
  std::unique_ptr<fscache::Caches> caches_;
  std::shared_ptr<FakeAdapter::Control> control_;
  std::unique_ptr<netfs::Share> share_;
  const netfs::Caller caller_{std::make_shared<const netfs::Credential>(), nullptr};
  std::vector<std::uint64_t> files_;  // by number
  std::map<std::uint64_t, Removed> removed_;
  std::vector<Open> opens_;
  bool writes_ = false;
  bool trouble_ = false;  // an error waited, or came, in the last step
  LocalWriters writers_{random_, server_};
  unsigned reads_under_way_ = 0;
  std::uint64_t reads_checked_ = 0;
  std::uint64_t cached_bytes_ = 0;
  std::uint64_t warm_bytes_ = 0;
};

void run_simulations(const MakeDisk& make_disk) {
  // A disk that fails makes noise, one line a life at this level.
  set_log_level(environment_number("LARDER_SIM_LOG", 0) != 0 ? LogLevel::kDebug : LogLevel::kError);
  const std::uint64_t only = environment_number("LARDER_SEED", 0);
  const std::uint64_t runs = only != 0 ? 1 : environment_number("LARDER_SIM_RUNS", 150);
  const std::uint64_t first = only != 0 ? only : std::random_device{}();
  std::cout << "seeds " << first << " to " << first + runs - 1 << std::endl;  // before a crash, too
  std::uint64_t reads = 0;
  std::uint64_t cached_bytes = 0;
  std::uint64_t warm_bytes = 0;
  std::uint64_t confirmed_bytes = 0;
  std::uint64_t read_back_bytes = 0;
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    SCOPED_TRACE(fmt::format("replay with LARDER_SEED={}", seed));
    {
      Simulation simulation(seed, make_disk);
      simulation.run(400);
      simulation.read_all_again();
      reads += simulation.reads();
      cached_bytes += simulation.cached_bytes();
      warm_bytes += simulation.warm_bytes();
      confirmed_bytes += simulation.writers().bytes_confirmed();
      read_back_bytes += simulation.writers().bytes_read_back();
    }
    if (::testing::Test::HasFailure()) {
      return;
    }
  }
  // A simulation that reads nothing, or nothing from the cache, proves nothing.
  if (runs > 20) {
    EXPECT_GT(reads, runs * 20);
    EXPECT_GT(cached_bytes, runs * 1000);
    EXPECT_GT(warm_bytes, runs * 100'000);
    EXPECT_GT(confirmed_bytes, runs * 1000);
    EXPECT_GT(read_back_bytes, runs * 1000);
  }
  std::cout << reads << " reads checked, " << cached_bytes << " bytes of them from the cache, "
            << warm_bytes << " right after a restart; " << confirmed_bytes
            << " bytes written and confirmed, " << read_back_bytes << " read back\n";
}

TEST(ShareSimulation, EveryReadIsOfOneVersionThatTheOpenMaySee) {
  run_simulations(make_memory_disk);
}

TEST(ShareSimulationOnCachefiles, EveryReadIsOfOneVersionThatTheOpenMaySee) {
  run_simulations(make_cachefiles_disk);
}

}  // namespace
}  // namespace larder
