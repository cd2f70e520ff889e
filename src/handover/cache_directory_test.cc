// The one who prepares a cache directory is root: what others put there must not become the
// engine's.
#include "handover/cache_directory.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "handover/engine_user.h"

namespace larder::handover {
namespace {

using testing::HasSubstr;

class CacheDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "cache_directory_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = std::filesystem::canonical(pattern);
  }

  void TearDown() override { std::filesystem::remove_all(top_); }

  [[nodiscard]] std::string path() const { return top_ / "cache"; }

  std::filesystem::path top_;
  const EngineUser user_{::getuid(), ::getgid()};
};

TEST_F(CacheDirectoryTest, IsMadeForItsUserAlone) {
  const auto directory = open_cache_directory(path(), user_);
  ASSERT_TRUE(directory.has_value()) << directory.error().message();
  struct stat status{};
  ASSERT_EQ(::fstat(directory->get(), &status), 0);
  EXPECT_EQ(status.st_mode, S_IFDIR | 0700U);
  EXPECT_EQ(status.st_uid, user_.uid);
}

TEST_F(CacheDirectoryTest, OneOfOursIsTakenAgain) {
  ASSERT_TRUE(open_cache_directory(path(), user_).has_value());
  std::ofstream(path() + "/format") << "larder cache 1\n";
  std::filesystem::permissions(path(), std::filesystem::perms::all);
  ASSERT_TRUE(open_cache_directory(path(), user_).has_value());
  struct stat status{};
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0700U);
}

TEST_F(CacheDirectoryTest, OtherFilesAndPathsThatLeadElsewhereAreRefused) {
  std::filesystem::create_directory(path());
  std::ofstream(path() + "/letter") << "dear";
  const auto full = open_cache_directory(path(), user_);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code(), Errc::kUnsuitable);
  EXPECT_THAT(full.error().message(), HasSubstr("holds other files"));

  std::filesystem::create_directory_symlink(path(), top_ / "link");
  const auto linked = open_cache_directory(top_ / "link", user_);
  ASSERT_FALSE(linked.has_value());
  EXPECT_THAT(linked.error().message(), HasSubstr("symbolic link"));

  EXPECT_EQ(open_cache_directory("cache", user_).error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace larder::handover
