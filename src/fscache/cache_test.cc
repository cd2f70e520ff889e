// The states of a cache, and what its coming and going means to the cookies above it.
#include "fscache/cache.h"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "fscache/backend.h"
#include "fscache/cookie.h"
#include "fscache/cookie_state.h"
#include "fscache/disk_work.h"
#include "fscache/scripted_backend_test.h"
#include "fscache/volume.h"
#include "testing/stepper.h"

namespace larder::fscache {
namespace {

using std::chrono::seconds;

class CacheTest : public ::testing::Test {
 protected:
  void TearDown() override { stepper_.run(); }

  void bring_online() {
    ASSERT_TRUE(cache_->add_backend(std::make_unique<ScriptedBackend>(script_)));
    stepper_.run();
  }

  std::shared_ptr<Cookie> cookie(const std::string& key, std::uint64_t size = 4096) {
    return volume_->acquire_cookie({.key = key, .size = size});
  }

  int look_up(const std::shared_ptr<Cookie>& cookie) {
    int told = 0;
    cookie->use([&] { ++told; });
    stepper_.run();
    return told;
  }

  std::optional<Errc> write(const std::shared_ptr<Cookie>& cookie, const std::string& text) {
    std::optional<Errc> outcome = Errc::kCancelled;
    cookie->start_write(0, {}, bytes_of(text), [&](const Result<>& result) {
      outcome = result ? std::nullopt : std::optional(result.error().code());
    });
    stepper_.run();
    return outcome;
  }

  static Error disk_error() { return {Errc::kIo, EIO, "reading"}; }

  testing::Stepper stepper_;
  BackendScript script_;
  std::vector<std::string> errors_;  // tags
  std::shared_ptr<Cache> cache_ = std::make_shared<Cache>(
      "main", stepper_, [this](const std::string& tag) { errors_.push_back(tag); });
  std::shared_ptr<Volume> volume_ = std::make_shared<Volume>(cache_, "server,/export");
};

TEST_F(CacheTest, IsNotPresentUntilItsBackendComes) {
  EXPECT_EQ(cache_->status().state, CacheState::kNotPresent);
  const auto early = cookie("a");
  EXPECT_EQ(look_up(early), 1);
  EXPECT_FALSE(early->has_object());
  bring_online();
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
  EXPECT_EQ(look_up(early), 1);
  EXPECT_TRUE(early->has_object()) << "a cookie made before its cache uses it when it appears";
}

TEST_F(CacheTest, TakesOneBackendAtATime) {
  bring_online();
  const auto second = cache_->add_backend(std::make_unique<ScriptedBackend>(script_));
  EXPECT_EQ(second.error().code(), Errc::kBusy);
  EXPECT_EQ(script_.alive, 1);
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
}

TEST_F(CacheTest, WithdrawalWaitsForTheLastHolder) {
  bring_online();
  auto held = cookie("a");
  look_up(held);
  bool done = false;
  cache_->withdraw([&] { done = true; });
  stepper_.run();
  EXPECT_FALSE(done);
  EXPECT_EQ(cache_->status().state, CacheState::kWithdrawn);
  EXPECT_EQ(cache_->add_backend(std::make_unique<ScriptedBackend>(script_)).error().code(),
            Errc::kBusy);
  EXPECT_TRUE(held->has_object()) << "who holds it reads on";
  EXPECT_FALSE(held->cache_usable());
  held.reset();
  stepper_.run();
  EXPECT_TRUE(done);
  EXPECT_EQ(script_.withdrawals, 1);
  EXPECT_EQ(script_.alive, 0);
  bring_online();
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
}

TEST_F(CacheTest, WhatIsWithdrawnGivesAndTakesNothingNew) {
  bring_online();
  const auto held = cookie("a");
  look_up(held);
  ASSERT_EQ(write(held, std::string(4096, 'x')), std::nullopt);
  ASSERT_EQ(held->plan_read({0, 4096}).source, Source::kCache);
  cache_->withdraw([] {}, "its daemon ended");
  EXPECT_EQ(cache_->status().trouble, "its daemon ended");
  EXPECT_EQ(held->plan_read({0, 4096}).source, Source::kServer);
  EXPECT_FALSE(held->wants_data());
  EXPECT_EQ(write(held, "new"), Errc::kNotFound);
  std::optional<Errc> opened;
  held->start_open_for_passthrough(
      [&](const Result<UniqueFd>& result) { opened = result.error().code(); });
  stepper_.run();
  EXPECT_EQ(opened, Errc::kCacheDead);
}

TEST_F(CacheTest, ComesBackUnderItsHolders) {
  bring_online();
  auto held = cookie("a");
  look_up(held);
  ASSERT_EQ(write(held, std::string(4096, 'x')), std::nullopt);
  cache_->withdraw([] {});
  stepper_.run();
  const auto leaving = cache_->leaving();
  ASSERT_NE(leaving, nullptr);
  ASSERT_TRUE(cache_->readmit(leaving));
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
  EXPECT_EQ(cache_->status().trouble, "");
  EXPECT_EQ(held->plan_read({0, 4096}).source, Source::kCache);
  EXPECT_TRUE(held->cache_usable());
  EXPECT_EQ(cache_->readmit(leaving).error().code(), Errc::kBusy);
  EXPECT_EQ(script_.withdrawals, 0);
}

TEST_F(CacheTest, WhatNobodyHoldsDoesNotComeBack) {
  bring_online();
  look_up(cookie("a"));
  stepper_.run();  // it is let go
  cache_->withdraw([] {});
  EXPECT_EQ(cache_->leaving(), nullptr) << "it closes its books";
  stepper_.run();
  EXPECT_EQ(script_.withdrawals, 1);
  bring_online();
  EXPECT_EQ(cache_->leaving(), nullptr);
}

// After `done` the cache's directory may be unmounted, or opened again.
TEST_F(CacheTest, WithdrawalWaitsForTheBooksToBeClosed) {
  bring_online();
  int done = 0;
  cache_->withdraw([&] { ++done; });
  cache_->withdraw([&] { ++done; });  // nobody holds it, but its disk thread has not come to it yet
  EXPECT_EQ(done, 0);
  EXPECT_EQ(script_.alive, 1);
  EXPECT_EQ(cache_->add_backend(std::make_unique<ScriptedBackend>(script_)).error().code(),
            Errc::kBusy);
  stepper_.run();
  EXPECT_EQ(done, 2);
  EXPECT_EQ(script_.alive, 0);
  bring_online();
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
}

TEST_F(CacheTest, WithdrawingWhatIsNotOnlineIsDoneAtOnce) {
  bool done = false;
  cache_->withdraw([&] { done = true; });
  EXPECT_TRUE(done);
}

// The failed open must let go of the backend: it holds the lock of the cache directory.
TEST_F(CacheTest, AVolumeThatCannotBeOpenedLeavesTheBackendFree) {
  bring_online();
  script_.on_open_volume = [] { return fail(Errc::kNoSpace, "no room for a directory"); };
  auto without = cookie("a");
  EXPECT_EQ(look_up(without), 1);
  EXPECT_EQ(without->state(), CookieState::kFailed);
  cache_->withdraw([] {});
  without.reset();
  stepper_.run();
  EXPECT_EQ(script_.alive, 0);
}

TEST_F(CacheTest, AFailedLookUpIsTriedAgainAtTheNextUse) {
  bring_online();
  script_.on_open_object = [] { return fail(Errc::kNoSpace, "too many open files"); };
  const auto file = cookie("a");
  EXPECT_EQ(look_up(file), 1);
  EXPECT_EQ(file->state(), CookieState::kFailed);
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
  script_.on_open_object = nullptr;
  EXPECT_EQ(look_up(file), 1);
  EXPECT_EQ(file->state(), CookieState::kActive);
}

TEST_F(CacheTest, AnErrorOfTheDiskEndsTheUseOfThisIncarnationOnly) {
  bring_online();
  script_.on_open_object = [] { return fail(disk_error()); };
  look_up(cookie("a"));
  EXPECT_EQ(cache_->status().state, CacheState::kError);
  EXPECT_NE(cache_->status().trouble.find("check the disk"), std::string::npos);
  EXPECT_EQ(cache_->online(), nullptr);
  EXPECT_EQ(errors_, std::vector<std::string>{"main"});
  look_up(cookie("b"));
  cache_->withdraw([] {}, "taken offline");
  stepper_.run();
  EXPECT_EQ(script_.alive, 0);
  EXPECT_EQ(errors_.size(), 1U) << "told once";
  EXPECT_EQ(cache_->status().state, CacheState::kError);
  EXPECT_NE(cache_->status().trouble.find("check the disk"), std::string::npos) << "as it was";
  script_.on_open_object = nullptr;
  bring_online();
  const auto file = cookie("a");
  look_up(file);
  EXPECT_TRUE(file->has_object());
}

TEST_F(CacheTest, ADiskThatHangsSuspendsTheCacheUntilItAnswers) {
  bring_online();
  const auto file = cookie("a");
  script_.on_open_object = [&]() -> Result<> {
    stepper_.advance(seconds(7));
    stepper_.run();
    EXPECT_EQ(cache_->status().state, CacheState::kSuspended);
    EXPECT_EQ(file->state(), CookieState::kFailed) << "nobody waits for the disk any longer";
    return {};
  };
  EXPECT_EQ(look_up(file), 1);
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
  EXPECT_FALSE(file->has_object()) << "what came too late is let go";
  script_.on_open_object = nullptr;
  look_up(file);
  EXPECT_TRUE(file->has_object());
}

TEST_F(CacheTest, NewsOfAHangThatIsOverSuspendNothing) {
  bring_online();
  // Told by a thread that was slower than the disk.
  cache_->note_disk(
      *std::make_shared<DiskWork>(stepper_, "disk", DiskWork::Limits{}, [](const DiskWork&) {}));
  EXPECT_EQ(cache_->status().state, CacheState::kActive);
  EXPECT_EQ(cache_->status().trouble, "");
  EXPECT_NE(cache_->online(), nullptr);
}

TEST_F(CacheTest, AllWhoWaitForALookUpAreTold) {
  bring_online();
  const auto file = cookie("a");
  int told = 0;
  for (int i = 0; i < 3; ++i) {
    file->use([&] { ++told; });
  }
  EXPECT_EQ(told, 0);
  stepper_.run();
  EXPECT_EQ(told, 3);
}

TEST_F(CacheTest, ANewerVersionDuringTheLookUpWins) {
  bring_online();
  const auto older = cookie("a", 4096);
  int told = 0;
  older->use([&] { ++told; });
  const auto newer = cookie("a", 8192);
  EXPECT_EQ(told, 1) << "nobody waits for an object that is out of date";
  stepper_.run();
  EXPECT_EQ(told, 1);
  EXPECT_EQ(older->state(), CookieState::kSuperseded);
  look_up(newer);
  EXPECT_EQ(newer->state(), CookieState::kActive);
  EXPECT_EQ(write(older, std::string(4096, 'x')), Errc::kNotFound);
}

TEST_F(CacheTest, OneVersionHasOneCookie) {
  const auto first = cookie("a", 4096);
  EXPECT_EQ(cookie("a", 4096), first);
  EXPECT_NE(cookie("a", 4097), first);
  EXPECT_EQ(first->state(), CookieState::kSuperseded);
  EXPECT_NE(cookie("b", 4096), first);
}

TEST_F(CacheTest, WhatIsDiscardedIsNotFoundAgain) {
  bring_online();
  auto file = cookie("a");
  look_up(file);
  EXPECT_EQ(write(file, std::string(4096, 'x')), std::nullopt);
  EXPECT_TRUE(file->has_everything());
  bool done = false;
  volume_->discard("a", [&](const Result<>& result) { done = result.has_value(); });
  stepper_.run();
  EXPECT_TRUE(done);
  EXPECT_EQ(file->state(), CookieState::kSuperseded);
  file.reset();
  stepper_.run();
  const auto again = cookie("a");
  look_up(again);
  EXPECT_FALSE(again->has_everything());
}

TEST_F(CacheTest, WithoutACacheEverythingIsTheServers) {
  const auto nowhere = std::make_shared<Volume>(nullptr, "server,/export");
  const auto file = nowhere->acquire_cookie({.key = "a", .size = 4096});
  EXPECT_EQ(look_up(file), 1);
  EXPECT_EQ(file->plan_read({0, 4096}).source, Source::kServer);
  EXPECT_EQ(write(file, std::string(4096, 'x')), Errc::kNotFound);
}

// ---- A cache that is pressed for room.

class CountingGiver final : public RoomGiver {
 public:
  bool give_room() override {
    ++asked;
    return left-- > 0;
  }

  int asked = 0;
  int left = 0;  // how often it has something to give
};

class PressedCacheTest : public CacheTest {
 protected:
  void SetUp() override {
    bring_online();
    cache_->add_room_giver(giver_);
    file_ = cookie("a");
    look_up(file_);
  }

  // A write that finds no room.
  void press() {
    script_.disk.full = true;
    EXPECT_EQ(write(file_, std::string(4096, 'x')), Errc::kNoSpace);
  }

  std::shared_ptr<CountingGiver> giver_ = std::make_shared<CountingGiver>();
  std::shared_ptr<Cookie> file_;
};

TEST_F(PressedCacheTest, AsksNobodyWhileThereIsRoom) {
  ASSERT_EQ(write(file_, std::string(4096, 'x')), std::nullopt);
  (*script_.disk.wake)();
  stepper_.run();
  EXPECT_EQ(giver_->asked, 0);
}

TEST_F(PressedCacheTest, AsksAFewTimesASecondAtMost) {
  press();
  EXPECT_EQ(giver_->asked, 1);
  for (int i = 0; i < 1000; ++i) {
    press();
  }
  EXPECT_EQ(giver_->asked, 1);
  for (int i = 0; i < 1000; ++i) {
    stepper_.advance(std::chrono::milliseconds(1));
    press();
  }
  EXPECT_LE(giver_->asked, 11);
  EXPECT_GE(giver_->asked, 10);
}

TEST_F(PressedCacheTest, LooksAgainSoonAfterSomethingWasGiven) {
  giver_->left = 1;
  press();
  script_.disk.pressed = true;  // as maintenance will find
  stepper_.advance(std::chrono::milliseconds(100));
  stepper_.run();
  EXPECT_EQ(giver_->asked, 2);
  script_.disk.pressed = true;
  stepper_.advance(seconds(10));
  stepper_.run();
  EXPECT_EQ(giver_->asked, 2) << "nothing was given: it waits for others";
}

TEST_F(PressedCacheTest, WhoIsGoneIsNotAsked) {
  const auto other = std::make_shared<CountingGiver>();
  giver_.reset();
  cache_->add_room_giver(other);
  press();
  EXPECT_EQ(other->asked, 1);
}

}  // namespace
}  // namespace larder::fscache
