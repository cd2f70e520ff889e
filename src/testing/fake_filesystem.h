// FakeFilesystem: a filesystem in memory that can lose its power.
//
// The fault model. There are two views: what programs see, and what is on the disk. Data (by
// sectors of 512 bytes), sizes, attributes and names that were not synced may be in either state
// after a crash, each by itself, in any combination; nothing is ordered but by syncs. What a
// completed sync() of a file (data, size, attributes), sync() of a directory (its names) or
// sync_filesystem() (everything) covered stays. A block that was never written on the disk reads as
// zeros. With kUnordered, freed blocks may be on the disk with another file's bytes, although the
// deletion is not: files that come back, and unsynced blocks, may hold bytes of other files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::testing {

enum class CrashMode : std::uint8_t {
  kDropUnsynced,  // exactly what was synced is left
  kRandomSubset,  // each unsynced thing survives or not, drawn from the seed; writes are torn
};

// Threads: any. Life: files and directories may be destroyed after it.
class FakeFilesystem final : public os::Filesystem {
 public:
  explicit FakeFilesystem(os::CrashSafety crash_safety = os::CrashSafety::kOrdered,
                          std::uint64_t capacity_bytes = std::uint64_t{1} << 40U);
  ~FakeFilesystem() override;

  // Any path: there is one root.
  Result<std::unique_ptr<os::Directory>> open_root(const std::string& path) override;
  // What make_descriptor() made.
  Result<std::unique_ptr<os::Directory>> adopt(UniqueFd descriptor) override;
  // Not random: the same in every run.
  Result<> random_bytes(MutableBytes into) override;
  Result<std::string> boot_id() override;

  // What stands for a descriptor of the directory `name` in the root, which is made if it is not
  // there: a file in memory of that name.
  UniqueFd make_descriptor(std::string_view name);
  // Calls that changed something, so far.
  [[nodiscard]] std::uint64_t mutating_calls() const;
  // Call number `k` (counted from 1 over the whole life) still works; everything after it fails
  // with EIO until crash().
  void cut_power_after(std::uint64_t k);
  // Power cut, if that was not yet, and the next boot: what was open fails with EIO from now on.
  void crash(CrashMode mode, std::uint64_t seed);
  // Another mount instance in the same boot; nothing is lost.
  void remount();

  // The time by which files are stamped; a microsecond passes at each call.
  void advance_seconds(std::int64_t seconds);
  void set_user_xattrs(bool work);
  // Who has it open has a directory without a name.
  void remove_root();
  // So much of what is allocated now may be added before the disk is full.
  void leave_free(std::uint64_t bytes);
  // So many inodes, all of them free: without this there is no limit.
  void set_inodes(std::uint64_t inodes);
  // As after an error of ext4: whatever changes something fails with EROFS.
  void set_read_only(bool read_only);
  // The disk does not take the data of files with names that were not synced: programs see what the
  // disk has from now on, and whoever syncs is told.
  void lose_unwritten_data();
  // The disk does not give the page of a file that `offset` is in: reads of it fail with EIO, and
  // somebody met that before.
  void fail_to_read(std::uint64_t inode, std::uint64_t offset);
  // The next call of sync_filesystem fails with `error_number`, once.
  void fail_next_sync(int error_number);
  // Called by each sync_filesystem(), as the time that it takes.
  void set_at_sync(std::function<void()> call);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace larder::testing
