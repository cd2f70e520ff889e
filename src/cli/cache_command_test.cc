// Who keeps a cache's disk busy, as /proc and the engine tell it.
#include "cli/cache_command.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::cli {
namespace {

namespace fs = std::filesystem;

class HoldersTest : public ::testing::Test {
 protected:
  HoldersTest() {
    std::string pattern = ::testing::TempDir() + "larder-holders-XXXXXX";
    proc_ = ::mkdtemp(pattern.data());
  }

  HoldersTest(const HoldersTest&) = delete;
  HoldersTest& operator=(const HoldersTest&) = delete;

  ~HoldersTest() override { fs::remove_all(proc_); }

  void process(const std::string& pid, const std::string& command,
               const std::vector<std::string>& open, const std::vector<std::string>& mapped) {
    fs::create_directories(proc_ / pid / "fd");
    fs::create_directories(proc_ / pid / "map_files");
    std::ofstream(proc_ / pid / "comm") << command << "\n";
    int number = 0;
    for (const std::string& path : open) {
      fs::create_symlink(path, proc_ / pid / "fd" / std::to_string(number++));
    }
    for (const std::string& path : mapped) {
      fs::create_symlink(path, proc_ / pid / "map_files" / std::to_string(number++));
    }
  }

  fs::path proc_;
};

TEST_F(HoldersTest, NamesProcessesWithFilesBelowAMount) {
  process("12", "cc1", {"/mnt/e/a", "/mnt/e/a", "/mnt/elsewhere", "/dev/null"}, {"/mnt/e/lib"});
  process("13", "sh", {"/tmp/x"}, {});
  process("14", "ls", {"/mnt/e"}, {});
  fs::create_directories(proc_ / "self" / "fd");
  fs::create_directories(proc_ / "15");  // it has just ended
  EXPECT_THAT(file_holders(proc_, {"/mnt/e"}),
              ::testing::UnorderedElementsAre(FileHolder{"12", "cc1", "/mnt/e/a"},
                                              FileHolder{"12", "cc1", "/mnt/e/lib"},
                                              FileHolder{"14", "ls", "/mnt/e"}));
  EXPECT_TRUE(file_holders(proc_, {}).empty());
  EXPECT_TRUE(file_holders("/no/such/place", {"/"}).empty());
}

constexpr const char* kBusy = R"({"caches":[{"tag":"farm","disk_in_use":true},{"tag":"b"}],
  "mounts":[{"cache":"farm","mountpoint":"/mnt/e"},{"cache":"b","mountpoint":"/mnt/b"},{}, 3]})";

TEST(DetachTest, ReadsTheStatus) {
  EXPECT_EQ(mountpoints_of(kBusy, "farm"), std::vector<std::string>{"/mnt/e"});
  EXPECT_FALSE(is_let_go(kBusy, "farm"));
  EXPECT_TRUE(is_let_go(kBusy, "b"));
  for (const char* const odd : {"", "[]", "{}", R"({"mounts":{},"caches":3})"}) {
    EXPECT_TRUE(mountpoints_of(odd, "farm").empty()) << odd;
    EXPECT_TRUE(is_let_go(odd, "farm")) << odd;
    EXPECT_EQ(tag_of(odd, "/c"), "/c") << odd;
  }
  constexpr const char* kTagged =
      R"({"caches":[{"tag":"farm","path":"/c"},{"tag":"/d","path":"/d"}]})";
  EXPECT_EQ(tag_of(kTagged, "/c"), "farm");
  EXPECT_EQ(tag_of(kTagged, "farm"), "farm");
  EXPECT_EQ(tag_of(kTagged, "/d"), "/d");
  EXPECT_EQ(directories_of(kTagged, "farm"), std::vector<std::string>{"/c"});
}

TEST(DetachTest, WaitsUntilTheDiskIsFree) {
  int asked = 0;
  const AskEngine ask = [&](const std::vector<std::string>& words) -> Result<std::string> {
    if (words.front() == "detach") {
      EXPECT_EQ(words.at(1), "farm");
      return "";
    }
    return ++asked < 4 ? std::string(kBusy) : std::string("{}");
  };
  EXPECT_EQ(detach_cache(ask, "farm", std::chrono::seconds(20)).value(),
            "the cache farm is offline and its disk is free\n");
  EXPECT_EQ(asked, 4);
}

TEST(DetachTest, SaysThatItIsKept) {
  const AskEngine ask = [](const std::vector<std::string>& words) -> Result<std::string> {
    return words.front() == "detach" ? std::string() : std::string(kBusy);
  };
  EXPECT_THAT(detach_cache(ask, "farm", std::chrono::seconds(0)).value(),
              ::testing::HasSubstr("its disk is still in use"));
}

TEST(DetachTest, PassesOnWhatTheEngineRefuses) {
  const AskEngine ask = [](const std::vector<std::string>&) -> Result<std::string> {
    return fail(Errc::kNotFound, "there is no cache farm");
  };
  EXPECT_EQ(detach_cache(ask, "farm", std::chrono::seconds(0)).error().context(),
            "there is no cache farm");
}

}  // namespace
}  // namespace larder::cli
