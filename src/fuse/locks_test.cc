// GETLK, SETLK, SETLKW, and the FLUSH and RELEASE that end locks, of one file with one node or two.
#include <cerrno>
#include <cstdint>
#include <limits>
#include <optional>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/testing/changing_test.h"
#include "fuse/testing/mounted_fake.h"
#include "testing/fake_kernel.h"

namespace larder::fuse {
namespace {

using larder::testing::FuseBytes;

constexpr std::uint64_t kLast = std::numeric_limits<std::int64_t>::max();
constexpr std::uint64_t kAlice = 0xa11ce, kBob = 0xb0b;  // lock owners
constexpr const char* kHandlesASignal =
    "Name:\tx\nSigPnd:\t0\nShdPnd:\t2000\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t2000\n";

class LocksTest : public ChangingTest {
 protected:
  struct Who {
    std::uint64_t node = 0;
    OpenOut open = {};
    std::uint64_t owner = 0;
    std::uint32_t pid = 0;
  };

  Who open_small(std::uint64_t owner, std::uint32_t pid = 0) {
    const std::uint64_t node = lookup("small");
    return {node, open(node, O_RDWR), owner, pid};
  }

  static fuse_lk_in order(const Who& who, std::uint32_t type, std::uint64_t start = 0,
                          std::uint64_t end = kLast) {
    fuse_lk_in in{};
    in.fh = who.open.fh;
    in.owner = who.owner;
    in.lk = {start, end, type, who.pid};
    return in;
  }

  static fuse_lk_in whole(const Who& who, std::uint32_t type) {
    fuse_lk_in in = order(who, type);
    in.lk_flags = FUSE_LK_FLOCK;
    return in;
  }

  int try_lock(const Who& who, const fuse_lk_in& in) {
    return error_of(kernel().lock(FUSE_SETLK, who.node, in));
  }

  // The number of a request that waits.
  std::uint64_t wait_for(const Who& who, const fuse_lk_in& in) {
    const std::uint64_t unique = kernel().lock(FUSE_SETLKW, who.node, in);
    fake_.stepper.run();
    return unique;
  }

  int outcome(std::uint64_t unique) {
    fake_.stepper.run();
    const auto reply = kernel().take_reply(unique);
    return reply ? reply->error : -1;
  }

  fuse_file_lock asked(const Who& who, const fuse_lk_in& in) {
    return answer<fuse_lk_out>(kernel().lock(FUSE_GETLK, who.node, in)).lk;
  }

  void close_as(const Who& who) {
    EXPECT_EQ(error_of(kernel().flush(who.node, who.open.fh, who.owner)), 0);
    EXPECT_EQ(error_of(kernel().release(who.node, who.open.fh)), 0);
  }
};

TEST_F(LocksTest, ProcessesKeepEachOtherOut) {
  const Who alice = open_small(kAlice, 77), bob = open_small(kBob, 78);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK, 10, 19)), 0);
  EXPECT_EQ(try_lock(bob, order(bob, F_RDLCK, 19, 20)), EAGAIN);
  EXPECT_EQ(try_lock(bob, order(bob, F_RDLCK, 20, kLast)), 0);
  const fuse_file_lock found = asked(bob, order(bob, F_RDLCK, 0, kLast));
  EXPECT_EQ(found.start, 10U);
  EXPECT_EQ(found.end, 19U);
  EXPECT_EQ(found.type, std::uint32_t{F_WRLCK});
  EXPECT_EQ(found.pid, 77U);
  EXPECT_EQ(asked(alice, order(alice, F_WRLCK, 25, 25)).end, kLast);
  EXPECT_EQ(asked(alice, order(alice, F_RDLCK, 25, 25)).type, std::uint32_t{F_UNLCK});
  EXPECT_EQ(asked(alice, order(alice, F_UNLCK, 0, kLast)).start, 10U) << "one's own";
  EXPECT_EQ(try_lock(alice, order(alice, F_UNLCK, 0, 14)), 0);
  EXPECT_EQ(try_lock(bob, order(bob, F_WRLCK, 0, 14)), 0);
  close_as(alice);
  close_as(bob);
}

TEST_F(LocksTest, AWaiterIsAnsweredWhenTheLockGoes) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK)), 0);
  const std::uint64_t waiting = wait_for(bob, order(bob, F_RDLCK, 5, 5));
  EXPECT_EQ(outcome(waiting), -1);
  EXPECT_EQ(try_lock(alice, order(alice, F_RDLCK)), 0);
  EXPECT_EQ(outcome(waiting), 0);
  close_as(alice);
  close_as(bob);
}

TEST_F(LocksTest, ClosingAnyDescriptorEndsTheLocksOfTheProcess) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  const Who second = open_small(kAlice);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK)), 0);
  EXPECT_EQ(try_lock(bob, order(bob, F_RDLCK)), EAGAIN);
  close_as(second);
  EXPECT_EQ(try_lock(bob, order(bob, F_RDLCK)), 0);
  close_as(alice);
  close_as(bob);
}

// A reader's close as well: it was given no leave to say nothing.
TEST_F(LocksTest, EveryCloseIsToldOf) {
  const std::uint64_t node = fill_large();
  const OpenOut reader = open(node);
  EXPECT_NE(reader.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(reader.open_flags & kOpenNoFlush, 0U);
  close(node, reader);
}

TEST_F(LocksTest, WholeFileLocksEndWithTheOpen) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  EXPECT_EQ(try_lock(alice, whole(alice, F_WRLCK)), 0);
  EXPECT_EQ(try_lock(bob, order(bob, F_WRLCK)), 0) << "the kinds do not see each other";
  EXPECT_EQ(try_lock(bob, whole(bob, F_RDLCK)), EAGAIN);
  EXPECT_EQ(error_of(kernel().flush(alice.node, alice.open.fh, kAlice)), 0);
  const std::uint64_t waiting = wait_for(bob, whole(bob, F_RDLCK));
  EXPECT_EQ(outcome(waiting), -1) << "a child may have closed its copy";
  EXPECT_EQ(error_of(kernel().release(alice.node, alice.open.fh)), 0);
  EXPECT_EQ(outcome(waiting), 0);
  close_as(bob);
}

TEST_F(LocksTest, ATryLockIsNotToldOfALockThatIsBeingClosed) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  EXPECT_EQ(try_lock(alice, whole(alice, F_WRLCK)), 0);
  EXPECT_EQ(error_of(kernel().flush(alice.node, alice.open.fh, kAlice)), 0);
  // The RELEASE was sent before, and is read by another thread.
  const std::uint64_t trying = kernel().lock(FUSE_SETLK, bob.node, whole(bob, F_WRLCK));
  fake_.stepper.run();
  EXPECT_EQ(error_of(kernel().release(alice.node, alice.open.fh)), 0);
  EXPECT_EQ(outcome(trying), 0);
  close_as(bob);
}

TEST_F(LocksTest, TwoNodesOfOneFileHaveOneSetOfLocks) {
  const std::uint64_t held_node = fill_large();
  const Who reader{held_node, open(held_node), kAlice, 77};
  ASSERT_NE(reader.open.open_flags & kOpenPassthrough, 0U);
  EXPECT_EQ(try_lock(reader, order(reader, F_RDLCK, 0, 9)), 0);
  EXPECT_EQ(error_of(kernel().open(held_node, O_RDWR)), ESTALE);
  const std::uint64_t node = lookup("large");
  ASSERT_NE(node, held_node);
  const Who writer{node, open(node, O_RDWR), kBob, 78};
  EXPECT_EQ(try_lock(writer, order(writer, F_WRLCK, 9, 9)), EAGAIN);
  EXPECT_EQ(asked(writer, order(writer, F_WRLCK)).pid, 77U);
  EXPECT_EQ(try_lock(reader, whole(reader, F_RDLCK)), 0);
  EXPECT_EQ(try_lock(writer, whole(writer, F_WRLCK)), EAGAIN);
  const std::uint64_t waiting = wait_for(writer, order(writer, F_WRLCK));
  EXPECT_EQ(outcome(waiting), -1);
  close_as(reader);
  EXPECT_EQ(outcome(waiting), 0);
  EXPECT_EQ(try_lock(writer, whole(writer, F_WRLCK)), 0);
  close_as(writer);
}

TEST_F(LocksTest, AnySignalEndsAWait) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK)), 0);
  const std::uint64_t waiting = wait_for(bob, order(bob, F_WRLCK));
  fake_.process_status = kHandlesASignal;
  const std::uint64_t interrupt = kernel().interrupt(waiting);
  EXPECT_EQ(outcome(waiting), EINTR);
  EXPECT_EQ(kernel().take_reply(interrupt), std::nullopt);
  EXPECT_EQ(try_lock(alice, order(alice, F_UNLCK)), 0);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK)), 0) << "nobody took it on the way";
  close_as(alice);
  close_as(bob);
}

TEST_F(LocksTest, WhoWouldWaitForHimselfIsTold) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK, 0, 0)), 0);
  EXPECT_EQ(try_lock(bob, order(bob, F_WRLCK, 1, 1)), 0);
  const std::uint64_t waiting = wait_for(alice, order(alice, F_WRLCK, 1, 1));
  EXPECT_EQ(error_of(kernel().lock(FUSE_SETLKW, bob.node, order(bob, F_WRLCK, 0, 0))), EDEADLK);
  EXPECT_EQ(try_lock(bob, order(bob, F_UNLCK)), 0);
  EXPECT_EQ(outcome(waiting), 0);
  close_as(alice);
  close_as(bob);
}

TEST_F(LocksTest, LocksThatMakeNoSenseAreRefused) {
  const Who alice = open_small(kAlice);
  for (const std::uint32_t opcode : {FUSE_GETLK, FUSE_SETLK, FUSE_SETLKW}) {
    const auto refused = [&](const fuse_lk_in& in) {
      return error_of(kernel().lock(opcode, alice.node, in));
    };
    EXPECT_EQ(refused(order(alice, 77)), EINVAL);
    EXPECT_EQ(refused(order(alice, F_WRLCK, 10, 9)), EINVAL);
    EXPECT_EQ(refused(order(alice, F_WRLCK, 0, kLast + 1)), EINVAL);
    EXPECT_EQ(refused(order(Who{alice.node, {}, kAlice}, F_WRLCK)), EBADF);
    EXPECT_EQ(error_of(kernel().lock(opcode, lookup("large"), order(alice, F_WRLCK))), EBADF);
    EXPECT_EQ(error_of(kernel().send(opcode, alice.node, FuseBytes().add(std::uint64_t{1}))),
              EBADF);
  }
  close_as(alice);
}

// A kernel without them, or a mount that leaves them to it.
TEST(LocksOfTheKernel, AreNotOurs) {
  MountedFake fake;
  fake.server.add_file("file", "content");
  const std::uint64_t flags = MountedFake::kKernelFlags & ~std::uint64_t{FUSE_FLOCK_LOCKS};
  ASSERT_EQ(fake.wait(fake.kernel.init(7, 45, flags)).error, 0);
  const auto entry = fake.wait(fake.kernel.lookup(FUSE_ROOT_ID, "file")).body.as<fuse_entry_out>();
  const auto open = fake.wait(fake.kernel.open(entry.nodeid)).body.as<OpenOut>();
  EXPECT_NE(open.open_flags & kOpenNoFlush, 0U);
  fuse_lk_in in{};
  in.fh = open.fh;
  EXPECT_EQ(fake.wait(fake.kernel.lock(FUSE_SETLK, entry.nodeid, in)).error, ENOSYS);
}

TEST(LocksOfTheKernel, AreAllThereAreOnAReadOnlyMount) {
  MountedFake fake(true, NodeTable::kMostKept, true);
  const auto out = fake.wait(fake.kernel.init(7, 45, MountedFake::kKernelFlags)).body.as<InitOut>();
  EXPECT_EQ(out.flags & kInitLocks, 0U);
}

// A mount that ends does not wait for a lock.
TEST_F(LocksTest, WhoWaitsDoesNotKeepTheMountFromEnding) {
  const Who alice = open_small(kAlice), bob = open_small(kBob);
  EXPECT_EQ(try_lock(alice, order(alice, F_WRLCK)), 0);
  EXPECT_EQ(outcome(wait_for(bob, order(bob, F_WRLCK))), -1);
}

}  // namespace
}  // namespace larder::fuse
