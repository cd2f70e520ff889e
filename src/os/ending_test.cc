#include "os/ending.h"

#include <csignal>
#include <cstdint>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

namespace larder::os {
namespace {

std::uint64_t bit(int signal) {
  return std::uint64_t{1} << static_cast<unsigned>(signal - 1);
}

struct SignalSets {
  std::uint64_t thread = 0, process = 0, blocked = 0, ignored = 0, caught = 0;
};

std::string status_of(const SignalSets& signals) {
  return fmt::format(
      "Name:\tx\nSigQ:\t0/1\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n"
      "SigIgn:\t{:016x}\nSigCgt:\t{:016x}\nCapInh:\t0\n",
      signals.thread, signals.process, signals.blocked, signals.ignored, signals.caught);
}

TEST(EndingTest, AFatalSignalEndsAThread) {
  EXPECT_TRUE(is_ending(status_of({.thread = bit(SIGKILL)})));
  EXPECT_TRUE(is_ending(status_of({.process = bit(SIGTERM)})));
  EXPECT_TRUE(is_ending(status_of({.process = bit(SIGQUIT), .caught = bit(SIGINT)})));
}

TEST(EndingTest, OneThatIsHandledDoesNot) {
  EXPECT_FALSE(is_ending(status_of({})));
  EXPECT_FALSE(is_ending(status_of({.process = bit(SIGALRM), .caught = bit(SIGALRM)})));
  EXPECT_FALSE(is_ending(status_of({.process = bit(SIGINT), .ignored = bit(SIGINT)})));
  EXPECT_FALSE(is_ending(status_of({.thread = bit(SIGTERM), .blocked = bit(SIGTERM)})));
  EXPECT_FALSE(is_ending(status_of({.process = bit(SIGCHLD) | bit(SIGTSTP) | bit(SIGWINCH)})));
}

TEST(EndingTest, WhoCannotBeReadIsTakenToEnd) {
  EXPECT_TRUE(is_ending(""));
  EXPECT_TRUE(is_ending("Name:\tx\nSigPnd:\tzz\n"));
  const ReadProc none = [](std::uint32_t, const char*) { return std::nullopt; };
  EXPECT_TRUE(is_thread_ending(none, 77));
  EXPECT_TRUE(is_thread_ending(read_proc_file, 0));
}

TEST(EndingTest, TheRealProcIsUnderstood) {
  const auto pid = static_cast<std::uint32_t>(::getpid());
  EXPECT_FALSE(is_thread_ending(read_proc_file, pid));
}

}  // namespace
}  // namespace larder::os
