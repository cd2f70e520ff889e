// However many volumes a cache has, few of its directories stay open.
#include "cachefiles/kept_directories.h"

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/result.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"

namespace larder::cachefiles {
namespace {

class KeptDirectoriesTest : public CacheOnFake {};

TEST_F(KeptDirectoriesTest, ManyVolumesLeaveFewOpen) {
  bind();
  constexpr std::size_t kVolumes = 60;
  constexpr int kObjects = 100;  // of each, in several of its directories
  std::vector<std::unique_ptr<fscache::BackendVolume>> volumes;
  for (std::size_t i = 0; i < kVolumes; ++i) {
    volumes.push_back(cache_->open_volume(fmt::format("larder,1,nfs,server,,%2f,{}", i)).value());
  }
  for (int round = 0; round < 2; ++round) {
    for (const auto& volume : volumes) {
      for (int i = 0; i < kObjects; ++i) {
        const std::string key = fmt::format("file {}", i);
        const auto object = volume->open_object(describe(key, 1, 100)).value();
        if (round == 0) {
          ASSERT_TRUE(fill(*object, content_of(key, 1, 100)));
        } else {
          EXPECT_EQ(served_bytes(*object, content_of(key, 1, 100)), 100U);
        }
      }
    }
    EXPECT_EQ(cache_->status().open_directories, KeptDirectories::kMost);
  }
}

TEST_F(KeptDirectoriesTest, AnObjectFindsItsDirectoryOpen) {
  bind();
  keep("often used", 1, 100);
  const std::uint64_t kept = cache_->status().open_directories;
  EXPECT_EQ(kept, 1U);
  EXPECT_EQ(served("often used", 1, 100), 100U);
  EXPECT_EQ(cache_->status().open_directories, kept) << "the same one";
}

}  // namespace
}  // namespace larder::cachefiles
