// The whole way of a mount, with the real program and keeper and a scripted engine: what a person
// types must mount, or say in one sentence why not, and then leave nothing behind. Everything runs
// in a mount namespace of its own.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

namespace larder::cli {
namespace {

using testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string output;  // both streams
};

bool enter_private_namespace() {
  static const bool entered =
      ::unshare(CLONE_NEWNS) == 0 && ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return entered;
}

class RunTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ASSERT_TRUE(enter_private_namespace());
    std::string pattern = "/tmp/larder-run-test-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    std::filesystem::create_directory(mnt());
    const Outcome served = larder(std::string("serve --engine ") + SCRIPTED_ENGINE);
    ASSERT_EQ(served.code, 0) << served.output;
  }

  void TearDown() override {
    if (root_.empty()) {
      return;
    }
    [[maybe_unused]] const Outcome stopped = larder("stop --force");  // a test may have done so
    while (::umount2(mnt().c_str(), MNT_DETACH) == 0) {
    }
    std::filesystem::remove_all(root_);
  }

  [[nodiscard]] std::string mnt() const { return root_ + "/mnt"; }

  [[nodiscard]] static Outcome run(const std::string& command) {
    Outcome outcome;
    std::FILE* const pipe = ::popen((command + " 2>&1 </dev/null").c_str(), "re");
    if (pipe == nullptr) {
      ADD_FAILURE() << "no pipe to " << command;
      return outcome;
    }
    std::array<char, 4096> buffer{};
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
      outcome.output += buffer.data();
    }
    outcome.code = WEXITSTATUS(::pclose(pipe));
    return outcome;
  }

  Outcome larder(const std::string& arguments) {
    return run(fmt::format("{} --runtime-dir {}/run {}", LARDER_PROGRAM, root_, arguments));
  }

  // `arguments` come before the mount point.
  [[nodiscard]] Outcome mount(const std::string& arguments) {
    return larder(fmt::format("mount --cache {}/cache {} {}", root_, arguments, mnt()));
  }

  [[nodiscard]] std::string mount_line() const {
    std::ifstream stream("/proc/self/mountinfo");
    std::string line;
    while (std::getline(stream, line)) {
      if (line.find(" " + mnt() + " ") != std::string::npos) {
        return line;
      }
    }
    return "";
  }

  std::string root_;
};

TEST_F(RunTest, MountsShowsAndUnmounts) {
  const Outcome mounted = mount("ready");
  ASSERT_EQ(mounted.code, 0) << mounted.output;
  EXPECT_EQ(mounted.output, "");
  EXPECT_THAT(mount_line(), HasSubstr(" rw,nosuid,nodev,"));
  EXPECT_THAT(mount_line(), HasSubstr("- fuse.larder ready "));
  EXPECT_THAT(mount_line(), HasSubstr("default_permissions,allow_other"));
  EXPECT_THAT(mount("ready").output, HasSubstr("already is a mount of larder"));
  EXPECT_THAT(larder("status").output, HasSubstr("engine pid 7"));
  EXPECT_THAT(larder("version").output, HasSubstr("running engine: scripted"));
  EXPECT_EQ(larder("flush " + mnt() + "/a/..//b").output, mnt() + "/b\n");
  EXPECT_EQ(larder("umount " + mnt()).code, 0);
  EXPECT_EQ(mount_line(), "");
  EXPECT_THAT(larder("umount " + mnt()).output, HasSubstr("is not a mount of larder"));
}

TEST_F(RunTest, SetsFlagsAndReadAhead) {
  ASSERT_EQ(mount("-o ro,noexec,suid,dev,hard ready").code, 0);
  EXPECT_THAT(mount_line(), HasSubstr(" ro,noexec,"));
  std::istringstream words(mount_line());
  std::string device;
  words >> device >> device >> device;
  std::ifstream bdi(fmt::format("/sys/class/bdi/{}/read_ahead_kb", device));
  int kib = 0;
  bdi >> kib;
  EXPECT_EQ(kib, 1024);
}

TEST_F(RunTest, PlainUmountWorksToo) {
  ASSERT_EQ(mount("ready").code, 0);
  EXPECT_EQ(run("umount " + mnt()).code, 0);
  EXPECT_EQ(mount("ready").code, 0);
}

TEST_F(RunTest, EveryRefusalIsOneSentenceAndLeavesNothing) {
  const auto refused = [this](const std::string& arguments, const std::string& sentence) {
    const Outcome outcome = mount(arguments);
    EXPECT_EQ(outcome.code, 1) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr(sentence));
    EXPECT_EQ(std::ranges::count(outcome.output, '\n'), 1) << outcome.output;
    EXPECT_EQ(mount_line(), "");
  };
  refused("gone", "larder: the server is gone");
  refused("fail", "larder: told to fail");
  refused("die", "larder: the engine was killed by signal 6");
  refused("-o fancy ready", "unknown option \"fancy\"");
  refused("-o rsize=1 ready", "rsize=\"1\": give a number");
  refused("-o profile=tools ready", "not there yet");
  refused("--cache relative/none/x ready", "cache directory");
  refused("--cache " + mnt() + "/x ready", "would hide the cache directory");
  refused("/nonexistent", "the source /nonexistent does not exist");
}

TEST_F(RunTest, StopEndsAnEngineThatShowsNoMounts) {
  ASSERT_EQ(mount("ready").code, 0);
  // As the scripted one: there is nothing to unmount.
  EXPECT_EQ(larder("stop").code, 0);
  EXPECT_THAT(larder("status").output, HasSubstr("no keeper runs"));
  EXPECT_THAT(mount("ready").output, HasSubstr("mount of larder"));  // the dead one is still there
  EXPECT_EQ(larder("umount " + mnt()).code, 0);
}

TEST_F(RunTest, IsTheHelperOfMount8) {
  const std::string helper = root_ + "/mount.larder";
  std::filesystem::create_symlink(LARDER_PROGRAM, helper);
  const std::string options =
      fmt::format("rw,_netdev,noauto,x-y,cache=none,runtime_dir={}/run", root_);
  const Outcome checked = run(fmt::format("{} ready {} -f -o {}", helper, mnt(), options));
  EXPECT_EQ(checked.code, 0) << checked.output;
  EXPECT_EQ(mount_line(), "");
  const Outcome mounted = run(fmt::format("{} ready {} -n -v -o {}", helper, mnt(), options));
  EXPECT_EQ(mounted.code, 0) << mounted.output;
  EXPECT_EQ(mounted.output, "");
  EXPECT_THAT(mount_line(), HasSubstr(" rw,"));
  EXPECT_THAT(mount_line(), HasSubstr("fuse.larder ready"));
  EXPECT_EQ(run(fmt::format("{} ready {} -o ro,{}", helper, mnt(), options)).code, 32);
  EXPECT_EQ(run(fmt::format("{} ready {} -o nconnect=x", helper, mnt())).code, 1);
  EXPECT_EQ(run(helper + " ready").code, 1);
}

TEST_F(RunTest, ASignalUndoesAHalfMount) {
  const Outcome killed =
      run(fmt::format("timeout --signal=INT 2 {} --runtime-dir {}/run mount --cache none silent {}",
                      LARDER_PROGRAM, root_, mnt()));
  EXPECT_EQ(killed.code, 124) << killed.output;
  EXPECT_EQ(mount_line(), "");
}

TEST_F(RunTest, UnderstandsOrSaysSo) {
  EXPECT_EQ(larder("nonsense").code, 2);
  EXPECT_EQ(larder("mount onlysource").code, 2);
  EXPECT_EQ(larder("--help").code, 0);
  EXPECT_EQ(larder("--runtime-dir /nonexistent/x status").code, 1);
}

}  // namespace
}  // namespace larder::cli
