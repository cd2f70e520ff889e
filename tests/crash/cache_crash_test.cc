// The cache loses power after each call that changes something, twice in a row, and must neither
// serve a wrong byte nor forget what was durable.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"
#include "testing/fake_filesystem.h"
#include "testing/manual_clock.h"

namespace larder::cachefiles {
namespace {

using testing::CrashMode;
using testing::FakeFilesystem;

struct Kept {
  std::uint64_t version = 0;
  std::uint64_t size = 0;
  bool durable = false;             // it, whole, must be there after any crash
  std::uint64_t written = 0;        // bytes
  std::uint64_t durable_bytes = 0;  // must be there after any crash
};

// One cache over several lives, and what it must still know.
class World {
 public:
  explicit World(os::CrashSafety safety) : filesystem_(safety) {
    options_.path_for_messages = "/cache";
    options_.limits.size_bytes = 64 << 20;
    options_.headroom_bytes = 8 << 20;
  }

  FakeFilesystem& filesystem() { return filesystem_; }

  bool bind() {
    auto cache = bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
    if (!cache) {
      why_ = cache.error().message();
      return false;
    }
    cache_ = std::move(*cache);
    (void)cache_->run_maintenance();  // after an unclean end it counts what is there
    auto volume = cache_->open_volume("volume");
    volume_ = volume ? std::move(*volume) : nullptr;
    return volume_ != nullptr;
  }

  // The engine dies.
  void drop() {
    volume_.reset();
    cache_.reset();
  }

  void crash(CrashMode mode, std::uint64_t seed) {
    drop();
    filesystem_.crash(mode, seed);
    for (auto& [key, kept] : kept_) {
      whole_[key] = kept.durable;
      kept.written = kept.durable_bytes;
    }
  }

  // The server's file has this version from now on; the first `most` bytes of it are read.
  void keep(const std::string& key, std::uint64_t version, std::uint64_t size,
            std::uint64_t most = UINT64_MAX) {
    Kept& kept = kept_[key];
    kept = {version, size, false, 0, 0};
    const auto right = content_of(key, version, size);
    bool& whole = whole_[key];
    whole = false;
    auto object = volume_->open_object(describe(key, version, size));
    if (!object) {
      return;
    }
    served_bytes(**object, right);
    bool all = most >= size;
    constexpr std::uint64_t kPiece = 98'304;
    for (std::uint64_t at = 0; at < std::min(size, most); at += kPiece) {
      const Bytes piece = Bytes(right).subspan(at, std::min(size - at, kPiece));
      all = (*object)->write(at, piece).has_value() && all;
    }
    whole = all && (*object)->mark_complete().has_value();
  }

  // Pieces of a unit each, first the even ones of each cell, up to `most` bytes; may go on with
  // what was there.
  void keep_scattered(const std::string& key, std::uint64_t size, std::uint64_t most) {
    Kept& kept = kept_[key];
    kept.version = 1;
    kept.size = size;
    const auto right = content_of(key, 1, size);
    auto object = volume_->open_object(describe(key, 1, size));
    if (!object) {
      return;
    }
    served_bytes(**object, right);
    constexpr std::uint64_t kUnit = 4096;
    constexpr std::uint64_t kCell = 65'536;
    bool all = true;
    for (std::uint64_t cell = 0; cell < most; cell += kCell) {
      for (const std::uint64_t odd : {0U, 1U}) {
        for (std::uint64_t at = cell + odd * kUnit; at < std::min(cell + kCell, most);
             at += 2 * kUnit) {
          const Bytes piece = Bytes(right).subspan(at, std::min(size - at, kUnit));
          all = (*object)->write(at, piece).has_value() && all;
        }
      }
    }
    kept.written = all ? most : kept.durable_bytes;
    whole_[key] = all && most == size && (*object)->mark_complete().has_value();
  }

  // What somebody holds is changed under him, as the server's file was: it is nobody's version
  // then, but for what was there before.
  void overwrite(const std::string& key) {
    Kept& kept = kept_[key];
    kept.durable = false;
    kept.durable_bytes = kept.written = 0;
    whole_[key] = false;
    auto object = volume_->open_object(describe(key, kept.version, kept.size));
    if (!object) {
      return;
    }
    const auto other = content_of(key, kept.version + 1, kept.size / 2);
    (void)(*object)->overwrite(kept.size / 3, other);
    (void)(*object)->overwrite(kept.size - 10, other);
    (void)(*object)->resize(kept.size);  // as long as the version
    (void)(*object)->overwrite(0, other);
  }

  void close_epoch() {
    clock_.advance(std::chrono::hours(1));
    (void)cache_->run_maintenance();
    if (cache_->usable()) {
      note_durable();
    }
  }

  void discard(const std::string& key) {
    kept_[key].durable = false;
    kept_[key].durable_bytes = kept_[key].written = 0;
    whole_[key] = false;
    (void)volume_->discard(key);
  }

  // Nobody uses the volume while tidy looks for directories that hold nothing.
  void tidy() {
    volume_.reset();
    clock_.advance(std::chrono::hours(1));
    for (int i = 0; i < 100 && cache_->run_maintenance() < std::chrono::seconds(1); ++i) {
    }
    if (cache_->usable()) {
      note_durable();
    }
    auto volume = cache_->open_volume("volume");
    volume_ = volume ? std::move(*volume) : nullptr;
  }

  bool withdraw() {
    volume_.reset();
    const bool clean = cache_->withdraw().has_value();
    if (clean) {
      note_durable();
    }
    cache_.reset();
    return clean;
  }

  // Every byte served is right. Returns the bytes served; of what was durable none may be missing
  // when `durable_counts`.
  std::uint64_t check(bool durable_counts) {
    std::uint64_t served = 0;
    for (const auto& [key, kept] : kept_) {
      auto object = volume_->open_object(describe(key, kept.version, kept.size));
      EXPECT_TRUE(object.has_value()) << object.error().message();
      if (!object) {
        continue;
      }
      const std::uint64_t here = served_bytes(**object, content_of(key, kept.version, kept.size));
      served += here;
      if (durable_counts && kept.durable) {
        EXPECT_EQ(here, kept.size) << key << " was durable";
      }
      if (durable_counts) {
        EXPECT_GE(here, kept.durable_bytes) << key << " was durable in part";
      }
    }
    return served;
  }

  void forget_durable() {
    for (auto& [key, kept] : kept_) {
      kept.durable = false;
      kept.durable_bytes = 0;
    }
  }

  [[nodiscard]] const std::string& why() const { return why_; }

  [[nodiscard]] bool usable() const { return cache_ != nullptr && cache_->usable(); }

  fscache::BackendVolume& volume() { return *volume_; }

  fscache::Backend& cache() { return *cache_; }

 private:
  void note_durable() {
    for (auto& [key, kept] : kept_) {
      kept.durable = kept.durable || whole_[key];
      kept.durable_bytes = std::max(kept.durable_bytes, kept.written);
    }
  }

  FakeFilesystem filesystem_;
  testing::ManualClock clock_;
  CacheOptions options_;
  std::map<std::string, Kept> kept_;
  std::map<std::string, bool> whole_;
  std::unique_ptr<fscache::Backend> cache_;
  std::unique_ptr<fscache::BackendVolume> volume_;
  std::string why_;
};

// Fills, reads, new versions, an epoch in the middle.
void first_script(World& world) {
  if (!world.bind()) {
    return;
  }
  world.keep("small", 1, 5000);
  world.keep("large", 1, 300'001);
  world.keep("changes", 1, 70'000);
  world.close_epoch();
  world.keep("after", 1, 9000);
  world.keep("partly", 1, 400'000, 200'000);
  world.keep("changes", 2, 80'000);
  world.keep("small changes", 1, 100);
  world.close_epoch();
  world.keep("small changes", 2, 100);
  world.keep("partly", 1, 400'000);
  (void)world.volume().discard("after");
  world.keep("after", 2, 9000);
}

void second_script(World& world) {
  world.keep("second", 1, 150'000);
  world.keep("large", 2, 250'000);
  world.close_epoch();
  world.keep("third", 1, 3000);
  world.keep("partly", 1, 400'000);
}

// A map log grows long and is written anew, when some of what it says is durable and when all is.
void scattered_script(World& world) {
  if (!world.bind()) {
    return;
  }
  world.keep_scattered("scattered", 420'000, 131'072);
  world.close_epoch();
  world.keep_scattered("scattered", 420'000, 420'000);
  world.close_epoch();
  world.keep("other", 1, 70'000);
}

// What is durable is overwritten, in one epoch and in the next, and then closed or discarded.
void overwriting_script(World& world) {
  if (!world.bind()) {
    return;
  }
  world.keep("held", 1, 200'000);
  world.keep("held too", 1, 300'000);
  world.keep("beside", 1, 70'000);
  world.close_epoch();
  world.overwrite("held");
  world.close_epoch();
  world.overwrite("held too");
  world.keep("held", 1, 200'000);
}

// Directories are left empty, some beside others and then all of them, go, and are made again.
void emptying_script(World& world) {
  if (!world.bind()) {
    return;
  }
  world.keep("large", 1, 200'000);
  world.keep("small", 1, 5000);
  world.keep("stays", 1, 70'000);
  world.close_epoch();
  world.discard("large");
  world.discard("small");
  for (const bool all : {false, true}) {
    if (all && world.usable()) {
      world.discard("stays");
    }
    if (world.usable()) {
      world.tidy();
    }
    if (!world.usable()) {
      return;
    }
    world.keep("large", all ? 3 : 2, 200'000);
    world.close_epoch();
    if (!all) {
      world.discard("large");
    }
  }
  world.keep("small", 2, 5000);
}

using Script = void (*)(World&);

std::uint64_t calls_of(Script script) {
  World world(os::CrashSafety::kOrdered);
  script(world);
  EXPECT_GT(world.check(true), 0U);
  return world.filesystem().mutating_calls();
}

void lose_power_after_each_call(os::CrashSafety safety, CrashMode mode,
                                Script script = first_script) {
  set_log_level(LogLevel::kError);
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const std::uint64_t calls = calls_of(script);
  std::uint64_t served_at_all = 0;
  // With freed blocks in other files a durable file may be damaged; it is noticed, not kept.
  const bool durable_counts = safety == os::CrashSafety::kOrdered;
  for (std::uint64_t k = 1; k <= calls; ++k) {
    SCOPED_TRACE(k);
    World world(safety);
    world.filesystem().cut_power_after(k);
    script(world);
    world.crash(mode, random());
    ASSERT_TRUE(world.bind()) << world.why();
    served_at_all += world.check(durable_counts);
    if (script == overwriting_script) {
      // Its label says so: that does not take the checksums to find out.
      ASSERT_EQ(world.cache().status().corrupt_ranges, 0U);
    }

    world.filesystem().cut_power_after(world.filesystem().mutating_calls() + 1 + random() % 60);
    second_script(world);
    world.crash(mode, random());
    ASSERT_TRUE(world.bind()) << world.why();
    served_at_all += world.check(durable_counts);
    if (::testing::Test::HasFailure()) {
      return;
    }
    // And it is a working cache again.
    world.keep("last", 1, 123'456);
    ASSERT_TRUE(world.withdraw());
    ASSERT_TRUE(world.bind()) << world.why();
    ASSERT_EQ(world.usable(), true);
    world.check(durable_counts);
  }
  EXPECT_GT(served_at_all, calls * 100'000);
}

TEST(CacheCrashTest, AfterEachCallWhenAllThatIsUnsyncedIsLost) {
  lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kDropUnsynced);
}

TEST(CacheCrashTest, AfterEachCallWhenAnySubsetSurvives) {
  lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kRandomSubset);
}

TEST(CacheCrashTest, AfterEachCallWhenFreedBlocksComeBack) {
  lose_power_after_each_call(os::CrashSafety::kUnordered, CrashMode::kRandomSubset);
}

TEST(CacheCrashTest, AfterEachCallWhileHeldFilesAreOverwritten) {
  lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kDropUnsynced,
                             overwriting_script);
  for (int i = 0; i < 5; ++i) {
    lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kRandomSubset,
                               overwriting_script);
  }
}

TEST(CacheCrashTest, AfterEachCallWhileMapLogsAreRewritten) {
  lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kDropUnsynced, scattered_script);
  lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kRandomSubset, scattered_script);
}

TEST(CacheCrashTest, AfterEachCallWhileMapLogsAreRewrittenAndFreedBlocksComeBack) {
  lose_power_after_each_call(os::CrashSafety::kUnordered, CrashMode::kRandomSubset,
                             scattered_script);
}

TEST(CacheCrashTest, AfterEachCallWhileEmptyDirectoriesGo) {
  lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kDropUnsynced, emptying_script);
  for (int i = 0; i < 5; ++i) {
    lose_power_after_each_call(os::CrashSafety::kOrdered, CrashMode::kRandomSubset,
                               emptying_script);
  }
}

// A crash of the engine alone loses nothing.
TEST(CacheCrashTest, TheEnginesDeathLosesNothing) {
  World world(os::CrashSafety::kOrdered);
  ASSERT_TRUE(world.bind());
  world.keep("small", 1, 5000);
  world.keep("large", 1, 300'001);
  world.keep("partly", 1, 3'000'000, 2'000'000);
  world.drop();
  ASSERT_TRUE(world.bind());
  EXPECT_GE(world.check(false), 5000U + 300'001U + 1'990'000U);
}

// Another mount instance: the filesystem may have lost what the last one had not written.
TEST(CacheCrashTest, AnotherMountInstanceCountsAsACrash) {
  World world(os::CrashSafety::kOrdered);
  ASSERT_TRUE(world.bind());
  world.keep("durable", 1, 5000);
  world.close_epoch();
  world.keep("fresh", 1, 5000);
  world.drop();
  world.filesystem().remount();
  ASSERT_TRUE(world.bind());
  EXPECT_EQ(world.check(true), 5000U);
}

// What a failed sync left behind must not count, not even in the same boot.
TEST(CacheCrashTest, AFailedSyncDropsWhatWasNotDurable) {
  for (const int error_number : {EIO, ENOSPC}) {
    World world(os::CrashSafety::kOrdered);
    ASSERT_TRUE(world.bind());
    world.keep("durable", 1, 5000);
    world.keep("durable large", 1, 300'001);
    world.close_epoch();
    world.keep("lost", 1, 5000);
    world.filesystem().fail_next_sync(error_number);
    world.close_epoch();
    EXPECT_FALSE(world.usable());
    EXPECT_NE(world.cache().status().trouble, "");
    world.drop();
    ASSERT_TRUE(world.bind());
    EXPECT_EQ(world.check(true), 305'001U);
    EXPECT_EQ(world.cache().status().trouble, "");
  }
}

class StateFileDamage : public ::testing::Test {
 protected:
  void prepare(World& world) {
    ASSERT_TRUE(world.bind());
    world.keep("durable", 1, 5000);
    world.keep("durable large", 1, 300'001);
    world.close_epoch();
    world.close_epoch();
  }

  static std::string read_state(World& world) {
    auto file = world.filesystem().open_root("/").value()->open_file("state", os::OpenMode::kRead);
    std::string text(16384, '\0');
    const auto got = (*file)->read_at(0, {reinterpret_cast<std::byte*>(text.data()), text.size()});
    text.resize(got.value());
    return text;
  }

  static void write_state(World& world, const std::string& text) {
    auto root = world.filesystem().open_root("/").value();
    auto file = root->open_file("state", os::OpenMode::kReadWrite).value();
    ASSERT_TRUE(file->set_size(0));
    ASSERT_TRUE(file->write_at(0, bytes_of(text)));
    ASSERT_TRUE(root->sync_filesystem());
  }
};

// Either slot torn at any place: the other one tells enough.
TEST_F(StateFileDamage, OneTornSlotCostsAtMostAnEpoch) {
  for (const std::size_t slot : {std::size_t{0}, std::size_t{4096}}) {
    for (const std::size_t at :
         {std::size_t{0}, std::size_t{20}, std::size_t{95}, std::size_t{4095}}) {
      World world(os::CrashSafety::kOrdered);
      prepare(world);
      world.keep("more", 1, 4000);
      world.close_epoch();
      world.crash(CrashMode::kDropUnsynced, 1);
      std::string text = read_state(world);
      text[slot + at] = static_cast<char>(text[slot + at] ^ 0x5A);
      write_state(world, text);
      ASSERT_TRUE(world.bind()) << world.why();
      EXPECT_GE(world.check(false), 305'001U) << slot << " " << at;
    }
  }
}

// No state at all: what its checksums vouch for is used, nothing else.
TEST_F(StateFileDamage, AnEmptyOrForeignStateLeavesWhatChecks) {
  for (const std::string& text :
       {std::string(), std::string(8192, '\0'), std::string(16384, 'x')}) {
    World world(os::CrashSafety::kOrdered);
    prepare(world);
    world.crash(CrashMode::kRandomSubset, 7);
    write_state(world, text);
    ASSERT_TRUE(world.bind()) << world.why();
    EXPECT_EQ(world.check(true), 305'001U);
    world.close_epoch();  // counts what is there: until then the cache may be full
    world.keep("new", 1, 5000);
    ASSERT_TRUE(world.withdraw());
    ASSERT_TRUE(world.bind());
    EXPECT_EQ(world.check(true), 310'001U);
  }
}

// A state from before: what was written in the lives that it does not know does not count.
TEST_F(StateFileDamage, AnOldStateDropsWhatItDoesNotKnow) {
  World world(os::CrashSafety::kOrdered);
  prepare(world);
  ASSERT_TRUE(world.withdraw());
  const std::string old = read_state(world);
  ASSERT_TRUE(world.bind());
  world.keep("later", 1, 7000);
  world.crash(CrashMode::kRandomSubset, 3);
  write_state(world, old);
  world.forget_durable();
  ASSERT_TRUE(world.bind()) << world.why();
  EXPECT_EQ(world.check(false), 305'001U);
}

}  // namespace
}  // namespace larder::cachefiles
