// A disk that is full, though its filesystem says that there is room: of a quota, or of something
// else than blocks, its numbers say nothing.
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefiles {
namespace {

class QuotaTest : public CacheOnFake {
 protected:
  QuotaTest() { set_log_level(LogLevel::kError); }

  void TearDown() override { set_log_level(LogLevel::kInfo); }

  void bind_full() {
    cache_ = bind_cache(faulty_.open_root("/").value(), faulty_, options_, clock_).value();
    volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
    for (int i = 0; i < 40; ++i) {
      keep("file" + std::to_string(i), 1, kMega);
    }
    (void)cache_->run_maintenance();
    faulty_.faults().fail_all(testing::FileCall::kWrite, EDQUOT);
  }

  void refuse() {
    const auto object = open("refused", 1, kMega);
    EXPECT_EQ(fill(*object, content_of("refused", 1, kMega)).error().code(), Errc::kNoSpace);
  }

  std::uint64_t culled() { return cache_->status().culled_objects; }

  // As a caretaker does.
  void cull_what_is_asked_for() {
    const auto volume = volume_directory();
    (void)volume->list([&](const os::DirectoryEntry& entry) {
      const std::string& fan_out = entry.name;
      const auto directory = volume->open_directory(fan_out).value();
      EXPECT_TRUE(directory->list([&](const os::DirectoryEntry& object) {
        const std::string at = "Ilarder,1,nfs,server,,%2fexport,0/" + fan_out;
        EXPECT_TRUE(cache_->cull(at, std::vector{object.name})->at(0));
        return is_asked();
      }));
      return is_asked();
    });
  }

  bool is_asked() { return cache_->care_state()->space.to_free.bytes > 0; }

  testing::FaultyFilesystem faulty_{filesystem_};
};

TEST_F(QuotaTest, MakesRoomAtEachRefusalUntilTheDiskTakesSomething) {
  bind_full();
  refuse();
  (void)cache_->run_maintenance();
  const std::uint64_t at_once = culled();
  EXPECT_GE(at_once, 1U);
  EXPECT_LE(at_once, 4U);
  (void)cache_->run_maintenance();
  EXPECT_EQ(culled(), at_once);
  refuse();
  (void)cache_->run_maintenance();
  EXPECT_GT(culled(), at_once);
  faulty_.faults().set_hook(nullptr);
  const std::uint64_t before = culled();
  for (int i = 0; i < 10; ++i) {
    keep("new" + std::to_string(i), 1, kMega);
    (void)cache_->run_maintenance();
  }
  EXPECT_EQ(culled(), before);
  EXPECT_FALSE(cache_->status().culling);
}

// All is in use when it is refused, and there is room before any of it can go.
TEST_F(QuotaTest, MakesNoMoreRoomThanIsWanted) {
  bind_full();
  std::vector<std::unique_ptr<fscache::BackendObject>> held;
  for (int i = 0; i < 40; ++i) {
    held.push_back(open("file" + std::to_string(i), 1, kMega));
  }
  refuse();
  (void)cache_->run_maintenance();
  EXPECT_TRUE(cache_->status().culling);
  faulty_.faults().set_hook(nullptr);
  keep("new0", 1, kMega);
  keep("new1", 1, kMega);
  held.clear();
  (void)cache_->run_maintenance();
  EXPECT_EQ(culled(), 0U);
  EXPECT_FALSE(cache_->status().culling);
}

TEST_F(QuotaTest, ACaretakerIsToldOfEachRefusal) {
  bind_full();
  int told = 0;
  cache_->set_caretaker([&] { ++told; });
  (void)cache_->run_maintenance();
  EXPECT_FALSE(cache_->care_state()->space.culling);
  for (int round = 0; round < 2; ++round) {
    told = 0;
    refuse();
    EXPECT_GT(told, 0);
    EXPECT_TRUE(cache_->care_state()->space.culling);
    EXPECT_TRUE(is_asked());
    cull_what_is_asked_for();
    EXPECT_FALSE(cache_->care_state()->space.culling);
  }
  EXPECT_LE(culled(), 8U);
}

}  // namespace
}  // namespace larder::cachefiles
