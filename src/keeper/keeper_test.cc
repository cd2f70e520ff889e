// The keeper must start its engine with few rights, hold mounts, refuse what it must not do for an
// engine, survive the engine's death and end everything when it is told to. A scripted engine plays
// the other side; everything runs in a mount namespace of its own, so that nothing is left mounted.
#include "keeper/keeper.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <ios>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"
#include "handover/keeper_client.h"
#include "handover/mount_spec.h"
#include "keeper/runtime_directory.h"
#include "os/packet_socket.h"

namespace larder::keeper {
namespace {

using handover::KeeperClient;
using handover::Pids;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr seconds kPatience{20};

std::string read_file(const std::string& path) {
  const std::ifstream stream(path);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

bool enter_private_namespace() {
  static const bool entered =
      ::unshare(CLONE_NEWNS) == 0 && ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return entered;
}

// A keeper in a process of its own, and a mount point.
class KeeperTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ASSERT_TRUE(enter_private_namespace());
    std::string pattern = "/tmp/larder-keeper-test-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    std::filesystem::create_directory(directory_ + "/mnt");
    start_keeper();
  }

  void TearDown() override {
    stop_keeper();
    while (::umount2((directory_ + "/mnt").c_str(), MNT_DETACH) == 0) {
    }
    if (!directory_.empty()) {
      std::filesystem::remove_all(directory_);
    }
  }

  [[nodiscard]] std::string runtime() const { return directory_ + "/run"; }

  void start_keeper() {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd reader(ends[0]);
    UniqueFd writer(ends[1]);
    keeper_ = ::fork();
    if (keeper_ == 0) {
      const int log = ::open((directory_ + log_name_).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
      if (log < 0 || ::dup2(log, STDERR_FILENO) < 0) {
        ::_exit(126);
      }
      const auto result = run_keeper({.runtime_directory = runtime(),
                                      .engine_program = SCRIPTED_ENGINE,
                                      .log_level = "debug",
                                      .on_started = [&] { writer.reset(); }});
      // NOLINTNEXTLINE(concurrency-mt-unsafe): the keeper has joined its threads
      std::exit(result ? 0 : 1);
    }
    writer.reset();
    char byte = 0;
    ASSERT_EQ(::read(reader.get(), &byte, 1), 0);  // started, or dead: what follows will tell
  }

  void stop_keeper() {
    if (keeper_ > 0) {
      ::kill(keeper_, SIGTERM);
      ::waitpid(keeper_, nullptr, 0);
      keeper_ = -1;
    }
  }

  [[nodiscard]] KeeperClient client() const { return KeeperClient(runtime()); }

  // Mounts, as the command line does it, and hands the mount to the keeper.
  Result<std::uint32_t> mount(const std::string& script, const std::string& cache = "",
                              seconds patience = kPatience) {
    const UniqueFd fuse(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    const std::string options =
        fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", fuse.get());
    if (::mount("test", mountpoint().c_str(), "fuse.larder", MS_RDONLY | MS_NOSUID | MS_NODEV,
                options.c_str()) != 0) {
      return fail_errno(errno, "mount");
    }
    const std::string spec = handover::encode_spec({script, mountpoint(), cache, {}}).value();
    return client().mount(spec, 1, fuse, patience);
  }

  void unmount() { EXPECT_EQ(::umount2(mountpoint().c_str(), MNT_DETACH), 0); }

  [[nodiscard]] std::string mountpoint() const { return directory_ + "/mnt"; }

  [[nodiscard]] std::string log() const { return read_file(directory_ + log_name_); }

  // What stat of the mount says; the scripted engine answers EIO.
  [[nodiscard]] int stat_errno() const {
    struct stat status{};
    const std::string below = mountpoint() + "/x";
    return ::stat(below.c_str(), &status) == 0 ? 0 : errno;
  }

  // Asks until an engine other than `old` runs; the keeper answers each time, so nothing is polled
  // faster than it works.
  std::optional<Pids> next_engine(pid_t old) {
    for (int tries = 0; tries < 1'000'000; ++tries) {
      const auto pids = client().pids();
      if (!pids) {
        return std::nullopt;
      }
      if (pids->engine != 0 && pids->engine != old) {
        return *pids;
      }
      ::sched_yield();
    }
    return std::nullopt;
  }

  std::string directory_;
  std::string log_name_ = "/log";
  pid_t keeper_ = -1;
};

TEST_F(KeeperTest, StartsTheEngineWithFewRights) {
  ASSERT_FALSE(mount("fail").has_value());  // now the engine has taken what the keeper sent
  const auto pids = client().pids();
  ASSERT_TRUE(pids.has_value()) << log();
  EXPECT_EQ(pids->keeper, keeper_);
  const std::string status = read_file(fmt::format("/proc/{}/status", pids->engine));
  const uid_t uid = handover::find_engine_user()->uid;
  EXPECT_NE(uid, 0U);
  EXPECT_THAT(status, HasSubstr(fmt::format("Uid:\t{0}\t{0}\t{0}\t{0}", uid)));
  EXPECT_THAT(status, testing::ContainsRegex("Groups:\t *\n"));
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1"));
  for (const char* const set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_THAT(status, HasSubstr(fmt::format("{}:\t0000000000000400", set)));
  }
  EXPECT_THAT(status, HasSubstr("Umask:\t0077"));
  // Signals 32 and 33 are glibc's own: a parent's posix_spawn(3), as in make, leaves them ignored.
  EXPECT_THAT(status, testing::ContainsRegex("SigIgn:\t0000000[01][08]0000000"));
  // Standard streams, the channel, the control socket with its eventfd, and the mount that it may
  // not have closed yet.
  std::vector<std::string> targets;
  for (const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pids->engine))) {
    targets.push_back(std::filesystem::read_symlink(entry));
  }
  EXPECT_LE(targets.size(), 7U) << testing::PrintToString(targets);
}

TEST_F(KeeperTest, ServesAMountAndForgetsItWhenItIsUnmounted) {
  const auto id = mount("ready");
  ASSERT_TRUE(id.has_value()) << id.error().message() << log();
  EXPECT_EQ(stat_errno(), EIO);
  unmount();
  // The engine hears of it from the kernel; the keeper forgets the mount some time after.
  Result<> gone;
  for (int tries = 0; tries < 1'000'000 && gone; ++tries) {
    gone = client().unmount(*id);
    ::sched_yield();
  }
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().code(), Errc::kNotFound);
  const auto second = mount("ready");
  ASSERT_TRUE(second.has_value());
  EXPECT_NE(*second, *id);
}

TEST_F(KeeperTest, TellsWhyAMountFailed) {
  const auto id = mount("fail");
  ASSERT_FALSE(id.has_value());
  EXPECT_EQ(id.error().context(), "told to fail");
  EXPECT_EQ(stat_errno(), ENOTCONN);
}

TEST_F(KeeperTest, LetsAMountGoOnRequest) {
  const auto id = mount("ready");
  ASSERT_TRUE(id.has_value());
  ASSERT_TRUE(client().unmount(*id));
  int error = EIO;
  for (int tries = 0; tries < 1'000'000 && error != ENOTCONN; ++tries) {
    error = stat_errno();
    ::sched_yield();
  }
  EXPECT_EQ(error, ENOTCONN);
}

TEST_F(KeeperTest, AnEngineThatSaysNothingCostsTheClientItsPatienceOnly) {
  const auto id = mount("silent", "", seconds(1));
  ASSERT_FALSE(id.has_value());
  EXPECT_EQ(id.error().code(), Errc::kTimedOut);
  EXPECT_TRUE(client().pids().has_value());
}

TEST_F(KeeperTest, MakesAndClosesBackingIds) {
  const auto answer = mount("backing");
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().context(), fmt::format("id 1, a directory errno {}", EISDIR));
}

TEST_F(KeeperTest, GivesOutOnlyTheCacheThatTheMountNames) {
  const std::string cache = directory_ + "/cache";
  EXPECT_THAT(mount("cache", cache).error().context(),
              testing::StartsWith("700 of me; no mount names /etc as its cache: let one name it"));
  unmount();
  std::ofstream(cache + "/precious") << "not ours";
  EXPECT_THAT(mount("cache", cache).error().context(), HasSubstr("holds other files"));
  EXPECT_EQ(read_file(cache + "/precious"), "not ours");
}

TEST_F(KeeperTest, TheEnginesDeathEndsItsMountsAndStartsTheNext) {
  ASSERT_TRUE(mount("ready").has_value());
  const pid_t first = client().pids()->engine;
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  const auto pids = next_engine(first);
  ASSERT_TRUE(pids.has_value()) << log();
  EXPECT_EQ(pids->keeper, keeper_);
  EXPECT_EQ(stat_errno(), ENOTCONN);
  EXPECT_THAT(log(), HasSubstr("was killed by signal 9: 1 mounts end"));
  unmount();
  EXPECT_TRUE(mount("ready").has_value());
}

TEST_F(KeeperTest, ParksAMountUnderWhichThreeEnginesDied) {
  for (int death = 0; death < 3; ++death) {
    const pid_t engine = next_engine(0)->engine;
    const auto id = mount("die");
    ASSERT_FALSE(id.has_value());
    EXPECT_THAT(id.error().context(), HasSubstr("was killed by signal 6"));
    unmount();
    ASSERT_TRUE(next_engine(engine).has_value());
  }
  const auto parked = mount("die");
  ASSERT_FALSE(parked.has_value());
  EXPECT_THAT(parked.error().context(), HasSubstr("parked"));
  EXPECT_THAT(log(), HasSubstr("source=die"));
  unmount();
  EXPECT_TRUE(mount("ready").has_value());  // others are served
}

TEST_F(KeeperTest, KillsAnEngineThatSendsNonsense) {
  const pid_t first = client().pids()->engine;
  const auto id = mount("nonsense");
  ASSERT_FALSE(id.has_value());
  EXPECT_THAT(id.error().context(), HasSubstr("was killed by signal 9"));
  EXPECT_TRUE(next_engine(first).has_value());
}

TEST_F(KeeperTest, RefusesDescriptorsThatAreNotFuse) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto id = client().mount("source=ready\n", 1, null, kPatience);
  ASSERT_FALSE(id.has_value());
  EXPECT_THAT(id.error().context(), HasSubstr("not /dev/fuse"));
}

TEST_F(KeeperTest, SilentClientsDoNotKeepOthersOut) {
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 200; ++i) {
    auto socket = os::connect_for_packets(runtime() + "/keeper.sock");
    if (socket) {
      silent.push_back(std::move(*socket));
    }
  }
  EXPECT_TRUE(client().pids().has_value());
}

// The log of a keeper in the background is its stderr.
TEST_F(KeeperTest, TheLogIsKeptFromGrowing) {
  stop_keeper();
  log_name_ = "/run/keeper.log";
  start_keeper();
  const std::string path = directory_ + log_name_;
  const std::string many(5U << 20U, 'x');
  std::ofstream(path, std::ios::app) << many << std::flush;
  ASSERT_TRUE(client().pids().has_value());
  ASSERT_TRUE(client().pids().has_value());  // by now it has looked at the log
  EXPECT_LT(std::filesystem::file_size(path), 1U << 20U);
  EXPECT_THAT(read_file(path), HasSubstr("goes on here"));
  EXPECT_GE(std::filesystem::file_size(path + ".1"), many.size());
  EXPECT_THAT(read_file(path + ".1"), HasSubstr("engine started"));
}

TEST_F(KeeperTest, ALogOfSomebodyElsesIsLeftAlone) {
  const std::string many(5U << 20U, 'x');
  std::ofstream(directory_ + "/log", std::ios::app) << many << std::flush;
  ASSERT_TRUE(client().pids().has_value());
  ASSERT_TRUE(client().pids().has_value());
  EXPECT_GE(std::filesystem::file_size(directory_ + "/log"), many.size());
}

TEST_F(KeeperTest, ASecondKeeperIsRefused) {
  const auto second =
      run_keeper({.runtime_directory = runtime(), .engine_program = SCRIPTED_ENGINE});
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().context(), HasSubstr("a keeper already runs"));
  EXPECT_TRUE(client().pids().has_value());  // and took nothing from the first
}

TEST_F(KeeperTest, StopEndsEngineMountsAndKeeper) {
  ASSERT_TRUE(mount("ready").has_value());
  const pid_t engine = client().pids()->engine;
  ASSERT_TRUE(client().stop(kPatience));
  int status = 0;
  ASSERT_EQ(::waitpid(keeper_, &status, 0), keeper_);
  keeper_ = -1;
  EXPECT_EQ(status, 0) << log();
  EXPECT_EQ(::kill(engine, 0), -1);
  EXPECT_EQ(stat_errno(), ENOTCONN);
  EXPECT_FALSE(std::filesystem::exists(runtime() + "/keeper.sock"));
  start_keeper();
  EXPECT_TRUE(client().pids().has_value());
}

// Whoever asks or mounts right after `larder stop` meets nobody, rather than a keeper that goes.
TEST_F(KeeperTest, NothingIsLeftWhenStopIsAnswered) {
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(client().stop(kPatience));
    EXPECT_FALSE(std::filesystem::exists(runtime() + "/control.sock"));
    EXPECT_FALSE(std::filesystem::exists(runtime() + "/keeper.sock"));
    EXPECT_TRUE(RuntimeDirectory::claim(runtime()).has_value());
    ::waitpid(keeper_, nullptr, 0);
    start_keeper();
  }
}

TEST_F(KeeperTest, TheSocketsHaveTheRightModes) {
  struct stat status{};
  ASSERT_EQ(::stat((runtime() + "/keeper.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  ASSERT_EQ(::stat((runtime() + "/control.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0666U);
  ASSERT_EQ(::stat(runtime().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0755U);
}

TEST_F(KeeperTest, RefusesARuntimeDirectoryThatOthersMayWriteTo) {
  const std::string open = directory_ + "/open";
  std::filesystem::create_directory(open);
  ASSERT_EQ(::chmod(open.c_str(), 0777), 0);
  const auto result = run_keeper({.runtime_directory = open, .engine_program = SCRIPTED_ENGINE});
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().context(), HasSubstr("only root"));
}

}  // namespace
}  // namespace larder::keeper
