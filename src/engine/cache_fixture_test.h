// What the tests of the binder and of cache channels share: a disk with the directories of caches,
// a keeper who opens them, and files that are open in a cache.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/cache_fixture_test.h"
#include "engine/cache_binder.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "handover/cache_keeper.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"
#include "testing/stepper.h"

namespace larder::engine {

// Opens what it is asked for, at once or when the test says so. Paths have one component.
class FakeKeeper final : public handover::CacheKeeper {
 public:
  using Done = std::move_only_function<void(Result<UniqueFd>)>;

  explicit FakeKeeper(testing::FakeFilesystem& disk) : disk_(disk) {}

  void open_cache_directory(const std::string& path, Done done) override {
    ++asked;
    waiting_.emplace_back(path, std::move(done));
    if (!silent) {
      answer();
    }
  }

  void report_detached(const std::string& tag, bool is_detached) override {
    if (is_detached) {
      detached.insert(tag);
    } else {
      detached.erase(tag);
    }
  }

  [[nodiscard]] UniqueFd open(std::string_view path) {
    return disk_.make_descriptor(path.substr(1));
  }

  // The oldest question.
  void answer() { answer(open(waiting_.front().first)); }

  void answer(Result<UniqueFd> directory) {
    Done done = std::move(waiting_.front().second);
    waiting_.pop_front();
    done(std::move(directory));
  }

  int asked = 0;
  bool silent = false;             // answers in answer() only
  std::set<std::string> detached;  // what the next engine would be told

 private:
  testing::FakeFilesystem& disk_;
  std::deque<std::pair<std::string, Done>> waiting_;
};

// A file that is open in a cache. What it holds stays for as long as it lives.
struct OpenFile {
  std::shared_ptr<fscache::OnlineBackend> online;
  std::unique_ptr<fscache::BackendVolume> volume;
  std::unique_ptr<fscache::BackendObject> object;
};

class CachesOnFake : public ::testing::Test {
 protected:
  CachesOnFake() = default;

  // Tasks run in an order drawn from it.
  explicit CachesOnFake(std::uint64_t seed) : stepper_(seed) {}

  static constexpr std::uint64_t kFileBytes = 100 * cachefiles::kKilo;
  static constexpr std::uint64_t kPercentBytes = std::uint64_t{1} << 32U;  // of the disk
  static constexpr const char* kVolume = "larder,1,nfs,server,,%2fexport,0";

  // As the engine ends; every file is closed by then.
  void TearDown() override {
    for (const CacheBinder::Status& status : binder_.status()) {
      binder_.find(status.cache.tag)->withdraw([] {});
    }
    stepper_.run();
    for (const CacheBinder::Status& status : binder_.status()) {
      ASSERT_FALSE(status.cache.present) << status.cache.tag << ": somebody holds it";
    }
    binder_.withdraw_all(Duration::zero());
  }

  // Lets time go by until it holds.
  bool becomes(const std::function<bool()>& holds, Duration limit = std::chrono::minutes(2)) {
    return stepper_.run_until(holds, limit);
  }

  void pass(Duration time) {
    const MonotonicTime end = stepper_.clock().now() + time;
    (void)becomes([] { return false; }, time);
    stepper_.advance(end - stepper_.clock().now());
    stepper_.run();
  }

  fscache::CacheState state_of(const std::string& tag) { return binder_.find(tag)->status().state; }

  bool is_active(const std::string& tag) { return state_of(tag) == fscache::CacheState::kActive; }

  // None of its files is open any more, and its books are closed.
  bool is_gone(const std::string& tag) { return !binder_.find(tag)->status().present; }

  // As `larder status` has it: what is wrong with the binding, else with the cache.
  std::string trouble_of(const std::string& tag) {
    const CacheBinder::Status status = status_of(tag);
    return status.bind_trouble.empty() ? status.cache.trouble : status.bind_trouble;
  }

  bool is_listed(const std::string& tag) {
    for (const CacheBinder::Status& status : binder_.status()) {
      if (status.cache.tag == tag) {
        return true;
      }
    }
    return false;
  }

  CacheBinder::Status status_of(const std::string& tag) {
    for (CacheBinder::Status& status : binder_.status()) {
      if (status.cache.tag == tag) {
        return std::move(status);
      }
    }
    ADD_FAILURE() << "no status of " << tag;
    return {};
  }

  // Of the cache that is online with this tag.
  OpenFile open(const std::string& tag, const std::string& key) {
    OpenFile file{binder_.find(tag)->online(), nullptr, nullptr};
    if (file.online == nullptr) {
      ADD_FAILURE() << tag << " is not online";
      return file;
    }
    file.volume = file.online->backend->open_volume(kVolume).value();
    file.object = file.volume->open_object(cachefiles::describe(key, 1, kFileBytes)).value();
    return file;
  }

  static Result<> fill(const OpenFile& file, const std::string& key) {
    return cachefiles::fill(*file.object, cachefiles::content_of(key, 1, kFileBytes));
  }

  void keep(const std::string& tag, const std::string& key) {
    ASSERT_TRUE(fill(open(tag, key), key));
  }

  bool has(const std::string& tag, const std::string& key) {
    return open(tag, key).object->complete();
  }

  // Objects that have a name in the cache of this directory, as commands of a channel name them.
  std::vector<std::string> objects_in(std::string_view path) {
    const std::string parent = volume_name();
    const auto root = disk_.adopt(keeper_.open(path)).value();
    const auto volume = root->open_directory("cache").value()->open_directory(parent).value();
    std::vector<std::string> found;
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& fan_out) {
      const auto directory = volume->open_directory(fan_out.name).value();
      EXPECT_TRUE(directory->list([&](const os::DirectoryEntry& object) {
        found.push_back(parent + "/" + fan_out.name + "/" + object.name);
        return true;
      }));
      return true;
    }));
    return found;
  }

  bool is_empty(std::string_view path) {
    bool empty = true;
    EXPECT_TRUE(disk_.adopt(keeper_.open(path)).value()->list([&](const os::DirectoryEntry&) {
      return empty = false;
    }));
    return empty;
  }

  // A file of somebody else lies in it.
  void spoil(std::string_view path) {
    ASSERT_TRUE(disk_.adopt(keeper_.open(path)).value()->create_file("letter", 0600));
  }

  void clean(std::string_view path) {
    ASSERT_TRUE(disk_.adopt(keeper_.open(path)).value()->unlink("letter"));
  }

  // Calls `act` before call number `number` from now on of the disk.
  void before_call(std::uint64_t number, std::function<void()> act) {
    acted_ = false;
    faulty_.faults().set_hook([this, at = faulty_.faults().calls() + number, act = std::move(act)](
                                  testing::FileCall, std::uint64_t call) {
      if (call == at) {
        acted_ = true;
        act();
      }
      return 0;
    });
  }

  bool acted_ = false;  // by before_call()
  testing::Stepper stepper_;
  testing::FakeFilesystem disk_{os::CrashSafety::kOrdered, 100 * kPercentBytes};
  testing::FaultyFilesystem faulty_{disk_};
  FakeKeeper keeper_{disk_};
  CacheBinder binder_{stepper_, keeper_, faulty_};

 private:
  static std::string volume_name() { return std::string("I") + kVolume; }
};

}  // namespace larder::engine
