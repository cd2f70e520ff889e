#include "cachefiles/failed_reads.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/manual_clock.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kPart = std::uint64_t{4} * 1024 * 1024;  // looked at in one go
constexpr std::uint64_t kSeen = 15 * kPart;  // at once, of what comes after the first part

// Some time passes whenever somebody asks for it.
class TickingClock final : public Clock {
 public:
  [[nodiscard]] MonotonicTime now() const override {
    const MonotonicTime now = clock_.now();
    clock_.advance(tick);
    return now;
  }

  void advance(Duration by) { clock_.advance(by); }

  Duration tick{};

 private:
  mutable testing::ManualClock clock_;
};

class FailedReadsTest : public ::testing::Test {
 protected:
  void make(std::uint64_t size) {
    size_ = size;
    file_ = filesystem_.open_root("/").value()->make_tmpfile(0600).value();
    ASSERT_TRUE(file_->set_size(size));
  }

  void fail_at(std::uint64_t offset) { filesystem_.fail_to_read(file_->stat()->inode, offset); }

  std::optional<std::uint64_t> find() { return failed_reads_.find(*file_, size_, clock_); }

  testing::FakeFilesystem filesystem_;
  TickingClock clock_;
  std::unique_ptr<os::File> file_;
  std::uint64_t size_ = 0;
  FailedReads failed_reads_;
};

TEST_F(FailedReadsTest, TheFirstPlaceOfAPartIsFound) {
  for (const std::uint64_t size : {kPage - 1, 100 * kPage + 1, kPart, 3 * kPart + 5}) {
    for (const std::uint64_t at : {std::uint64_t{0}, size / 3, size - 1}) {
      SCOPED_TRACE(size);
      SCOPED_TRACE(at);
      make(size);
      EXPECT_EQ(find(), std::nullopt);
      fail_at(at);
      EXPECT_EQ(find(), at / kPage * kPage);
    }
  }
}

TEST_F(FailedReadsTest, AFileWithoutBytesHasNone) {
  make(0);
  EXPECT_EQ(find(), std::nullopt);
}

TEST_F(FailedReadsTest, AllOfALargeFileIsLookedAtInTurn) {
  const std::uint64_t last = kPart + 3 * kSeen;
  make(last + kPage);
  fail_at(last);
  int looks = 1;
  while (find() != last && looks < 10) {
    ++looks;
  }
  EXPECT_EQ(looks, 4);
}

TEST_F(FailedReadsTest, AHundredthOfTheTimeGoesIntoLooking) {
  make(10 * kPage);
  fail_at(0);
  clock_.tick = std::chrono::microseconds(100);
  int found = 0;
  for (int i = 0; i < 1000; ++i) {
    found += find() ? 1 : 0;
    clock_.advance(std::chrono::microseconds(900));
  }
  // Of 1.0 to 1.1 seconds, and the first millisecond.
  EXPECT_GE(found, 105);
  EXPECT_LE(found, 125);
  clock_.advance(std::chrono::seconds(1));
  EXPECT_NE(find(), std::nullopt);
}

// Who looks may have to wait for a processor: nothing would be looked at for a hundred times that.
TEST_F(FailedReadsTest, AnInterruptedLookIsNoLongLook) {
  make(10 * kPage);
  fail_at(0);
  clock_.tick = std::chrono::milliseconds(50);
  EXPECT_NE(find(), std::nullopt);
  clock_.tick = {};
  EXPECT_EQ(find(), std::nullopt);
  clock_.advance(std::chrono::milliseconds(200));
  EXPECT_NE(find(), std::nullopt);
}

}  // namespace
}  // namespace larder::cachefiles
