#include "testing/memory_backend.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "fscache/backend.h"

namespace larder::testing {

namespace {

using fscache::ObjectDescription;
using fscache::ReadPlan;
using fscache::ReadWhy;
using fscache::Source;

constexpr std::uint64_t kBlock = 4096;

class MemoryObject final : public fscache::BackendObject {
 public:
  MemoryObject(MemoryDisk& disk, std::shared_ptr<MemoryDisk::Stored> stored)
      : disk_(disk), stored_(std::move(stored)) {}

  [[nodiscard]] ReadPlan plan_read(ByteRange wanted) const override {
    const auto present = stored_->present.first_at_or_after(wanted.offset);
    if (!present || present->offset >= wanted.end()) {
      return {Source::kServer, wanted, ReadWhy::kHole};
    }
    if (present->offset > wanted.offset) {
      return {Source::kServer, ByteRange::between(wanted.offset, present->offset), ReadWhy::kHole};
    }
    return {Source::kCache, present->intersection(wanted), ReadWhy::kPresent};
  }

  [[nodiscard]] bool has_everything() const override {
    return stored_->present.contains({0, stored_->description.size});
  }

  [[nodiscard]] bool complete() const override { return stored_->complete; }

  [[nodiscard]] bool racy() const override { return stored_->description.racy; }

  void supersede() override { stored_->superseded = true; }

  Result<> read(std::uint64_t offset, MutableBytes into) override {
    if (disk_.before_read) {
      disk_.before_read();
    }
    if (disk_.dead) {
      return fail(Errc::kIo, "the disk is dead");
    }
    if (stored_->overwritten) {
      return fail(Errc::kStale, "overwritten");
    }
    if (disk_.fail_reads > 0) {
      --disk_.fail_reads;
      stored_->present.remove(ByteRange{offset, into.size()}.rounded_out(kBlock));
      return fail(Errc::kCorrupt, "checksum");
    }
    if (!stored_->present.contains({offset, into.size()})) {
      return fail(Errc::kNotFound, "not present");
    }
    std::ranges::copy(bytes_of(stored_->bytes).subspan(offset, into.size()), into.begin());
    return {};
  }

  Result<> write(std::uint64_t offset, Bytes from) override {
    if (disk_.dead) {
      return fail(Errc::kIo, "the disk is dead");
    }
    if (stored_->superseded) {
      return fail(Errc::kStale, "superseded");
    }
    if (disk_.fail_writes > 0) {
      --disk_.fail_writes;
      return fail(Errc::kNoSpace, "full");
    }
    if (disk_.full) {
      disk_.pressed = true;
      (*disk_.wake)();
      return fail(Errc::kNoSpace, "full");
    }
    const ByteRange range{offset, from.size()};
    CHECK(range.end() <= stored_->description.size);
    std::ranges::copy(text_of(from), stored_->bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    ByteRange whole = range.rounded_in(kBlock);
    if (range.end() == stored_->description.size) {
      whole = ByteRange::between(whole.offset, range.end());
    }
    stored_->present.add(whole);
    return {};
  }

  Result<> mark_complete() override {
    if (!has_everything()) {
      return fail(Errc::kNotFound, "a range was lost meanwhile");
    }
    if (disk_.fail_completions > 0) {
      --disk_.fail_completions;
      return fail(Errc::kNoSpace, "no mark today");
    }
    stored_->complete = true;
    return {};
  }

  std::optional<std::uint64_t> find_failed_read() override { return disk_.failed_read; }

  Result<UniqueFd> open_for_passthrough() override {
    if (disk_.dead) {
      return fail(Errc::kIo, "the disk is dead");
    }
    if (!complete()) {
      return fail(Errc::kNotFound, "not complete");
    }
    UniqueFd file(::memfd_create("memory-backend", MFD_CLOEXEC));
    const std::string& bytes = stored_->bytes;
    if (!file.valid() ||
        ::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      return fail_errno(errno, "memfd");
    }
    return file;
  }

  Result<> overwrite(std::uint64_t offset, Bytes from) override {
    TRY(begin_overwriting());
    const std::uint64_t end = offset + from.size();
    stored_->bytes.resize(std::max<std::uint64_t>(stored_->bytes.size(), end));
    std::ranges::copy(text_of(from), stored_->bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }

  Result<> resize(std::uint64_t size) override {
    TRY(begin_overwriting());
    stored_->bytes.resize(size);
    return {};
  }

  Result<bool> is_open_elsewhere() override {
    ++disk_.looks;
    const bool found = stored_->open_elsewhere;
    if (disk_.after_look) {
      disk_.after_look();
    }
    return found;
  }

  void note_use() override {}

 private:
  Result<> begin_overwriting() {
    if (disk_.before_overwrite) {
      disk_.before_overwrite();
    }
    if (disk_.dead) {
      return fail(Errc::kIo, "the disk is dead");
    }
    stored_->superseded = true;
    stored_->overwritten = true;
    stored_->complete = false;
    stored_->present.clear();
    if (disk_.fail_overwrites > 0) {
      --disk_.fail_overwrites;
      return fail(Errc::kNoSpace, "full");
    }
    return {};
  }

  MemoryDisk& disk_;
  const std::shared_ptr<MemoryDisk::Stored> stored_;
};

class MemoryVolume final : public fscache::BackendVolume {
 public:
  MemoryVolume(MemoryDisk& disk, std::string key) : disk_(disk), key_(std::move(key)) {}

  Result<std::unique_ptr<fscache::BackendObject>> open_object(
      const ObjectDescription& description) override {
    if (disk_.dead) {
      return fail(Errc::kIo, "the disk is dead");
    }
    std::shared_ptr<MemoryDisk::Stored>& stored = disk_.volumes[key_][description.key];
    const bool same = stored != nullptr && stored->description.size == description.size &&
                      stored->description.coherency == description.coherency && !stored->superseded;
    if (!same) {
      if (stored != nullptr) {
        stored->superseded = true;
      }
      stored = std::make_shared<MemoryDisk::Stored>();
      stored->description = description;
      stored->bytes.resize(description.size);
    }
    return std::make_unique<MemoryObject>(disk_, stored);
  }

  Result<> discard(std::string_view key) override {
    auto& objects = disk_.volumes[key_];
    const auto found = objects.find(std::string(key));
    if (found != objects.end()) {
      found->second->superseded = true;
      objects.erase(found);
    }
    return {};
  }

 private:
  MemoryDisk& disk_;
  const std::string key_;
};

class MemoryBackend final : public fscache::Backend {
 public:
  explicit MemoryBackend(MemoryDisk& disk) : disk_(disk) {}

  Result<std::unique_ptr<fscache::BackendVolume>> open_volume(std::string_view key) override {
    return std::make_unique<MemoryVolume>(disk_, std::string(key));
  }

  Duration run_maintenance() override { return std::chrono::hours(24); }

  void set_maintenance_wake(std::move_only_function<void()> wake) override {
    disk_.wake = std::make_shared<std::move_only_function<void()>>(std::move(wake));
  }

  Result<> withdraw() override { return {}; }

  [[nodiscard]] fscache::BackendStatus status() const override { return {}; }

  [[nodiscard]] bool take_pressed() override { return std::exchange(disk_.pressed, false); }

  [[nodiscard]] bool usable() const override { return !disk_.dead; }

 private:
  MemoryDisk& disk_;
};

}  // namespace

std::unique_ptr<fscache::Backend> make_memory_backend(MemoryDisk& disk) {
  return std::make_unique<MemoryBackend>(disk);
}

}  // namespace larder::testing
