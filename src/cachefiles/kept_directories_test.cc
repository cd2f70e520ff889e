// However many volumes a cache has, few of its directories stay open.
#include "cachefiles/kept_directories.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kObjectSize = 100;

class KeptDirectoriesTest : public CacheOnFake {
 protected:
  using Volumes = std::vector<std::unique_ptr<fscache::BackendVolume>>;

  Volumes open_volumes(std::size_t count) {
    Volumes volumes(count);
    for (std::size_t i = 0; i < count; ++i) {
      volumes[i] = cache_->open_volume(fmt::format("larder,1,nfs,server,,%2f,{}", i)).value();
    }
    return volumes;
  }

  // `use` with many objects of each volume, which are in several of its directories.
  template <typename Use>
  static void for_each_object(const Volumes& volumes, Use use) {
    for (const auto& volume : volumes) {
      for (int i = 0; i < 100; ++i) {
        const std::string key = fmt::format("file {}", i);
        use(*volume->open_object(describe(key, 1, kObjectSize)).value(),
            content_of(key, 1, kObjectSize));
      }
    }
  }
};

TEST_F(KeptDirectoriesTest, ManyVolumesLeaveFewOpen) {
  bind();
  const Volumes volumes = open_volumes(60);
  for_each_object(volumes, [](fscache::BackendObject& object, const std::vector<std::byte>& bytes) {
    EXPECT_TRUE(fill(object, bytes));
  });
  EXPECT_EQ(cache_->status().open_directories, KeptDirectories::kMost);
  for_each_object(volumes, [](fscache::BackendObject& object, const std::vector<std::byte>& bytes) {
    EXPECT_EQ(served_bytes(object, bytes), kObjectSize);
  });
  EXPECT_EQ(cache_->status().open_directories, KeptDirectories::kMost);
}

TEST_F(KeptDirectoriesTest, AnObjectFindsItsDirectoryOpen) {
  bind();
  keep("often used", 1, kObjectSize);
  const std::uint64_t kept = cache_->status().open_directories;
  EXPECT_EQ(kept, 1U);
  EXPECT_EQ(served("often used", 1, kObjectSize), kObjectSize);
  EXPECT_EQ(cache_->status().open_directories, kept) << "the same one";
}

}  // namespace
}  // namespace larder::cachefiles
