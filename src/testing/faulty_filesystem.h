// FaultyFilesystem: wraps any Filesystem; any call may fail with a chosen errno, or hang.
//
// The hook sees each call before it is passed on, with its kind and its number (from 1). What it
// returns other than 0 is the errno that the call fails with, without being passed on; as long as
// it does not return, the call hangs. Fault model: any call may fail or hang at any time; a call
// that fails changed nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "os/filesystem.h"

namespace larder::testing {

enum class FileCall : std::uint8_t {
  kOpen,       // open, create, tmpfile, directory
  kRead,       // data
  kWrite,      // data and size
  kStat,       // also stamps, space, identity
  kAttribute,  // get and set
  kName,       // mkdir, link, rename, unlink, rmdir
  kList,
  kSync,
  kLock,
};

// Threads: any. Life: shared by everything opened through the filesystem.
class Faults {
 public:
  using Hook = std::function<int(FileCall call, std::uint64_t number)>;

  // nullptr: nothing fails.
  void set_hook(Hook hook) EXCLUDES(mutex_);
  // Calls of `call` fail with `error_number` until the hook is set anew.
  void fail_all(FileCall call, int error_number);
  // The call of this number fails, once.
  void fail_at(std::uint64_t number, int error_number);
  // Calls of `call` hang until release().
  void hang(FileCall call);
  void release() EXCLUDES(mutex_);
  // How many calls hang now.
  [[nodiscard]] unsigned hanging() const EXCLUDES(mutex_);

  [[nodiscard]] std::uint64_t calls() const { return calls_; }

  // By the wrappers.
  [[nodiscard]] Result<> enter(FileCall call) EXCLUDES(mutex_);

 private:
  std::atomic<std::uint64_t> calls_{0};
  mutable Mutex mutex_{LockRank::kStats};
  CondVar released_;
  std::shared_ptr<Hook> hook_ GUARDED_BY(mutex_);
  unsigned hanging_ GUARDED_BY(mutex_) = 0;
  std::uint64_t releases_ GUARDED_BY(mutex_) = 0;
};

class FaultyFilesystem final : public os::Filesystem {
 public:
  // `inner` outlives it.
  explicit FaultyFilesystem(os::Filesystem& inner);

  [[nodiscard]] Faults& faults() { return *faults_; }

  Result<std::unique_ptr<os::Directory>> open_root(const std::string& path) override;
  Result<std::unique_ptr<os::Directory>> adopt(UniqueFd descriptor) override;
  Result<> random_bytes(MutableBytes into) override;
  Result<std::string> boot_id() override;

 private:
  os::Filesystem& inner_;
  std::shared_ptr<Faults> faults_;
};

}  // namespace larder::testing
