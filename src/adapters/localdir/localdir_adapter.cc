#include "adapters/localdir/localdir_adapter.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "adapters/localdir/local_changes.h"
#include "adapters/localdir/local_reads.h"
#include "adapters/localdir/local_tree.h"
#include "adapters/localdir/rights.h"
#include "base/bytes.h"
#include "base/counter.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::localdir {

namespace {

using netfs::AccessReply;
using netfs::Attributes;
using netfs::CallId;
using netfs::CredentialRef;
using netfs::DirectoryPosition;
using netfs::Done;
using netfs::FileHandle;
using netfs::LookupReply;
using netfs::ReaddirReply;
using netfs::ReadlinkReply;
using netfs::ReadReply;
using netfs::ShareInfo;
using netfs::StatfsReply;

constexpr std::string_view kScheme = "localdir://";
constexpr unsigned kThreads = 4;
constexpr std::size_t kMostQueued = 4096;
constexpr std::uint32_t kTransferSize = 1U << 20U;
constexpr std::uint32_t kClockTick = 10'000'000;  // nanoseconds, of the slowest kernels in use

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

  CallId start_setattr(const FileHandle& handle, const netfs::AttributeChanges& changes,
                       CredentialRef credential, Done<netfs::Change> done) override {
    return run_in_tree<netfs::Change>(std::move(done),
                                      [handle, changes, credential](LocalTree& tree) {
                                        return set_attributes(tree, handle, changes, *credential);
                                      });
  }

  CallId start_create(const FileHandle& directory, std::string_view name,
                      const netfs::CreateOrder& order, netfs::Asker asker,
                      Done<netfs::CreateReply> done) override {
    return run_in_tree<netfs::CreateReply>(
        std::move(done),
        [place = NamedPlace{directory, std::string(name)}, order, asker = std::move(asker)](
            LocalTree& tree) { return create_file(tree, place, order, asker); });
  }

  CallId start_make(const FileHandle& directory, std::string_view name,
                    const netfs::MakeOrder& order, netfs::Asker asker,
                    Done<netfs::CreateReply> done) override {
    return run_in_tree<netfs::CreateReply>(
        std::move(done),
        [place = NamedPlace{directory, std::string(name)}, order, asker = std::move(asker)](
            LocalTree& tree) { return make_special(tree, place, order, asker); });
  }

  // Symlinks have no attributes of their own here.
  CallId start_symlink(const FileHandle& directory, std::string_view name, std::string_view target,
                       const netfs::AttributeChanges& /*attributes*/, netfs::Asker asker,
                       Done<netfs::CreateReply> done) override {
    return run_in_tree<netfs::CreateReply>(
        std::move(done), [place = NamedPlace{directory, std::string(name)},
                          target = std::string(target), asker = std::move(asker)](LocalTree& tree) {
          return make_symlink(tree, place, target, asker);
        });
  }

  CallId start_remove(const FileHandle& directory, std::string_view name, netfs::Asker asker,
                      Done<netfs::Change> done) override {
    return start_removal(directory, name, false, std::move(asker), std::move(done));
  }

  CallId start_rmdir(const FileHandle& directory, std::string_view name, netfs::Asker asker,
                     Done<netfs::Change> done) override {
    return start_removal(directory, name, true, std::move(asker), std::move(done));
  }

  CallId start_rename(const FileHandle& from_directory, std::string_view from,
                      const FileHandle& to_directory, std::string_view to, netfs::Asker asker,
                      Done<netfs::RenameReply> done) override {
    return run_in_tree<netfs::RenameReply>(
        std::move(done), [from = NamedPlace{from_directory, std::string(from)},
                          to = NamedPlace{to_directory, std::string(to)}, asker = std::move(asker)](
                             LocalTree& tree) { return rename_file(tree, from, to, asker); });
  }

  CallId start_link(const FileHandle& file, const FileHandle& directory, std::string_view name,
                    netfs::Asker asker, Done<netfs::LinkReply> done) override {
    return run_in_tree<netfs::LinkReply>(
        std::move(done),
        [file, place = NamedPlace{directory, std::string(name)}, asker = std::move(asker)](
            LocalTree& tree) { return link_file(tree, file, place, asker); });
  }

  CallId start_write(const FileHandle& handle, const netfs::WriteOrder& order,
                     CredentialRef credential, Done<netfs::WriteReply> done) override {
    return run_in_tree<netfs::WriteReply>(std::move(done),
                                          [handle, order, credential](LocalTree& tree) {
                                            return write_file(tree, handle, order, *credential);
                                          });
  }

  CallId start_commit(const FileHandle& handle, CredentialRef /*credential*/,
                      Done<netfs::CommitReply> done) override {
    return run_in_tree<netfs::CommitReply>(
        std::move(done), [handle](LocalTree& tree) { return commit_file(tree, handle); });
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

  CallId start_removal(const FileHandle& directory, std::string_view name, bool is_directory,
                       netfs::Asker asker, Done<netfs::Change> done) {
    return run_in_tree<netfs::Change>(
        std::move(done),
        [place = NamedPlace{directory, std::string(name)}, is_directory, asker = std::move(asker)](
            LocalTree& tree) { return remove_name(tree, place, is_directory, asker); });
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
    info.read_size = kTransferSize;
    info.write_size = kTransferSize;
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
