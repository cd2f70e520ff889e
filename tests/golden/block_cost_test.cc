// A label of a few bytes more would cost a block an object. Looked at where it counts: on fresh
// ext4 and xfs filesystems in loop images, which need root.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

int run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str());
}

// A filesystem in an image, mounted; taken away in the end.
class LoopFilesystem {
 public:
  explicit LoopFilesystem(const std::string& make)
      : path_(::testing::TempDir() + "larder-loop-XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    const std::string image = path_ + "/image";
    const std::string mount_point = path_ + "/mount";
    std::filesystem::create_directory(mount_point);
    mounted_ = run("truncate -s 400M " + image) == 0 && run(make + " " + image) == 0 &&
               run("mount -o loop " + image + " " + mount_point) == 0;
  }

  LoopFilesystem(const LoopFilesystem&) = delete;
  LoopFilesystem& operator=(const LoopFilesystem&) = delete;

  ~LoopFilesystem() {
    if (mounted_) {
      EXPECT_EQ(run("umount " + root()), 0);
    }
    std::filesystem::remove_all(path_);
  }

  [[nodiscard]] bool mounted() const { return mounted_; }

  [[nodiscard]] std::string root() const { return path_ + "/mount"; }

 private:
  std::string path_;
  bool mounted_ = false;
};

// There it must not pass unseen that nothing is looked at.
void skip_unless_ci(const std::string& why) {
  if (std::getenv("CI") != nullptr) {  // NOLINT(concurrency-mt-unsafe): one thread
    ADD_FAILURE() << why;
  } else {
    GTEST_SKIP() << why;
  }
}

class BlockCostTest : public ::testing::TestWithParam<const char*> {};

TEST_P(BlockCostTest, AnObjectOfABlockTakesABlock) {
  if (::geteuid() != 0) {
    skip_unless_ci("needs root to mount a loop image");
    return;
  }
  const LoopFilesystem loop(GetParam());
  if (!loop.mounted()) {
    skip_unless_ci(std::string("no loop device, or no ") + GetParam());
    return;
  }
  const std::string path = loop.root() + "/cachedir";
  std::filesystem::create_directory(path);
  const auto filesystem = os::make_posix_filesystem();
  const SteadyClock clock;
  auto root = filesystem->open_root(path).value();
  EXPECT_EQ(root->identity()->crash_safety, os::CrashSafety::kOrdered);
  CacheOptions options;
  options.path_for_messages = path;
  {
    auto cache = bind_cache(std::move(root), *filesystem, options, clock).value();
    auto volume = cache->open_volume("volume").value();
    for (int i = 0; i < 50; ++i) {
      const std::string key = "key" + std::to_string(i);
      auto object = volume->open_object(describe(key, 1, 4096)).value();
      ASSERT_TRUE(fill(*object, content_of(key, 1, 4096)));
    }
    volume.reset();
    ASSERT_TRUE(cache->withdraw());
  }
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path + "/cache")) {
    if (entry.is_regular_file()) {
      struct stat found{};
      ASSERT_EQ(::lstat(entry.path().c_str(), &found), 0);
      EXPECT_EQ(found.st_blocks, 8) << entry.path();
      ++files;
    }
  }
  EXPECT_EQ(files, 50);
}

INSTANTIATE_TEST_SUITE_P(Filesystems, BlockCostTest,
                         ::testing::Values("mkfs.ext4 -q -I 256", "mkfs.xfs -q -f"));

}  // namespace
}  // namespace larder::cachefiles
