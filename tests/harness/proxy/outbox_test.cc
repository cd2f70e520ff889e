// If these fail a delay is shorter than a test asked for, or bytes overtake each other.
#include "outbox.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/unique_fd.h"
#include "direction.h"

namespace larder::proxy {
namespace {

using std::chrono::milliseconds;

class OutboxTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
    here_.reset(ends[0]);
    there_.reset(ends[1]);
  }

  void push(std::string_view text, TimePoint now) {
    outbox_.push(copy_to_slice(bytes_of(text)), now, shaper_);
  }

  // What has arrived at the other end when it is `now`.
  std::string arrived(TimePoint now) {
    EXPECT_TRUE(outbox_.send_due(here_.get(), now, shaper_));
    std::array<char, 65536> buffer{};
    const ssize_t count = ::recv(there_.get(), buffer.data(), buffer.size(), 0);
    return {buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
  }

  const TimePoint start_ = TimePoint(std::chrono::hours(1));
  UniqueFd here_;
  UniqueFd there_;
  Shaper shaper_;
  Outbox outbox_;
};

TEST_F(OutboxTest, SendsAtOnceWithoutADelay) {
  push("ab", start_);
  push("cd", start_);
  EXPECT_EQ(outbox_.waiting_bytes(), 4U);
  EXPECT_EQ(arrived(start_), "abcd");
  EXPECT_TRUE(outbox_.empty());
  EXPECT_EQ(outbox_.waiting_bytes(), 0U);
}

TEST_F(OutboxTest, HoldsBackForTheDelay) {
  shaper_.set_delay(milliseconds(10), milliseconds(0));
  push("a", start_);
  push("b", start_ + milliseconds(5));
  EXPECT_EQ(arrived(start_ + milliseconds(9)), "");
  EXPECT_EQ(outbox_.next_due(), start_ + milliseconds(10));
  EXPECT_EQ(arrived(start_ + milliseconds(10)), "a");
  EXPECT_EQ(arrived(start_ + milliseconds(15)), "b");
}

TEST_F(OutboxTest, BytesTakeTheirTimeOnALimitedLink) {
  shaper_.set_rate(8);  // a byte a microsecond
  push(std::string(1000, 'a'), start_);
  push(std::string(1000, 'b'), start_);
  EXPECT_EQ(arrived(start_ + std::chrono::microseconds(999)), "");
  EXPECT_EQ(arrived(start_ + std::chrono::microseconds(1000)), std::string(1000, 'a'));
  EXPECT_EQ(outbox_.next_due(), start_ + std::chrono::microseconds(2000));
}

TEST_F(OutboxTest, JitterNeverReorders) {
  shaper_.set_delay(milliseconds(1), milliseconds(50));
  std::string sent;
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    push({&letter, 1}, start_);
    sent += letter;
  }
  std::string received;
  for (int ms = 0; ms <= 60; ++ms) {
    received += arrived(start_ + milliseconds(ms));
  }
  EXPECT_EQ(received, sent);
}

TEST_F(OutboxTest, SegmentsAreSentApart) {
  shaper_.set_segments(3, milliseconds(1));
  push("abcdefgh", start_);
  EXPECT_EQ(arrived(start_ + milliseconds(1)), "abc");
  EXPECT_EQ(arrived(start_ + milliseconds(2)), "def");
  EXPECT_EQ(arrived(start_ + milliseconds(3)), "gh");
}

TEST_F(OutboxTest, ABrokenConnectionIsTold) {
  there_.reset();
  push("a", start_);
  EXPECT_FALSE(outbox_.send_due(here_.get(), start_, shaper_));
}

}  // namespace
}  // namespace larder::proxy
