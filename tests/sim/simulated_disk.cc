#include "simulated_disk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "cachefiles/cache.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"
#include "testing/memory_backend.h"
#include "vandal.h"

namespace larder {
namespace {

using testing::CrashMode;
using testing::FileCall;

bool chance(Random& random, unsigned percent) {
  return random() % 100 < percent;
}

class SimulatedMemory final : public SimulatedDisk {
 public:
  explicit SimulatedMemory(Random& random) : random_(random) {}

  Result<std::unique_ptr<fscache::Backend>> bring_online() override {
    disk_.dead = false;
    return testing::make_memory_backend(disk_);
  }

  void disturb() override {
    disk_.fail_reads = static_cast<int>(random_() % 3);
    disk_.fail_writes = static_cast<int>(random_() % 3);
    disk_.dead = disk_.dead || chance(random_, 5);
  }

  void calm() override { disk_.fail_reads = disk_.fail_writes = 0; }

  void end_suddenly() override { disk_.dead = true; }

  void advance(Duration /*by*/) override {}

  [[nodiscard]] bool roomy() const override { return true; }

 private:
  Random& random_;
  testing::MemoryDisk disk_;
};

class SimulatedDirectory final : public SimulatedDisk {
 public:
  SimulatedDirectory(Random& random, const Clock& clock)
      : random_(random),
        clock_(clock),
        capacity_(chance(random, 80) ? kMuch : std::uint64_t{3} << 20U),
        filesystem_(chance(random, 70) ? os::CrashSafety::kOrdered : os::CrashSafety::kUnordered,
                    capacity_),
        faulty_(filesystem_) {
    options_.tag = "sim";
    options_.path_for_messages = "/cache";
    constexpr std::uint64_t kMebibyte = 1U << 20U;
    const std::array<std::uint64_t, 3> limits{kMebibyte, 3 * kMebibyte, kMuch};
    options_.limits.size_bytes = std::min(limits.at(random() % limits.size()), capacity_);
    options_.headroom_bytes = chance(random, 50) ? options_.limits.size_bytes / 8 : kMuch;
    options_.most_open_files = chance(random, 50) ? 1 : 6000;
  }

  Result<std::unique_ptr<fscache::Backend>> bring_online() override {
    if (power_failed_) {
      filesystem_.crash(chance(random_, 50) ? CrashMode::kDropUnsynced : CrashMode::kRandomSubset,
                        random_());
    } else if (chance(random_, 10)) {
      filesystem_.remount();
    }
    if (killed_) {
      calm();
    }
    power_failed_ = killed_ = false;
    std::unique_ptr<os::Directory> root = TRY(faulty_.open_root("/"));
    return cachefiles::bind_cache(std::move(root), faulty_, options_, clock_);
  }

  void disturb() override {
    switch (random_() % 6) {
      case 0:
        calm();
        break;
      case 5:
        if (!power_failed_) {  // else nothing reaches the disk
          vandalise(*filesystem_.open_root("/").value(), random_);
        }
        break;
      case 1:  // one call fails
        faulty_.faults().fail_at(faulty_.faults().calls() + 1 + random_() % 300, EIO);
        break;
      case 2:
        filesystem_.fail_next_sync(EIO);
        break;
      default:  // calls that need room fail now and then
        faulty_.faults().set_hook([this](FileCall call, std::uint64_t) {
          const bool takes_room = call == FileCall::kOpen || call == FileCall::kWrite ||
                                  call == FileCall::kAttribute || call == FileCall::kName;
          return takes_room && chance(random_, 10) ? ENOSPC : 0;
        });
        break;
    }
  }

  void calm() override {
    faulty_.faults().set_hook(nullptr);
    filesystem_.fail_next_sync(0);
  }

  void end_suddenly() override {
    if (chance(random_, 50)) {
      power_failed_ = true;
      filesystem_.cut_power_after(filesystem_.mutating_calls() + random_() % 30);
    } else {  // a dead process calls nothing
      killed_ = true;
      faulty_.faults().set_hook([](FileCall, std::uint64_t) { return EIO; });
    }
  }

  void advance(Duration by) override {
    filesystem_.advance_seconds(std::chrono::duration_cast<std::chrono::seconds>(by).count());
  }

  [[nodiscard]] bool roomy() const override {
    return capacity_ == kMuch && options_.limits.size_bytes == kMuch;
  }

 private:
  static constexpr std::uint64_t kMuch = std::uint64_t{1} << 40U;

  Random& random_;
  const Clock& clock_;
  const std::uint64_t capacity_;
  testing::FakeFilesystem filesystem_;
  testing::FaultyFilesystem faulty_;
  cachefiles::CacheOptions options_;
  bool power_failed_ = false;
  bool killed_ = false;
};

}  // namespace

std::unique_ptr<SimulatedDisk> make_memory_disk(Random& random, const Clock& /*clock*/) {
  return std::make_unique<SimulatedMemory>(random);
}

std::unique_ptr<SimulatedDisk> make_cachefiles_disk(Random& random, const Clock& clock) {
  return std::make_unique<SimulatedDirectory>(random, clock);
}

}  // namespace larder
