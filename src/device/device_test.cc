// One at a time may have the device open; who waits for it, or in it, must come to an end.
#include "device/device.h"

#include <cerrno>
#include <string>

#include <gtest/gtest.h>

#include "device/device_fixture_test.h"
#include "device/holder.h"

namespace larder::device {
namespace {

using namespace std::chrono_literals;

TEST_F(DeviceTest, OnlyRootOpensIt) {
  const Ticket stranger = open(1000);
  EXPECT_EQ(result(stranger), EPERM);
  EXPECT_EQ(opened(), 0);
}

TEST_F(DeviceTest, OneAtATime) {
  EXPECT_EQ(opened(), 0);
  EXPECT_EQ(opened(), EBUSY);
  device_.release();
  EXPECT_TRUE(hung_up()) << "the release";
  EXPECT_EQ(opened(), 0);
}

TEST_F(DeviceTest, ItIsOpenOnceTheEngineHasGivenAChannel) {
  const Ticket first = open();
  EXPECT_FALSE(result(first));
  EXPECT_EQ(result(open()), EBUSY);
  run();
  EXPECT_EQ(result(first), 0);
}

TEST_F(DeviceTest, AnOpenWaitsForADyingHolder) {
  ASSERT_EQ(opened(), 0);
  device_.note_closed();
  const Ticket next = open();
  EXPECT_FALSE(result(next));
  clock_.advance(1s);
  device_.on_time();
  EXPECT_FALSE(result(next));
  device_.release();
  run();
  EXPECT_EQ(result(next), 0);
  EXPECT_EQ(channels_, 2);
}

TEST_F(DeviceTest, ButNotForEver) {
  ASSERT_EQ(opened(), 0);
  device_.note_closed();
  const Ticket next = open();
  ASSERT_TRUE(device_.deadline());
  EXPECT_EQ(*device_.deadline(), clock_.now() + 2s);
  clock_.advance(2s);
  device_.on_time();
  EXPECT_EQ(result(next), EBUSY);
  EXPECT_FALSE(device_.deadline());
  EXPECT_EQ(opened(), EBUSY) << "that close is long ago";
}

TEST_F(DeviceTest, WithoutAnEngineThereIsNoDevice) {
  listener_.reset();
  EXPECT_EQ(opened(), ENXIO);
  EXPECT_EQ(result(read()), EIO);
}

TEST_F(DeviceTest, AnEngineMayRefuse) {
  answer_ = [](const std::string&) { return "error only root may\n"; };
  EXPECT_EQ(opened(), ENXIO);
  answer_ = [](const std::string&) { return "ok\n"; };
  EXPECT_EQ(opened(), 0);
}

// Nobody may be kept out by an open that failed before him.
TEST_F(DeviceTest, TheNextInTurnComesAfterAFailure) {
  ASSERT_EQ(opened(), 0);
  device_.note_closed();
  const Ticket second = open();
  const Ticket third = open();
  answer_ = [this](const std::string&) { return channels_ == 2 ? "error no\n" : "ok\n"; };
  device_.release();
  run();
  EXPECT_EQ(result(second), ENXIO);
  EXPECT_EQ(result(third), 0);
}

TEST_F(DeviceTest, WhoIsKilledStopsWaiting) {
  ending_.insert(10);
  const Ticket first = open();  // the engine does not answer
  device_.interrupt(first, 10);
  EXPECT_EQ(result(first), EINTR);
  ASSERT_EQ(opened(), 0);
  device_.note_closed();
  const Ticket second = open();
  device_.interrupt(second, 10);
  EXPECT_EQ(result(second), EINTR);
  EXPECT_FALSE(device_.deadline());
}

// A daemon that catches SIGIO must not be told EINTR, but the signal that kills it later is told to
// nobody.
TEST_F(DeviceTest, WhoOnlyHandlesASignalWaitsOnUntilHeIsKilled) {
  bind();
  const Ticket waiting = read();
  device_.interrupt(waiting, 10);
  EXPECT_FALSE(result(waiting));
  ASSERT_TRUE(device_.deadline());
  clock_.advance(100ms);
  device_.on_time();
  EXPECT_FALSE(result(waiting));
  ending_.insert(10);
  clock_.advance(50ms);
  device_.on_time();
  EXPECT_FALSE(result(waiting));
  clock_.advance(50ms);
  device_.on_time();
  EXPECT_EQ(result(waiting), EINTR);
  clock_.advance(100ms);
  device_.on_time();
  EXPECT_FALSE(device_.deadline());
}

TEST_F(DeviceTest, TheEndAnswersEverybody) {
  ASSERT_EQ(opened(), 0);
  const Ticket running = write("debug 1");
  const Ticket queued = read();
  device_.note_closed();
  const Ticket waiting = open();
  device_.end();
  for (const Ticket ticket : {running, queued, waiting}) {
    EXPECT_EQ(result(ticket), EINTR);
  }
  answer_all();  // what was sent before
  EXPECT_TRUE(hung_up());
}

}  // namespace
}  // namespace larder::device
