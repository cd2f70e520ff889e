#include "cachefiles/open_files.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

Result<std::unique_ptr<os::File>> open_to_use(os::Directory& directory, std::string_view name) {
  Result<std::unique_ptr<os::File>> file = directory.open_file(name, os::OpenMode::kReadWrite);
  if (!file && file.error().error_number() == EROFS) {
    return directory.open_file(name, os::OpenMode::kRead);
  }
  return file;
}

void BackingFile::set(std::shared_ptr<os::File> file) {
  std::shared_ptr<os::File> old;
  const MutexLock lock(table_.mutex_);
  table_.strike_off(*this);
  directory_.reset();
  old = std::exchange(file_, std::move(file));
}

void BackingFile::set_name(std::shared_ptr<os::Directory> directory, std::string name,
                           const os::FileStat& stat) {
  std::vector<std::shared_ptr<os::File>> surplus;
  const MutexLock lock(table_.mutex_);
  directory_ = std::move(directory);
  name_ = std::move(name);
  device_ = stat.device;
  inode_ = stat.inode;
  if (file_ != nullptr) {
    table_.enlist(*this);
    surplus = table_.surplus();
  }
}

Result<> BackingFile::keep_open() {
  std::shared_ptr<os::File> file = TRY(get());
  const MutexLock lock(table_.mutex_);
  table_.strike_off(*this);
  directory_.reset();
  file_ = std::move(file);
  return {};
}

void BackingFile::close() {
  std::shared_ptr<os::File> old;
  const MutexLock lock(table_.mutex_);
  table_.strike_off(*this);
  directory_.reset();
  old = std::exchange(file_, nullptr);
}

Result<std::shared_ptr<os::File>> BackingFile::get() {
  std::shared_ptr<os::Directory> directory;
  {
    const MutexLock lock(table_.mutex_);
    used_ = true;
    if (file_ != nullptr) {
      return file_;
    }
    directory = directory_;
  }
  if (directory == nullptr) {
    return fail(Errc::kNotFound, "no backing file");
  }
  std::shared_ptr<os::File> opened = TRY(open_to_use(*directory, name_));
  const os::FileStat stat = TRY(opened->stat());
  std::vector<std::shared_ptr<os::File>> surplus;
  const MutexLock lock(table_.mutex_);
  if (stat.device != device_ || stat.inode != inode_) {
    return fail(Errc::kStale, "the backing file was replaced");
  }
  if (file_ == nullptr && directory_ != nullptr) {
    file_ = opened;
    table_.enlist(*this);
    surplus = table_.surplus();
  }
  return opened;
}

std::shared_ptr<os::File> BackingFile::if_open() {
  const MutexLock lock(table_.mutex_);
  used_ = true;
  return file_;
}

std::size_t OpenFiles::closable() const {
  const MutexLock lock(mutex_);
  return closable_.size();
}

void OpenFiles::enlist(BackingFile& file) {
  if (file.slot_ == SIZE_MAX) {
    file.slot_ = closable_.size();
    file.used_ = true;
    closable_.push_back(&file);
  }
}

void OpenFiles::strike_off(BackingFile& file) {
  if (file.slot_ != SIZE_MAX) {
    closable_.back()->slot_ = file.slot_;
    closable_[file.slot_] = closable_.back();
    closable_.pop_back();
    file.slot_ = SIZE_MAX;
  }
}

std::vector<std::shared_ptr<os::File>> OpenFiles::surplus() {
  std::vector<std::shared_ptr<os::File>> closed;
  while (closable_.size() > most_) {
    hand_ = hand_ < closable_.size() ? hand_ : 0;
    BackingFile& next = *closable_[hand_];
    if (std::exchange(next.used_, false)) {
      ++hand_;
      continue;
    }
    closed.push_back(std::move(next.file_));
    next.file_ = nullptr;
    strike_off(next);
  }
  return closed;
}

}  // namespace larder::cachefiles
