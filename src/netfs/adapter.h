// The seam below netfs: what one network filesystem must be able to do.
//
// Everything is asynchronous: a call returns at once, its `done` runs exactly once, later or before
// the call returns, on any thread, and must not wait. An adapter caches nothing and decides nothing
// about coherency; it retries, reconnects and keeps deadlines as its options say. The smallest
// adapter, and the example to read, is adapters/localdir.
//
// Errors that reach `done`: kRemote with the errno of the server's answer; kTimedOut after the
// deadline of a soft mount; kCancelled after cancel() or shut_down(); kStale for a handle that the
// server does not know any more, from start_readdir with EAGAIN when it is only the position that
// it does not know; kNotSupported for a procedure that it does not have; kCorrupt for an answer
// that makes no sense.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::netfs {

template <class T>
using Done = std::move_only_function<void(Result<T>)>;

// The server refused. After any other error nobody knows whether it had done it before.
[[nodiscard]] inline bool was_answered(const Error& error) {
  switch (error.code()) {
    case Errc::kTimedOut:
    case Errc::kCancelled:
    case Errc::kCorrupt:
    case Errc::kIo:
      return false;
    default:
      return true;
  }
}

// Names a call that is under way, for cancel(); never reused while the adapter lives.
using CallId = std::uint64_t;

// In whose name a change is asked for.
struct Asker {
  CredentialRef credential;
  // A process before this one may have had it done, and not have seen the answer: the call is taken
  // for a repetition from the first transmission on.
  bool may_be_done = false;
};

// What the server told of the share when we connected.
struct ShareInfo {
  FileHandle root;
  Attributes root_attributes;
  std::uint32_t read_size = 0;            // bytes that one start_read may ask for
  std::uint32_t write_size = 0;           // bytes that one start_write may bring
  std::uint32_t directory_read_size = 0;  // bytes that one start_readdir should ask for
  Timestamp time_granularity;             // the server's stamps are multiples of this (time_delta)
  std::uint64_t most_file_size = 0;
};

// How the share is named in keys on disk: nothing here may depend on mount options.
struct ShareName {
  std::string adapter;  // "nfs", "localdir"
  std::string host;     // as given
  std::string port;     // as given, "" when it was not
  std::string path;     // the export
};

struct LookupReply {
  FileHandle handle;
  std::optional<Attributes> attributes;
  std::optional<Attributes> directory_attributes;
};

// Bits of AccessReply::granted and of the `wanted` of start_access (those of NFSv3's ACCESS).
enum AccessBits : std::uint32_t {
  kAccessRead = 1,
  kAccessLookup = 2,
  kAccessModify = 4,
  kAccessExtend = 8,
  kAccessDelete = 16,
  kAccessExecute = 32,
};

struct AccessReply {
  std::uint32_t granted = 0;
  std::optional<Attributes> attributes;
};

struct ReadlinkReply {
  std::string target;
  std::optional<Attributes> attributes;
};

// Where a listing goes on; all zero begins it.
struct DirectoryPosition {
  std::uint64_t cookie = 0;
  std::uint64_t verifier = 0;
};

struct RemoteEntry {
  std::string name;  // any bytes but '/' and NUL, 1 to 255 of them; "." and ".." are left out
  std::uint64_t fileid = 0;
  std::uint64_t cookie = 0;          // the position behind this entry
  std::optional<FileHandle> handle;  // only when attributes were asked for and the server gave it
  std::optional<Attributes> attributes;
};

struct ReaddirReply {
  std::vector<RemoteEntry> entries;  // none only at the end
  std::uint64_t verifier = 0;
  bool end = false;  // nothing comes behind the last entry
  std::optional<Attributes> directory_attributes;
};

struct StatfsReply {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t available_bytes = 0;
  std::uint64_t total_files = 0;
  std::uint64_t free_files = 0;
};

// What start_read is to read, and where to.
struct ReadOrder {
  std::uint64_t offset = 0;
  // At most read_size bytes. The adapter's until done has run, also after cancel(); the bytes mean
  // nothing unless done says so.
  MutableBytes destination;
  bool prefetch = false;  // nobody waits for it yet: served behind what somebody waits for
};

struct ReadReply {
  std::size_t length = 0;                // bytes that were put at the start of the destination
  bool end = false;                      // the file ends behind them
  std::optional<Attributes> attributes;  // after the read; without them the bytes cannot be cached
};

// For `larder status`.
struct AdapterStatus {
  bool connected = false;
  std::string trouble;  // a sentence when something is wrong, else ""
  std::uint64_t calls = 0;
  std::uint64_t reads = 0;  // of file data
  std::uint64_t bytes_read = 0;
  std::uint64_t retransmissions = 0;
  std::uint64_t reconnects = 0;
};

// Threads: any. Life: shut_down() before destruction; every done has run when it returns.
class Adapter {
 public:
  Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;
  virtual ~Adapter() = default;

  [[nodiscard]] virtual const ShareName& name() const = 0;

  // Before anything else, once. Errors are sentences for the person who mounts.
  virtual void start_connect(Done<ShareInfo> done) = 0;

  virtual CallId start_lookup(const FileHandle& directory, std::string_view name,
                              CredentialRef credential, Done<LookupReply> done) = 0;
  virtual CallId start_getattr(const FileHandle& handle, CredentialRef credential,
                               Done<Attributes> done) = 0;
  virtual CallId start_access(const FileHandle& handle, std::uint32_t wanted,
                              CredentialRef credential, Done<AccessReply> done) = 0;
  virtual CallId start_readlink(const FileHandle& handle, CredentialRef credential,
                                Done<ReadlinkReply> done) = 0;
  // `with_attributes` is a wish (READDIRPLUS): the server may not have it.
  virtual CallId start_readdir(const FileHandle& handle, DirectoryPosition from,
                               bool with_attributes, CredentialRef credential,
                               Done<ReaddirReply> done) = 0;
  virtual CallId start_statfs(const FileHandle& handle, CredentialRef credential,
                              Done<StatfsReply> done) = 0;
  virtual CallId start_read(const FileHandle& handle, const ReadOrder& order,
                            CredentialRef credential, Done<ReadReply> done) = 0;

  // ---- Changes. They are done once: an adapter that had to send one again, because no answer
  // came, does not take the answer to the second for the answer to the first (a name that is there
  // already may be the one that it made). Nor the answer to the first of a call that may be done.

  virtual CallId start_setattr(const FileHandle& handle, const AttributeChanges& changes,
                               CredentialRef credential, Done<Change> done) = 0;
  virtual CallId start_create(const FileHandle& directory, std::string_view name,
                              const CreateOrder& order, Asker asker, Done<CreateReply> done) = 0;
  virtual CallId start_make(const FileHandle& directory, std::string_view name,
                            const MakeOrder& order, Asker asker, Done<CreateReply> done) = 0;
  virtual CallId start_symlink(const FileHandle& directory, std::string_view name,
                               std::string_view target, const AttributeChanges& attributes,
                               Asker asker, Done<CreateReply> done) = 0;
  // A file, of any type but a directory.
  virtual CallId start_remove(const FileHandle& directory, std::string_view name, Asker asker,
                              Done<Change> done) = 0;
  virtual CallId start_rmdir(const FileHandle& directory, std::string_view name, Asker asker,
                             Done<Change> done) = 0;
  virtual CallId start_rename(const FileHandle& from_directory, std::string_view from,
                              const FileHandle& to_directory, std::string_view to, Asker asker,
                              Done<RenameReply> done) = 0;
  virtual CallId start_link(const FileHandle& file, const FileHandle& directory,
                            std::string_view name, Asker asker, Done<LinkReply> done) = 0;
  virtual CallId start_write(const FileHandle& handle, const WriteOrder& order,
                             CredentialRef credential, Done<WriteReply> done) = 0;
  // All bytes that were written before the call reach the server's disk, unless its verifier says
  // that it lost them.
  virtual CallId start_commit(const FileHandle& handle, CredentialRef credential,
                              Done<CommitReply> done) = 0;

  // Asks that the call end soon with kCancelled; it may still end well. Unknown ids are ignored.
  virtual void cancel(CallId id) = 0;

  [[nodiscard]] virtual AdapterStatus status() const = 0;

  // Ends every call with kCancelled and waits for the adapter's threads.
  virtual void shut_down() = 0;
};

}  // namespace larder::netfs
