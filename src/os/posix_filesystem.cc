// The real filesystem: system calls, and the only place where their errno becomes an Error.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/descriptor.h"
#include "os/filesystem.h"
#include "os/mount_info.h"

namespace larder::os {
namespace {

// Newer than the installed headers.
constexpr int kReadDropBehind = 0x80;             // RWF_DONTCACHE, Linux 6.14
constexpr unsigned kStatxMountIdUnique = 0x4000;  // STATX_MNT_ID_UNIQUE, Linux 6.8
constexpr long kCacheStat = 451;                  // cachestat(2), Linux 6.5

// struct cachestat_range.
struct CacheStatRange {
  std::uint64_t offset = 0, length = 0;  // bytes
};

// struct cachestat: pages.
struct CacheStat {
  std::uint64_t in_memory = 0, dirty = 0, in_writeback = 0, evicted = 0, evicted_lately = 0;
};

std::uint64_t page_bytes() {
  static const auto bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

FileTime to_file_time(const timespec& time) {
  return {time.tv_sec, static_cast<std::uint32_t>(time.tv_nsec)};
}

timespec to_timespec(const std::optional<FileTime>& time) {
  timespec spec{};
  if (time) {
    spec.tv_sec = time->seconds;
    spec.tv_nsec = static_cast<long>(time->nanoseconds);
  } else {
    spec.tv_nsec = UTIME_OMIT;
  }
  return spec;
}

FileStat to_file_stat(const struct stat& from) {
  FileStat stat;
  if (S_ISREG(from.st_mode)) {
    stat.type = NodeType::kFile;
  } else if (S_ISDIR(from.st_mode)) {
    stat.type = NodeType::kDirectory;
  } else if (S_ISLNK(from.st_mode)) {
    stat.type = NodeType::kSymlink;
  }
  stat.mode = from.st_mode & 07777U;
  stat.device = from.st_dev;
  stat.inode = from.st_ino;
  stat.link_count = static_cast<std::uint32_t>(from.st_nlink);
  stat.size = static_cast<std::uint64_t>(from.st_size);
  stat.allocated = static_cast<std::uint64_t>(from.st_blocks) * 512;
  stat.accessed = to_file_time(from.st_atim);
  stat.modified = to_file_time(from.st_mtim);
  stat.changed = to_file_time(from.st_ctim);
  return stat;
}

void check_name(std::string_view name) {
  CHECK(!name.empty() && name.find('/') == std::string_view::npos &&
            name.find('\0') == std::string_view::npos,
        "not a single name: '{}'", name);
}

// Opens beneath `directory`; neither another mount nor a symbolic link is ever crossed.
Result<UniqueFd> open_beneath(int directory, const std::string& name, std::uint64_t flags,
                              std::uint64_t mode) {
  struct open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
  for (;;) {
    const long fd = ::syscall(SYS_openat2, directory, name.c_str(), &how, sizeof how);
    if (fd >= 0) {
      return UniqueFd(static_cast<int>(fd));
    }
    // EAGAIN: a rename elsewhere raced with the kernel's check of "beneath".
    if (errno != EINTR && errno != EAGAIN) {
      return fail_errno(errno, fmt::format("open {}", name));
    }
  }
}

Result<> check_call(int result, std::string_view what) {
  if (result != 0) {
    return fail_errno(errno, std::string(what));
  }
  return {};
}

class PosixFile final : public File {
 public:
  explicit PosixFile(UniqueFd fd, OpenMode mode = OpenMode::kReadWrite)
      : fd_(std::move(fd)), mode_(mode) {}

  [[nodiscard]] int fd() const { return fd_.get(); }

  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes into, ReadHint hint) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t got = read_some(offset + done, into.subspan(done), hint);
      if (got < 0) {
        if (errno == EINTR) {
          continue;
        }
        return fail_errno(errno, "read");
      }
      if (got == 0) {
        break;
      }
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  Result<> write_at(std::uint64_t offset, Bytes from) override {
    TRY(check_writable());
    while (!from.empty()) {
      const ssize_t put = ::pwrite(fd_.get(), from.data(), from.size(), static_cast<off_t>(offset));
      if (put < 0) {
        if (errno == EINTR) {
          continue;
        }
        return fail_errno(errno, "write");
      }
      offset += static_cast<std::uint64_t>(put);
      from = from.subspan(static_cast<std::size_t>(put));
    }
    return {};
  }

  Result<> set_size(std::uint64_t size) override {
    TRY(check_writable());
    return check_call(::ftruncate(fd_.get(), static_cast<off_t>(size)), "ftruncate");
  }

  Result<FileStat> stat() override {
    struct stat found{};
    TRY(check_call(::fstat(fd_.get(), &found), "fstat"));
    return to_file_stat(found);
  }

  Result<std::string> get_xattr(std::string_view name, std::size_t most_bytes) override {
    std::string value(most_bytes + 1, '\0');  // never 0, which would ask for the size
    const ssize_t got =
        ::fgetxattr(fd_.get(), std::string(name).c_str(), value.data(), value.size());
    if (got < 0) {
      if (errno == ENODATA) {
        return fail(Error(Errc::kNotFound, ENODATA, fmt::format("no attribute {}", name)));
      }
      if (errno != ERANGE) {
        return fail_errno(errno, fmt::format("getxattr {}", name));
      }
    }
    if (got < 0 || static_cast<std::size_t>(got) > most_bytes) {
      return fail(Errc::kInvalid, fmt::format("the attribute {} is too long", name));
    }
    value.resize(static_cast<std::size_t>(got));
    return value;
  }

  Result<> set_xattr(std::string_view name, Bytes value) override {
    return check_call(
        ::fsetxattr(fd_.get(), std::string(name).c_str(), value.data(), value.size(), 0),
        "setxattr");
  }

  Result<> sync() override { return check_call(::fsync(fd_.get()), "fsync"); }

  Result<> write_back(std::uint64_t offset, std::uint64_t length) override {
    constexpr unsigned kAll =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    const int done =
        ::sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(length), kAll);
    if (done != 0 && (errno == ENOSYS || errno == EINVAL || errno == ESPIPE || errno == EPERM)) {
      return fail(Error(Errc::kNotSupported, errno, "sync_file_range"));
    }
    return check_call(done, "sync_file_range");
  }

  Result<> set_times(std::optional<FileTime> accessed, std::optional<FileTime> modified) override {
    const std::array<timespec, 2> times{to_timespec(accessed), to_timespec(modified)};
    return check_call(::futimens(fd_.get(), times.data()), "utimensat");
  }

  Result<> set_accessed_now() override {
    std::array<timespec, 2> times{};
    times[0].tv_nsec = UTIME_NOW;
    times[1].tv_nsec = UTIME_OMIT;
    return check_call(::futimens(fd_.get(), times.data()), "utimensat");
  }

  Result<> lock_exclusive() override {
    if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        return fail(Error(Errc::kBusy, EBUSY, "locked by another process"));
      }
      return fail_errno(errno, "flock");
    }
    return {};
  }

  // A write lease is granted only to who has the file open alone. Nobody sees it: it is given back
  // at once, and who opens the file meanwhile makes the kernel send a signal that does nothing.
  Result<bool> is_open_elsewhere() override {
    if (::fcntl(fd_.get(), F_SETSIG, SIGURG) != 0) {
      return fail_errno(errno, "F_SETSIG");
    }
    if (::fcntl(fd_.get(), F_SETLEASE, F_WRLCK) != 0) {
      if (errno == EAGAIN) {
        return true;
      }
      return fail(Error(Errc::kNotSupported, errno, "F_SETLEASE"));
    }
    (void)::fcntl(fd_.get(), F_SETLEASE, F_UNLCK);
    return false;
  }

  // mincore(2) tells of a mapping which pages hold bytes, cachestat(2) how many there are at all.
  Result<PagesInMemory> pages_in_memory(std::uint64_t offset, std::uint64_t length) override {
    const std::uint64_t page = page_bytes();
    const std::uint64_t begin = offset / page * page;
    const std::uint64_t bytes = offset + length - begin;
    const CacheStatRange range{begin, bytes};
    CacheStat found;
    if (::syscall(kCacheStat, fd_.get(), &range, &found, 0) != 0) {
      return fail(Error(Errc::kNotSupported, errno, "cachestat"));
    }
    PagesInMemory pages{.all = found.in_memory};
    if (pages.all > 0) {
      TRY(count_ready(begin, bytes, pages));
    }
    return pages;
  }

  Result<UniqueFd> duplicate_descriptor() override {
    UniqueFd copy(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) {
      return fail_errno(errno, "dup");
    }
    return copy;
  }

 private:
  [[nodiscard]] Result<> check_writable() const {
    return mode_ == OpenMode::kReadWrite ? Result<>() : fail_errno(EROFS, "opened to be read");
  }

  ssize_t read_some(std::uint64_t offset, MutableBytes into, ReadHint hint) {
    if (hint == ReadHint::kDropBehind && can_drop_behind_.load(std::memory_order_relaxed)) {
      const iovec vector{into.data(), into.size()};
      const ssize_t got =
          ::preadv2(fd_.get(), &vector, 1, static_cast<off_t>(offset), kReadDropBehind);
      if (got >= 0 || (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)) {
        return got;
      }
      can_drop_behind_ = false;
    }
    return ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
  }

  // `offset` is that of a page.
  [[nodiscard]] Result<> count_ready(std::uint64_t offset, std::uint64_t bytes,
                                     PagesInMemory& pages) const {
    void* const mapped =
        ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_.get(), static_cast<off_t>(offset));
    if (mapped == MAP_FAILED) {
      return fail(Error(Errc::kNotSupported, errno, "mmap"));
    }
    std::vector<unsigned char> flags((bytes + page_bytes() - 1) / page_bytes());
    const int result = ::mincore(mapped, bytes, flags.data());
    const int number = errno;
    ::munmap(mapped, bytes);
    if (result != 0) {
      return fail(Error(Errc::kNotSupported, number, "mincore"));
    }
    const auto is_ready = [](unsigned char flag) { return (flag & 1U) != 0; };
    pages.ready = static_cast<std::uint64_t>(std::ranges::count_if(flags, is_ready));
    pages.first_ready = is_ready(flags.front());
    return {};
  }

  UniqueFd fd_;
  const OpenMode mode_;
  std::atomic<bool> can_drop_behind_{true};
};

// Reads a whole small file such as those in /proc; "" when it cannot be read.
std::string read_text(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> piece{};
  while (fd.valid()) {
    const ssize_t got = ::read(fd.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  return text;
}

// The kernel's name of a block device ("loop0", "dm-1"), whatever the mount called it.
std::string device_name(unsigned device_major, unsigned device_minor) {
  std::array<char, 512> target{};
  const std::string link = fmt::format("/sys/dev/block/{}:{}", device_major, device_minor);
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length <= 0) {
    return {};
  }
  const std::string_view path(target.data(), static_cast<std::size_t>(length));
  return std::string(path.substr(path.rfind('/') + 1));
}

bool user_xattrs_work(int directory) {
  char byte = 0;
  return ::fgetxattr(directory, "user.larder.probe", &byte, 1) >= 0 || errno == ENODATA ||
         errno == ERANGE;
}

std::uint64_t mount_id_of(int directory, unsigned mask) {
  struct statx found{};
  if (::statx(directory, "", AT_EMPTY_PATH, mask, &found) != 0 || (found.stx_mask & mask) == 0) {
    return 0;
  }
  return found.stx_mnt_id;
}

std::optional<NodeType> to_node_type(unsigned char type) {
  switch (type) {
    case DT_UNKNOWN:
      return std::nullopt;
    case DT_REG:
      return NodeType::kFile;
    case DT_DIR:
      return NodeType::kDirectory;
    case DT_LNK:
      return NodeType::kSymlink;
    default:
      return NodeType::kOther;
  }
}

class PosixDirectory final : public Directory {
 public:
  explicit PosixDirectory(UniqueFd fd) : fd_(std::move(fd)) {}

  Result<std::unique_ptr<Directory>> open_directory(std::string_view name) override {
    check_name(name);
    return open_path(std::string(name));
  }

  Result<std::unique_ptr<Directory>> open_directory_in(std::string_view parent,
                                                       std::string_view name) override {
    check_name(parent);
    check_name(name);
    if (name == "..") {
      return fail(Errc::kInvalid, "..");  // in one path it would lead back, and not out
    }
    return open_path(fmt::format("{}/{}", parent, name));
  }

  Result<> make_directory(std::string_view name, std::uint32_t mode) override {
    check_name(name);
    return check_call(::mkdirat(fd_.get(), std::string(name).c_str(), mode), "mkdir");
  }

  Result<std::unique_ptr<File>> open_file(std::string_view name, OpenMode mode) override {
    check_name(name);
    // O_NONBLOCK: a FIFO in the cache must not hang us.
    const std::uint64_t flags = (mode == OpenMode::kRead ? O_RDONLY : O_RDWR) | O_NOFOLLOW |
                                O_NONBLOCK | O_NOCTTY | O_NOATIME;
    Result<UniqueFd> fd = open_beneath(fd_.get(), std::string(name), flags, 0);
    if (!fd && fd.error().error_number() == EPERM) {  // O_NOATIME is the owner's right
      fd = open_beneath(fd_.get(), std::string(name), flags & ~std::uint64_t{O_NOATIME}, 0);
    }
    if (!fd) {
      const int number = fd.error().error_number();
      if (number == ELOOP || number == EISDIR || number == ENXIO || number == EXDEV) {
        return fail(Error(Errc::kInvalid, number, fmt::format("not a regular file: {}", name)));
      }
      return fail(std::move(fd).error());
    }
    struct stat found{};
    TRY(check_call(::fstat(fd->get(), &found), "fstat"));
    if (!S_ISREG(found.st_mode)) {
      return fail(Errc::kInvalid, fmt::format("not a regular file: {}", name));
    }
    return std::make_unique<PosixFile>(std::move(*fd), mode);
  }

  Result<std::unique_ptr<File>> create_file(std::string_view name, std::uint32_t mode) override {
    check_name(name);
    UniqueFd fd = TRY(
        open_beneath(fd_.get(), std::string(name), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
    return std::make_unique<PosixFile>(std::move(fd));
  }

  Result<std::unique_ptr<File>> make_tmpfile(std::uint32_t mode) override {
    UniqueFd fd(::openat(fd_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC | O_NOATIME, mode));
    if (!fd.valid()) {
      const int number = errno;
      return fail_errno(number == EPERM && was_removed() ? ENOENT : number, "O_TMPFILE");
    }
    return std::make_unique<PosixFile>(std::move(fd));
  }

  Result<> link(File& file, std::string_view name) override {
    check_name(name);
    const int fd = static_cast<PosixFile&>(file).fd();
    const std::string target(name);
    // AT_EMPTY_PATH needs a capability, the way through /proc does not; ask once which one works.
    static std::atomic<bool> empty_path_works{true};
    if (empty_path_works.load(std::memory_order_relaxed)) {
      if (::linkat(fd, "", fd_.get(), target.c_str(), AT_EMPTY_PATH) == 0) {
        return {};
      }
      if (errno != ENOENT && errno != EPERM) {
        return fail_errno(errno, fmt::format("link {}", name));
      }
      empty_path_works = false;
    }
    const std::string source = fmt::format("/proc/self/fd/{}", fd);
    return check_call(
        ::linkat(AT_FDCWD, source.c_str(), fd_.get(), target.c_str(), AT_SYMLINK_FOLLOW), "link");
  }

  Result<> rename(std::string_view name, Directory& to, std::string_view new_name) override {
    check_name(name);
    check_name(new_name);
    const int target = static_cast<PosixDirectory&>(to).fd_.get();
    return check_call(
        ::renameat(fd_.get(), std::string(name).c_str(), target, std::string(new_name).c_str()),
        "rename");
  }

  Result<> unlink(std::string_view name) override {
    check_name(name);
    return check_call(::unlinkat(fd_.get(), std::string(name).c_str(), 0), "unlink");
  }

  Result<> remove_directory(std::string_view name) override {
    check_name(name);
    return check_call(::unlinkat(fd_.get(), std::string(name).c_str(), AT_REMOVEDIR), "rmdir");
  }

  Result<FileStat> stat(std::string_view name) override {
    check_name(name);
    struct stat found{};
    TRY(check_call(::fstatat(fd_.get(), std::string(name).c_str(), &found, AT_SYMLINK_NOFOLLOW),
                   "stat"));
    return to_file_stat(found);
  }

  Result<FileStat> stat_self() override {
    struct stat found{};
    TRY(check_call(::fstat(fd_.get(), &found), "fstat"));
    return to_file_stat(found);
  }

  Result<> list(const std::function<bool(const DirectoryEntry&)>& visit) override {
    // A descriptor of its own: the position belongs to the open file.
    const UniqueFd fd(::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) {
      return fail_errno(errno, "open .");
    }
    alignas(8) std::array<char, 32768> buffer{};
    for (;;) {
      const long got = ::syscall(SYS_getdents64, fd.get(), buffer.data(), buffer.size());
      if (got < 0 && errno == ENOENT) {
        return {};  // removed while it is open: it has no names any more
      }
      if (got < 0) {
        return fail_errno(errno, "getdents64");
      }
      if (got == 0 || !visit_entries({buffer.data(), static_cast<std::size_t>(got)}, visit)) {
        return {};
      }
    }
  }

  Result<> sync() override { return check_call(::fsync(fd_.get()), "fsync"); }

  Result<FilesystemSpace> space() override {
    struct statvfs found{};
    TRY(check_call(::fstatvfs(fd_.get(), &found), "statvfs"));
    FilesystemSpace space;
    space.block_size = found.f_frsize;
    space.blocks = found.f_blocks;
    space.available_blocks = found.f_bavail;
    space.files = found.f_files;
    space.free_files = found.f_favail;
    return space;
  }

  Result<FilesystemIdentity> identity() override {
    FilesystemIdentity identity;
    identity.user_xattrs = user_xattrs_work(fd_.get());
    const std::uint64_t id = mount_id_of(fd_.get(), STATX_MNT_ID);
    const std::uint64_t unique_id = mount_id_of(fd_.get(), kStatxMountIdUnique);
    // Plain ids are given out again after an unmount; the kernel's unique ones never are.
    identity.mount_id = unique_id != 0 ? unique_id : id;
    const std::optional<MountLine> mount = find_mount(read_text("/proc/self/mountinfo"), id);
    if (mount) {
      identity.type = mount->type;
      std::string ext4_options;
      if (mount->type == "ext4") {
        const std::string device = device_name(mount->device_major, mount->device_minor);
        ext4_options = read_text(fmt::format("/proc/fs/ext4/{}/options", device));
      }
      identity.crash_safety = crash_safety_of(mount->type, mount->super_options, ext4_options);
    }
    return identity;
  }

  Result<> sync_filesystem() override { return check_call(::syncfs(fd_.get()), "syncfs"); }

  Result<UniqueFd> duplicate_descriptor() override {
    UniqueFd copy(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) {
      return fail_errno(errno, "dup");
    }
    return copy;
  }

 private:
  // While we have it open.
  [[nodiscard]] bool was_removed() const {
    struct stat found{};
    return ::fstat(fd_.get(), &found) == 0 && found.st_nlink == 0;
  }

  Result<std::unique_ptr<Directory>> open_path(const std::string& path) {
    UniqueFd fd = TRY(open_beneath(fd_.get(), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0));
    return std::make_unique<PosixDirectory>(std::move(fd));
  }

  // False: the visitor has seen enough.
  static bool visit_entries(std::string_view entries,
                            const std::function<bool(const DirectoryEntry&)>& visit) {
    while (!entries.empty()) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries.data());
      const std::string_view name(entry->d_name);
      entries.remove_prefix(entry->d_reclen);
      if (name == "." || name == "..") {
        continue;
      }
      if (!visit({std::string(name), entry->d_ino, to_node_type(entry->d_type)})) {
        return false;
      }
    }
    return true;
  }

  UniqueFd fd_;
};

class PosixFilesystem final : public Filesystem {
 public:
  Result<std::unique_ptr<Directory>> open_root(const std::string& path) override {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) {
      return fail_errno(errno, fmt::format("cannot open the directory {}", path));
    }
    return adopt_directory(std::move(fd));
  }

  Result<std::unique_ptr<Directory>> adopt(UniqueFd descriptor) override {
    return adopt_directory(std::move(descriptor));
  }

  Result<> random_bytes(MutableBytes into) override {
    while (!into.empty()) {
      const ssize_t got = ::getrandom(into.data(), into.size(), 0);
      if (got < 0) {
        if (errno == EINTR) {
          continue;
        }
        return fail_errno(errno, "getrandom");
      }
      into = into.subspan(static_cast<std::size_t>(got));
    }
    return {};
  }

  Result<std::string> boot_id() override {
    std::string text = read_text("/proc/sys/kernel/random/boot_id");
    while (!text.empty() && text.back() == '\n') {
      text.pop_back();
    }
    if (text.empty()) {
      return fail(Errc::kNotSupported, "cannot read /proc/sys/kernel/random/boot_id");
    }
    return text;
  }
};

}  // namespace

std::unique_ptr<Filesystem> make_posix_filesystem() {
  return std::make_unique<PosixFilesystem>();
}

Result<FileStat> stat_of(const UniqueFd& descriptor) {
  struct stat found{};
  TRY(check_call(::fstat(descriptor.get(), &found), "fstat"));
  return to_file_stat(found);
}

Result<std::unique_ptr<Directory>> adopt_directory(UniqueFd descriptor) {
  struct stat found{};
  TRY(check_call(::fstat(descriptor.get(), &found), "fstat"));
  if (!S_ISDIR(found.st_mode)) {
    return fail(Errc::kInvalid, "the descriptor is not a directory's: give that of a directory");
  }
  return std::make_unique<PosixDirectory>(std::move(descriptor));
}

}  // namespace larder::os
