// Who may have which cache and when: mounts that name a directory, channels that hold a tag, the
// administrator who takes one away, and disks that fail or do not answer in between.
#include "engine/cache_binder.h"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/result.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/space.h"
#include "engine/cache_fixture_test.h"
#include "fscache/cache.h"
#include "testing/faulty_filesystem.h"
#include "testing/seed.h"
#include "testing/stepper.h"

namespace larder::engine {
namespace {

using cachefiles::kMega;
using fscache::CacheState;
using larder::testing::FileCall;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// A mount that waits for its cache.
struct Waiting {
  std::optional<Result<>> ready;
};

// A Stepper's, where the test sees each task when it is posted.
class WatchedExecutor final : public Executor {
 public:
  explicit WatchedExecutor(testing::Stepper& inner) : inner_(inner) {}

  std::unique_ptr<Pool> make_pool(std::string name, unsigned threads,
                                  std::size_t capacity) override {
    return std::make_unique<WatchedPool>(*this,
                                         inner_.make_pool(std::move(name), threads, capacity));
  }

  Timers& timers() override { return inner_.timers(); }

  [[nodiscard]] const Clock& clock() const override { return inner_.clock(); }

  std::function<void()> on_post = [] {};

 private:
  class WatchedPool final : public Pool {
   public:
    WatchedPool(WatchedExecutor& owner, std::unique_ptr<Pool> inner)
        : owner_(owner), inner_(std::move(inner)) {}

    bool try_post(Task& task) override { return inner_->try_post(task); }

    void post(Task task) override {
      owner_.on_post();
      inner_->post(std::move(task));
    }

   private:
    WatchedExecutor& owner_;
    const std::unique_ptr<Pool> inner_;
  };

  testing::Stepper& inner_;
};

// A channel, as far as the binder knows one.
struct Hold {
  std::string tag;
  std::optional<Result<HeldBackend>> held;
  int detached = 0;

  [[nodiscard]] bool is_held() const { return held && held->has_value(); }

  [[nodiscard]] Error refusal() const {
    return held && !*held ? held->error() : Error(Errc::kCancelled, "it is not refused");
  }
};

class CacheBinderTest : public CachesOnFake {
 protected:
  std::shared_ptr<Waiting> name(const std::string& path, std::uint64_t size = 0) {
    auto waiting = std::make_shared<Waiting>();
    binder_.bring_online(path, size, [waiting](Result<> ready) {
      EXPECT_FALSE(waiting->ready) << "told twice";
      waiting->ready = std::move(ready);
    });
    return waiting;
  }

  std::shared_ptr<Hold> start_hold(const std::string& tag, const std::string& path,
                                   const cachefiles::Limits& limits = {},
                                   const std::string& holder = "process 1") {
    auto hold = std::make_shared<Hold>();
    hold->tag = tag;
    HeldSettings settings{tag, path, holder, limits, [] {}, {}};
    settings.detached = [weak = std::weak_ptr(hold)] {
      if (const auto told = weak.lock()) {
        ++told->detached;
      }
    };
    binder_.hold(std::move(settings), keeper_.open(path), [hold](Result<HeldBackend> held) {
      EXPECT_FALSE(hold->held) << "told twice";
      hold->held = std::move(held);
    });
    return hold;
  }

  // And waits for the answer.
  std::shared_ptr<Hold> hold(const std::string& tag, const std::string& path,
                             const cachefiles::Limits& limits = {},
                             const std::string& holder = "process 1") {
    auto hold = start_hold(tag, path, limits, holder);
    EXPECT_TRUE(becomes([&] { return hold->held.has_value(); }));
    return hold;
  }

  void hang_up(Hold& hold) {
    hold.held.reset();
    binder_.let_go(hold.tag);
  }

  static cachefiles::Limits size_of(std::uint64_t bytes) {
    cachefiles::Limits limits;
    limits.size_bytes = bytes;
    return limits;
  }

  std::uint64_t limit_of(const std::string& tag) {
    return status_of(tag).cache.backend->limit_bytes;
  }
};

// ---- A channel holds it.

TEST_F(CacheBinderTest, AMountThatWasThereFirstUsesTheCacheWhenItAppears) {
  binder_.expect("farm");
  const std::shared_ptr<fscache::Cache> of_mount = binder_.find("farm");
  EXPECT_EQ(of_mount->online(), nullptr);
  EXPECT_THAT(trouble_of("farm"),
              HasSubstr("no cachefilesd has brought a cache with the tag farm"));
  const auto first = hold("farm", "/disk");
  ASSERT_TRUE(first->is_held()) << first->refusal().message();
  EXPECT_EQ(of_mount->online(), (*first->held)->online);
  const CacheBinder::Status status = status_of("farm");
  EXPECT_EQ(status.bind_trouble, "");
  EXPECT_EQ(status.path, "/disk");
  EXPECT_EQ(status.holder, "process 1");
  EXPECT_FALSE(status.being_bound);
  EXPECT_EQ(keeper_.asked, 0) << "the descriptor came over the channel";
  binder_.expect("farm");
  EXPECT_EQ(trouble_of("farm"), "") << "a mount that comes later misses nothing";
}

TEST_F(CacheBinderTest, HangingUpWithdrawsAndTheNextFindsItWarm) {
  const auto first = hold("farm", "/disk");
  keep("farm", "file");
  hang_up(*first);
  EXPECT_EQ(state_of("farm"), CacheState::kWithdrawn);
  EXPECT_EQ(status_of("farm").holder, "");
  binder_.expect("farm");
  EXPECT_THAT(trouble_of("farm"), HasSubstr("process 1 ended")) << "also to a mount that comes now";
  stepper_.run();
  EXPECT_TRUE(is_gone("farm"));
  EXPECT_EQ(first->detached, 0) << "who hung up by himself need not be told";
  const auto second = hold("farm", "/disk", {}, "process 2");
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_TRUE(has("farm", "file"));
  EXPECT_EQ(trouble_of("farm"), "");
}

// The last file is closed when the next one's bind has begun already: the books are closed behind
// it.
TEST_F(CacheBinderTest, TheNextHolderWaitsUntilTheBooksAreClosed) {
  const auto first = hold("farm", "/disk");
  OpenFile file = open("farm", "file");
  ASSERT_TRUE(fill(file, "file"));
  hang_up(*first);
  const auto second = start_hold("farm", "/disk", {}, "process 2");
  file = {};
  stepper_.run();
  EXPECT_TRUE(is_gone("farm"));
  EXPECT_FALSE(second->held);
  EXPECT_EQ(status_of("farm").holder, "process 2") << "it is spoken for";
  ASSERT_TRUE(becomes([&] { return second->held.has_value(); }, seconds(1)));
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_TRUE(is_active("farm"));
  EXPECT_TRUE(has("farm", "file"));
}

TEST_F(CacheBinderTest, SoDoesOneWhoBringsAnotherDirectory) {
  const auto first = hold("farm", "/disk");
  OpenFile file = open("farm", "file");
  hang_up(*first);
  const auto second = start_hold("farm", "/other");
  file = {};
  stepper_.run();
  EXPECT_TRUE(is_empty("/other")) << "nothing is made there before it can be used";
  ASSERT_TRUE(becomes([&] { return second->held.has_value(); }));
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_TRUE(is_active("farm"));
  EXPECT_EQ(status_of("farm").path, "/other");
}

TEST_F(CacheBinderTest, SoDoesOneWhoHasAnotherTag) {
  const auto first = hold("farm", "/disk");
  OpenFile file = open("farm", "file");
  ASSERT_TRUE(fill(file, "file"));
  hang_up(*first);
  const auto second = start_hold("barn", "/disk");
  file = {};
  ASSERT_TRUE(becomes([&] { return second->held.has_value(); }));
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_TRUE(has("barn", "file"));
  EXPECT_EQ(state_of("farm"), CacheState::kWithdrawn);
  const auto back = hold("farm", "/disk");
  EXPECT_THAT(back->refusal().context(), HasSubstr("as barn"));
}

// Else he would be told that it is online, and it would be withdrawn under him.
TEST_F(CacheBinderTest, NobodyMayClaimItBeforeItIsWithdrawn) {
  WatchedExecutor executor(stepper_);
  CacheBinder binder(executor, keeper_, disk_);
  std::optional<HeldBackend> held;
  binder.hold({"farm", "/disk", "process 1", {}, {}, {}}, keeper_.open("/disk"),
              [&](Result<HeldBackend> got) { held = std::move(*got); });
  stepper_.run();
  held.reset();
  std::vector<std::string> holders;
  executor.on_post = [&] { holders.push_back(binder.status().at(0).holder); };
  binder.let_go("farm");
  EXPECT_THAT(holders, ElementsAre("process 1")) << "when its books were about to be closed";
  EXPECT_EQ(binder.status().at(0).holder, "");
  executor.on_post = [] {};
  stepper_.run();
  binder.withdraw_all(Duration::zero());
}

TEST_F(CacheBinderTest, WithFilesOpenTheSameCacheIsReadmitted) {
  const auto first = hold("farm", "/disk", size_of(100 * kMega));
  OpenFile file = open("farm", "file");
  ASSERT_TRUE(fill(file, "file"));
  hang_up(*first);
  stepper_.run();
  EXPECT_TRUE(file.online->offline);
  EXPECT_FALSE(is_gone("farm"));
  const auto second = hold("farm", "/disk", size_of(50 * kMega), "process 2");
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_EQ((*second->held)->online, file.online);
  EXPECT_FALSE(file.online->offline);
  EXPECT_TRUE(is_active("farm"));
  EXPECT_EQ(limit_of("farm"), 50 * kMega) << "the second's limits";
  EXPECT_EQ(status_of("farm").holder, "process 2");
  file = {};
  hang_up(*second);
  stepper_.run();
  EXPECT_TRUE(is_gone("farm"));
}

TEST_F(CacheBinderTest, WithFilesOpenAnotherDirectoryCannotTakeTheTag) {
  const auto first = hold("farm", "/disk");
  OpenFile file = open("farm", "file");
  hang_up(*first);
  const auto began = stepper_.clock().now();
  const auto other = hold("farm", "/other");
  EXPECT_EQ(other->refusal().code(), Errc::kBusy);
  EXPECT_THAT(other->refusal().context(), HasSubstr("still open: close them, or give another tag"));
  EXPECT_EQ(stepper_.clock().now(), began) << "waiting would not change that";
  EXPECT_THAT(trouble_of("farm"), HasSubstr("still open"));
  EXPECT_EQ(status_of("farm").holder, "");
  file = {};
  EXPECT_TRUE(hold("farm", "/other")->is_held());
}

TEST_F(CacheBinderTest, ASecondHolderWaitsALittleAndIsRefused) {
  const auto first = hold("farm", "/disk");
  const auto second = start_hold("farm", "/other", {}, "process 2");
  pass(milliseconds(1500));
  EXPECT_FALSE(second->held) << "the first may be on its way out";
  pass(seconds(1));
  EXPECT_EQ(second->refusal().code(), Errc::kBusy);
  EXPECT_THAT(second->refusal().context(), HasSubstr("end its cachefilesd first"));
  EXPECT_TRUE(is_active("farm"));
  EXPECT_EQ(status_of("farm").holder, "process 1");
  EXPECT_EQ(status_of("farm").path, "/disk");
  EXPECT_EQ(first->detached, 0);
}

TEST_F(CacheBinderTest, ASecondHolderTakesOverFromOneWhoIsOnHisWayOut) {
  const auto first = hold("farm", "/disk");
  const auto second = start_hold("farm", "/disk", {}, "process 2");
  pass(seconds(1));
  hang_up(*first);
  ASSERT_TRUE(becomes([&] { return second->held.has_value(); }));
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_TRUE(is_active("farm"));
  EXPECT_EQ(status_of("farm").holder, "process 2");
}

TEST_F(CacheBinderTest, TheSameDirectoryIsRefusedUnderAnotherTag) {
  binder_.expect("barn");
  const auto first = hold("farm", "/disk");
  const auto other = hold("barn", "/disk");
  EXPECT_EQ(other->refusal().code(), Errc::kBusy);
  EXPECT_THAT(other->refusal().context(),
              HasSubstr("the cache in /disk is in use already, as farm: give that name"));
  EXPECT_THAT(trouble_of("barn"), HasSubstr("in use already, as farm"));
  EXPECT_EQ(status_of("barn").holder, "");
  const auto mount = name("/disk");
  EXPECT_TRUE(becomes([&] { return mount->ready.has_value(); }));
  EXPECT_EQ(mount->ready->error().code(), Errc::kUnsuitable);
  EXPECT_THAT(mount->ready->error().context(), HasSubstr("as farm: give that name"));
  EXPECT_TRUE(is_active("farm"));
}

TEST_F(CacheBinderTest, TwoCachesDoNotDisturbEachOther) {
  const auto first = hold("farm", "/disk");
  const auto second = hold("barn", "/other", {}, "process 2");
  keep("farm", "file");
  EXPECT_FALSE(has("barn", "file"));
  hang_up(*first);
  stepper_.run();
  EXPECT_TRUE(is_active("barn"));
  EXPECT_EQ(status_of("barn").holder, "process 2");
}

TEST_F(CacheBinderTest, WhatCannotBeBoundIsSaidAndFreesTheTag) {
  binder_.expect("farm");
  spoil("/disk");
  const auto spoilt = hold("farm", "/disk");
  EXPECT_EQ(spoilt->refusal().code(), Errc::kUnsuitable);
  EXPECT_THAT(trouble_of("farm"), HasSubstr("cannot be used"));
  binder_.expect("farm");
  EXPECT_THAT(trouble_of("farm"), HasSubstr("cannot be used")) << "it says more than `expect`";
  cachefiles::Limits senseless;
  senseless.blocks = {10, 20, 30};
  clean("/disk");
  EXPECT_EQ(hold("farm", "/disk", senseless)->refusal().code(), Errc::kInvalid);
  EXPECT_TRUE(hold("farm", "/disk")->is_held());
  EXPECT_EQ(trouble_of("farm"), "");
}

// ---- It is taken away.

TEST_F(CacheBinderTest, DetachingFreesTheDiskUntilItIsAttached) {
  const auto first = hold("farm", "/disk");
  keep("farm", "file");
  ASSERT_TRUE(binder_.detach("farm"));
  EXPECT_EQ(first->detached, 1);
  EXPECT_THAT(keeper_.detached, ElementsAre("farm"));
  EXPECT_EQ(state_of("farm"), CacheState::kWithdrawn);
  EXPECT_THAT(trouble_of("farm"), HasSubstr("`larder cache attach farm`"));
  hang_up(*first);
  stepper_.run();
  EXPECT_TRUE(is_gone("farm"));
  EXPECT_EQ(first->detached, 1);
  EXPECT_THAT(trouble_of("farm"), HasSubstr("`larder cache attach farm`"));
  const auto early = hold("farm", "/disk");
  EXPECT_EQ(early->refusal().code(), Errc::kBusy);
  EXPECT_THAT(early->refusal().context(), HasSubstr("`larder cache attach farm`"));
  ASSERT_TRUE(binder_.attach("farm"));
  EXPECT_THAT(keeper_.detached, IsEmpty());
  EXPECT_THAT(trouble_of("farm"), HasSubstr("waits for its cachefilesd"));
  EXPECT_TRUE(hold("farm", "/disk")->is_held());
  EXPECT_TRUE(has("farm", "file"));
  EXPECT_EQ(trouble_of("farm"), "");
}

TEST_F(CacheBinderTest, WhoHasHungUpIsNotToldOfWhatComesLater) {
  const auto first = hold("farm", "/disk");
  hang_up(*first);
  ASSERT_TRUE(binder_.detach("farm"));
  EXPECT_EQ(first->detached, 0);
  EXPECT_THAT(trouble_of("farm"), HasSubstr("`larder cache attach farm`"));
}

TEST_F(CacheBinderTest, WhatIsNotThereIsNeitherDetachedNorAttached) {
  EXPECT_EQ(binder_.detach("nobody").error().code(), Errc::kNotFound);
  EXPECT_THAT(binder_.detach("nobody").error().context(), HasSubstr("`larder status` shows"));
  const auto first = hold("farm", "/disk");
  EXPECT_EQ(binder_.attach("farm").error().code(), Errc::kNotFound);
  EXPECT_EQ(binder_.attach("nobody").error().code(), Errc::kNotFound);
  EXPECT_TRUE(is_active("farm"));
  EXPECT_THAT(keeper_.detached, IsEmpty());
}

TEST_F(CacheBinderTest, ADetachedCacheComesBackWithFilesOpen) {
  const auto first = hold("farm", "/disk");
  const OpenFile file = open("farm", "file");
  ASSERT_TRUE(binder_.detach("farm"));
  EXPECT_TRUE(file.online->offline);
  hang_up(*first);
  ASSERT_TRUE(binder_.attach("farm"));
  const auto second = hold("farm", "/disk");
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_EQ((*second->held)->online, file.online);
  EXPECT_TRUE(is_active("farm"));
}

TEST_F(CacheBinderTest, ADirectoryThatMountsNameIsBroughtBackWithItsSize) {
  EXPECT_FALSE(name("/disk", 64 * kMega)->ready) << "not before it was tried";
  stepper_.run();
  ASSERT_TRUE(is_active("/disk"));
  keep("/disk", "file");
  ASSERT_TRUE(binder_.detach("/disk"));
  stepper_.run();
  EXPECT_TRUE(is_gone("/disk"));
  EXPECT_THAT(keeper_.detached, ElementsAre("/disk"));
  const auto mount = name("/disk");
  stepper_.run();
  EXPECT_TRUE(mount->ready && *mount->ready) << "a mount goes on without it";
  EXPECT_EQ(state_of("/disk"), CacheState::kWithdrawn);
  ASSERT_TRUE(binder_.attach("/disk"));
  stepper_.run();
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(limit_of("/disk"), 64 * kMega);
  EXPECT_TRUE(has("/disk", "file"));
}

TEST_F(CacheBinderTest, ADirectoryIsAttachedBeforeItsHolderHasHungUp) {
  const auto channel = hold("/disk", "/disk");
  ASSERT_TRUE(binder_.detach("/disk"));
  ASSERT_TRUE(binder_.attach("/disk"));
  EXPECT_EQ(keeper_.asked, 0) << "it is the holder's still";
  hang_up(*channel);
  stepper_.run();
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("waits for its cachefilesd"));
  const auto mount = name("/disk");
  stepper_.run();
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(trouble_of("/disk"), "");
}

TEST_F(CacheBinderTest, AttachingTriesAgainWhatCouldNotBeUsed) {
  spoil("/disk");
  binder_.bring_online_at_start("/disk", 0);
  stepper_.run();
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("`larder cache attach /disk` tries again"));
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("letter"));
  clean("/disk");
  ASSERT_TRUE(binder_.attach("/disk"));
  stepper_.run();
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(trouble_of("/disk"), "");
}

TEST_F(CacheBinderTest, TheNextEngineKeepsAwayWhatWasDetached) {
  binder_.keep_away("farm");
  binder_.keep_away("/disk");
  EXPECT_THAT(trouble_of("farm"), HasSubstr("`larder cache attach farm`"));
  binder_.bring_online_at_start("/disk", 0);
  EXPECT_EQ(hold("farm", "/other")->refusal().code(), Errc::kBusy);
  EXPECT_EQ(keeper_.asked, 0);
  EXPECT_EQ(state_of("/disk"), CacheState::kNotPresent);
  ASSERT_TRUE(binder_.attach("farm"));
  EXPECT_TRUE(hold("farm", "/other")->is_held());
  ASSERT_TRUE(binder_.attach("/disk"));
  stepper_.run();
  EXPECT_TRUE(is_active("/disk"));
}

TEST_F(CacheBinderTest, ItIsDetachedBeforeItsBindHasBegun) {
  const auto cut = start_hold("farm", "/disk");
  ASSERT_TRUE(binder_.detach("farm"));
  stepper_.run();
  EXPECT_EQ(cut->refusal().code(), Errc::kBusy);
  EXPECT_EQ(cut->detached, 1);
  EXPECT_TRUE(is_empty("/disk")) << "the administrator may have taken the disk already";
}

// Before each call that a bind makes to the disk in turn.
TEST_F(CacheBinderTest, ItIsDetachedWhileAChannelBindsIt) {
  std::uint64_t calls = 0;
  do {
    before_call(++calls, [&] { ASSERT_TRUE(binder_.detach("farm")); });
    const auto cut = hold("farm", "/disk");
    if (!acted_) {
      break;
    }
    SCOPED_TRACE(calls);
    EXPECT_EQ(cut->refusal().code(), Errc::kBusy);
    EXPECT_THAT(cut->refusal().context(), HasSubstr("`larder cache attach farm`"));
    EXPECT_EQ(cut->detached, 1);
    EXPECT_THAT(keeper_.detached, ElementsAre("farm"));
    EXPECT_EQ(status_of("farm").holder, "");
    EXPECT_FALSE(status_of("farm").being_bound);
    EXPECT_THAT(trouble_of("farm"), StartsWith("the cache farm is detached"));
    stepper_.run();
    EXPECT_TRUE(is_gone("farm"));
    ASSERT_TRUE(binder_.attach("farm"));
  } while (!HasFailure());
  EXPECT_GT(calls, 10U);
  EXPECT_TRUE(is_active("farm"));
}

TEST_F(CacheBinderTest, ItIsDetachedWhileItIsBoundForAMount) {
  std::uint64_t calls = 0;
  do {
    before_call(++calls, [&] { ASSERT_TRUE(binder_.detach("/disk")); });
    if (calls == 1) {
      const auto mount = name("/disk");
      stepper_.run();
      EXPECT_TRUE(mount->ready && *mount->ready) << "it goes on without";
    } else {
      ASSERT_TRUE(binder_.attach("/disk"));
      stepper_.run();
    }
    if (!acted_) {
      break;
    }
    SCOPED_TRACE(calls);
    EXPECT_TRUE(is_gone("/disk"));
    EXPECT_THAT(trouble_of("/disk"), HasSubstr("is detached: `larder cache attach /disk`"));
    EXPECT_FALSE(status_of("/disk").being_bound);
  } while (!HasFailure());
  EXPECT_GT(calls, 10U);
  EXPECT_TRUE(is_active("/disk"));
}

TEST_F(CacheBinderTest, AnErrorOfItsDiskTakesItAway) {
  const auto first = hold("farm", "/disk");
  OpenFile file = open("farm", "file");
  ASSERT_TRUE(fill(file, "file"));
  faulty_.faults().fail_all(FileCall::kSync, EIO);
  ASSERT_TRUE(
      becomes([&] { return state_of("farm") == CacheState::kError; }, std::chrono::hours(2)));
  EXPECT_EQ(first->detached, 1) << "its holder would bring it online at once";
  EXPECT_THAT(keeper_.detached, ElementsAre("farm"));
  EXPECT_THAT(trouble_of("farm"), HasSubstr("check the disk"));
  EXPECT_THAT(trouble_of("farm"), HasSubstr("`larder cache attach farm`"));
  hang_up(*first);
  EXPECT_EQ(hold("farm", "/disk")->refusal().code(), Errc::kBusy);
  faulty_.faults().set_hook(nullptr);
  ASSERT_TRUE(binder_.attach("farm"));
  EXPECT_EQ(state_of("farm"), CacheState::kWithdrawn) << "the error is forgotten";
  const auto early = hold("farm", "/disk");
  EXPECT_THAT(early->refusal().context(), HasSubstr("still open"))
      << "nothing of what failed is used again";
  const auto second = start_hold("farm", "/disk");
  pass(seconds(5));
  EXPECT_FALSE(second->held) << "it may be closed soon";
  file = {};
  ASSERT_TRUE(becomes([&] { return second->held.has_value(); }));
  ASSERT_TRUE(second->is_held()) << second->refusal().message();
  EXPECT_TRUE(is_active("farm"));
  EXPECT_EQ(trouble_of("farm"), "");
}

TEST_F(CacheBinderTest, AMountsDirectoryIsTriedAgainUntilTheFilesOfItsErrorAreClosed) {
  (void)name("/disk");
  stepper_.run();
  OpenFile file = open("/disk", "file");
  ASSERT_TRUE(fill(file, "file"));
  faulty_.faults().fail_all(FileCall::kSync, EIO);
  ASSERT_TRUE(
      becomes([&] { return state_of("/disk") == CacheState::kError; }, std::chrono::hours(2)));
  faulty_.faults().set_hook(nullptr);
  ASSERT_TRUE(binder_.attach("/disk"));
  pass(seconds(60));
  EXPECT_FALSE(is_active("/disk"));
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("still open"));
  const auto mount = name("/disk");
  EXPECT_TRUE(mount->ready && *mount->ready) << "who comes now does not wait for that";
  file = {};
  pass(seconds(30));
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(trouble_of("/disk"), "");
}

// ---- Mounts name it by its directory.

TEST_F(CacheBinderTest, MountsThatNameOneDirectoryBringItOnlineOnce) {
  const auto first = name("/disk");
  const auto second = name("/disk");
  EXPECT_EQ(keeper_.asked, 1);
  stepper_.run();
  EXPECT_TRUE(first->ready && *first->ready);
  EXPECT_TRUE(second->ready && *second->ready);
  EXPECT_TRUE(is_active("/disk"));
  const auto third = name("/disk");
  EXPECT_TRUE(third->ready && *third->ready) << "at once";
  EXPECT_EQ(keeper_.asked, 1);
}

TEST_F(CacheBinderTest, AnotherSizeThanItIsOnlineWithIsRefused) {
  const auto first = name("/disk", 64 * kMega);
  const auto during = name("/disk", 32 * kMega);
  stepper_.run();
  EXPECT_TRUE(*first->ready);
  for (const auto& other : {during, name("/disk", 32 * kMega)}) {
    ASSERT_TRUE(other->ready);
    EXPECT_EQ(other->ready->error().code(), Errc::kUnsuitable);
    EXPECT_THAT(other->ready->error().context(), HasSubstr("leave the size out"));
  }
  EXPECT_TRUE(*name("/disk", 64 * kMega)->ready);
  EXPECT_TRUE(*name("/disk")->ready);
  EXPECT_EQ(limit_of("/disk"), 64 * kMega);
}

TEST_F(CacheBinderTest, WhoNamesWhatIsNoCacheIsToldAndLeavesNothing) {
  spoil("/disk");
  const auto mount = name("/disk");
  stepper_.run();
  EXPECT_EQ(mount->ready->error().code(), Errc::kUnsuitable);
  EXPECT_THAT(mount->ready->error().context(), HasSubstr("letter"));
  EXPECT_FALSE(is_listed("/disk"));
  clean("/disk");
  const auto again = name("/disk");
  stepper_.run();
  EXPECT_TRUE(again->ready && *again->ready);
  EXPECT_TRUE(is_active("/disk"));
}

TEST_F(CacheBinderTest, AMountDoesNotWaitForADiskThatDoesNotAnswer) {
  keeper_.silent = true;
  const auto first = name("/disk");
  pass(seconds(9));
  EXPECT_FALSE(first->ready);
  pass(seconds(2));
  EXPECT_TRUE(first->ready && *first->ready);
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("does not answer"));
  EXPECT_TRUE(status_of("/disk").being_bound);
  const auto second = name("/disk");
  EXPECT_TRUE(second->ready && *second->ready) << "the next does not wait at all";
  keeper_.answer(fail(Errc::kTimedOut, "its disk does not answer"));
  EXPECT_TRUE(status_of("/disk").being_bound) << "the keeper is there still";
  pass(seconds(11));
  ASSERT_EQ(keeper_.asked, 2);
  keeper_.answer();
  stepper_.run();
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(trouble_of("/disk"), "");
  EXPECT_FALSE(status_of("/disk").being_bound);
}

TEST_F(CacheBinderTest, TroubleOfItsOwnIsNoneOfTheMounts) {
  keeper_.silent = true;
  const auto mount = name("/disk");
  keeper_.answer(fail_errno(EIO, "cannot open the directory /disk"));
  EXPECT_TRUE(mount->ready && *mount->ready);
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("cannot open the directory /disk"));
  EXPECT_THAT(trouble_of("/disk"), HasSubstr("`larder cache attach /disk` tries again"));
}

TEST_F(CacheBinderTest, AChannelTakesOverWhatMountsUseAndGivesItBack) {
  (void)name("/disk", 64 * kMega);
  stepper_.run();
  const OpenFile file = open("/disk", "file");
  const auto channel = hold("/disk", "/disk", size_of(100 * kMega));
  ASSERT_TRUE(channel->is_held()) << channel->refusal().message();
  EXPECT_EQ((*channel->held)->online, file.online) << "the mounts notice nothing";
  EXPECT_EQ(status_of("/disk").holder, "process 1");
  EXPECT_EQ(limit_of("/disk"), 100 * kMega);
  hang_up(*channel);
  EXPECT_EQ(state_of("/disk"), CacheState::kWithdrawn);
  const auto mount = name("/disk");
  stepper_.run();
  EXPECT_TRUE(mount->ready && *mount->ready);
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(binder_.find("/disk")->online(), file.online);
  EXPECT_EQ(status_of("/disk").holder, "");
}

TEST_F(CacheBinderTest, AMountLeavesAloneWhatAChannelHolds) {
  const auto channel = hold("/disk", "/disk");
  const auto mount = name("/disk");
  EXPECT_TRUE(mount->ready && *mount->ready);
  EXPECT_EQ(keeper_.asked, 0);
  EXPECT_EQ(status_of("/disk").holder, "process 1");
}

TEST_F(CacheBinderTest, AChannelWaitsForABindThatHasBegunForAMount) {
  keeper_.silent = true;
  const auto mount = name("/disk");
  const auto channel = start_hold("/disk", "/disk");
  pass(seconds(1));
  EXPECT_FALSE(channel->held);
  keeper_.answer();
  ASSERT_TRUE(becomes([&] { return channel->held.has_value(); }));
  EXPECT_TRUE(channel->is_held());
  EXPECT_TRUE(*mount->ready);
  EXPECT_EQ(status_of("/disk").holder, "process 1");
  EXPECT_TRUE(is_active("/disk"));
}

// ---- The engine ends.

TEST_F(CacheBinderTest, NothingIsBroughtOnlineWhenTheEngineEnds) {
  const auto first = start_hold("farm", "/disk");  // its bind waits for a thread
  binder_.withdraw_all(Duration::zero());
  stepper_.run();
  EXPECT_EQ(first->refusal().code(), Errc::kBusy);
  EXPECT_TRUE(is_gone("farm"));
  EXPECT_EQ(hold("barn", "/other")->refusal().code(), Errc::kBusy);
  const auto mount = name("/other");
  stepper_.run();
  EXPECT_TRUE(mount->ready && *mount->ready);
  EXPECT_EQ(keeper_.asked, 0);
}

// ---- All at once.

// Holders, mounts and the administrator do what a seed says, and tasks run in an order drawn from
// it.
class BusyDayTest : public CachesOnFake {
 protected:
  struct Holder {
    std::string tag;
    bool answered = false;
    bool told = false;  // to let go
    std::optional<HeldBackend> held;
  };

  explicit BusyDayTest(std::uint64_t seed = testing::seed_of_test())
      : CachesOnFake(seed), random_(seed) {}

  std::size_t draw(std::size_t below) { return random_() % below; }

  // Mounts may name the directories, channels hold them with a tag or without.
  std::string draw_path() { return draw(2) == 0 ? "/one" : "/two"; }

  std::string draw_tag() { return draw(2) == 0 ? draw_path() : draw(2) == 0 ? "farm" : "barn"; }

  void act() {
    switch (draw(8)) {
      case 0:
      case 1: {
        const std::string tag = draw_tag();
        (void)ask(tag, tag.starts_with('/') ? tag : draw_path());
        break;
      }
      case 2:
        hang_up(draw(2) == 0);
        break;
      case 3:
        binder_.bring_online(draw_path(), 0, [](const Result<>&) {});
        break;
      case 4:
        (void)binder_.detach(draw_tag());
        break;
      case 5:
        (void)binder_.attach(draw_tag());
        break;
      case 6:
        open_or_close();
        break;
      default:
        stepper_.advance(milliseconds(draw(3000)));
    }
  }

  std::shared_ptr<Holder> ask(const std::string& tag, const std::string& path) {
    auto holder = std::make_shared<Holder>();
    holder->tag = tag;
    HeldSettings settings{tag, path, "somebody", {}, [] {}, {}};
    settings.detached = [weak = std::weak_ptr(holder)] {
      if (const auto told = weak.lock()) {
        told->told = true;
      }
    };
    holders_.push_back(holder);
    binder_.hold(std::move(settings), keeper_.open(path), [holder](Result<HeldBackend> held) {
      EXPECT_FALSE(std::exchange(holder->answered, true));
      if (held) {
        holder->held = std::move(*held);
      }
    });
    return holder;
  }

  // Those who were told to, or all.
  void hang_up(bool all) {
    for (const auto& holder : holders_) {
      if (holder->held && (all || holder->told)) {
        holder->held.reset();
        binder_.let_go(holder->tag);
      }
    }
    std::erase_if(holders_, [](const auto& each) { return each->answered && !each->held; });
  }

  void open_or_close() {
    const std::shared_ptr<fscache::OnlineBackend> online = binder_.find(draw_tag())->online();
    if (online != nullptr && draw(3) > 0) {
      files_.push_back(online);
    } else {
      files_.clear();
    }
  }

  void check_promises() {
    std::set<std::string> held;
    for (const auto& holder : holders_) {
      if (!holder->held) {
        continue;
      }
      EXPECT_TRUE(held.insert(holder->tag).second) << "two hold " << holder->tag;
      EXPECT_TRUE(holder->told || binder_.find(holder->tag)->online() == holder->held->online)
          << holder->tag << " is not online, and its holder does not know";
    }
    std::set<std::string> used;
    for (const CacheBinder::Status& status : binder_.status()) {
      if (status.cache.state == CacheState::kActive) {
        EXPECT_FALSE(keeper_.detached.contains(status.cache.tag)) << status.cache.tag;
        EXPECT_TRUE(used.insert(status.path).second) << "two are in " << status.path;
      }
    }
  }

  // When nothing is under way any more.
  void check_sentences() {
    pass(seconds(15));
    hang_up(false);
    pass(seconds(15));
    for (const CacheBinder::Status& status : binder_.status()) {
      const bool is_fine = status.cache.state == CacheState::kActive;
      EXPECT_EQ(is_fine, trouble_of(status.cache.tag).empty())
          << status.cache.tag << ": " << trouble_of(status.cache.tag);
    }
  }

  // Nothing of what happened keeps anybody away.
  void check_all_may_be_held() {
    files_.clear();
    pass(seconds(15));
    hang_up(true);
    for (const char* tag : {"/one", "/two", "farm", "barn"}) {
      (void)binder_.attach(tag);
    }
    pass(seconds(15));
    for (const char* tag : {"/one", "/two", "farm", "barn"}) {
      for (const char* other : {"/one", "/two"}) {
        binder_.find(other)->withdraw([] {});
      }
      const auto holder = ask(tag, tag[0] == '/' ? tag : "/two");
      pass(seconds(15));
      EXPECT_TRUE(holder->held) << tag;
      hang_up(true);
    }
  }

  std::mt19937_64 random_;
  std::vector<std::shared_ptr<Holder>> holders_;
  std::vector<std::shared_ptr<fscache::OnlineBackend>> files_;
};

TEST_F(BusyDayTest, EverybodyGetsWhatIsHisAndNobodyTwice) {
  for (int i = 1; i <= 3000 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    act();
    for (std::size_t steps = draw(12); steps > 0 && stepper_.step(); --steps) {
    }
    check_promises();
    if (i % 50 == 0) {
      check_sentences();
    }
    if (i % 500 == 0) {
      check_all_may_be_held();
    }
  }
  holders_.clear();
  files_.clear();
}

}  // namespace
}  // namespace larder::engine
