// The device on a socket of packets, which reads and polls as /dev/fuse does: one read, one
// request.
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/fuse_device.h"

namespace larder::os {
namespace {

constexpr unsigned kReaders = 4;

class PosixFuseDeviceTest : public ::testing::Test {
 protected:
  PosixFuseDeviceTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    kernel_ = UniqueFd(ends[0]);
    device_ = make_posix_fuse_device(UniqueFd(ends[1])).value();
  }

  void request(std::string_view text) {
    ASSERT_EQ(::write(kernel_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  Result<std::string> read() {
    std::array<std::byte, 64> buffer{};
    return std::string(text_of(TRY(device_->read_request(buffer))));
  }

  // Reads until it is told to stop, and counts each request by its number.
  void serve() {
    for (;;) {
      const Result<std::string> text = read();
      if (!text) {
        EXPECT_EQ(text.error().code(), Errc::kCancelled);
        ++ended_;
        return;
      }
      ++seen_.at(std::stoul(*text));
      ++served_;
      served_.notify_all();
    }
  }

  static constexpr unsigned kBurst = 3;
  static constexpr unsigned kRequests = 3000;

  UniqueFd kernel_;
  std::unique_ptr<FuseDevice> device_;
  std::array<std::atomic<int>, kRequests> seen_{};
  std::atomic<unsigned> served_{0};
  std::atomic<unsigned> ended_{0};
};

TEST_F(PosixFuseDeviceTest, GivesOneRequestAtATimeInTheirOrder) {
  request("first");
  request("second");
  EXPECT_EQ(read().value(), "first");
  EXPECT_EQ(read().value(), "second");
}

// A lost edge would leave a request unread while all readers wait; each burst waits for the last.
TEST_F(PosixFuseDeviceTest, EveryRequestWakesAReaderAndIsReadOnce) {
  {
    std::vector<std::jthread> readers;
    readers.reserve(kReaders);
    for (unsigned i = 0; i < kReaders; ++i) {
      readers.emplace_back([this] { serve(); });
    }
    for (unsigned sent = 0; sent < kRequests; sent += kBurst) {
      for (unsigned i = 0; i < kBurst; ++i) {
        request(std::to_string(sent + i));
      }
      for (unsigned served = served_; served < sent + kBurst; served = served_) {
        served_.wait(served);
      }
    }
    device_->stop();
  }
  EXPECT_EQ(ended_, kReaders) << "stop() ends them all";
  for (const std::atomic<int>& times : seen_) {
    EXPECT_EQ(times, 1);
  }
}

TEST_F(PosixFuseDeviceTest, NothingIsReadAfterTheStop) {
  request("too late");
  device_->stop();
  EXPECT_EQ(read().error().code(), Errc::kCancelled);
  EXPECT_EQ(read().error().code(), Errc::kCancelled);
}

TEST_F(PosixFuseDeviceTest, AReplyIsOnePacket) {
  std::string head = "head,";
  std::string body = "body";
  const std::array<iovec, 2> parts{iovec{head.data(), head.size()},
                                   iovec{body.data(), body.size()}};
  ASSERT_TRUE(device_->write_reply(parts));
  std::array<char, 64> got{};
  const ssize_t length = ::read(kernel_.get(), got.data(), got.size());
  EXPECT_EQ(std::string_view(got.data(), static_cast<std::size_t>(length)), "head,body");
}

}  // namespace
}  // namespace larder::os
