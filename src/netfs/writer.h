// Writer: the bytes of one file on their way to the server's disk.
//
// A write is answered as soon as its bytes are here, while there is room for them. They are
// gathered to pieces as large as one WRITE, sent unstable and in parallel when a piece is full,
// when somebody needs them at the server, or after a second, and kept until a commit says that they
// are safe; a server that lost them (its verifier changed) gets them again, in the order in which
// they came. The states of a piece: waiting -> under way -> unstable -> gone; back to waiting when
// it is lost, or was written in part only.
//
// While versions of the file are held for passthrough and in step (HeldVersions), nothing is
// answered early, and there is one call at the server at a time: what it has confirmed is put where
// the holders see it before anything else is sent.
//
// Bytes of writes that were answered lie in the share's WriteStore, from before the answer until
// nobody needs them any more; when it has no room, a write waits for the server. So do bytes of a
// write that waits while those below them are in the store: else a next process would send these
// over them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/changes.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"
#include "netfs/whole_copy.h"
#include "netfs/write_store.h"

namespace larder::netfs {

// Bytes, and what keeps them where they are.
struct OwnedBytes {
  std::shared_ptr<const void> owner;
  Bytes bytes;
};

struct WritePlace {
  std::uint64_t offset = 0;
  bool append = false;               // at the end, wherever that is: `offset` means nothing
  bool clear_privileges = false;     // suid and sgid are to go
  bool through = false;              // not to be answered before the server has the bytes
  bool of_mapping = false;           // pages that a mapping changed: no longer than the file
  CallJournalRef journal = nullptr;  // of an append: is told where the end was
  // Where the server has just said that the file ends, while nothing that is known can be relied
  // on.
  std::optional<std::uint64_t> told_end = std::nullopt;
};

// Where bytes went.
struct Written {
  std::uint64_t offset = 0;
  std::size_t length = 0;
};

// Errors of bytes whose write had been answered already: how many there were, and the last.
struct LateErrors {
  std::uint64_t count = 0;
  std::optional<Error> last;
};

// Threads: any. Life: shared by its file and its calls; keeps itself until all is answered.
class Writer : public std::enable_shared_from_this<Writer> {
 public:
  // More than this much unstable of a file is committed without being asked.
  static constexpr std::uint64_t kMostUnstableBytes = std::uint64_t{32} << 20;
  // So many pieces as well: the smallest takes a page of the store.
  static constexpr std::size_t kMostUnstable = 8192;
  // What is sent and not answered: enough for 1 Gbit/s over 60 ms, and the longest that a read of
  // another file finds before it on the line.
  static constexpr std::uint64_t kMostUnderWayBytes = std::uint64_t{8} << 20;
  static constexpr std::size_t kMostUnderWay = 64;
  // With more not sent yet, writes wait: whoever needs the file's attributes waits for all of it.
  static constexpr std::uint64_t kMostWaitingBytes = std::uint64_t{16} << 20;
  static constexpr std::size_t kMostWaiting = 64;
  // How long bytes wait for others to be sent with.
  static constexpr Duration kLongestGathering = std::chrono::seconds(1);

  // `on_idle` runs, on any thread and without a lock, each time that nothing is left to do.
  Writer(std::shared_ptr<ShareContext> share, InodeRef inode, std::shared_ptr<HeldVersions> held,
         std::function<void()> on_idle);

  // `done` when the bytes are accepted (what becomes of them, late_errors() tells), or, through,
  // when the server has them, or with the first error.
  void write(const WritePlace& place, OwnedBytes bytes, CredentialRef credential,
             Done<Written> done) EXCLUDES(mutex_);
  // `done` when everything accepted before is on the server's disk, or lost: late_errors() tells.
  // It is asked for with `credential`; null: with that of who wrote.
  void commit(CredentialRef credential, std::move_only_function<void()> done) EXCLUDES(mutex_);
  // `done` when everything accepted before was answered by the server.
  void flush(std::move_only_function<void()> done) EXCLUDES(mutex_);
  // Runs `alone` when everything accepted before is as commit() leaves it; what comes later waits
  // until the function that it is given runs, with the size that the file has then; what waited and
  // is of a mapping ends there.
  using Release = std::move_only_function<void(std::optional<std::uint64_t> size)>;
  void hold(CredentialRef credential, std::move_only_function<void(Release)> alone)
      EXCLUDES(mutex_);

  // The file is empty: what is written from now on is all of it. Before anything is accepted.
  void begin_copy() EXCLUDES(mutex_);
  void give_up_copy() EXCLUDES(mutex_);
  // All of the file, if it is known, and idle; else null.
  [[nodiscard]] std::shared_ptr<const WrittenContent> take_copy() EXCLUDES(mutex_);

  [[nodiscard]] LateErrors late_errors() const EXCLUDES(mutex_);
  // Some of what was answered has not reached the server yet, for all we know.
  [[nodiscard]] bool is_behind() const EXCLUDES(mutex_);
  // Nothing is waiting, under way, unstable or held.
  [[nodiscard]] bool idle() const EXCLUDES(mutex_);

 private:
  // One write() of a caller.
  struct Call {
    Written written;
    unsigned pieces = 0;  // not answered yet
    std::optional<Error> error;
    Done<Written> done;
  };

  struct Piece {
    std::uint64_t sequence = 0;  // of acceptance
    std::uint64_t offset = 0;
    OwnedBytes bytes;  // in `space`, if there is one
    CredentialRef credential;
    std::shared_ptr<Call> call;         // null once it was answered
    std::unique_ptr<WriteSpace> space;  // of what was answered before it was sent
    bool growing = false;      // others may still be put behind them: the last that waits only
    std::size_t answered = 0;  // so many of them, from the first on, the server has already
    bool all_on_disk = true;   // of these
    WriteVerifier verifier{};  // of the last answer
    bool again = false;        // while it is under way: to be sent once more
    bool stable = false;       // to be sent so that it needs no commit
    bool committing = false;   // it was unstable when the present commit began
    bool confirmed = false;    // answered before: sent again, it changes nothing

    [[nodiscard]] ByteRange range() const { return {offset, bytes.bytes.size()}; }
  };

  using Pieces = std::list<Piece>;

  struct Waiter {
    std::uint64_t sequence = 0;  // up to which all must be safe, or answered
    bool safe = true;
    std::move_only_function<void()> done;
  };

  struct Hold {
    std::move_only_function<void(Release)> alone;
    bool running = false;
  };

  // A write that came behind a hold.
  struct HeldWrite {
    WritePlace place;
    OwnedBytes bytes;
    CredentialRef credential;
    Done<Written> done;
  };

  // What is to be done without the lock.
  struct Work {
    std::vector<Pieces::iterator> send;
    bool commit_first = false;  // something that waits may not be sent before
    bool commit = false;
    CredentialRef commit_credential;
    std::vector<std::move_only_function<void()>> answers;
    bool idle = false;
    bool lost = false;                 // bytes whose write was answered will never be at the server
    std::optional<Error> first_error;  // why; of several in a row the first
    bool set_timer = false;            // for what is being gathered
    Pieces gone;                       // to be let go of before anybody is answered
  };

  void go_on() EXCLUDES(mutex_);
  [[nodiscard]] Work next() REQUIRES(mutex_);
  void accept(HeldWrite write, std::uint64_t size) REQUIRES(mutex_);
  [[nodiscard]] bool may_gather(const HeldWrite& write) const REQUIRES(mutex_);
  [[nodiscard]] std::size_t gather(const HeldWrite& write, std::uint64_t begin) REQUIRES(mutex_);
  [[nodiscard]] bool may_join(const HeldWrite& write, std::uint64_t at) const REQUIRES(mutex_);
  [[nodiscard]] bool begin_piece(const HeldWrite& write, std::uint64_t at) REQUIRES(mutex_);
  void end_growth() REQUIRES(mutex_);
  void cut(HeldWrite write, std::uint64_t begin, std::size_t from) REQUIRES(mutex_);
  [[nodiscard]] bool is_ripe(Pieces::const_iterator piece) const REQUIRES(mutex_);
  [[nodiscard]] std::uint64_t awaited_on_disk() const REQUIRES(mutex_);
  [[nodiscard]] bool is_behind_now() const REQUIRES(mutex_);
  void tell_inode() REQUIRES(mutex_);
  void wait_for_more();
  [[nodiscard]] bool covers_stored(const Piece& piece) const REQUIRES(mutex_);
  void drop(Pieces& from, Pieces::iterator piece, Pieces& gone) REQUIRES(mutex_);
  void tell_lost(const std::optional<Error>& first);
  void choose_pieces(Work& work) REQUIRES(mutex_);
  [[nodiscard]] bool commit_is_due(const Work& work) const REQUIRES(mutex_);
  void choose_commit(Work& work) REQUIRES(mutex_);
  void answer_waiters(Work& work) REQUIRES(mutex_);
  [[nodiscard]] bool idle_now() const REQUIRES(mutex_);
  [[nodiscard]] bool has_unanswered_before(std::uint64_t sequence) const REQUIRES(mutex_);
  [[nodiscard]] bool has_pieces_before(std::uint64_t sequence) const REQUIRES(mutex_);
  void send(Pieces::iterator piece);
  void on_written(Pieces::iterator piece, Result<WriteReply> reply) EXCLUDES(mutex_);
  void finish_written(Pieces::iterator piece, const Result<WriteReply>& reply) EXCLUDES(mutex_);
  void take_answer(Pieces::iterator piece, const Result<WriteReply>& reply, Work& work)
      REQUIRES(mutex_);
  static void begin_anew(Piece& piece);
  void finish_piece(const std::shared_ptr<Call>& call, const std::optional<Error>& error,
                    Work& work) REQUIRES(mutex_);
  static void move_in_order(Pieces& to, Pieces& from, Pieces::iterator piece);
  void start_commit(const CredentialRef& credential);
  void on_committed(Result<CommitReply> reply) EXCLUDES(mutex_);
  // True: bytes are lost for good.
  [[nodiscard]] bool take_commit(const Result<CommitReply>& reply, Pieces& gone) REQUIRES(mutex_);
  void send_again() REQUIRES(mutex_);
  void release(std::optional<std::uint64_t> size) EXCLUDES(mutex_);
  static void cut_off(HeldWrite& write, std::uint64_t size);

  const std::shared_ptr<ShareContext> share_;
  const InodeRef inode_;
  const std::shared_ptr<HeldVersions> held_;
  const std::function<void()> on_idle_;

  mutable Mutex mutex_{LockRank::kWriter};
  std::uint64_t last_sequence_ GUARDED_BY(mutex_) = 0;
  // Of all since the file's size was known and nothing was to be done.
  std::uint64_t accepted_end_ GUARDED_BY(mutex_) = 0;
  std::uint64_t wanted_sequence_ GUARDED_BY(mutex_) = 0;  // up to which all is to be sent
  Pieces waiting_ GUARDED_BY(mutex_);                     // each list in order of sequence
  Pieces under_way_ GUARDED_BY(mutex_);
  Pieces unstable_ GUARDED_BY(mutex_);
  std::uint64_t unstable_bytes_ GUARDED_BY(mutex_) = 0;
  bool committing_ GUARDED_BY(mutex_) = false;
  CredentialRef commit_credential_ GUARDED_BY(mutex_);
  std::vector<Waiter> waiters_ GUARDED_BY(mutex_);
  std::deque<Hold> holds_ GUARDED_BY(mutex_);
  std::vector<HeldWrite> held_writes_ GUARDED_BY(mutex_);
  WholeCopy copy_ GUARDED_BY(mutex_);
  LateErrors late_errors_ GUARDED_BY(mutex_);
  bool cautious_ GUARDED_BY(mutex_) = false;  // after an error: until a write went through
  std::vector<std::move_only_function<void()>> early_answers_ GUARDED_BY(mutex_);
  bool timer_set_ GUARDED_BY(mutex_) = false;
  std::uint64_t told_end_ GUARDED_BY(mutex_) = 0;  // the inode's answered end
  bool told_idle_ GUARDED_BY(mutex_) = true;
};

}  // namespace larder::netfs
