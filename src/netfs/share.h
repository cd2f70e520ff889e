// Share: one mounted share of a server, as a front end uses it: names to inodes, attributes,
// listings, opens and reads, with the caching of each and the permission of each caller.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/executor.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "fscache/volume.h"
#include "netfs/access_cache.h"
#include "netfs/adapter.h"
#include "netfs/answer.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/directory_stream.h"
#include "netfs/file.h"
#include "netfs/file_open.h"
#include "netfs/held_versions.h"
#include "netfs/hidden_name_store.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/lock_table.h"
#include "netfs/read_request.h"
#include "netfs/recent_files.h"
#include "netfs/share_context.h"
#include "netfs/version.h"
#include "netfs/write_store.h"
#include "netfs/writer.h"

namespace larder::netfs {

struct ShareOptions {
  AttributeTimes times;
  // Opens believe attributes that are still fresh, instead of asking the server (nocto).
  bool no_close_to_open = false;
  // Every write is answered when the server has its bytes (sync).
  bool writes_through = false;
};

struct LookupOutcome {
  InodeRef inode;
  std::chrono::milliseconds name_fresh_for{0};
};

// What an open is for.
struct OpenIntent {
  bool read = true;
  bool execute = false;
  bool write = false;
  bool truncate = false;  // to nothing, before the open is answered; needs `write` by the server
};

// An open file: the front end keeps it in its handle and gives it back with each read and write.
struct OpenFile {
  std::shared_ptr<File> file;
  VersionRef version;        // of the moment of the open
  CredentialRef credential;  // the opener's: reads and writes go to the server in this name
  FileOpenRef opened;        // counts as long as a copy of it lives
};

// A regular file to be made, if need be, and opened.
struct CreateIntent {
  std::uint32_t mode = 0;  // permission bits, umask applied
  bool exclusive = false;  // EEXIST if the name is there
  OpenIntent open;
};

struct Created {
  LookupOutcome entry;
  OpenFile open;
  bool truncated = false;  // the file was there, with bytes, and has none any more
};

struct ShareStatistics {
  std::uint64_t known_inodes = 0;
  std::uint64_t files_behind = 0;  // the server may not have all that was written and answered
  std::uint64_t unsafe_bytes = 0;  // of writes that were answered, not on the server's disk yet
  std::uint64_t hidden_names = 0;  // of files that were removed while open
  std::uint64_t held_bytes = 0;    // downloaded and on the cache's disk, in memory for a reader
#define NETFS_COUNTER(name, text) std::uint64_t name = 0;
#include "netfs/stats.def"
#undef NETFS_COUNTER
};

// Threads: any; `done` callbacks run once, on any thread, perhaps before the call returns.
// Errors: what the server refuses comes with its errno; kCancelled after CallScope::cancel().
// Life: shut_down() before destruction.
class Share {
 public:
  // Takes an adapter that did not connect, before `done` runs: it is to be shut down, but not by
  // the thread that calls, which may be the adapter's own.
  using RetireAdapter = std::move_only_function<void(std::unique_ptr<Adapter>)>;

  // Connects (the adapter must be fresh); `cache` may be null.
  static void start_mount(std::unique_ptr<Adapter> adapter, Executor& executor,
                          std::shared_ptr<fscache::Cache> cache, const ShareOptions& options,
                          std::move_only_function<void(Result<std::unique_ptr<Share>>)> done,
                          RetireAdapter retire);

  ~Share();
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  [[nodiscard]] const InodeRef& root() const { return root_; }

  [[nodiscard]] const ShareInfo& info() const { return info_; }

  // Names the share as the cache does: equal for all its mounts, different for others.
  [[nodiscard]] std::string key() const {
    return volume_key(adapter_.name(), info_.root_attributes.fsid);
  }

  // Once, before the first request.
  void set_invalidation_sink(std::shared_ptr<InvalidationSink> sink) {
    context_->set_invalidation_sink(std::move(sink));
  }

  // kNotFound: no such name, for name_times().negative.
  void lookup(const InodeRef& directory, std::string_view name, const Caller& caller,
              Done<LookupOutcome> done);
  // Fresh attributes from memory, or the server's.
  void getattr(const InodeRef& inode, const Caller& caller, Done<FreshAttributes> done);
  void readlink(const InodeRef& inode, const Caller& caller, Done<std::string> done);
  void statfs(const Caller& caller, Done<StatfsReply> done);
  // How long a missing name may be believed to be missing.
  [[nodiscard]] std::chrono::milliseconds negative_fresh_for(const Inode& directory) const;

  // Asks the server whether the caller may list, and for news of the directory.
  void open_directory(const InodeRef& inode, const Caller& caller,
                      Done<std::shared_ptr<DirectoryStream>> done);

  // Checks with the server, in one call, that the caller may and that the version is current.
  void open(const InodeRef& inode, OpenIntent intent, const Caller& caller, Done<OpenFile> done);
  // Looks for the file in the cache; fetches it whole if it is small and absent. The version in the
  // answer replaces the open's.
  void prepare(const OpenFile& open, const Caller& caller, Done<VersionRef> done);
  void read(const OpenFile& open, ByteRange range, const std::shared_ptr<CallScope>& scope,
            Done<ReadOutcome> done);

  // ---- Changes: at the server when `done` runs.

  void create(const InodeRef& directory, std::string_view name, const CreateIntent& intent,
              const Caller& caller, Done<Created> done);
  // A directory, device, FIFO or socket.
  void make(const InodeRef& directory, std::string_view name, const MakeOrder& order,
            const Caller& caller, Done<LookupOutcome> done);
  void symlink(const InodeRef& directory, std::string_view name, std::string_view target,
               const Caller& caller, Done<LookupOutcome> done);
  void link(const InodeRef& inode, const InodeRef& directory, std::string_view name,
            const Caller& caller, Done<LookupOutcome> done);
  void remove(const InodeRef& directory, std::string_view name, const Caller& caller,
              Done<void> done);
  void remove_directory(const InodeRef& directory, std::string_view name, const Caller& caller,
                        Done<void> done);
  void rename(const InodeRef& from_directory, std::string_view from, const InodeRef& to_directory,
              std::string_view to, const Caller& caller, Done<void> done);
  // `open`: the open file that it is done by (ftruncate, fchmod), whose credential truncates; null:
  // by name.
  void set_attributes(const InodeRef& inode, const AttributeChanges& changes, const OpenFile* open,
                      const Caller& caller, Done<FreshAttributes> done);
  // Takes the bytes, and to the server some time (through: first); `done` with where they went, or
  // with what became of earlier ones. An interrupt ends the wait only.
  void write(const OpenFile& open, const WritePlace& place, OwnedBytes bytes, const Caller& caller,
             Done<Written> done);
  // fsync(2) and each close(2): everything written so far is on the server's disk, or what of it is
  // not: each error once for each open file.
  void sync(const OpenFile& open, const Caller& caller, Done<void> done);

  // Somebody has the file open who can write, or what was written is not all safe yet: no open of
  // it may be in passthrough.
  [[nodiscard]] static bool is_for_page_cache_only(const OpenFile& open);

  // For who is about to read the open's version in passthrough, atomically with that question; kept
  // as long as he does. Null: he may not. `holder`: his number, for InvalidationSink.
  [[nodiscard]] static PassthroughHoldRef hold_for_passthrough(const OpenFile& open,
                                                               std::uint64_t holder);

  // What processes have locked; a front end that leaves locks to the kernel has nothing there.
  [[nodiscard]] LockTable& locks() { return locks_; }

  // Nobody has the file open any more.
  void closed(const std::shared_ptr<File>& file);

  // Takes what is cached of the file out of the cache, and out of the front end's; what is open
  // goes on.
  void flush(const InodeRef& inode, std::move_only_function<void(Result<>)> done);

  [[nodiscard]] AdapterStatus adapter_status() const { return adapter_.status(); }

  [[nodiscard]] ShareStatistics statistics() const;

  // From now on the hidden names of removed files are kept there, and what mounts of this share
  // left behind is removed. Before the first request; else they are forgotten with us.
  void keep_hidden_names(std::unique_ptr<HiddenNameStore> store);
  // Removes them though somebody may have the files open: when nobody can read them any more.
  void let_hidden_go();

  // From now on the bytes of writes that are answered early lie there, until the server has them
  // on its disk. Before the first request; else they are lost with us.
  void keep_writes(std::unique_ptr<WriteStore> store) {
    context_->set_write_store(std::move(store));
  }

  // Ends every call with kCancelled; none comes after it returns.
  void shut_down();

 private:
  Share(std::unique_ptr<Adapter> adapter, Executor& executor, std::shared_ptr<fscache::Cache> cache,
        const ShareOptions& options, const ShareInfo& info);

  // A name in a directory.
  struct Place {
    InodeRef directory;
    std::string name;
  };

  // The file that a name was (null: nobody knows it here, or holds it any more), and the hidden
  // name that it has now.
  struct Hidden {
    InodeRef inode;
    std::optional<std::string> name;
  };

  // Why a file loses its name: only what replaces it can still fail to come.
  enum class Fate : std::uint8_t { kRemoved, kReplaced };

  // A new size, with what else is to be set; the writer is held until `release` runs.
  struct Cut {
    AttributeChanges changes;
    CredentialRef credential;
    Writer::Release release;
    Done<void> done;
  };

  // What an ACCESS must have granted: one bit of each that is not 0.
  struct NeededAccess {
    std::uint32_t one_of = 0;
    std::uint32_t and_one_of = 0;

    [[nodiscard]] bool granted_by(std::uint32_t bits) const {
      return (one_of == 0 || (bits & one_of) != 0) && (and_one_of == 0 || (bits & and_one_of) != 0);
    }
  };

  [[nodiscard]] static NeededAccess needed_for(const OpenIntent& intent);
  [[nodiscard]] InodeRef find_listed(const Inode& directory, std::string_view name,
                                     const Caller& asking, const Caller& caller);
  void lookup_at_server(const InodeRef& directory, const std::string& name, const Caller& caller,
                        Done<LookupOutcome> done);
  void on_lookup_reply(const Place& place, const Caller& caller, CheckTicket ticket,
                       Result<LookupReply> reply, Done<LookupOutcome> done);
  void finish_lookup(const InodeRef& directory, const std::string& name, const FileHandle& handle,
                     const Attributes& attributes, CheckTicket ticket, Done<LookupOutcome> done);
  void check_access(const InodeRef& inode, NeededAccess needed, const Caller& caller,
                    bool revalidate, std::move_only_function<void(Result<>)> done);
  void on_access_reply(const InodeRef& inode, NeededAccess needed, const Caller& caller,
                       CheckTicket ticket, Result<AccessReply> reply,
                       std::move_only_function<void(Result<>)> done);
  [[nodiscard]] std::shared_ptr<File> file_of(const InodeRef& inode);
  void getattr_at_server(const InodeRef& inode, const Caller& caller, Done<FreshAttributes> done);
  void finish_open(const InodeRef& inode, const OpenIntent& intent, const Caller& caller,
                   Done<OpenFile> done);

  [[nodiscard]] CheckTicket begin_change(const InodeRef& directory);
  void finish_make(const InodeRef& directory, const std::string& name, const Caller& caller,
                   CheckTicket ticket, const Result<CreateReply>& reply, Done<LookupOutcome> done);
  void create_at_server(const Place& place, const CreateIntent& intent, const Caller& caller,
                        Done<LookupOutcome> done);
  void open_created(LookupOutcome made, const CreateIntent& intent, const Caller& caller,
                    Done<Created> done);
  void remove_at_server(const Place& place, const Asker& asker, const InodeRef& victim,
                        Done<void> done);
  void remove_directory_at(const Place& place, const Caller& caller, Done<void> done);
  void rmdir_at_server(const Place& place, const Asker& asker, Done<void> done);
  void clear_hidden(const InodeRef& victim, const Place& place, const Caller& caller,
                    Done<void> done);
  void rename_found(const Place& from, const Place& to, const InodeRef& moved, const Caller& caller,
                    Done<void> done);
  void rename_at_server(const Place& from, const Place& to, const Asker& asker, Done<void> done);
  void find_name(const InodeRef& directory, const std::string& name, const Caller& caller,
                 Done<InodeRef> done);
  // `unless`: a file that keeps one of its names anyway.
  void make_way(const Place& place, const Caller& caller, const InodeRef& unless, Fate fate,
                Done<Hidden> done);
  void hide_if_open(const Place& place, const Caller& caller, const InodeRef& unless, Fate fate,
                    Done<Hidden> done);
  void find_hidden(const Place& place, const Caller& caller, const InodeRef& unless, Fate fate,
                   Done<Hidden> done);
  void take_hidden(const Place& hidden, const Caller& caller, const InodeRef& inode, Fate fate,
                   Done<Hidden> done);
  void settle_hidden(const Place& place, const Hidden& hidden, const Caller& caller,
                     Result<> renamed, Done<void> done);
  void hide(const Place& place, const Caller& caller, const std::shared_ptr<File>& file, Fate fate,
            Done<Hidden> done);
  void announce_hidden(const Place& place, const Caller& caller);
  void remove_hidden(const Place& hidden, const Caller& caller, const InodeRef& inode);
  static void remove_left(const std::shared_ptr<ShareContext>& context, const LeftName& left,
                          const CredentialRef& credential);
  void unhide(const Place& place, const std::string& hidden, const InodeRef& inode,
              const Caller& caller, std::move_only_function<void()> done);

  [[nodiscard]] static std::optional<Error> take_late_error(const OpenFile& open);
  void clear_privileges(const OpenFile& open, const Written& written,
                        const std::shared_ptr<Answer<Written>>& answer);
  void ask_first(const std::shared_ptr<File>& file, const CredentialRef& credential,
                 Done<Attributes> done);
  void set_size(const std::shared_ptr<File>& file, const AttributeChanges& changes,
                const CredentialRef& credential, Done<void> done);
  void cut_alone(const std::shared_ptr<File>& file, Cut cut);
  void cut_at_server(const std::shared_ptr<File>& file, Cut cut);
  void set_at_server(const InodeRef& inode, const AttributeChanges& changes,
                     const CredentialRef& credential, Done<void> done);

  Executor& executor_;
  const ShareOptions options_;
  const ShareInfo info_;
  AccessCache access_cache_;
  const std::shared_ptr<ShareContext> context_;
  Adapter& adapter_;  // the context's
  InodeRef root_;
  LockTable locks_;

  const std::shared_ptr<RecentFiles> recent_;
};

}  // namespace larder::netfs
