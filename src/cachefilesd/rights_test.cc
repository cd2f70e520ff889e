// Once confined, the daemon must still be able to remove what is dead in its cache, and nothing
// else on the machine.
#include "cachefilesd/rights.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "cachefilesd/config.h"

namespace larder::cachefilesd {
namespace {

// What `work` returns in a process of its own.
int in_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(work());
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

class RightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) < 2) {
      GTEST_SKIP() << "needs Landlock";
    }
    std::string pattern = ::testing::TempDir() + "rights_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = std::filesystem::canonical(pattern);
    std::filesystem::create_directories(cache() + "/graveyard/grave/deeper");
    std::filesystem::create_directories(top_ + "/etc");
    std::ofstream(top_ + "/etc/c.conf") << "dir /c\n";
    std::ofstream(top_ + "/other") << "other";
    std::ofstream(cache() + "/graveyard/grave/file") << "dead";
  }

  void TearDown() override {
    if (!top_.empty()) {
      std::filesystem::remove_all(top_);
    }
  }

  [[nodiscard]] std::string cache() const { return top_ + "/cache"; }

  // The errno of the last call of `work`, confined; 0 when it returned 0.
  [[nodiscard]] int confined(const std::function<int()>& work) const {
    return in_child([&] {
      const UniqueFd directory(::open(cache().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      confine(directory, top_ + "/etc/c.conf");
      return work() < 0 ? errno : 0;
    });
  }

  std::string top_;
};

TEST_F(RightsTest, TheDeadCanBeMovedAndRemoved) {
  const std::string graves = cache() + "/graveyard";
  EXPECT_EQ(confined([&] {
              return ::rename((graves + "/grave/deeper").c_str(), (graves + "/next").c_str());
            }),
            0);
  EXPECT_EQ(confined([&] { return ::rmdir((graves + "/next").c_str()); }), 0);
  EXPECT_EQ(confined([&] { return ::unlink((graves + "/grave/file").c_str()); }), 0);
}

TEST_F(RightsTest, NothingElseIsWithinReach) {
  EXPECT_EQ(confined([&] { return ::unlink((top_ + "/other").c_str()); }), EACCES);
  EXPECT_EQ(confined([&] { return ::open((top_ + "/other").c_str(), O_RDONLY); }), EACCES);
  EXPECT_EQ(confined([&] { return ::open(top_.c_str(), O_RDONLY | O_DIRECTORY); }), EACCES);
  EXPECT_EQ(confined([&] { return ::open((cache() + "/new").c_str(), O_RDWR | O_CREAT, 0600); }),
            EACCES);
  EXPECT_EQ(confined([&] { return ::open((cache() + "/graveyard/grave/file").c_str(), O_RDONLY); }),
            EACCES);
}

TEST_F(RightsTest, TheConfigurationCanBeReadAgain) {
  EXPECT_EQ(confined([&] { return read_config(top_ + "/etc/c.conf").has_value() ? 0 : -1; }), 0);
}

// As `ionice -c idle` and `nice` would have it.
TEST(GiveWayTest, OthersComeFirstAtTheDiskAndTheProcessors) {
  constexpr int kThisProcess = 1;
  constexpr int kIdle = 3;
  EXPECT_EQ(in_child([] {
              give_way();
              return static_cast<int>(::syscall(SYS_ioprio_get, kThisProcess, 0) >> 13);
            }),
            kIdle);
  EXPECT_GT(in_child([] {
              give_way();
              return ::getpriority(PRIO_PROCESS, 0);
            }),
            0);
}

}  // namespace
}  // namespace larder::cachefilesd
