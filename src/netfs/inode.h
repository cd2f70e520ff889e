// Inode: one file or directory of a share, as long as somebody knows it by its handle.
//
// Small, because a machine knows millions: what only open files need is in File.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::netfs {

class File;
class InodeTable;

// How long attributes count as fresh, as the actimeo family of mount options says (nfs(5)): from
// the least time after a change, doubled at each check that finds no change, up to the most.
struct AttributeTimes {
  std::chrono::milliseconds file_least{3000};
  std::chrono::milliseconds file_most{60000};
  std::chrono::milliseconds directory_least{30000};
  std::chrono::milliseconds directory_most{60000};
};

// Attributes with the time for which they may still be believed.
struct FreshAttributes {
  Attributes attributes;
  std::chrono::milliseconds fresh_for{0};
};

// The moment at which a call to the server was begun, in the order of all calls and changes of a
// share: an answer cannot undo a change that was learned after its call had begun.
using CheckTicket = std::uint64_t;

// What the server said of a file at some time, in the answer to a call that began with `ticket`.
struct EarlierAttributes {
  Attributes attributes;
  MonotonicTime at;
  CheckTicket ticket = 0;
};

// What became of attributes that the server sent.
enum class AttributeNews : std::uint8_t {
  kSame,     // the version that we knew
  kChanged,  // a new version
  kUntold,   // our own change, of which the server does not tell what was before it: as kChanged to
             // whoever cannot be sure that nobody else was there
  kLate,     // begun before a change that we know of, and unlike it: ignored, to be asked again
  kOwn,      // what our own change made of the version that we knew
};

// Our changes of an inode that are under way, and those (parked ones) whose replies came before the
// replies of earlier ones: each leads from the stamps of its "before" to its "after".
struct OwnChanges {
  struct Step {
    BeforeChange before;
    Attributes after;
  };

  unsigned under_way = 0;
  bool lost = false;        // nobody knows what a change made of the file, or whether it was made
  bool untold = false;      // a reply did not tell what was before
  std::vector<Step> early;  // the parked ones, in the order of their replies
  std::uint64_t answered_end = 0;  // see Inode::set_answered_end
  // The newest version that other answers told of meanwhile: perhaps one of ours.
  std::optional<Attributes> told;
};

// Threads: any. Life: shared; leaves its table when the last owner goes.
class Inode : public std::enable_shared_from_this<Inode> {
 public:
  Inode(InodeTable& table, const FileHandle& handle, const EarlierAttributes& known);
  ~Inode();
  Inode(const Inode&) = delete;
  Inode& operator=(const Inode&) = delete;

  [[nodiscard]] const FileHandle& handle() const { return handle_; }

  [[nodiscard]] FileType type() const { return type_; }

  [[nodiscard]] bool is_directory() const { return type_ == FileType::kDirectory; }

  // What programs are to see: where a write(2) was answered before the server had its bytes, the
  // file is as long as if it had them, and its stamps are not to be believed.
  [[nodiscard]] FreshAttributes attributes() const;
  // The same with what the server has just said, if what is known cannot be relied on.
  [[nodiscard]] FreshAttributes attributes_after(const Attributes& told) const;
  // Our own changes, or others' in their midst, may have made it another version than what is
  // known, and no answer has told yet.
  [[nodiscard]] bool is_unsure() const;
  // For how long what the server said may be believed.
  [[nodiscard]] std::chrono::milliseconds server_fresh_for() const;
  AttributeNews update(const Attributes& attributes, CheckTicket ticket);
  // Around a call of ours that changes it. In between, what other answers say of another version
  // decides nothing: it may be our change that they see.
  void begin_own_change();
  // The call is answered: with what the server says of the change; null: it made none, for sure.
  // kOwn, or, when the last is answered, kChanged if they do not fit into one chain: somebody else
  // changed it too, or kUntold. Then the attributes are to be asked for.
  AttributeNews end_own_change(const Change* change);
  // The same for a call of which nobody knows whether it was done.
  AttributeNews end_unknown_change();
  // Each change of ours that was answered has its place in one chain, as far as the server tells.
  [[nodiscard]] bool own_changes_fit() const;
  // Notes from now on whether somebody else changes it. True: it is an empty file, as far as is
  // known.
  bool watch_for_others();
  // What it is like, if nobody else was seen to change it since, and each change of ours is
  // answered.
  [[nodiscard]] std::optional<Attributes> unless_others_changed() const;
  // Up to where writes were answered whose bytes the server has not got yet; 0: it has them all.
  void set_answered_end(std::uint64_t end);
  // The same for what was said a while ago. False: it is of another version than what is known, and
  // only the server can tell which of them is over.
  [[nodiscard]] bool confirm(const EarlierAttributes& earlier);
  // Nothing known is to be believed any more, nor an answer to a question of before that says the
  // same; one that tells of another version is news as ever.
  void expire();

  // The open state, if somebody has the file open (or had until a moment ago).
  [[nodiscard]] std::shared_ptr<File> file() const;
  // Makes `file` the open state unless there is one; returns the one there is.
  [[nodiscard]] std::shared_ptr<File> set_file(const std::shared_ptr<File>& file);
  // The open state ends; for its destructor.
  void clear_file(const File& file);

  // It has a name that was given to it here when it was removed while open, and that nobody sees.
  void set_hidden(bool hidden);
  // That name is being removed: it is not there any more once the server counts fewer names.
  void begin_unhiding();

  [[nodiscard]] bool is_hidden() const { return hidden_; }

  // Without the one that is about to go it still has a name of its own.
  [[nodiscard]] bool has_other_names() const;

  // A number that the front end keeps here: the node that a LOOKUP is answered with; 0 at first.
  [[nodiscard]] std::atomic<std::uint64_t>& front_node() { return front_node_; }

  [[nodiscard]] std::uint64_t front_node_id() const { return front_node_.load(); }

  // Whether the version changed since this was last asked: what the front end was told of the
  // file's size and stamps before is out of date, however long it was to be believed.
  [[nodiscard]] bool take_front_outdated() { return front_outdated_.exchange(false); }

 private:
  friend class InodeBuckets;
  friend class InodeTable;

  [[nodiscard]] std::chrono::milliseconds fresh_for(MonotonicTime now) const;
  [[nodiscard]] bool has_parked_changes() const;
  [[nodiscard]] FreshAttributes shown(const Attributes& attributes, MonotonicTime now) const;
  [[nodiscard]] const Attributes& newest() const;
  [[nodiscard]] AttributeNews settle_own_changes(MonotonicTime now);
  void take(const Attributes& attributes);

  // In an order that leaves no gaps.
  const FileHandle handle_;
  const FileType type_;
  std::atomic<bool> front_outdated_{false};
  std::atomic<bool> hidden_{false};
  bool unhiding_ : 1 = false;        // guarded by the table's lock for this inode
  bool others_changed_ : 1 = false;  // the same
  bool unsure_ : 1 = false;          // the same
  std::uint32_t timeout_ms_ = 0;     // the same
  CheckTicket changed_at_;           // the same
  CheckTicket expired_at_ = 0;       // the same
  MonotonicTime checked_at_;         // the same
  Attributes attributes_;            // the same
  File* file_ = nullptr;             // the same; who dies clears it
  std::unique_ptr<OwnChanges> own_;  // the same; null while there is nothing of that kind
  Inode* next_of_bucket_ = nullptr;  // the same; of InodeBuckets
  std::atomic<std::uint64_t> front_node_{0};
  InodeTable& table_;
};

using InodeRef = std::shared_ptr<Inode>;

// A hash table of inodes by their handle, chained through the inodes themselves.
// Threads: external synchronisation.
class InodeBuckets {
 public:
  // The inode may be dying: its weak_from_this() tells.
  [[nodiscard]] Inode* find(const FileHandle& handle) const;
  // Requires: no inode of that handle is there.
  void insert(Inode& inode);
  // No effect if another inode has its place, or none.
  void erase(const Inode& inode);

  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  [[nodiscard]] Inode*& bucket_of(const FileHandle& handle);
  void resize(std::size_t buckets);

  std::vector<Inode*> buckets_;
  std::size_t size_ = 0;
};

// The inodes of a share by handle. Threads: any. Life: outlives its inodes.
class InodeTable {
 public:
  InodeTable(const Clock& clock, const AttributeTimes& times) : clock_(clock), times_(times) {}

  static constexpr std::size_t kShards = 64;  // parts with a lock each

  // Before a call whose answer will carry attributes of any inode.
  [[nodiscard]] CheckTicket begin_check() { return ++last_ticket_; }

  // The inode of this handle, made if need be with these attributes, the answer to a call that
  // began with `ticket` (an inode that is there keeps its own: update() it). A handle whose file
  // type changed is another file: the old inode goes on alone.
  [[nodiscard]] InodeRef find_or_make(const FileHandle& handle, const Attributes& attributes,
                                      CheckTicket ticket) {
    return find_or_make(handle, {attributes, clock_.now(), ticket});
  }

  // The same with what was said a while ago. Null: something newer is, or may have been, known.
  [[nodiscard]] InodeRef find_or_confirm(const FileHandle& handle, const EarlierAttributes& known);
  [[nodiscard]] InodeRef find(const FileHandle& handle) const;
  [[nodiscard]] std::size_t size() const;

 private:
  friend class Inode;

  struct Shard {
    mutable Mutex mutex{LockRank::kAttributes};
    InodeBuckets inodes GUARDED_BY(mutex);  // some may be dying
  };

  [[nodiscard]] Shard& shard_of(const FileHandle& handle) const {
    return shards_.at(FileHandleHash()(handle) % kShards);
  }

  [[nodiscard]] InodeRef find_or_make(const FileHandle& handle, const EarlierAttributes& known);
  void forget(const Inode& inode);

  const Clock& clock_;
  const AttributeTimes times_;
  std::atomic<CheckTicket> last_ticket_{0};
  // The last news of an inode that is not in the table any more.
  std::atomic<CheckTicket> forgotten_change_{0};
  mutable std::array<Shard, kShards> shards_;
};

}  // namespace larder::netfs
