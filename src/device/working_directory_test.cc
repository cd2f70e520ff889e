// Only a directory that is the cache's, whatever its path says, may be the place of a cull.
#include "device/working_directory.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::device {
namespace {

namespace fs = std::filesystem;

class WorkingDirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(top_.data()), nullptr);
    for (const char* const cache : {"mine", "other"}) {
      fs::create_directories(at(cache) / "cache" / "Ivolume" / "@3f" / "deeper");
      fs::create_directories(at(cache) / "cache" / "Ivolume" / "@3F");
      fs::create_directories(at(cache) / "cache" / "Jvolume" / "@3f");
      fs::create_directories(at(cache) / "graveyard" / "x1x1x" / "@3f");
    }
    root_ = os::make_posix_filesystem()->open_root(at("mine")).value();
  }

  void TearDown() override { fs::remove_all(top_); }

  [[nodiscard]] fs::path at(const std::string& name) const { return fs::path(top_) / name; }

  [[nodiscard]] Result<WorkingPlace> find(const fs::path& path) {
    return find_place(UniqueFd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), *root_);
  }

  std::string top_ = ::testing::TempDir() + "place_XXXXXX";
  std::unique_ptr<os::Directory> root_;
};

TEST_F(WorkingDirectoryTest, ADirectoryOfFanOut) {
  const auto place = find(at("mine/cache/Ivolume/@3f"));
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->kind, PlaceKind::kFanOut);
  EXPECT_EQ(place->path, "Ivolume/@3f");
  EXPECT_TRUE(place->directory->stat("deeper").has_value());
}

TEST_F(WorkingDirectoryTest, WhatLiesAboveHoldsNoObjects) {
  for (const char* const name : {"mine", "mine/cache", "mine/cache/Ivolume",
                                 "mine/cache/Ivolume/@3F", "mine/cache/Jvolume/@3f"}) {
    const auto place = find(at(name));
    ASSERT_TRUE(place.has_value()) << name;
    EXPECT_EQ(place->kind, PlaceKind::kAbove) << name;
  }
}

TEST_F(WorkingDirectoryTest, NothingElseIsIn) {
  for (const fs::path& path :
       {fs::path("/"), fs::path("/proc/self"), at(""), at("other"), at("other/cache"),
        at("other/cache/Ivolume/@3f"), at("mine/cache/Ivolume/@3f/deeper")}) {
    const auto place = find(path);
    ASSERT_FALSE(place.has_value()) << path;
    EXPECT_EQ(place.error().code(), Errc::kIo) << path;
  }
}

// The names would lead to the place, but it is another one.
TEST_F(WorkingDirectoryTest, ATwinIsNotTaken) {
  fs::create_directories(at("mine/cache/Ivolume/cache/Ivolume/@3f"));
  EXPECT_FALSE(find(at("mine/cache/Ivolume/cache/Ivolume/@3f")).has_value());
}

TEST_F(WorkingDirectoryTest, NoSymbolicLinkLeadsIn) {
  fs::rename(at("mine/cache/Ivolume"), at("moved"));
  fs::create_directory_symlink(at("moved"), at("mine/cache/Ivolume"));
  EXPECT_FALSE(find(at("mine/cache/Ivolume/@3f")).has_value());
  EXPECT_FALSE(find(at("moved/@3f")).has_value());
}

TEST_F(WorkingDirectoryTest, TheRemovedAndTheBuriedAreDead) {
  UniqueFd gone(::open(at("mine/cache/Ivolume/@3F").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  fs::remove(at("mine/cache/Ivolume/@3F"));
  EXPECT_EQ(find_place(std::move(gone), *root_).value().kind, PlaceKind::kDead);
  EXPECT_EQ(find(at("mine/graveyard/x1x1x/@3f")).value().kind, PlaceKind::kDead);
  EXPECT_EQ(find(at("mine/graveyard")).value().kind, PlaceKind::kDead);
}

// A path says where a directory lies now, whatever it was called before.
TEST_F(WorkingDirectoryTest, WhatIsMovedInOrOutMovesItsPlace) {
  fs::rename(at("mine/cache/Ivolume"), at("mine/graveyard/x2x2x"));
  EXPECT_EQ(find(at("mine/graveyard/x2x2x/@3f")).value().kind, PlaceKind::kDead);
}

TEST_F(WorkingDirectoryTest, OfAProcess) {
  const auto own = open_working_directory(static_cast<std::uint32_t>(::getpid()));
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(path_of(*own).value(), fs::current_path());
  EXPECT_FALSE(open_working_directory(0).has_value());
  EXPECT_FALSE(open_working_directory(1U << 30U).has_value());
}

}  // namespace
}  // namespace larder::device
