// DirectoryStream: the listing of a directory as one opendir(3) sees it: a snapshot that grows as
// far as it has been read. A position in it is an index, so that seekdir and a repeated request
// agree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"

namespace larder::netfs {

struct ListedEntry {
  std::string name;
  std::uint64_t fileid = 0;
  std::optional<FileType> type;
};

// Threads: any. Life: shared by the front end's handle and the call under way.
class DirectoryStream : public std::enable_shared_from_this<DirectoryStream> {
 public:
  DirectoryStream(std::shared_ptr<ShareContext> share, InodeRef inode)
      : share_(std::move(share)), inode_(std::move(inode)) {}

  [[nodiscard]] const InodeRef& inode() const { return inode_; }

  // Makes sure that the entry at `index` is there, or that the listing ends before it. Callers may
  // share one call to the server: an interrupt ends the wait of the one that it is for, and the
  // call when nobody else waits for it.
  void load(std::size_t index, const Caller& caller, std::move_only_function<void(Result<>)> done)
      EXCLUDES(mutex_);
  // Calls `visit` for the entries from `index` on that are there, until it returns false.
  void visit(std::size_t index, const std::function<bool(std::size_t, const ListedEntry&)>& visit)
      EXCLUDES(mutex_);
  // The server's word for the listing that its cookies are of; 0: nothing was listed yet.
  [[nodiscard]] std::uint64_t verifier() EXCLUDES(mutex_);
  // Begins anew, as rewinddir(3) asks.
  void rewind() EXCLUDES(mutex_);

 private:
  struct Waiter {
    std::uint64_t id;
    std::size_t index;
    Caller caller;
    std::move_only_function<void(Result<>)> done;
  };

  void ask(const Caller& caller) EXCLUDES(mutex_);
  // The waiter's request was interrupted.
  void give_up(std::uint64_t waiter_id) EXCLUDES(mutex_);

  // What a reply is to be compared with: the listing and the directory as they were when it was
  // asked for.
  struct Question {
    Caller caller;
    std::uint64_t number = 0;
    std::uint64_t round = 0;
    CheckTicket ticket = 0;
    Attributes directory;
  };

  void on_reply(const Question& asked, Result<ReaddirReply> reply) EXCLUDES(mutex_);
  void remember(const Question& asked, const ReaddirReply& reply);
  [[nodiscard]] Result<> take(ReaddirReply reply) REQUIRES(mutex_);
  void answer(Result<> result) EXCLUDES(mutex_);

  const std::shared_ptr<ShareContext> share_;
  const InodeRef inode_;
  Mutex mutex_{LockRank::kInode};
  std::vector<ListedEntry> entries_ GUARDED_BY(mutex_);
  DirectoryPosition position_ GUARDED_BY(mutex_);
  bool end_ GUARDED_BY(mutex_) = false;
  bool with_attributes_ GUARDED_BY(mutex_) = true;  // until the server refuses it
  bool asking_ GUARDED_BY(mutex_) = false;
  // Of the question under way.
  std::uint64_t question_ GUARDED_BY(mutex_) = 0;
  std::optional<CallId> call_ GUARDED_BY(mutex_);  // not known until its start has returned
  bool unwanted_ GUARDED_BY(mutex_) = false;       // who waited for it gave up
  std::uint64_t round_ GUARDED_BY(mutex_) = 0;     // raised by rewind(): late replies are dropped
  // After a listing was begun anew in the middle: the names given before, not to be given twice.
  std::unordered_set<std::string> given_ GUARDED_BY(mutex_);
  unsigned restarts_ GUARDED_BY(mutex_) = 0;
  std::vector<Waiter> waiters_ GUARDED_BY(mutex_);
  std::uint64_t last_waiter_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::netfs
