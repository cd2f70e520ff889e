// The protocol: INIT, INTERRUPT, and requests of which nothing need be true.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <optional>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "fuse/protocol.h"
#include "fuse/testing/mounted_fake.h"
#include "testing/fake_kernel.h"

namespace larder::fuse {
namespace {

using ::testing::IsEmpty;

using larder::testing::FuseBytes;
using larder::testing::FuseReply;

std::uint64_t flags_of(const InitOut& out) {
  return out.flags | std::uint64_t{out.flags2} << 32U;
}

TEST(Init, TakesWhatTheKernelOffersAndNoMore) {
  MountedFake fake;
  const FuseReply reply = fake.wait(fake.kernel.init(7, 45, MountedFake::kKernelFlags));
  ASSERT_EQ(reply.error, 0);
  ASSERT_EQ(reply.body.bytes().size(), sizeof(InitOut));
  const auto out = reply.body.as<InitOut>();
  EXPECT_EQ(out.major, 7U);
  EXPECT_EQ(out.minor, 45U);
  EXPECT_EQ(flags_of(out) & ~MountedFake::kKernelFlags, 0U);
  EXPECT_EQ(flags_of(out) & FUSE_WRITEBACK_CACHE, 0U) << "does not go with passthrough";
  EXPECT_EQ(flags_of(out) & kInitLocks, kInitLocks) << "one file may have two nodes";
  EXPECT_EQ(flags_of(out) & FUSE_ASYNC_DIO, 0U) << "pieces of an append would overtake each other";
  constexpr std::uint64_t kForWriting =
      FUSE_ATOMIC_O_TRUNC | FUSE_HANDLE_KILLPRIV_V2 | FUSE_BIG_WRITES;
  EXPECT_EQ(flags_of(out) & kForWriting, kForWriting);
  EXPECT_NE(flags_of(out) & FUSE_INIT_EXT, 0U) << "without it flags2 is ignored";
  EXPECT_NE(flags_of(out) & kInitPassthrough, 0U);
  EXPECT_EQ(out.max_stack_depth, 1U);
  EXPECT_EQ(out.max_pages * 4096U, out.max_write);
}

TEST(Init, SpeaksAnOlderMinorVersionWithOlderKernels) {
  MountedFake fake;
  const auto out =
      fake.wait(fake.kernel.init(7, 34, FUSE_ASYNC_READ | FUSE_MAX_PAGES)).body.as<InitOut>();
  EXPECT_EQ(out.minor, 34U);
  EXPECT_EQ(flags_of(out), FUSE_ASYNC_READ | FUSE_MAX_PAGES);
  EXPECT_EQ(out.max_stack_depth, 0U);
  EXPECT_FALSE(fake.filesystem->statistics().passthrough_trouble.empty());
}

TEST(Init, LeavesPassthroughOutWhenTurnedOff) {
  MountedFake fake(false);
  const auto out = fake.wait(fake.kernel.init(7, 45, MountedFake::kKernelFlags)).body.as<InitOut>();
  EXPECT_EQ(flags_of(out) & kInitPassthrough, 0U);
  EXPECT_EQ(out.max_stack_depth, 0U);
}

TEST(Init, IgnoresTheUpperFlagsOfAKernelThatHasNone) {
  MountedFake fake;
  const auto out =
      fake.wait(fake.kernel.init(7, 35, kInitPassthrough | FUSE_ASYNC_READ)).body.as<InitOut>();
  EXPECT_EQ(flags_of(out), FUSE_ASYNC_READ);
}

TEST(Init, RefusesAnOldKernel) {
  MountedFake fake;
  EXPECT_EQ(fake.wait(fake.kernel.init(7, 30, 0)).error, EPROTO);
  EXPECT_EQ(fake.wait(fake.kernel.init(6, 45, 0)).error, EPROTO);
  EXPECT_EQ(fake.wait(fake.kernel.send(FUSE_INIT, 0)).error, EPROTO);
  EXPECT_EQ(fake.wait(fake.kernel.getattr(FUSE_ROOT_ID)).error, EIO) << "not negotiated";
}

TEST(Interrupt, EndsAWaitingReadWithEintr) {
  MountedFake fake;
  fake.server.add_file("file", std::string(1'000'000, 'x'));
  fake.negotiate();
  const auto entry = fake.wait(fake.kernel.lookup(FUSE_ROOT_ID, "file")).body.as<fuse_entry_out>();
  const auto open = fake.wait(fake.kernel.open(entry.nodeid)).body.as<OpenOut>();
  fake.control->hold = true;
  const std::uint64_t read = fake.kernel.read(entry.nodeid, open.fh, 0, 4096);
  fake.stepper.run();
  ASSERT_EQ(fake.kernel.take_reply(read), std::nullopt);
  const std::uint64_t interrupt = fake.kernel.interrupt(read);
  fake.stepper.run();
  const auto reply = fake.kernel.take_reply(read);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->error, EINTR);
  EXPECT_EQ(fake.kernel.take_reply(interrupt), std::nullopt);
  fake.control->release();
  fake.stepper.run();
  EXPECT_THAT(fake.kernel.violations(), IsEmpty());
}

// A signal that the program handles: it goes on waiting, and is asked about again, because the
// kernel does not tell by itself when it is killed later.
TEST(Interrupt, OfAThreadThatOnlyHandlesASignalIsToBeSentAgain) {
  constexpr const char* kHandled =
      "Name:\tx\nSigPnd:\t0\nShdPnd:\t2000\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t2000\n";
  constexpr const char* kKilled =
      "Name:\tx\nSigPnd:\t100\nShdPnd:\t2000\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t2000\n";
  MountedFake fake;
  fake.server.add_file("file", "content");
  fake.negotiate();
  fake.control->hold = true;
  const std::uint64_t lookup = fake.kernel.lookup(FUSE_ROOT_ID, "file");
  fake.stepper.run();
  fake.process_status = kHandled;
  const std::uint64_t first = fake.kernel.interrupt(lookup);
  fake.stepper.run();
  EXPECT_EQ(fake.kernel.take_reply(lookup), std::nullopt);
  EXPECT_EQ(fake.kernel.take_reply(first), std::nullopt) << "at once it would come back at once";
  fake.advance(std::chrono::seconds(1));
  fake.stepper.run();
  const auto again = fake.kernel.take_reply(first);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->error, EAGAIN);
  EXPECT_EQ(fake.kernel.take_reply(lookup), std::nullopt);

  fake.process_status = kKilled;
  const std::uint64_t second = fake.kernel.interrupt(lookup);
  fake.stepper.run();
  const auto reply = fake.kernel.take_reply(lookup);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->error, EINTR);
  EXPECT_EQ(fake.kernel.take_reply(second), std::nullopt);
  fake.control->release();
  fake.stepper.run();
  EXPECT_THAT(fake.kernel.violations(), IsEmpty());
}

TEST(Interrupt, OneThatIsHeldDoesNotKeepASessionFromEnding) {
  MountedFake fake;
  fake.server.add_file("file", "content");
  fake.negotiate();
  fake.control->hold = true;
  const std::uint64_t lookup = fake.kernel.lookup(FUSE_ROOT_ID, "file");
  fake.process_status = "Name:\tx\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n";
  fake.stepper.run();
  fake.kernel.interrupt(lookup);
  fake.stepper.run();
  fake.control->release();
  fake.stepper.run();
}

TEST(Interrupt, OfARequestThatIsNotThereIsToBeSentAgain) {
  MountedFake fake;
  fake.negotiate();
  EXPECT_EQ(fake.wait(fake.kernel.interrupt(998)).error, EAGAIN);
  EXPECT_EQ(fake.wait(fake.kernel.send(FUSE_INTERRUPT, 0)).error, EINVAL);
  EXPECT_THAT(fake.kernel.violations(), IsEmpty());
}

// Every opcode with a body cut off at every length: an answer, and no reading beyond the end.
TEST(Garbage, TruncatedRequestsAreAnswered) {
  MountedFake fake;
  fake.server.add_file("file", "content");
  fake.negotiate();
  for (std::uint32_t opcode = 0; opcode < 64; ++opcode) {
    if (opcode == FUSE_INIT) {
      continue;
    }
    for (std::size_t length = 0; length <= 48; length += 4) {
      const std::vector<std::byte> body(length);
      const std::uint64_t unique =
          fake.kernel.send(opcode, FUSE_ROOT_ID, FuseBytes().add_bytes(body));
      fake.stepper.run();
      static_cast<void>(fake.kernel.take_reply(unique));
    }
  }
  EXPECT_EQ(fake.kernel.waiting(), 0U) << "every request was answered";
  EXPECT_THAT(fake.kernel.violations(), IsEmpty());
}

TEST(Garbage, BytesThatAreNoRequestAreDropped) {
  MountedFake fake;
  fake.negotiate();
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> bytes(random() % 120);
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(random());
    }
    if (bytes.size() >= sizeof(fuse_in_header) && random() % 4 != 0) {
      fuse_in_header header{};  // of a true length, so that more of it is looked at
      header.len = static_cast<std::uint32_t>(bytes.size());
      header.opcode = static_cast<std::uint32_t>(random() % 60);
      header.unique = random();
      header.nodeid = random() % 4;
      std::memcpy(bytes.data(), &header, sizeof header);
    }
    fake.kernel.send_raw(bytes);
    fake.stepper.run();
  }
  // The mount goes on.
  EXPECT_EQ(fake.wait(fake.kernel.getattr(FUSE_ROOT_ID)).error, 0);
}

}  // namespace
}  // namespace larder::fuse
