// What a caretaker sees of a cache, and what it may do.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/key.h"
#include "cachefiles/layout.h"
#include "cachefiles/space.h"
#include "cachefiles/volume.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr Percentages kNever{3, 2, 1};

class CareTest : public CacheOnFake {
 protected:
  void bind_cared_for() {
    bind();
    cache_->set_caretaker([this] { ++told_; });
    (void)cache_->run_maintenance();
    told_ = 0;
  }

  struct Place {
    std::string directory, name;
  };

  // Of every object that has a name.
  std::vector<Place> objects() {
    std::vector<Place> found;
    const auto volume = volume_directory();
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
      const std::string& fan_out = entry.name;
      EXPECT_TRUE(volume->open_directory(fan_out).value()->list([&](const auto& object) {
        found.push_back({"Ilarder,1,nfs,server,,%2fexport,0/" + fan_out, object.name});
        return true;
      }));
      return true;
    }));
    return found;
  }

  Culled cull(const Place& place) {
    return cache_->cull(place.directory, std::vector{place.name}).value().at(0);
  }

  static std::size_t names_in(os::Directory& directory) {
    std::size_t names = 0;
    EXPECT_TRUE(directory.list([&](const os::DirectoryEntry&) {
      ++names;
      return true;
    }));
    return names;
  }

  SpaceState space() { return cache_->care_state().value().space; }

  int told_ = 0;
};

TEST_F(CareTest, CullsByName) {
  bind_cared_for();
  keep("small", 1, 3 * kKilo);
  keep("large", 1, 3 * kMega);
  const std::uint64_t used = space().used_bytes;
  const std::vector<Place> all = objects();
  ASSERT_EQ(all.size(), 2U);
  std::uint64_t freed = 0;
  for (const Place& place : all) {
    EXPECT_FALSE(cache_->in_use(place.directory, place.name).value());
    freed += cull(place).value();
    EXPECT_EQ(cull(place).error().code(), Errc::kNotFound);
    EXPECT_EQ(cache_->in_use(place.directory, place.name).error().code(), Errc::kNotFound);
  }
  EXPECT_GE(freed, 3 * kMega);
  EXPECT_EQ(space().used_bytes, used - freed);
  EXPECT_EQ(space().objects, 0U);
  EXPECT_TRUE(objects().empty());
  EXPECT_EQ(cache_->status().culled_objects, 2U);
  EXPECT_EQ(served("large", 1, 3 * kMega), 0U);
}

// Removed together from one directory, so many that it lists what map logs there are instead of
// asking for each.
class ManyOfOneDirectoryTest : public CareTest {
 protected:
  static constexpr const char* kVolume = "larder,1,nfs,server,,%2fexport,0";

  void keep_many(int count, const std::function<std::uint64_t(int)>& bytes) {
    const std::uint32_t hash = hash_of_volume(kVolume);
    for (int i = 0; keys_.size() < static_cast<std::size_t>(count); ++i) {
      const std::string key = "file" + std::to_string(i);
      if (hash_of_key(hash, key) % kFanOut == 7) {
        keys_.push_back(key);
        names_.push_back(cook_key(key));
        keep(key, 1, bytes(static_cast<int>(keys_.size())));
      }
    }
  }

  std::uint64_t cull_all() {
    const auto answers = cache_->cull(fmt::format("I{}/@07", kVolume), names_).value();
    std::uint64_t freed = 0;
    for (const Culled& culled : answers) {
      freed += culled.value();
    }
    return freed;
  }

  std::size_t logs() {
    const auto maps = filesystem_.open_root("/").value()->open_directory("maps").value();
    return names_in(*maps->open_directory_in(fmt::format("I{}", kVolume), "@07").value());
  }

  std::vector<std::string> keys_;
  std::vector<std::string> names_;
};

TEST_F(ManyOfOneDirectoryTest, GoWithTheirMapLogs) {
  bind_cared_for();
  keep_many(40, [](int number) { return number % 4 == 0 ? 100 * kKilo : 3 * kKilo; });
  const std::uint64_t used = space().used_bytes;
  ASSERT_EQ(logs(), 10U);
  const std::uint64_t freed = cull_all();
  EXPECT_EQ(logs(), 0U);
  EXPECT_EQ(space().used_bytes, used - freed);
  EXPECT_EQ(space().objects, 0U);
}

// One grows over what needs none, is closed, and is culled by the same command.
TEST_F(ManyOfOneDirectoryTest, GoWithMapLogsThatWereMadeMeanwhile) {
  testing::FaultyFilesystem faulty(filesystem_);
  auto bound = bind_cache(faulty.open_root("/").value(), faulty, options_, clock_);
  cache_ = std::move(bound).value();
  volume_ = cache_->open_volume(kVolume).value();
  keep("log", 1, 100 * kKilo);  // so that there is a directory for them
  keep_many(40, [](int) { return 3 * kKilo; });
  keep(keys_.front(), 2, 100 * kKilo);
  ASSERT_EQ(logs(), 1U);
  bool grown = false;
  faulty.faults().set_hook([&](testing::FileCall call, std::uint64_t /*number*/) {
    if (call == testing::FileCall::kName && !std::exchange(grown, true)) {
      keep(keys_.back(), 2, 100 * kKilo);
    }
    return 0;
  });
  (void)cull_all();
  EXPECT_TRUE(grown);
  EXPECT_EQ(logs(), 0U);
  drop();
}

TEST(OpenFanOutTest, WhatIsNotListedHasNoMapLogUntilAnotherIsMade) {
  testing::FakeFilesystem filesystem;
  std::atomic<std::uint64_t> made = 3;
  OpenFanOut directories;
  EXPECT_FALSE(directories.may_have_log("Da"));
  directories.maps = filesystem.open_root("/").value();
  EXPECT_TRUE(directories.may_have_log("Da"));
  directories.logs = {"Da"};
  directories.made_now = &made;
  directories.made_before = 3;
  EXPECT_TRUE(directories.may_have_log("Da"));
  EXPECT_FALSE(directories.may_have_log("Db"));
  ++made;
  EXPECT_TRUE(directories.may_have_log("Db"));
}

TEST_F(CareTest, SparesWhatIsOpen) {
  bind_cared_for();
  keep("file", 1, 100 * kKilo);
  const auto open_one = open("file", 1, 100 * kKilo);
  const Place place = objects().at(0);
  EXPECT_TRUE(cache_->in_use(place.directory, place.name).value());
  EXPECT_EQ(cull(place).error().code(), Errc::kBusy);
  EXPECT_EQ(served_bytes(*open_one, content_of("file", 1, 100 * kKilo)), 100 * kKilo);
}

TEST_F(CareTest, TakesOutNothingElse) {
  bind_cared_for();
  keep("file", 1, 3 * kKilo);
  const Place place = objects().at(0);
  for (const char* wrong : {"", "Ilarder", "graveyard", "Inobody/@00", "I/@00", "../maps"}) {
    EXPECT_EQ(cache_->cull(wrong, std::vector{place.name}).error().code(), Errc::kInvalid) << wrong;
    EXPECT_EQ(cache_->in_use(wrong, place.name).error().code(), Errc::kInvalid) << wrong;
  }
  EXPECT_EQ(cull({place.directory, "x"}).error().code(), Errc::kInvalid);
  EXPECT_EQ(objects().size(), 1U);
}

TEST_F(CareTest, OneOfManyThatFailsLeavesTheOthers) {
  bind_cared_for();
  keep("file", 1, 3 * kKilo);
  const Place place = objects().at(0);
  const auto outcomes =
      cache_->cull(place.directory, std::vector<std::string>{"Enone", place.name}).value();
  ASSERT_EQ(outcomes.size(), 2U);
  EXPECT_EQ(outcomes[0].error().code(), Errc::kNotFound);
  EXPECT_TRUE(outcomes[1].has_value());
}

// With one it does not cull by itself, but says that it should be done, and when it is enough.
TEST_F(CareTest, SaysWhenToCull) {
  bind_cared_for();
  EXPECT_FALSE(space().culling);
  for (int i = 0; i < 40; ++i) {
    keep("file" + std::to_string(i), 1, kMega);
  }
  ASSERT_EQ(objects().size(), 40U);
  EXPECT_EQ(told_, 0);
  ASSERT_TRUE(cache_->set_limits({30 * kMega, kNever, kNever}));
  (void)cache_->run_maintenance();
  EXPECT_EQ(told_, 1);
  EXPECT_EQ(objects().size(), 40U) << "the caretaker's work";
  const SpaceState pressed = space();
  EXPECT_TRUE(pressed.culling);
  EXPECT_GE(pressed.to_free.bytes, 10 * kMega);
  EXPECT_EQ(pressed.to_free.files, 0U);
  std::size_t culled = 0;
  for (const Place& place : objects()) {
    if (space().to_free.bytes == 0) {
      break;
    }
    ASSERT_TRUE(cull(place));
    ++culled;
  }
  EXPECT_FALSE(space().culling);
  EXPECT_GE(culled, 10U);
  EXPECT_LE(culled, 12U);
}

TEST_F(CareTest, WithoutOneItCullsByItself) {
  bind();
  for (int i = 0; i < 40; ++i) {
    keep("file" + std::to_string(i), 1, kMega);
  }
  ASSERT_TRUE(cache_->set_limits({30 * kMega, kNever, kNever}));
  (void)cache_->run_maintenance();
  EXPECT_LE(objects().size(), 30U);
  EXPECT_GE(objects().size(), 28U);
}

// A terabyte of large files has so many map logs that the disk would be full before all are seen.
TEST_F(CareTest, ItCullsBeforeItHasLookedForAllLargeObjects) {
  bind();
  for (int i = 0; i < 40; ++i) {
    keep("file" + std::to_string(i), 1, kMega);
  }
  withdraw();
  testing::FaultyFilesystem faulty(filesystem_);
  std::size_t lists = 0;
  std::size_t before_the_first = 0;
  cache_ = bind_cache(faulty.open_root("/").value(), faulty, options_, clock_).value();
  (void)cache_->run_maintenance();  // has looked into the graveyard
  ASSERT_TRUE(cache_->set_limits({30 * kMega, kNever, kNever}));
  faulty.faults().set_hook([&](testing::FileCall call, std::uint64_t) {
    if (call == testing::FileCall::kList) {
      ++lists;
      clock_.advance(std::chrono::milliseconds(50));
    } else if (call == testing::FileCall::kName && before_the_first == 0) {
      before_the_first = lists;
    }
    return 0;
  });
  const std::size_t directories = names_in(*volume_directory());
  ASSERT_GT(directories, 10U);
  (void)cache_->run_maintenance();
  faulty.faults().set_hook(nullptr);
  EXPECT_LE(objects().size(), 30U);
  EXPECT_LE(before_the_first, directories + 1) << "all of a small cache, and one of map logs";
}

// Fillers are many, and who culls is one.
class KeptFullTest : public CareTest {
 protected:
  static constexpr std::uint64_t kSize = 60 * kKilo;

  // From now on what is culled is filled again, until it was done `times`.
  void refill(int times) {
    faulty_.faults().set_hook([this, times](testing::FileCall call, std::uint64_t) {
      if (call == testing::FileCall::kName && !std::exchange(filling_, true)) {
        while (filled_ < times && fill_one()) {
          ++filled_;
        }
        clock_.advance(std::chrono::milliseconds(5));
        filling_ = false;
      }
      return 0;
    });
  }

  bool fill_one() {
    const std::string key = "file" + std::to_string(++last_);
    const auto object = volume_->open_object(describe(key, 1, kSize)).value();
    return fill(*object, content_of(key, 1, kSize)).has_value();
  }

  void bind_full() {
    options_.limits = {40 * kMega, {10, 7, 3}, {10, 7, 3}};
    cache_ = bind_cache(faulty_.open_root("/").value(), faulty_, options_, clock_).value();
    volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
    keep("held", 1, kMega);
    held_ = open("held", 1, kMega);
    while (fill_one()) {
    }
  }

  void TearDown() override {
    faulty_.faults().set_hook(nullptr);
    held_.reset();
    drop();
  }

  testing::FaultyFilesystem faulty_{filesystem_};
  std::unique_ptr<fscache::BackendObject> held_;
  int last_ = 0;
  int filled_ = 0;
  bool filling_ = false;
};

TEST_F(KeptFullTest, ACullLeavesTheOtherDutiesTheirTurn) {
  bind_full();
  clock_.advance(std::chrono::hours(1));  // an epoch is due
  refill(20000);
  const MonotonicTime began = clock_.now();
  EXPECT_EQ(cache_->run_maintenance(), Duration{}) << "there is more to cull";
  EXPECT_LE(clock_.now() - began, std::chrono::seconds(2));
  EXPECT_TRUE(cache_->status().culling);
  EXPECT_GT(filled_, 10);
  TearDown();
  filesystem_.crash(testing::CrashMode::kDropUnsynced, 1);
  bind();
  EXPECT_EQ(served("held", 1, kMega), kMega) << "the epoch was closed";
}

TEST_F(KeptFullTest, WhatHasNoBusinessInTheCacheIsFoundMeanwhile) {
  bind_full();
  const auto cache = filesystem_.open_root("/").value()->open_directory("cache").value();
  ASSERT_TRUE(cache->create_file("junk", 0600));
  refill(20000);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(cache_->run_maintenance(), Duration{}) << "there is more to cull";
  }
  EXPECT_FALSE(cache->stat("junk"));
}

TEST_F(KeptFullTest, ItEndsWhenTheyAreTired) {
  bind_full();
  refill(500);
  int runs = 1;
  while (cache_->run_maintenance() == Duration{}) {
    ASSERT_LT(++runs, 100);
  }
  EXPECT_FALSE(cache_->status().culling);
}

TEST_F(CareTest, TellsOfWhatCameOutOfUseWhileRoomIsShort) {
  bind_cared_for();
  keep("file", 1, kMega);
  EXPECT_EQ(cache_->take_released().objects, 1U);
  auto held = open("file", 1, kMega);
  held.reset();
  EXPECT_EQ(told_, 0) << "nobody waits for it";
  EXPECT_EQ(cache_->care_state().value().released_objects, 1U);
  const Released released = cache_->take_released();
  EXPECT_EQ(released.objects, 1U);
  EXPECT_GE(released.bytes, kMega);
  EXPECT_EQ(cache_->take_released().objects, 0U);

  held = open("file", 1, kMega);
  ASSERT_TRUE(cache_->set_limits({kMega, kNever, kNever}));
  ASSERT_TRUE(space().culling);
  told_ = 0;
  held.reset();
  EXPECT_EQ(told_, 1);
}

TEST_F(CareTest, WhoClosesTheFirstVersionLastReleasesTheSecond) {
  bind_cared_for();
  auto before = open("file", 1, kMega);
  ASSERT_TRUE(fill(*before, content_of("file", 1, kMega)));
  auto now = open("file", 2, 2 * kMega);
  ASSERT_TRUE(fill(*now, content_of("file", 2, 2 * kMega)));
  now.reset();
  EXPECT_EQ(cull(objects().at(0)).error().code(), Errc::kBusy);
  EXPECT_EQ(cache_->take_released().objects, 0U);
  before.reset();
  const Released released = cache_->take_released();
  EXPECT_EQ(released.objects, 1U);
  EXPECT_GE(released.bytes, 2 * kMega);
  EXPECT_TRUE(cull(objects().at(0)));
}

// Else the caretaker finds it in use, and nobody tells him again.
TEST_F(CareTest, WhatIsToldToBeReleasedIs) {
  bind_cared_for();
  keep("file", 1, kMega);
  auto held = open("file", 1, kMega);
  ASSERT_TRUE(cache_->set_limits({kMega, kNever, kNever}));
  ASSERT_TRUE(space().culling);
  std::optional<Culled> culled;
  cache_->set_caretaker([&] { culled = cull(objects().at(0)); });
  held.reset();
  ASSERT_TRUE(culled);
  EXPECT_TRUE(*culled) << culled->error().message();
}

// His look may be the one that finds that culling is over: what begins then is news to him.
TEST_F(CareTest, TellsOfEachTimeThatRoomIsShort) {
  options_.headroom_bytes = 1ULL << 40;
  options_.limits = {100 * kMega, {10, 7, 3}, {10, 7, 3}};
  bind_cared_for();
  bool woken = false;
  cache_->set_maintenance_wake([&woken] { woken = true; });
  for (int number = 0; number < 60; ++number) {
    keep("old" + std::to_string(number), 1, kMega);
  }
  const auto huge = open("huge", 1, 1000 * kMega);  // nothing comes out of use meanwhile
  const std::vector<std::byte> piece = content_of("huge", 1, kMega);
  std::uint64_t at = 0;
  for (int round = 0; round < 4; ++round) {
    told_ = 0;
    for (int pieces = 0; pieces < 50 && told_ == 0; ++pieces) {
      ASSERT_TRUE(huge->write(at, Bytes(piece))) << "round " << round << ": full, and not told";
      at += kMega;
      if (std::exchange(woken, false)) {
        (void)cache_->run_maintenance();
      }
    }
    EXPECT_EQ(told_, 1) << round;
    for (const Place& place : objects()) {
      if (place.name.starts_with("Dold") && space().to_free.bytes > 0) {
        ASSERT_TRUE(cull(place));
      }
    }
    ASSERT_FALSE(space().culling);
  }
}

TEST_F(CareTest, LimitsOutOfOrderAreRefusedAndChangeNothing) {
  bind_cared_for();
  const SpaceState before = space();
  EXPECT_EQ(cache_->set_limits({kMega, {5, 5, 1}, kNever}).error().code(), Errc::kInvalid);
  EXPECT_EQ(cache_->set_limits({kMega, kNever, {3, 2, 2}}).error().code(), Errc::kInvalid);
  EXPECT_EQ(cache_->set_limits({1, kNever, kNever}).error().code(), Errc::kInvalid);
  const SpaceState after = space();
  EXPECT_EQ(after.limits.size_bytes, before.limits.size_bytes);
  EXPECT_EQ(after.room.blocks.run, before.room.blocks.run);
}

TEST_F(CareTest, LeavesTheGraveyardToIt) {
  bind_cared_for();
  EXPECT_FALSE(cache_->care_state().value().graveyard);
  const auto graveyard = filesystem_.open_root("/").value()->open_directory("graveyard").value();
  ASSERT_TRUE(graveyard->make_directory("x1x1x", 0700));
  clock_.advance(std::chrono::minutes(1));
  (void)cache_->run_maintenance();
  EXPECT_TRUE(cache_->care_state().value().graveyard);
  ASSERT_TRUE(graveyard->remove_directory("x1x1x"));
  EXPECT_FALSE(cache_->care_state().value().graveyard);
}

// Whoever finds it empty may take it away. The cache needs it, so it is there again.
TEST_F(CareTest, AGraveyardThatIsRemovedIsMadeAgain) {
  bind_cared_for();
  keep("file", 1, 3 * kKilo);
  const auto root = filesystem_.open_root("/").value();
  ASSERT_TRUE(root->remove_directory("graveyard"));
  (void)cache_->run_maintenance();
  EXPECT_TRUE(root->open_directory("graveyard")) << "by maintenance";
  EXPECT_EQ(cache_->status().trouble, "");

  ASSERT_TRUE(root->remove_directory("graveyard"));
  const Place place = objects().at(0);
  const auto parent =
      volume_directory()->open_directory(place.directory.substr(place.directory.find('@'))).value();
  ASSERT_TRUE(parent->unlink(place.name));
  ASSERT_TRUE(parent->make_directory(place.name, 0700));
  EXPECT_EQ(served("file", 1, 3 * kKilo), 0U);
  const auto graveyard = root->open_directory("graveyard");
  ASSERT_TRUE(graveyard) << "by who buries";
  EXPECT_EQ(names_in(**graveyard), 1U);
}

// One that nobody can remove stays; those that come after it are to be heard of.
TEST_F(CareTest, SaysThatMoreWasBuriedWhileSomethingLiesThere) {
  bind_cared_for();
  keep("file", 1, 3 * kKilo);
  const Place place = objects().at(0);
  const auto graveyard = filesystem_.open_root("/").value()->open_directory("graveyard").value();
  ASSERT_TRUE(graveyard->make_directory("stays", 0700));
  (void)cache_->run_maintenance();
  const CareState before = cache_->care_state().value();
  EXPECT_TRUE(before.graveyard);
  const auto parent =
      volume_directory()->open_directory(place.directory.substr(place.directory.find('@'))).value();
  ASSERT_TRUE(parent->unlink(place.name));
  ASSERT_TRUE(parent->make_directory(place.name, 0700));
  told_ = 0;
  EXPECT_EQ(served("file", 1, 3 * kKilo), 0U);
  EXPECT_EQ(told_, 1);
  EXPECT_GT(cache_->care_state().value().buried, before.buried);
}

// Nor does one that cannot be looked into cost the state.
TEST_F(CareTest, TheStateIsToldWithoutAGraveyard) {
  bind_cared_for();
  const auto root = filesystem_.open_root("/").value();
  ASSERT_TRUE(root->remove_directory("graveyard"));
  ASSERT_TRUE(root->create_file("graveyard", 0600));
  const Result<CareState> state = cache_->care_state();
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_FALSE(state->graveyard);
  (void)cache_->run_maintenance();
  EXPECT_THAT(cache_->status().trouble, ::testing::HasSubstr("/cache/graveyard cannot be used"));
  EXPECT_TRUE(cache_->usable());
}

// After a crash only an upper bound of what is used is known, until all was counted.
TEST_F(CareTest, AsksForNoCullBeforeItHasCounted) {
  options_.limits.size_bytes = 100 * kMega;
  bind();
  keep("file", 1, 40 * kMega);
  drop();
  bind();
  cache_->set_caretaker([this] { ++told_; });
  EXPECT_FALSE(space().culling);
  (void)cache_->run_maintenance();
  EXPECT_FALSE(space().culling);
  EXPECT_TRUE(cache_->status().objects_exact);
}

// ---- Pressed for room.

class PressedTest : public CareTest {
 protected:
  static constexpr std::uint64_t kSize = 30 * kMega;

  // Objects that stay open, until one finds no room.
  void fill_and_hold(std::uint64_t size = kSize) {
    ASSERT_TRUE(cache_->set_limits({size, {}, {}}));
    for (std::uint64_t i = 0; i <= size / kMega; ++i) {
      const std::string key = "file" + std::to_string(held_.size());
      held_.push_back(open(key, 1, kMega));
      (void)cache_->run_maintenance();  // the ceiling follows
      if (!fill(*held_.back(), content_of(key, 1, kMega))) {
        return;
      }
    }
    FAIL() << "there was room for more than the size";
  }

  bool refused_and_pressed() {
    EXPECT_FALSE(held_.back()->write(0, Bytes(content_of("more", 1, kMega))));
    return pressed();
  }

  // As fscache asks.
  bool pressed() {
    (void)cache_->run_maintenance();
    return cache_->take_pressed();
  }

  void TearDown() override { held_.clear(); }

  std::vector<std::unique_ptr<fscache::BackendObject>> held_;
};

TEST_F(PressedTest, IsSaidWhileWhatIsLeftIsInUse) {
  bind();
  fill_and_hold();
  EXPECT_TRUE(pressed());
  EXPECT_TRUE(pressed()) << "a cull looks again";
  held_.clear();
  EXPECT_FALSE(pressed());
  EXPECT_LT(cache_->status().used_bytes, kSize);
}

TEST_F(PressedTest, IsNotSaidWhereACullFindsEnough) {
  bind();
  ASSERT_TRUE(cache_->set_limits({kSize, {}, {}}));
  for (int i = 0; i < 400; ++i) {
    keep("file" + std::to_string(i), 1, kMega / 4);
    EXPECT_FALSE(pressed());
  }
  EXPECT_GT(cache_->status().culled_objects, 50U);
}

// The ceiling on the disk is lower than the limit, for a moment.
TEST_F(PressedTest, IsNotSaidWhereOnlyTheCeilingWasMet) {
  options_.headroom_bytes = 2 * kMega;
  bind();
  const auto object = open("file", 1, 10 * kMega);
  ASSERT_FALSE(fill(*object, content_of("file", 1, 10 * kMega)));
  EXPECT_FALSE(pressed());
}

// Who culls from outside may only be slower than the readers.
TEST_F(PressedTest, ACaretakersCacheWaitsForHimFirst) {
  bind_cared_for();
  fill_and_hold();
  EXPECT_FALSE(pressed());
  clock_.advance(std::chrono::milliseconds(400));
  EXPECT_FALSE(refused_and_pressed());
  clock_.advance(std::chrono::milliseconds(100));
  EXPECT_FALSE(pressed()) << "nothing was refused meanwhile";
  EXPECT_TRUE(refused_and_pressed());
  EXPECT_FALSE(refused_and_pressed()) << "what was given up is to be found first";
  clock_.advance(std::chrono::milliseconds(500));
  EXPECT_TRUE(refused_and_pressed());
}

TEST_F(PressedTest, ACaretakerWhoFindsSomethingIsNotHelped) {
  bind_cared_for();
  keep("other", 1, 3 * kKilo);
  const Place other = objects().at(0);
  fill_and_hold();
  EXPECT_FALSE(pressed());
  clock_.advance(std::chrono::milliseconds(500));
  ASSERT_TRUE(cull(other));
  EXPECT_FALSE(refused_and_pressed());
  clock_.advance(std::chrono::milliseconds(500));
  EXPECT_TRUE(refused_and_pressed());
}

// ---- And nothing new is kept.

class StoppedTest : public PressedTest {
 protected:
  void refuse_for_seconds(int seconds) {
    for (int i = 0; i <= seconds; ++i) {
      EXPECT_FALSE(held_.back()->write(0, Bytes(content_of("more", 1, kMega))));
      (void)cache_->run_maintenance();
      clock_.advance(std::chrono::seconds(1));
    }
  }

  std::string why() { return cache_->status().trouble; }
};

TEST_F(StoppedTest, IsSaidWhereNobodyCulls) {
  bind_cared_for();
  keep("other", 1, 3 * kKilo);
  const Place other = objects().at(0);
  fill_and_hold();
  EXPECT_FALSE(space().stopped);
  EXPECT_EQ(why(), "") << "he may only be slower";
  refuse_for_seconds(2);
  EXPECT_TRUE(space().stopped);
  EXPECT_THAT(why(), ::testing::HasSubstr("its holder culls nothing"));
  EXPECT_GE(told_, 2) << "culling, and then that it stopped";
  ASSERT_TRUE(cull(other));
  EXPECT_FALSE(space().stopped);
  EXPECT_EQ(why(), "");
}

TEST_F(StoppedTest, IsSaidWhereAllIsInUse) {
  bind_cared_for();
  fill_and_hold();
  for (const Place& place : objects()) {
    EXPECT_EQ(cull(place).error().code(), Errc::kBusy);
  }
  refuse_for_seconds(2);
  EXPECT_TRUE(space().stopped);
  EXPECT_THAT(why(), ::testing::HasSubstr("all that it holds is in use: nothing new"));
}

TEST_F(StoppedTest, IsSaidWhereTheCacheCaresForItself) {
  bind();
  fill_and_hold();
  refuse_for_seconds(2);
  EXPECT_THAT(why(), ::testing::HasSubstr("in use or pinned: nothing new"));
  held_.clear();
  (void)cache_->run_maintenance();
  EXPECT_EQ(why(), "");
}

TEST_F(StoppedTest, IsOverWhenNobodyWantsAnythingOrThereIsRoom) {
  bind_cared_for();
  fill_and_hold();
  refuse_for_seconds(2);
  EXPECT_TRUE(space().stopped);
  clock_.advance(std::chrono::minutes(1));
  EXPECT_FALSE(space().stopped);
  refuse_for_seconds(2);
  EXPECT_TRUE(space().stopped);
  ASSERT_TRUE(cache_->set_limits({2 * kSize, {}, {}}));
  (void)cache_->run_maintenance();
  EXPECT_FALSE(space().stopped);
  EXPECT_EQ(why(), "");
}

TEST_F(PressedTest, IsOverWhenThereIsRoom) {
  bind_cared_for();
  fill_and_hold();
  EXPECT_FALSE(pressed());
  ASSERT_TRUE(cache_->set_limits({2 * kSize, {}, {}}));
  clock_.advance(std::chrono::milliseconds(500));
  EXPECT_FALSE(pressed());
  fill_and_hold(2 * kSize);
  EXPECT_FALSE(pressed()) << "the time begins anew";
}

}  // namespace
}  // namespace larder::cachefiles
