// File: an inode that is open (or was a moment ago): its current version, the downloads under way,
// and the replies that carry its bytes to the kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/fetch.h"
#include "netfs/file_open.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/readahead.h"
#include "netfs/share_context.h"
#include "netfs/version.h"
#include "netfs/writer.h"

namespace larder::netfs {

// Threads: any. Life: shared by open handles, by the share's list of recent files and by work
// under way; goes before its share.
class File : public std::enable_shared_from_this<File> {
 public:
  File(std::shared_ptr<ShareContext> share, InodeRef inode);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] const InodeRef& inode() const { return inode_; }

  // The version that the newest attributes describe; made, and the one before it superseded, if
  // need be.
  [[nodiscard]] VersionRef version() EXCLUDES(mutex_);
  // The same for an open: a version that was too young for its stamps and is not any more, or whose
  // content we have from our own writes since too long, is begun anew, so that its bytes are
  // fetched once more.
  [[nodiscard]] VersionRef version_at_open() EXCLUDES(mutex_);

  // Looks for the version in the cache, and fetches it whole if it is small and not there: `done`
  // when reads can begin (kChanged: the file did, meanwhile).
  void start_prepare(const VersionRef& version, const Caller& caller, Done<VersionRef> done);
  // The whole of a small version.
  void start_load_small(const VersionRef& version, const Caller& caller, Done<Buffer> done)
      EXCLUDES(mutex_);

  // Whether the small version was fetched from the server since this was asked last: the read that
  // asks is the one that waited for it, or that the open waited for.
  [[nodiscard]] bool take_small_news() EXCLUDES(mutex_);

  // One piece of a version, from the server: what a waiter gets is the whole download with the
  // range that it covers. kChanged: the server's copy is another version now.
  using FetchDone = std::move_only_function<void(Result<Buffer>)>;

  struct Piece {
    ByteRange range;       // of the piece
    std::uint64_t origin;  // where the download's buffer begins in the file
    std::shared_ptr<Fetch> fetch;
  };

  // The parts of `wanted`, in order, whose download is over and still in memory; what lies between
  // them comes from the cache or by fetch(). They count as served: a download is let go once each
  // of its bytes was.
  [[nodiscard]] std::vector<Piece> take_landed(const VersionRef& version, ByteRange wanted)
      EXCLUDES(mutex_);
  // Joins the downloads that cover `wanted`, beginning those that are missing in units of `unit`.
  [[nodiscard]] std::vector<Piece> fetch(const VersionRef& version, ByteRange wanted,
                                         std::uint64_t unit, const CredentialRef& credential)
      EXCLUDES(mutex_);
  // `done` when the piece's download has landed or failed; the id is for leave().
  std::uint64_t wait_for(const Piece& piece, FetchDone done) EXCLUDES(mutex_);
  // The waiter is not interested any more; its `done` is destroyed unrun if it has not run.
  // A download that nobody waits for is cancelled, unless it is a prefetch.
  void leave(const Piece& piece, std::uint64_t waiter) EXCLUDES(mutex_);

  // Notes a read for readahead and says how to fetch what is missing.
  [[nodiscard]] std::uint64_t note_read(const VersionRef& version, ByteRange read,
                                        const CredentialRef& credential) EXCLUDES(mutex_);
  // Sets readahead going, after the read itself has been issued.
  void pump_prefetch() EXCLUDES(mutex_);

  // Around the sending of a reply with bytes of `version`. False: it is not current any more, read
  // again. The front end is told of a change only when no such reply is under way.
  [[nodiscard]] bool begin_reply(const VersionRef& version) EXCLUDES(mutex_);
  void end_reply() EXCLUDES(mutex_);

  // ---- Opens, and the time in which the file is being written (docs/writing.md).

  [[nodiscard]] FileOpenRef open(bool writes) EXCLUDES(mutex_);
  // By FileOpen only.
  void on_close(const FileOpen& open) EXCLUDES(mutex_);
  [[nodiscard]] bool is_open() EXCLUDES(mutex_);
  // Somebody can write, or what was written is not all safe yet.
  [[nodiscard]] bool for_page_cache_only() EXCLUDES(mutex_);
  // From now on the file is being written, until the last writer has closed it and all is safe.
  [[nodiscard]] std::shared_ptr<Writer> begin_writing() EXCLUDES(mutex_);
  // Null: nothing was ever written.
  [[nodiscard]] std::shared_ptr<Writer> writer() EXCLUDES(mutex_);
  // The server may not have yet all that was written here, and answered.
  [[nodiscard]] bool is_behind() EXCLUDES(mutex_);
  // `done` when it has all that was accepted so far.
  void catch_up(std::move_only_function<void()> done) EXCLUDES(mutex_);
  // The file has lost its last name to this one, which goes with the last open. False: nobody has
  // it open any more.
  // unhide() takes that back; false: it was not hidden, or is removed already.
  [[nodiscard]] bool hide(InodeRef directory, std::string name, CredentialRef credential)
      EXCLUDES(mutex_);

  [[nodiscard]] bool unhide() EXCLUDES(mutex_);
  // Removes the hidden name though somebody may have the file open: nobody can read it any more.
  void let_hidden_go() EXCLUDES(mutex_);
  [[nodiscard]] bool is_hidden() EXCLUDES(mutex_);

  // Who is about to be latched in passthrough holds the version; null: the file is being written,
  // or can be, or the version is not whole any more. `holder`: HeldVersions::hold().
  [[nodiscard]] PassthroughHoldRef hold_for_passthrough(const VersionRef& version,
                                                        std::uint64_t holder) EXCLUDES(mutex_);

  // The same for who has closed it, and opens it again. False: he may not.
  [[nodiscard]] bool hold_again(PassthroughHold& hold) EXCLUDES(mutex_);

  // What is put where readers in passthrough see it.
  [[nodiscard]] HeldVersions& held() { return *held_; }

  // The attributes of the inode changed (kChanged), or may have, by others too (kUntold).
  void on_changed(AttributeNews news) EXCLUDES(mutex_);
  // What the cache had of it was thrown away: the version gets a new cookie.
  void begin_anew() EXCLUDES(mutex_);
  // Nobody has it open any more: lets go of memory.
  void on_last_close() EXCLUDES(mutex_);

 private:
  using FetchMap = std::map<std::uint64_t, std::shared_ptr<Fetch>>;

  // What is in memory ahead of a reader: with less the server's answers come too late, with more
  // the processor's caches have lost it when the reader comes.
  static constexpr std::uint64_t kMostLandedBytes = std::uint64_t{16} << 20;

  struct HiddenName {
    InodeRef directory;
    std::string name;
    CredentialRef credential;
  };

  [[nodiscard]] static Error changed_meanwhile();

  VersionRef make_written_version();
  // Puts `made` into the place of the current version unless that is not `before` any more.
  [[nodiscard]] bool put_version(const VersionRef& before, const VersionRef& made) EXCLUDES(mutex_);
  void end_writing_if_done() EXCLUDES(mutex_);
  void keep_content(std::shared_ptr<const WrittenContent> content, const Attributes& attributes);
  void remove_hidden(const HiddenName& hidden, bool as_root);

  [[nodiscard]] VersionRef make_version(const Attributes& attributes,
                                        std::shared_ptr<const WrittenContent> content = nullptr,
                                        MonotonicTime content_until = {});
  VersionRef replace_version(const VersionRef& before, const Attributes& attributes)
      EXCLUDES(mutex_);
  [[nodiscard]] bool is_to_be_renewed(const Version& version) const;
  void renew_racy(const VersionRef& version, const Caller& caller, Done<VersionRef> done);
  [[nodiscard]] FetchMap::iterator first_overlap(ByteRange range) REQUIRES(mutex_);
  std::shared_ptr<Fetch> make_fetch(const VersionRef& version, ByteRange range, bool prefetch,
                                    const CredentialRef& credential) REQUIRES(mutex_);
  [[nodiscard]] ByteRange next_to_prefetch() REQUIRES(mutex_);
  void issue(const std::shared_ptr<Fetch>& fetch);
  void on_read_reply(const std::shared_ptr<Fetch>& fetch, Result<ReadReply> reply);
  void verify_by_getattr(const std::shared_ptr<Fetch>& fetch);
  void land(const std::shared_ptr<Fetch>& fetch) EXCLUDES(mutex_);
  void keep(const std::shared_ptr<Fetch>& fetch);
  void on_kept(const std::shared_ptr<Fetch>& fetch, const Result<>& result) EXCLUDES(mutex_);
  void abandon(const std::shared_ptr<Fetch>& fetch, const Error& error) EXCLUDES(mutex_);
  void serve(const Piece& piece) REQUIRES(mutex_);
  void hold_or_drop(const std::shared_ptr<Fetch>& fetch) REQUIRES(mutex_);
  void let_go(Fetch& fetch);
  void drop_landed(const std::shared_ptr<Fetch>& fetch) REQUIRES(mutex_);
  void drop_held(bool all) REQUIRES(mutex_);
  void arm_tick() REQUIRES(mutex_);
  void tick() EXCLUDES(mutex_);
  // Has the cache mark it as whole, if it is and nobody did.
  void confirm_complete(const VersionRef& version, const CredentialRef& credential)
      EXCLUDES(mutex_);
  void confirm_complete_at_open(const VersionRef& version, const CredentialRef& credential)
      EXCLUDES(mutex_);
  void finish_small(const VersionRef& version, Result<Buffer> loaded) EXCLUDES(mutex_);
  void fetch_small(const VersionRef& version, const CredentialRef& credential);
  void fetch_small_in_pieces(const VersionRef& version, const std::vector<Piece>& pieces);
  void keep_small(const VersionRef& version, const Buffer& whole);
  void end_prefetch(Fetch& fetch) REQUIRES(mutex_);

  const std::shared_ptr<ShareContext> share_;
  const InodeRef inode_;
  const std::shared_ptr<HeldVersions> held_;

  Mutex mutex_{LockRank::kInode};
  VersionRef version_ GUARDED_BY(mutex_);  // null until somebody asks
  FetchMap fetches_ GUARDED_BY(mutex_);    // of version_ only, by offset, not overlapping
  std::uint64_t landed_bytes_ GUARDED_BY(mutex_) = 0;
  bool holding_ GUARDED_BY(mutex_) = false;  // somebody reads it from one end to the other
  bool read_since_tick_ GUARDED_BY(mutex_) = false;
  bool tick_set_ GUARDED_BY(mutex_) = false;
  std::uint64_t round_ GUARDED_BY(mutex_) = 0;  // of ticks
  Readahead readahead_ GUARDED_BY(mutex_);
  ByteRange prefetch_ GUARDED_BY(mutex_);  // what is still to be prefetched
  CredentialRef prefetch_credential_ GUARDED_BY(mutex_);
  int prefetches_ GUARDED_BY(mutex_) = 0;
  bool completing_ GUARDED_BY(mutex_) = false;  // the whole file is wanted, to its end ...
  bool wrapped_ GUARDED_BY(mutex_) = false;     // ... and then from its start
  bool confirming_ GUARDED_BY(mutex_) = false;
  std::optional<MonotonicTime> confirmed_at_open_ GUARDED_BY(mutex_);  // last tried
  unsigned replies_ GUARDED_BY(mutex_) = 0;
  bool change_to_tell_ GUARDED_BY(mutex_) = false;
  Buffer small_ GUARDED_BY(mutex_);  // the whole of version_, when it is small and was loaded
  bool small_is_news_ GUARDED_BY(mutex_) = false;
  unsigned opens_ GUARDED_BY(mutex_) = 0;
  unsigned writers_ GUARDED_BY(mutex_) = 0;  // of the opens
  std::shared_ptr<Writer> writer_ GUARDED_BY(mutex_);
  bool being_written_ GUARDED_BY(mutex_) = false;
  bool discarding_ GUARDED_BY(mutex_) = false;  // the cache's object is on its way out
  std::optional<HiddenName> hidden_ GUARDED_BY(mutex_);
  // Who waits for a small version to be loaded; an entry means that somebody loads it.
  std::map<VersionRef, std::vector<Done<Buffer>>> small_waiters_ GUARDED_BY(mutex_);
};

}  // namespace larder::netfs
