// A cachefilesd that ends is started again, but never in a tight loop.
#include "keeper/daemons.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::keeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class MovedClock final : public Clock {
 public:
  [[nodiscard]] MonotonicTime now() const override { return now_; }

  void advance(Duration by) { now_ += by; }

 private:
  MonotonicTime now_{seconds(1000)};
};

// A process that waits for its end.
DaemonProcess sleeper() {
  DaemonProcess process;
  process.pid = ::fork();
  if (process.pid == 0) {
    ::signal(SIGTERM, SIG_DFL);
    for (;;) {
      ::pause();
    }
  }
  process.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  return process;
}

class DaemonsTest : public ::testing::Test {
 protected:
  ~DaemonsTest() override {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

  Daemons make(std::vector<std::string> configurations) {
    return {std::move(configurations),
            [this](const std::string& configuration) -> Result<DaemonProcess> {
              started_.push_back(configuration);
              if (fails_) {
                return fail(Errc::kNotFound, "there is no such program");
              }
              DaemonProcess process = sleeper();
              pids_.push_back(process.pid);
              return process;
            },
            clock_, [this](std::string trouble) { told_.push_back(std::move(trouble)); }};
  }

  // Ends the one that was started last, and waits until that can be seen.
  void kill_last(const Daemons& daemons) {
    ::kill(pids_.back(), SIGKILL);
    std::vector<pollfd> polled;
    daemons.append_to(polled);
    ASSERT_FALSE(polled.empty());
    ASSERT_EQ(::poll(polled.data(), polled.size(), 10'000), 1);
    pids_.pop_back();
  }

  // How long until the next one is started.
  milliseconds pause(Daemons& daemons) {
    const MonotonicTime begin = clock_.now();
    const std::size_t before = started_.size();
    const auto due = daemons.due();
    EXPECT_TRUE(due.has_value());
    clock_.advance(*due - begin - milliseconds(1));
    daemons.turn();
    EXPECT_EQ(started_.size(), before) << "too early";
    clock_.advance(milliseconds(1));
    daemons.turn();
    EXPECT_EQ(started_.size(), before + 1);
    return std::chrono::duration_cast<milliseconds>(*due - begin);
  }

  MovedClock clock_;
  bool fails_ = false;
  std::vector<std::string> started_;
  std::vector<pid_t> pids_;
  std::vector<std::string> told_;
};

TEST_F(DaemonsTest, StartsOneForEachConfiguration) {
  Daemons daemons = make({"/etc/a.conf", "/etc/b.conf"});
  EXPECT_TRUE(started_.empty());
  daemons.turn();
  EXPECT_EQ(started_, (std::vector<std::string>{"/etc/a.conf", "/etc/b.conf"}));
  daemons.turn();
  EXPECT_EQ(started_.size(), 2U);
  EXPECT_EQ(daemons.due(), std::nullopt) << "nothing to do while they live";
  EXPECT_TRUE(told_.empty());
}

TEST_F(DaemonsTest, OneThatKeepsDyingIsStartedEverMoreRarelyAndReported) {
  Daemons daemons = make({"/etc/a.conf"});
  daemons.turn();
  std::vector<milliseconds> pauses;
  for (int death = 0; death < 12; ++death) {
    kill_last(daemons);
    daemons.turn();
    EXPECT_EQ(told_.empty(), death < 2) << death;
    pauses.push_back(pause(daemons));
  }
  EXPECT_EQ(pauses.front(), milliseconds(100));
  EXPECT_EQ(pauses.at(3), milliseconds(800));
  EXPECT_EQ(pauses.back(), seconds(60));
  EXPECT_NE(told_.back().find("/etc/a.conf ended 12 times"), std::string::npos) << told_.back();
  clock_.advance(*daemons.due() - clock_.now());
  daemons.turn();
  EXPECT_EQ(told_.back(), "") << "it lives";
  kill_last(daemons);
  daemons.turn();
  EXPECT_EQ(pause(daemons), milliseconds(100));
}

TEST_F(DaemonsTest, AProgramThatIsNotThereIsNoTightLoopEither) {
  fails_ = true;
  Daemons daemons = make({"/etc/a.conf"});
  daemons.turn();
  EXPECT_EQ(pause(daemons), milliseconds(100));
  EXPECT_EQ(pause(daemons), milliseconds(200));
  EXPECT_EQ(told_.size(), 1U);
}

TEST_F(DaemonsTest, AtTheEndNoneIsStartedAgain) {
  Daemons daemons = make({"/etc/a.conf"});
  daemons.turn();
  daemons.end_all();
  std::vector<pollfd> polled;
  daemons.append_to(polled);
  ASSERT_EQ(::poll(polled.data(), polled.size(), 10'000), 1) << "it was not told to end";
  pids_.clear();
  clock_.advance(seconds(100));
  daemons.turn();
  EXPECT_EQ(started_.size(), 1U);
  EXPECT_EQ(daemons.due(), std::nullopt);
  polled.clear();
  daemons.append_to(polled);
  EXPECT_TRUE(polled.empty());
}

TEST_F(DaemonsTest, TellsWhatKeepsAProgramFromStarting) {
  const auto started = start_daemon("/no/such/cachefilesd", "/etc/a.conf", "/run/larder");
  ASSERT_FALSE(started.has_value());
  EXPECT_NE(started.error().message().find("/no/such/cachefilesd"), std::string::npos);
}

}  // namespace
}  // namespace larder::keeper
