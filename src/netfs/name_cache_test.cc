#include "netfs/name_cache.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/endian.h"
#include "netfs/attributes.h"
#include "netfs/inode.h"
#include "testing/stepper.h"

namespace larder::netfs {
namespace {

FileHandle handle_of(std::uint64_t number) {
  std::array<std::byte, sizeof number> bytes{};
  store_be(bytes.data(), number);
  return FileHandle(bytes);
}

class NameCacheTest : public ::testing::Test {
 protected:
  void add(std::uint64_t directory, std::size_t count) {
    std::vector<std::pair<std::string, ListedName>> names;
    names.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      names.emplace_back("name" + std::to_string(i),
                         ListedName{handle_of(1000 + i), {{}, stepper_.clock().now(), 1}});
    }
    cache_->add(handle_of(directory), caller_, stamps_, std::move(names));
  }

  bool take(std::uint64_t directory, const std::string& name) {
    return cache_->take(handle_of(directory), caller_, stamps_, name).has_value();
  }

  testing::Stepper stepper_;
  const Credential caller_{1000, 100, {}};
  const Attributes stamps_;
  std::shared_ptr<NameCache> cache_ = std::make_shared<NameCache>(stepper_, AttributeTimes{});
};

TEST_F(NameCacheTest, GivesANameOnce) {
  add(1, 2);
  EXPECT_TRUE(take(1, "name0"));
  EXPECT_FALSE(take(1, "name0"));
  EXPECT_FALSE(take(2, "name1"));
  EXPECT_TRUE(take(1, "name1"));
  EXPECT_EQ(cache_->size(), 0U);
}

TEST_F(NameCacheTest, KeepsWhatWasListedLastWithinItsBound) {
  for (std::uint64_t directory = 1; directory <= 100; ++directory) {
    add(directory, 1000);
    EXPECT_LE(cache_->size(), NameCache::kMostNames);
  }
  EXPECT_GT(cache_->size(), NameCache::kMostNames / 2);
  EXPECT_FALSE(take(1, "name0"));
  EXPECT_TRUE(take(100, "name0"));
}

TEST_F(NameCacheTest, OneListingDoesNotOutgrowIt) {
  add(1, NameCache::kMostNames + 1000);
  EXPECT_EQ(cache_->size(), NameCache::kMostNames);
  EXPECT_TRUE(take(1, "name0"));
}

TEST_F(NameCacheTest, GivesItsMemoryBackWhenNothingIsGoodAnyMore) {
  add(1, 1000);
  stepper_.advance(std::chrono::seconds(2));
  add(2, 1000);
  for (int i = 0; i < 4; ++i) {
    stepper_.advance(std::chrono::seconds(1));
    stepper_.run();
  }
  EXPECT_EQ(cache_->size(), 0U);
}

}  // namespace
}  // namespace larder::netfs
