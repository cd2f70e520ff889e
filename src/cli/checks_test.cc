// A mount in the wrong place would hide the cache or let the engine wait for itself; each such
// place must be refused with a sentence, and without touching a mount that may not answer.
#include "cli/checks.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/result.h"
#include "cli/mount_table.h"

namespace larder::cli {
namespace {

using testing::HasSubstr;

class ChecksTest : public testing::Test {
 protected:
  ChecksTest() {
    std::string pattern = "/tmp/larder-checks-test-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    std::filesystem::create_directories(root_ + "/mnt");
    std::filesystem::create_directories(root_ + "/own/below");
    std::filesystem::create_directories(root_ + "/src/sub");
    std::filesystem::create_symlink(root_ + "/mnt", root_ + "/link");
    std::ofstream(root_ + "/file") << "x";
    table_ = {{0, 1, "/", "ext4", "/dev/root"}, {0, 2, root_ + "/own", "fuse.larder", "nfs://x/y"}};
  }

  ChecksTest(const ChecksTest&) = delete;
  ChecksTest& operator=(const ChecksTest&) = delete;

  ~ChecksTest() override { std::filesystem::remove_all(root_); }

  [[nodiscard]] std::string mountpoint_refusal(const std::string& path) const {
    const auto checked = check_mountpoint(path, table_);
    return checked ? "" : checked.error().message();
  }

  std::string root_;
  std::vector<MountEntry> table_;
};

TEST_F(ChecksTest, TakesADirectoryAsAMountPointByItsRealName) {
  EXPECT_EQ(check_mountpoint(root_ + "/link/", table_).value(), root_ + "/mnt");
  EXPECT_EQ(check_mountpoint(root_ + "/src/../mnt/.", table_).value(), root_ + "/mnt");
}

TEST_F(ChecksTest, RefusesMountPointsThatAreNone) {
  EXPECT_THAT(mountpoint_refusal(root_ + "/none"), HasSubstr("mkdir -p " + root_ + "/none"));
  EXPECT_THAT(mountpoint_refusal(root_ + "/none/none"), HasSubstr("does not exist"));
  EXPECT_THAT(mountpoint_refusal(root_ + "/file"), HasSubstr("is not a directory"));
  EXPECT_THAT(mountpoint_refusal(root_ + "/own"), HasSubstr("already is a mount of larder"));
  EXPECT_THAT(mountpoint_refusal(""), HasSubstr("does not exist"));
}

TEST_F(ChecksTest, RefusesToHideOurOwnDirectories) {
  const auto refusal = [this](const Places& places) {
    const auto checked = check_places(places, table_);
    return checked ? std::string() : checked.error().message();
  };
  EXPECT_EQ(refusal({"/mnt", "/var/cache/larder", "/run/larder"}), "");
  EXPECT_EQ(refusal({"/mnt", "", "/run/larder"}), "");
  EXPECT_THAT(refusal({"/var/cache/larder", "/var/cache/larder", "/run/larder"}),
              HasSubstr("would hide the cache directory"));
  EXPECT_THAT(refusal({"/var", "/var/cache/larder", "/run/larder"}), HasSubstr("would hide"));
  EXPECT_THAT(refusal({"/run", "", "/run/larder"}), HasSubstr("the runtime directory"));
  EXPECT_THAT(refusal({"/var/cache/larder/x", "/var/cache/larder", "/run/larder"}),
              HasSubstr("lies in the cache directory"));
  EXPECT_THAT(refusal({"/mnt", root_ + "/own/cache", "/run/larder"}),
              HasSubstr("itself a mount of larder"));
}

TEST_F(ChecksTest, ResolvesTheCacheDirectory) {
  EXPECT_EQ(resolve_cache(root_ + "/new", table_).value(), root_ + "/new");
  EXPECT_EQ(resolve_cache(root_ + "/link", table_).value(), root_ + "/mnt");
  EXPECT_THAT(resolve_cache(root_ + "/file", table_).error().message(),
              HasSubstr("is not a directory"));
  EXPECT_THAT(resolve_cache(root_ + "/none/new", table_).error().message(),
              HasSubstr("does not exist"));
  EXPECT_THAT(resolve_cache(root_ + "/own/x", table_).error().message(),
              HasSubstr("itself a mount of larder"));
}

TEST_F(ChecksTest, KeepsLocalSourcesApartFromMounts) {
  const auto refusal = [this](const std::string& source, const std::string& mountpoint) {
    const auto checked = check_source(source, mountpoint, table_);
    return checked ? std::string() : checked.error().message();
  };
  EXPECT_EQ(refusal("nfs://host/export", "/mnt"), "");
  EXPECT_EQ(refusal(root_ + "/src", root_ + "/mnt"), "");
  EXPECT_EQ(refusal("localdir://" + root_ + "/src", root_ + "/mnt"), "");
  EXPECT_THAT(refusal(root_ + "/none", "/mnt"), HasSubstr("does not exist"));
  EXPECT_THAT(refusal("localdir://" + root_ + "/own/below", "/mnt"),
              HasSubstr("itself a mount of larder"));
  EXPECT_THAT(refusal(root_ + "/src", root_ + "/src/sub"), HasSubstr("lies in the source"));
  EXPECT_THAT(refusal(root_ + "/src/sub", root_ + "/src"), HasSubstr("would hide the source"));
}

}  // namespace
}  // namespace larder::cli
