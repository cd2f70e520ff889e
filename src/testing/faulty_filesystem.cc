#include "testing/faulty_filesystem.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::testing {
namespace {

using FaultsPointer = std::shared_ptr<Faults>;

class FaultyFile final : public os::File {
 public:
  FaultyFile(FaultsPointer faults, std::unique_ptr<os::File> inner)
      : faults_(std::move(faults)), inner_(std::move(inner)) {}

  [[nodiscard]] os::File& inner() { return *inner_; }

  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes into, os::ReadHint hint) override {
    TRY(faults_->enter(FileCall::kRead));
    return inner_->read_at(offset, into, hint);
  }

  Result<> write_at(std::uint64_t offset, Bytes from) override {
    TRY(faults_->enter(FileCall::kWrite));
    return inner_->write_at(offset, from);
  }

  Result<> set_size(std::uint64_t size) override {
    TRY(faults_->enter(FileCall::kWrite));
    return inner_->set_size(size);
  }

  Result<os::FileStat> stat() override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->stat();
  }

  Result<std::string> get_xattr(std::string_view name, std::size_t most_bytes) override {
    TRY(faults_->enter(FileCall::kAttribute));
    return inner_->get_xattr(name, most_bytes);
  }

  Result<> set_xattr(std::string_view name, Bytes value) override {
    TRY(faults_->enter(FileCall::kAttribute));
    return inner_->set_xattr(name, value);
  }

  Result<> sync() override {
    TRY(faults_->enter(FileCall::kSync));
    return inner_->sync();
  }

  Result<> write_back(std::uint64_t offset, std::uint64_t length) override {
    TRY(faults_->enter(FileCall::kSync));
    return inner_->write_back(offset, length);
  }

  Result<> set_times(std::optional<os::FileTime> accessed,
                     std::optional<os::FileTime> modified) override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->set_times(accessed, modified);
  }

  Result<> set_accessed_now() override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->set_accessed_now();
  }

  Result<> lock_exclusive() override {
    TRY(faults_->enter(FileCall::kLock));
    return inner_->lock_exclusive();
  }

  Result<bool> is_open_elsewhere() override { return inner_->is_open_elsewhere(); }

  Result<os::PagesInMemory> pages_in_memory(std::uint64_t offset, std::uint64_t length) override {
    return inner_->pages_in_memory(offset, length);
  }

  Result<UniqueFd> duplicate_descriptor() override {
    TRY(faults_->enter(FileCall::kOpen));
    return inner_->duplicate_descriptor();
  }

 private:
  FaultsPointer faults_;
  std::unique_ptr<os::File> inner_;
};

class FaultyDirectory final : public os::Directory {
 public:
  FaultyDirectory(FaultsPointer faults, std::unique_ptr<os::Directory> inner)
      : faults_(std::move(faults)), inner_(std::move(inner)) {}

  Result<std::unique_ptr<os::Directory>> open_directory(std::string_view name) override {
    TRY(faults_->enter(FileCall::kOpen));
    std::unique_ptr<os::Directory> opened = TRY(inner_->open_directory(name));
    return std::make_unique<FaultyDirectory>(faults_, std::move(opened));
  }

  Result<> make_directory(std::string_view name, std::uint32_t mode) override {
    TRY(faults_->enter(FileCall::kName));
    return inner_->make_directory(name, mode);
  }

  Result<std::unique_ptr<os::File>> open_file(std::string_view name, os::OpenMode mode) override {
    TRY(faults_->enter(FileCall::kOpen));
    return wrap(inner_->open_file(name, mode));
  }

  Result<std::unique_ptr<os::File>> create_file(std::string_view name,
                                                std::uint32_t mode) override {
    TRY(faults_->enter(FileCall::kOpen));
    return wrap(inner_->create_file(name, mode));
  }

  Result<std::unique_ptr<os::File>> make_tmpfile(std::uint32_t mode) override {
    TRY(faults_->enter(FileCall::kOpen));
    return wrap(inner_->make_tmpfile(mode));
  }

  Result<> link(os::File& file, std::string_view name) override {
    TRY(faults_->enter(FileCall::kName));
    return inner_->link(static_cast<FaultyFile&>(file).inner(), name);
  }

  Result<> rename(std::string_view name, os::Directory& to, std::string_view new_name) override {
    TRY(faults_->enter(FileCall::kName));
    return inner_->rename(name, *static_cast<FaultyDirectory&>(to).inner_, new_name);
  }

  Result<> unlink(std::string_view name) override {
    TRY(faults_->enter(FileCall::kName));
    return inner_->unlink(name);
  }

  Result<> remove_directory(std::string_view name) override {
    TRY(faults_->enter(FileCall::kName));
    return inner_->remove_directory(name);
  }

  Result<os::FileStat> stat(std::string_view name) override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->stat(name);
  }

  Result<os::FileStat> stat_self() override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->stat_self();
  }

  Result<> list(const std::function<bool(const os::DirectoryEntry&)>& visit) override {
    TRY(faults_->enter(FileCall::kList));
    return inner_->list(visit);
  }

  Result<> sync() override {
    TRY(faults_->enter(FileCall::kSync));
    return inner_->sync();
  }

  Result<os::FilesystemSpace> space() override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->space();
  }

  Result<os::FilesystemIdentity> identity() override {
    TRY(faults_->enter(FileCall::kStat));
    return inner_->identity();
  }

  Result<> sync_filesystem() override {
    TRY(faults_->enter(FileCall::kSync));
    return inner_->sync_filesystem();
  }

 private:
  Result<std::unique_ptr<os::File>> wrap(Result<std::unique_ptr<os::File>> file) {
    std::unique_ptr<os::File> opened = TRY(std::move(file));
    return std::make_unique<FaultyFile>(faults_, std::move(opened));
  }

  FaultsPointer faults_;
  std::unique_ptr<os::Directory> inner_;
};

}  // namespace

void Faults::set_hook(Hook hook) {
  const MutexLock lock(mutex_);
  hook_ = hook ? std::make_shared<Hook>(std::move(hook)) : nullptr;
}

void Faults::fail_all(FileCall call, int error_number) {
  set_hook([=](FileCall made, std::uint64_t) { return made == call ? error_number : 0; });
}

void Faults::fail_at(std::uint64_t number, int error_number) {
  set_hook([=](FileCall, std::uint64_t made) { return made == number ? error_number : 0; });
}

void Faults::hang(FileCall call) {
  set_hook([this, call](FileCall made, std::uint64_t) {
    if (made == call) {
      const MutexLock lock(mutex_);
      const std::uint64_t before = releases_;
      ++hanging_;
      while (releases_ == before) {
        released_.wait(mutex_);
      }
      --hanging_;
    }
    return 0;
  });
}

void Faults::release() {
  const MutexLock lock(mutex_);
  ++releases_;
  hook_.reset();
  released_.notify_all();
}

unsigned Faults::hanging() const {
  const MutexLock lock(mutex_);
  return hanging_;
}

Result<> Faults::enter(FileCall call) {
  const std::uint64_t number = ++calls_;
  std::shared_ptr<Hook> hook;
  {
    const MutexLock lock(mutex_);
    hook = hook_;
  }
  const int error_number = hook != nullptr ? (*hook)(call, number) : 0;
  if (error_number != 0) {
    return fail_errno(error_number, "injected");
  }
  return {};
}

FaultyFilesystem::FaultyFilesystem(os::Filesystem& inner)
    : inner_(inner), faults_(std::make_shared<Faults>()) {}

Result<std::unique_ptr<os::Directory>> FaultyFilesystem::open_root(const std::string& path) {
  TRY(faults_->enter(FileCall::kOpen));
  std::unique_ptr<os::Directory> opened = TRY(inner_.open_root(path));
  return std::make_unique<FaultyDirectory>(faults_, std::move(opened));
}

Result<std::unique_ptr<os::Directory>> FaultyFilesystem::adopt(UniqueFd descriptor) {
  TRY(faults_->enter(FileCall::kOpen));
  std::unique_ptr<os::Directory> adopted = TRY(inner_.adopt(std::move(descriptor)));
  return std::make_unique<FaultyDirectory>(faults_, std::move(adopted));
}

Result<> FaultyFilesystem::random_bytes(MutableBytes into) {
  return inner_.random_bytes(into);
}

Result<std::string> FaultyFilesystem::boot_id() {
  return inner_.boot_id();
}

}  // namespace larder::testing
