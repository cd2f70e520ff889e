// The only door to files: what the cache needs of a local filesystem, and no more.
//
// The real form is posix_filesystem.cc (system calls, errno becomes an Error there and nowhere
// else); the tests' forms keep everything in memory, drop what was not synced, or fail on demand.
// Names are single components: a '/' in one is a bug of the caller. Nothing follows a symbolic
// link or crosses into another mount.
// Threads: any, on one object too. Everything may block on the disk. Errors: Error with the errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

// Seconds and nanoseconds since 1970, as in struct timespec.
struct FileTime {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;

  auto operator<=>(const FileTime&) const = default;
};

enum class NodeType : std::uint8_t { kFile, kDirectory, kSymlink, kOther };

struct FileStat {
  NodeType type = NodeType::kOther;
  std::uint32_t mode = 0;        // permission bits with suid, sgid, sticky
  std::uint64_t device = 0;      // st_dev
  std::uint64_t inode = 0;       // st_ino
  std::uint32_t link_count = 0;  // st_nlink
  std::uint64_t size = 0;        // bytes
  std::uint64_t allocated = 0;   // bytes of real blocks (st_blocks * 512)
  FileTime accessed, modified, changed;
};

struct FilesystemSpace {
  std::uint64_t block_size = 0;        // bytes (f_frsize)
  std::uint64_t blocks = 0;            // of block_size, all of them (f_blocks)
  std::uint64_t available_blocks = 0;  // for us (f_bavail)
  std::uint64_t files = 0;             // inodes; 0 where the filesystem has no such limit
  std::uint64_t free_files = 0;
};

// What decides how much a crash may take with it.
enum class CrashSafety : std::uint8_t {
  kOrdered,    // freed blocks are not reused before the deletion is on disk (ext4 with a journal,
               // xfs, btrfs)
  kUnordered,  // they may be: after an unclean boot only checksummed data counts (no journal,
               // data=writeback, unknown)
};

struct FilesystemIdentity {
  std::string type;  // "ext4", "xfs", ...; "" when unknown
  CrashSafety crash_safety = CrashSafety::kUnordered;
  std::uint64_t mount_id = 0;  // of this mount instance; differs after a remount
  bool user_xattrs = false;    // user.* attributes work here
};

enum class ReadHint : std::uint8_t {
  kNone,
  kDropBehind,  // do not keep these pages in the page cache, where the kernel can (RWF_DONTCACHE)
};

// The pages of a range of a file that the kernel has in its memory.
struct PagesInMemory {
  std::uint64_t all = 0;     // also those that are being read, or could not be read
  std::uint64_t ready = 0;   // which hold the file's bytes
  bool first_ready = false;  // the first page of the range does
};

// What was opened to be read refuses to be written, as a read-only filesystem does (EROFS).
enum class OpenMode : std::uint8_t { kRead, kReadWrite };

// An open regular file.
class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;

  // Reads until `into` is full or the file ends; the bytes read.
  [[nodiscard]] virtual Result<std::size_t> read_at(std::uint64_t offset, MutableBytes into,
                                                    ReadHint hint = ReadHint::kNone) = 0;
  // All or an error; a part may have been written then.
  [[nodiscard]] virtual Result<> write_at(std::uint64_t offset, Bytes from) = 0;
  [[nodiscard]] virtual Result<> set_size(std::uint64_t size) = 0;
  [[nodiscard]] virtual Result<FileStat> stat() = 0;
  // The attribute's bytes, at most `most_bytes` of them (longer: kInvalid); kNotFound if it has
  // none.
  [[nodiscard]] virtual Result<std::string> get_xattr(std::string_view name,
                                                      std::size_t most_bytes) = 0;
  [[nodiscard]] virtual Result<> set_xattr(std::string_view name, Bytes value) = 0;
  // Data and metadata are on the disk when it returns.
  [[nodiscard]] virtual Result<> sync() = 0;
  // The disk has taken the data of this range when it returns, so that memory and disk hold the
  // same; says nothing about what a crash leaves. Reports, once, that writing them back failed
  // since the file was opened. kNotSupported: not to be had here.
  [[nodiscard]] virtual Result<> write_back(std::uint64_t offset, std::uint64_t length) = 0;
  // nullopt leaves that stamp alone; "now" is set_accessed_now.
  [[nodiscard]] virtual Result<> set_times(std::optional<FileTime> accessed,
                                           std::optional<FileTime> modified) = 0;
  [[nodiscard]] virtual Result<> set_accessed_now() = 0;
  // An exclusive lock for the life of this open file (flock); kBusy if somebody else has it.
  [[nodiscard]] virtual Result<> lock_exclusive() = 0;
  // Another open file of it is there, or a mapping that was made by one. kNotSupported: not to be
  // had here.
  [[nodiscard]] virtual Result<bool> is_open_elsewhere() = 0;
  // Does not wait for the disk. The first page is the one that `offset` is in. kNotSupported: not
  // to be had here.
  [[nodiscard]] virtual Result<PagesInMemory> pages_in_memory(std::uint64_t offset,
                                                              std::uint64_t length) = 0;
  // A new descriptor of the same open file, for passthrough registration; kNotSupported in fakes.
  [[nodiscard]] virtual Result<UniqueFd> duplicate_descriptor() = 0;
};

struct DirectoryEntry {
  std::string name;  // never "." or ".."
  std::uint64_t inode = 0;
  std::optional<NodeType> type;  // nullopt: the filesystem did not say
};

// An open directory: every name is looked up beneath it.
class Directory {
 public:
  Directory() = default;
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  virtual ~Directory() = default;

  [[nodiscard]] virtual Result<std::unique_ptr<Directory>> open_directory(
      std::string_view name) = 0;

  // The directory `name` in the directory `parent` of this one; in one call where the system can.
  [[nodiscard]] virtual Result<std::unique_ptr<Directory>> open_directory_in(
      std::string_view parent, std::string_view name) {
    return TRY(open_directory(parent))->open_directory(name);
  }

  // kExists if the name is taken.
  [[nodiscard]] virtual Result<> make_directory(std::string_view name, std::uint32_t mode) = 0;
  // Regular files only (kInvalid otherwise); access times stay as they are (O_NOATIME where
  // allowed).
  [[nodiscard]] virtual Result<std::unique_ptr<File>> open_file(std::string_view name,
                                                                OpenMode mode) = 0;
  // A new file under a name, open for reading and writing; kExists if it is taken.
  [[nodiscard]] virtual Result<std::unique_ptr<File>> create_file(std::string_view name,
                                                                  std::uint32_t mode) = 0;
  // A file without a name (O_TMPFILE), open for reading and writing: gone when closed, unless
  // linked.
  [[nodiscard]] virtual Result<std::unique_ptr<File>> make_tmpfile(std::uint32_t mode) = 0;
  // Gives an unnamed file its name; kExists if it is taken. `file` is of the same filesystem.
  [[nodiscard]] virtual Result<> link(File& file, std::string_view name) = 0;
  // Replaces what has the new name.
  [[nodiscard]] virtual Result<> rename(std::string_view name, Directory& to,
                                        std::string_view new_name) = 0;
  [[nodiscard]] virtual Result<> unlink(std::string_view name) = 0;
  [[nodiscard]] virtual Result<> remove_directory(std::string_view name) = 0;
  // Of the name itself, never of what a symbolic link points at.
  [[nodiscard]] virtual Result<FileStat> stat(std::string_view name) = 0;
  [[nodiscard]] virtual Result<FileStat> stat_self() = 0;
  // Calls `visit` for each entry in the filesystem's order until it returns false. Names made or
  // removed meanwhile may be seen or not.
  [[nodiscard]] virtual Result<> list(const std::function<bool(const DirectoryEntry&)>& visit) = 0;
  // The names in it are on the disk when it returns.
  [[nodiscard]] virtual Result<> sync() = 0;
  [[nodiscard]] virtual Result<FilesystemSpace> space() = 0;
  [[nodiscard]] virtual Result<FilesystemIdentity> identity() = 0;
  // syncfs: everything written to the filesystem before is on the disk when it returns. Reports,
  // once, a writeback error that happened since the last call on this directory.
  [[nodiscard]] virtual Result<> sync_filesystem() = 0;

  // A new descriptor of it, to be made the working directory; kNotSupported in fakes.
  [[nodiscard]] virtual Result<UniqueFd> duplicate_descriptor() {
    return fail(Errc::kNotSupported, "a directory without a descriptor");
  }
};

// The root of the door: opens a directory by descriptor or path, once, at bind.
class Filesystem {
 public:
  Filesystem() = default;
  Filesystem(const Filesystem&) = delete;
  Filesystem& operator=(const Filesystem&) = delete;
  virtual ~Filesystem() = default;

  // By absolute path; the one place where symbolic links are followed.
  [[nodiscard]] virtual Result<std::unique_ptr<Directory>> open_root(const std::string& path) = 0;
  // On an open directory descriptor that somebody (the keeper) handed to us.
  [[nodiscard]] virtual Result<std::unique_ptr<Directory>> adopt(UniqueFd descriptor) = 0;
  // Random bytes for uuids, and this boot's id (/proc/sys/kernel/random/boot_id).
  [[nodiscard]] virtual Result<> random_bytes(MutableBytes into) = 0;
  [[nodiscard]] virtual Result<std::string> boot_id() = 0;
};

// The real one.
[[nodiscard]] std::unique_ptr<Filesystem> make_posix_filesystem();
// A Directory on an open directory descriptor that somebody (the keeper) handed to us.
[[nodiscard]] Result<std::unique_ptr<Directory>> adopt_directory(UniqueFd descriptor);

}  // namespace larder::os
