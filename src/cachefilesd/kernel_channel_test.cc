// What is written to a kernel's device must be what it takes, byte for byte and in an order in
// which no limit is refused. A socket that keeps packets apart plays the device.
#include "cachefilesd/kernel_channel.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/daemon_fixture_test.h"
#include "culling/candidate.h"
#include "os/filesystem.h"
#include "os/packet_socket.h"
#include "testing/manual_clock.h"

namespace larder::cachefilesd {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class KernelChannelTest : public ::testing::Test {
 protected:
  KernelChannelTest() : KernelChannelTest(os::packet_socket_pair().value()) {}

  explicit KernelChannelTest(std::pair<UniqueFd, UniqueFd> ends)
      : kernel_(std::move(ends.first)), channel_(std::move(ends.second), waiter_) {
    std::string pattern = ::testing::TempDir() + "kernel_channel_XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = std::filesystem::canonical(pattern);
    std::filesystem::create_directory(top_ / "graveyard");
    config_.directory = top_;
    directory_.reset(::open(top_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    space_ = os::make_posix_filesystem()->open_root(top_).value()->space().value();
  }

  void TearDown() override {
    std::filesystem::current_path("/");
    std::filesystem::remove_all(top_);
  }

  // What was written, a command each.
  std::vector<std::string> written() {
    std::vector<std::string> commands;
    std::array<char, 4096> buffer{};
    ssize_t length = 0;
    while ((length = ::recv(kernel_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
      commands.emplace_back(buffer.data(), static_cast<std::size_t>(length));
    }
    return commands;
  }

  void say(bool culling, std::uint64_t brun, std::uint64_t frun) {
    const std::string line = fmt::format(
        "cull={:d} frun={:x} fcull=1 fstop=1 brun={:x} bcull=1 bstop=1 freleased=3 breleased=10",
        culling, frun, brun);
    ASSERT_EQ(::write(kernel_.get(), line.data(), line.size()), static_cast<ssize_t>(line.size()));
  }

  [[nodiscard]] bool readable() const {
    for (const int descriptor : channel_.descriptors()) {
      pollfd polled{descriptor, POLLIN, 0};
      if (::poll(&polled, 1, 0) > 0) {
        return true;
      }
    }
    return false;
  }

  testing::ManualClock clock_;
  FakeWaiter waiter_{clock_};
  UniqueFd kernel_;
  KernelChannel channel_;
  std::filesystem::path top_;
  Config config_;
  UniqueFd directory_;
  os::FilesystemSpace space_;
};

TEST_F(KernelChannelTest, BindsWithWhatTheConfigurationSays) {
  config_.limits = {10, 8, 6, 4, 2, 0};
  config_.tag = "one";
  config_.security_context = "a:b";
  config_.debug_mask = 7;
  ASSERT_TRUE(channel_.bind(config_, directory_.get()).has_value());
  EXPECT_THAT(written(),
              ElementsAre("dir " + top_.string(), "tag one", "secctx a:b", "debug 7", "brun 99%",
                          "bstop 0%", "bcull 2%", "brun 4%", "bstop 0%", "frun 99%", "fstop 0%",
                          "fcull 8%", "frun 10%", "fstop 6%", "bind"));
}

TEST_F(KernelChannelTest, ASizeIsRefusedAsNobodyWouldHoldIt) {
  config_.size_bytes = 1 << 20;
  EXPECT_EQ(channel_.bind(config_, directory_.get()).error().code(), Errc::kNotSupported);
  EXPECT_THAT(written(), ElementsAre());
}

TEST_F(KernelChannelTest, TheStateLineSaysALittleMoreThanTheKernelWants) {
  ASSERT_TRUE(channel_.bind(config_, directory_.get()).has_value());
  // Nobody else frees so much meanwhile.
  const std::uint64_t far = space_.available_blocks + space_.blocks / 10;
  say(true, far, 1);
  const auto state = channel_.ask_state().value();
  EXPECT_TRUE(state.culling);
  EXPECT_EQ(state.released_files, 3U);
  EXPECT_GT(state.excess_bytes, space_.blocks / 10 * space_.block_size);
  EXPECT_LT(state.excess_bytes, space_.blocks / 7 * space_.block_size);
  EXPECT_EQ(state.block_bytes, space_.block_size);
}

TEST_F(KernelChannelTest, CullsOnUntilALittleMoreIsFree) {
  ASSERT_TRUE(channel_.bind(config_, directory_.get()).has_value());
  const std::uint64_t just = space_.available_blocks - space_.blocks / 100;
  say(false, just, 1);
  EXPECT_FALSE(channel_.ask_state().value().culling);
  say(true, just, 1);
  EXPECT_TRUE(channel_.ask_state().value().culling);
  say(false, just, 1);
  EXPECT_TRUE(channel_.ask_state().value().culling);
  say(false, 1, 1);
  EXPECT_FALSE(channel_.ask_state().value().culling);
}

TEST_F(KernelChannelTest, CullsByNameInTheObjectsDirectory) {
  std::filesystem::create_directory(top_ / "there");
  const std::shared_ptr<os::Directory> there =
      os::make_posix_filesystem()->open_root(top_).value()->open_directory("there").value();
  std::vector<culling::Candidate> objects(2);
  objects[0].name = "D a";
  objects[0].bytes = 10;
  objects[1].name = "E0";
  objects[1].bytes = 20;
  const auto answers = channel_.cull(std::vector{ObjectGroup{"Iv/@00", there, objects}});
  ASSERT_TRUE(answers.has_value());
  EXPECT_THAT(written(), ElementsAre("cull D a", "cull E0"));
  EXPECT_EQ(answers->at(1).value(), 20U);
  EXPECT_EQ(std::filesystem::current_path(), top_ / "there");
}

TEST_F(KernelChannelTest, StopsBetweenTwoCulls) {
  const std::vector<culling::Candidate> objects(2);
  const std::shared_ptr<os::Directory> root = os::make_posix_filesystem()->open_root(top_).value();
  waiter_.stop_ = true;
  EXPECT_EQ(channel_.cull(std::vector{ObjectGroup{"Iv/@00", root, objects}}).error().code(),
            Errc::kCancelled);
  EXPECT_THAT(written(), ElementsAre());
}

TEST_F(KernelChannelTest, HearsOfItsGraveyard) {
  ASSERT_TRUE(channel_.bind(config_, directory_.get()).has_value());
  (void)written();
  EXPECT_FALSE(readable());
  std::filesystem::create_directory(top_ / "graveyard" / "grave");
  EXPECT_TRUE(readable());
  say(false, 1, 1);
  EXPECT_TRUE(channel_.hear().value().value().graveyard);
  EXPECT_FALSE(readable());
  EXPECT_FALSE(channel_.hear().value().has_value());
  say(false, 1, 1);
  EXPECT_FALSE(channel_.hear().value().value().graveyard);
}

TEST_F(KernelChannelTest, LimitsOfABoundCacheAreGivenAndToldToWait) {
  set_log_level(LogLevel::kError);
  Config after = config_;
  after.limits.frun = 9;
  ASSERT_TRUE(channel_.reconfigure(config_, after).has_value());
  set_log_level(LogLevel::kInfo);
  EXPECT_THAT(written(), Contains("frun 9%"));
}

TEST(KernelChannelOpenTest, SaysWhatIsMissing) {
  testing::ManualClock clock;
  FakeWaiter waiter(clock);
  const auto channel = KernelChannel::open("/nowhere/cachefiles", waiter);
  ASSERT_FALSE(channel.has_value());
  EXPECT_EQ(channel.error().code(), Errc::kNotFound);
  EXPECT_THAT(channel.error().message(), HasSubstr("`modprobe cachefiles`"));
}

// A device that fails in every way: what is read from a directory, what is written to a full one.
TEST(KernelChannelOpenTest, ErrorsOfTheDeviceAreSentences) {
  testing::ManualClock clock;
  FakeWaiter waiter(clock);
  KernelChannel full(UniqueFd(::open("/dev/full", O_RDWR | O_CLOEXEC)), waiter);
  Config config;
  config.directory = "/tmp";
  const UniqueFd directory(::open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto bound = full.bind(config, directory.get());
  ASSERT_FALSE(bound.has_value());
  EXPECT_THAT(bound.error().message(), HasSubstr("the kernel refuses `dir /tmp`"));
  EXPECT_EQ(bound.error().error_number(), ENOSPC);
  KernelChannel unreadable(UniqueFd(::open("/tmp", O_RDONLY | O_CLOEXEC)), waiter);
  EXPECT_EQ(unreadable.ask_state().error().error_number(), EISDIR);
}

}  // namespace
}  // namespace larder::cachefilesd
