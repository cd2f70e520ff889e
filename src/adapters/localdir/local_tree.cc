#include "adapters/localdir/local_tree.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "netfs/attributes.h"

namespace larder::localdir {

namespace {

using netfs::Attributes;
using netfs::FileHandle;
using netfs::FileType;
using netfs::Timestamp;

constexpr std::size_t kMostDepth = 1000;  // of directories; PATH_MAX allows two thousand

FileType type_of(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return FileType::kDirectory;
    case S_IFBLK:
      return FileType::kBlockDevice;
    case S_IFCHR:
      return FileType::kCharacterDevice;
    case S_IFLNK:
      return FileType::kSymlink;
    case S_IFSOCK:
      return FileType::kSocket;
    case S_IFIFO:
      return FileType::kFifo;
    default:
      return FileType::kRegular;
  }
}

Timestamp timestamp_of(const statx_timestamp& time) {
  return {time.tv_sec, time.tv_nsec};
}

FoundFile found_from(const struct statx& status) {
  Attributes attributes;
  attributes.type = type_of(status.stx_mode);
  attributes.mode = status.stx_mode & 07777U;
  attributes.link_count = status.stx_nlink;
  attributes.uid = status.stx_uid;
  attributes.gid = status.stx_gid;
  attributes.size = status.stx_size;
  attributes.used = status.stx_blocks * 512;
  attributes.device_major = status.stx_rdev_major;
  attributes.device_minor = status.stx_rdev_minor;
  attributes.fsid = makedev(status.stx_dev_major, status.stx_dev_minor);
  attributes.fileid = status.stx_ino;
  attributes.accessed = timestamp_of(status.stx_atime);
  attributes.modified = timestamp_of(status.stx_mtime);
  attributes.changed = timestamp_of(status.stx_ctime);
  FileIdentity identity{attributes.fsid, attributes.fileid, 0};
  if ((status.stx_mask & STATX_BTIME) != 0) {
    identity.birth = static_cast<std::uint64_t>(status.stx_btime.tv_sec) * 1'000'000'000U +
                     status.stx_btime.tv_nsec;
  }
  return {FileHandle(bytes_of_object(identity)), attributes};
}

// Never through a link, never into another filesystem, never above `directory`.
Result<OpenedFile> open_beneath(const UniqueFd& directory, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  OpenedFile opened;
  opened.path.reset(
      static_cast<int>(::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
  if (!opened.path.valid()) {
    return remote_failure(errno, path);
  }
  opened.found = TRY(examine(opened.path));
  return opened;
}

// Null: not a handle of ours.
std::optional<FileIdentity> identity_of(const FileHandle& handle) {
  FileIdentity identity;
  if (handle.bytes().size() != sizeof identity) {
    return std::nullopt;
  }
  std::memcpy(&identity, handle.bytes().data(), sizeof identity);
  return identity;
}

std::unexpected<Error> stale() {
  return fail(Error(Errc::kStale, ESTALE, "the file is not where it was"));
}

}  // namespace

std::unexpected<Error> remote_failure(int error_number, const std::string& what) {
  return fail(Error(error_number == ESTALE ? Errc::kStale : Errc::kRemote, error_number, what));
}

Result<FoundFile> examine(const UniqueFd& descriptor) {
  struct statx status{};
  if (::statx(descriptor.get(), "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS | STATX_BTIME, &status) != 0) {
    return remote_failure(errno, "statx");
  }
  return found_from(status);
}

Result<std::unique_ptr<LocalTree>> LocalTree::open(const std::string& path,
                                                   std::size_t most_entries) {
  UniqueFd root(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) {
    return fail_errno(errno, fmt::format("the source directory {}", path));
  }
  if (::faccessat(root.get(), ".", R_OK | X_OK, 0) != 0) {
    return fail(Error(Errc::kPermission, EACCES,
                      fmt::format("the source directory {} is not open to the engine's user (uid "
                                  "{}): `chmod o+rx`, or choose another",
                                  path, ::geteuid())));
  }
  const FoundFile found = TRY(examine(root));
  return std::unique_ptr<LocalTree>(new LocalTree(std::move(root), found, most_entries));
}

Result<OpenedFile> LocalTree::find(const FileHandle& handle) {
  if (handle == root_file_.handle) {
    return open_beneath(root_, ".");
  }
  for (const std::string& path : paths_of(handle)) {
    Result<OpenedFile> opened = open_beneath(root_, path);
    if (opened && opened->found.handle == handle) {
      return opened;
    }
    if (!opened && opened.error().error_number() != ENOENT &&
        opened.error().error_number() != ENOTDIR) {
      return opened;
    }
  }
  return stale();
}

Result<OpenedFile> LocalTree::look_up(const UniqueFd& directory, const FileHandle& directory_handle,
                                      const std::string& name) {
  Result<OpenedFile> opened = open_beneath(directory, name);
  const std::optional<FileIdentity> parent = identity_of(directory_handle);
  const std::optional<FileIdentity> file =
      opened ? identity_of(opened->found.handle) : std::nullopt;
  if (parent && file) {
    remember(*file, {*parent, name});
  }
  return opened;
}

std::vector<std::string> LocalTree::paths_of(const FileHandle& handle) {
  const MutexLock lock(mutex_);
  std::vector<std::string> paths;
  const std::optional<FileIdentity> file = identity_of(handle);
  if (const Entry* const entry = file ? use(*file) : nullptr) {
    for (const Place& place : entry->places) {
      std::string path;
      if (append_path(place, path)) {
        paths.push_back(std::move(path));
      }
    }
  }
  return paths;
}

// False when a directory on the way is not known any more.
bool LocalTree::append_path(const Place& place, std::string& path) {
  std::vector<std::string> names{place.name};
  FileIdentity directory = place.directory;
  const std::optional<FileIdentity> root = identity_of(root_file_.handle);
  while (directory != root) {
    const Entry* const entry = use(directory);
    if (entry == nullptr || names.size() > kMostDepth) {
      return false;
    }
    names.push_back(entry->places.front().name);
    directory = entry->places.front().directory;
  }
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    path += path.empty() ? *name : "/" + *name;
  }
  return true;
}

std::size_t LocalTree::HashOfFile::operator()(const FileIdentity& file) const noexcept {
  return std::hash<std::string_view>()(text_of(bytes_of_object(file)));
}

LocalTree::Entry* LocalTree::use(const FileIdentity& file) {
  const auto found = by_file_.find(file);
  if (found == by_file_.end()) {
    return nullptr;
  }
  by_use_.splice(by_use_.begin(), by_use_, *found);
  return &**found;
}

void LocalTree::remember(const netfs::FileHandle& handle, const netfs::FileHandle& directory,
                         const std::string& name) {
  const auto file = identity_of(handle);
  const auto parent = identity_of(directory);
  if (file && parent) {
    remember(*file, {*parent, name});
  }
}

void LocalTree::remember(const FileIdentity& file, Place place) {
  const MutexLock lock(mutex_);
  Entry* entry = use(file);
  if (entry == nullptr) {
    by_use_.push_front({file, {}});
    by_file_.insert(by_use_.begin());
    entry = &by_use_.front();
  }
  std::erase(entry->places, place);
  entry->places.insert(entry->places.begin(), std::move(place));
  if (entry->places.size() > kMostNames) {
    entry->places.pop_back();
  }
  if (by_use_.size() > most_entries_) {
    by_file_.erase(std::prev(by_use_.end()));
    by_use_.pop_back();
  }
}

}  // namespace larder::localdir
