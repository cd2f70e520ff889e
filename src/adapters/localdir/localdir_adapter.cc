#include "adapters/localdir/localdir_adapter.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "adapters/localdir/local_tree.h"
#include "base/bytes.h"
#include "base/counter.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::localdir {

namespace {

using netfs::AccessReply;
using netfs::Attributes;
using netfs::CallId;
using netfs::Credential;
using netfs::CredentialRef;
using netfs::DirectoryPosition;
using netfs::Done;
using netfs::FileHandle;
using netfs::FileType;
using netfs::LookupReply;
using netfs::ReaddirReply;
using netfs::ReadlinkReply;
using netfs::ReadReply;
using netfs::ShareInfo;
using netfs::StatfsReply;

constexpr std::string_view kScheme = "localdir://";
constexpr unsigned kThreads = 4;
constexpr std::size_t kMostQueued = 4096;
constexpr std::uint32_t kReadSize = 1U << 20U;
constexpr std::uint32_t kDirectoryReadSize = 32U << 10U;
constexpr std::uint32_t kClockTick = 10'000'000;  // nanoseconds, of the slowest kernels in use

// Opens for reading what an O_PATH descriptor names.
Result<UniqueFd> reopen(const UniqueFd& path, int flags) {
  const std::string name = fmt::format("/proc/self/fd/{}", path.get());
  UniqueFd opened(::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags));
  if (!opened.valid()) {
    return remote_failure(errno, "open");
  }
  return opened;
}

Result<ReadReply> read_file(LocalTree& tree, const FileHandle& handle, std::uint64_t offset,
                            MutableBytes destination) {
  const OpenedFile file = TRY(tree.find(handle));
  if (file.found.attributes.type != FileType::kRegular) {
    return remote_failure(file.found.attributes.type == FileType::kDirectory ? EISDIR : EINVAL,
                          "read");
  }
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
    return remote_failure(EINVAL, "read");
  }
  const UniqueFd opened = TRY(reopen(file.path, 0));
  ReadReply reply;
  while (reply.length < destination.size()) {
    const MutableBytes rest = destination.subspan(reply.length);
    const ssize_t length =
        ::pread(opened.get(), rest.data(), rest.size(), static_cast<off_t>(offset + reply.length));
    if (length < 0 && errno != EINTR) {
      return remote_failure(errno, "read");
    }
    if (length == 0) {
      break;
    }
    reply.length += length > 0 ? static_cast<std::size_t>(length) : 0;
  }
  reply.attributes = TRY(examine(opened)).attributes;
  reply.end = reply.length < destination.size() || offset + reply.length >= reply.attributes->size;
  return reply;
}

Result<LookupReply> look_up(LocalTree& tree, const FileHandle& directory, const std::string& name) {
  const OpenedFile parent = TRY(tree.find(directory));
  // Names of one component only: what else a caller may think of is not ours to walk.
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    return remote_failure(EINVAL, "lookup");
  }
  const OpenedFile found = TRY(tree.look_up(parent.path, directory, name));
  return LookupReply{found.found.handle, found.found.attributes, parent.found.attributes};
}

Result<ReadlinkReply> read_link(LocalTree& tree, const FileHandle& handle) {
  const OpenedFile link = TRY(tree.find(handle));
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlinkat(link.path.get(), "", target.data(), target.size());
  if (length < 0) {
    return remote_failure(errno == ENOENT ? EINVAL : errno, "readlink");
  }
  return ReadlinkReply{std::string(target.data(), static_cast<std::size_t>(length)),
                       link.found.attributes};
}

Result<StatfsReply> stat_filesystem(LocalTree& tree, const FileHandle& handle) {
  const OpenedFile file = TRY(tree.find(handle));
  struct statvfs status{};
  if (::fstatvfs(file.path.get(), &status) != 0) {
    return remote_failure(errno, "statfs");
  }
  return StatfsReply{status.f_blocks * status.f_frsize, status.f_bfree * status.f_frsize,
                     status.f_bavail * status.f_frsize, status.f_files, status.f_ffree};
}

// What mode bits grant; root may do anything but execute what nobody may execute.
std::uint32_t rights_of(const Attributes& attributes, const Credential& credential) {
  const auto& groups = credential.groups;
  const bool in_group =
      credential.gid == attributes.gid || std::ranges::find(groups, attributes.gid) != groups.end();
  std::uint32_t bits = attributes.mode & 07U;
  if (credential.uid == 0) {
    const bool executable =
        attributes.type == FileType::kDirectory || (attributes.mode & 0111U) != 0;
    bits = executable ? 07U : 06U;
  } else if (credential.uid == attributes.uid) {
    bits = attributes.mode >> 6U & 07U;
  } else if (in_group) {
    bits = attributes.mode >> 3U & 07U;
  }
  std::uint32_t granted = 0;
  const bool directory = attributes.type == FileType::kDirectory;
  if ((bits & 04U) != 0) {
    granted |= netfs::kAccessRead;
  }
  if ((bits & 02U) != 0) {
    granted |=
        netfs::kAccessModify | netfs::kAccessExtend | (directory ? netfs::kAccessDelete : 0U);
  }
  if ((bits & 01U) != 0) {
    granted |= directory ? netfs::kAccessLookup : netfs::kAccessExecute;
  }
  return granted;
}

// Where the name begins in a record of getdents64(2).
constexpr std::size_t kRawNameOffset = offsetof(dirent64, d_name);

// Appends what one getdents64(2) gives; with the attributes of each if `directory` is not null.
Result<> read_piece(LocalTree& tree, const UniqueFd& opened, const FileHandle* directory,
                    ReaddirReply& reply) {
  std::vector<std::byte> buffer(kDirectoryReadSize);
  const auto length = ::syscall(SYS_getdents64, opened.get(), buffer.data(), buffer.size());
  if (length < 0) {
    return remote_failure(errno, "readdir");
  }
  reply.end = length == 0;
  for (std::size_t at = 0; at < static_cast<std::size_t>(length);) {
    dirent64 raw{};
    std::memcpy(&raw, &buffer[at], kRawNameOffset);
    netfs::RemoteEntry entry;
    entry.name = reinterpret_cast<const char*>(&buffer[at + kRawNameOffset]);
    entry.fileid = raw.d_ino;
    entry.cookie = static_cast<std::uint64_t>(raw.d_off);
    at += raw.d_reclen;
    if (entry.name == "." || entry.name == "..") {
      continue;
    }
    // One that disappeared meanwhile, or is a mount point, stays without attributes.
    if (const auto found = directory != nullptr ? tree.look_up(opened, *directory, entry.name)
                                                : Result<OpenedFile>(fail(Errc::kNotFound, ""))) {
      entry.handle = found->found.handle;
      entry.attributes = found->found.attributes;
    }
    reply.entries.push_back(std::move(entry));
  }
  return {};
}

Result<ReaddirReply> read_directory(LocalTree& tree, const FileHandle& handle,
                                    DirectoryPosition from, bool with_attributes) {
  const OpenedFile directory = TRY(tree.find(handle));
  if (directory.found.attributes.type != FileType::kDirectory) {
    return remote_failure(ENOTDIR, "readdir");
  }
  // A description of its own for each call: it holds the position.
  const UniqueFd opened = TRY(reopen(directory.path, O_DIRECTORY));
  if (from.cookie != 0 && ::lseek(opened.get(), static_cast<off_t>(from.cookie), SEEK_SET) < 0) {
    return remote_failure(errno, "readdir");
  }
  ReaddirReply reply;
  reply.directory_attributes = directory.found.attributes;
  // A piece may hold "." and ".." alone: who asked could not tell where it goes on.
  while (reply.entries.empty() && !reply.end) {
    TRY(read_piece(tree, opened, with_attributes ? &handle : nullptr, reply));
  }
  return reply;
}

class LocaldirAdapter final : public netfs::Adapter {
 public:
  LocaldirAdapter(std::string path, Executor& executor, std::size_t most_entries)
      : path_(std::move(path)),
        most_entries_(most_entries),
        name_{"localdir", "localhost", "", path_},
        pool_(executor.make_pool("localdir", kThreads, kMostQueued)) {}

  LocaldirAdapter(const LocaldirAdapter&) = delete;
  LocaldirAdapter& operator=(const LocaldirAdapter&) = delete;

  ~LocaldirAdapter() override { LocaldirAdapter::shut_down(); }

  [[nodiscard]] const netfs::ShareName& name() const override { return name_; }

  void start_connect(Done<ShareInfo> done) override {
    run<ShareInfo>(std::move(done), [this] { return connect(); });
  }

  CallId start_lookup(const FileHandle& directory, std::string_view name,
                      CredentialRef /*credential*/, Done<LookupReply> done) override {
    return run_in_tree<LookupReply>(std::move(done),
                                    [directory, name = std::string(name)](LocalTree& tree) {
                                      return look_up(tree, directory, name);
                                    });
  }

  CallId start_getattr(const FileHandle& handle, CredentialRef /*credential*/,
                       Done<Attributes> done) override {
    return run_in_tree<Attributes>(std::move(done),
                                   [handle](LocalTree& tree) -> Result<Attributes> {
                                     return TRY(tree.find(handle)).found.attributes;
                                   });
  }

  CallId start_access(const FileHandle& handle, std::uint32_t wanted, CredentialRef credential,
                      Done<AccessReply> done) override {
    return run_in_tree<AccessReply>(
        std::move(done),
        [handle, wanted,
         credential = std::move(credential)](LocalTree& tree) -> Result<AccessReply> {
          const Attributes attributes = TRY(tree.find(handle)).found.attributes;
          return AccessReply{rights_of(attributes, *credential) & wanted, attributes};
        });
  }

  CallId start_readlink(const FileHandle& handle, CredentialRef /*credential*/,
                        Done<ReadlinkReply> done) override {
    return run_in_tree<ReadlinkReply>(
        std::move(done), [handle](LocalTree& tree) { return read_link(tree, handle); });
  }

  CallId start_readdir(const FileHandle& handle, DirectoryPosition from, bool with_attributes,
                       CredentialRef /*credential*/, Done<ReaddirReply> done) override {
    return run_in_tree<ReaddirReply>(std::move(done),
                                     [handle, from, with_attributes](LocalTree& tree) {
                                       return read_directory(tree, handle, from, with_attributes);
                                     });
  }

  CallId start_statfs(const FileHandle& handle, CredentialRef /*credential*/,
                      Done<StatfsReply> done) override {
    return run_in_tree<StatfsReply>(
        std::move(done), [handle](LocalTree& tree) { return stat_filesystem(tree, handle); });
  }

  CallId start_read(const FileHandle& handle, const netfs::ReadOrder& order,
                    CredentialRef /*credential*/, Done<ReadReply> done) override {
    return run_in_tree<ReadReply>(std::move(done), [this, handle, order](LocalTree& tree) {
      Result<ReadReply> reply = read_file(tree, handle, order.offset, order.destination);
      reads_.add();
      bytes_read_.add(reply ? reply->length : 0);
      return reply;
    });
  }

  void cancel(CallId id) override EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    queued_.erase(id);
  }

  [[nodiscard]] netfs::AdapterStatus status() const override EXCLUDES(mutex_) {
    netfs::AdapterStatus status;
    status.calls = calls_.value();
    status.reads = reads_.value();
    status.bytes_read = bytes_read_.value();
    const MutexLock lock(mutex_);
    status.connected = tree_ != nullptr;
    return status;
  }

  void shut_down() override EXCLUDES(mutex_) {
    std::unique_ptr<Pool> pool;
    {
      const MutexLock lock(mutex_);
      queued_.clear();
      pool = std::move(pool_);
    }
    pool.reset();  // runs what is queued, which finds itself cancelled
  }

 private:
  // Queues `work`, whose result goes to `done`; kCancelled instead if it was cancelled before.
  template <class Reply>
  CallId run(Done<Reply> done, std::move_only_function<Result<Reply>()> work) EXCLUDES(mutex_) {
    calls_.add();
    CallId id = 0;
    {
      const MutexLock lock(mutex_);
      id = ++last_id_;
      if (pool_ != nullptr) {
        queued_.insert(id);
        pool_->post([this, id, done = std::move(done), work = std::move(work)]() mutable {
          done(begin(id) ? work() : fail(Errc::kCancelled, "the call was cancelled"));
        });
        return id;
      }
    }
    done(fail(Errc::kCancelled, "the mount is ending"));
    return id;
  }

  template <class Reply, class Work>
  CallId run_in_tree(Done<Reply> done, Work work) {
    return run<Reply>(std::move(done), [this, work = std::move(work)]() mutable -> Result<Reply> {
      const std::shared_ptr<LocalTree> tree = this->tree();
      if (tree == nullptr) {
        return fail(Errc::kInvalid, "not connected");
      }
      return work(*tree);
    });
  }

  [[nodiscard]] bool begin(CallId id) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return queued_.erase(id) > 0;
  }

  [[nodiscard]] std::shared_ptr<LocalTree> tree() const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return tree_;
  }

  Result<ShareInfo> connect() EXCLUDES(mutex_) {
    const std::shared_ptr<LocalTree> tree = TRY(LocalTree::open(path_, most_entries_));
    ShareInfo info;
    info.root = tree->root().handle;
    info.root_attributes = tree->root().attributes;
    info.read_size = kReadSize;
    info.directory_read_size = kDirectoryReadSize;
    info.time_granularity = {0, kClockTick};
    info.most_file_size = std::numeric_limits<std::int64_t>::max();
    const MutexLock lock(mutex_);
    tree_ = tree;
    return info;
  }

  const std::string path_;
  const std::size_t most_entries_;
  const netfs::ShareName name_;
  Counter calls_, reads_, bytes_read_;

  mutable Mutex mutex_{LockRank::kNetwork};
  CallId last_id_ GUARDED_BY(mutex_) = 0;
  std::unordered_set<CallId> queued_ GUARDED_BY(mutex_);  // posted, not begun, not cancelled
  std::shared_ptr<LocalTree> tree_ GUARDED_BY(mutex_);    // null until connected
  std::unique_ptr<Pool> pool_ GUARDED_BY(mutex_);         // null after shut_down
};

}  // namespace

bool is_localdir_source(std::string_view source) {
  return source.starts_with('/') || source.starts_with(kScheme);
}

Result<std::string> parse_localdir_source(std::string_view source) {
  std::string_view path = source;
  if (path.starts_with(kScheme)) {
    path.remove_prefix(kScheme.size());
  }
  if (!path.starts_with('/')) {
    return fail(
        Errc::kInvalid,
        fmt::format("\"{}\" is not a local directory: write localdir:///PATH or /PATH", source));
  }
  while (path.size() > 1 && path.ends_with('/')) {
    path.remove_suffix(1);
  }
  return std::string(path);
}

Result<> check_localdir_options(std::span<const std::string> words) {
  if (words.empty()) {
    return {};
  }
  return fail(Errc::kInvalid,
              fmt::format("unknown option \"{}\": a local directory has none of its "
                          "own, see larder(8) for those of every mount",
                          words.front()));
}

std::unique_ptr<netfs::Adapter> make_localdir_adapter(std::string path, Executor& executor,
                                                      std::size_t most_entries) {
  return std::make_unique<LocaldirAdapter>(std::move(path), executor, most_entries);
}

}  // namespace larder::localdir
