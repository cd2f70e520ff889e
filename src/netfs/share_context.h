// ShareContext: what all parts of one mounted share use together.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/buffer.h"
#include "base/counter.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "fscache/cookie.h"
#include "fscache/volume.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/coherency.h"
#include "netfs/hidden_names.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/known_names.h"
#include "netfs/name_cache.h"
#include "netfs/whole_copy.h"
#include "netfs/write_store.h"

namespace larder::netfs {

struct ShareCounters {
#define NETFS_COUNTER(name, text) Counter name;
#include "netfs/stats.def"
#undef NETFS_COUNTER
};

// Threads: its parts are safe by themselves. Life: shared by the share, its files, listings and
// requests: work of the cache's disk may end after the share was unmounted. The adapter answers
// kCancelled by then.
class ShareContext : public std::enable_shared_from_this<ShareContext> {
 public:
  ShareContext(std::unique_ptr<Adapter> adapter_to_own, Executor& the_executor,
               std::shared_ptr<fscache::Cache> cache, const AttributeTimes& times,
               const ShareInfo& info);

  // Takes in what the server said of an inode at the end of a call that began with `ticket`.
  AttributeNews apply(Inode& inode, const Attributes& attributes, CheckTicket ticket);
  // A call of ours that changes the inode was answered: with what it says of the change, or why it
  // was not made. Inode::begin_own_change() came before it.
  void end_change(const InodeRef& inode, const Result<Change>& change);
  // Asks the server for news of the inode and takes them in; `done` with what it said. What crosses
  // changes of ours decides nothing: then it is asked a few times more.
  void refresh(const InodeRef& inode, const Caller& caller, Done<Attributes> done);
  // The volume that keeps files with this fsid: submounts of a share have volumes of their own.
  [[nodiscard]] std::shared_ptr<fscache::Volume> volume_of(std::uint64_t fsid) EXCLUDES(mutex_);
  // We have removed the last name of the file, as far as we know: what the cache has of it makes
  // room.
  void discard_removed(const Inode& inode);

  // A verifier that no other creation has, of this client or another.
  [[nodiscard]] CreateVerifier new_verifier();
  // A name that nobody else uses, for a file that loses its own while it is open.
  [[nodiscard]] std::string new_hidden_name(std::string_view prefix, const Inode& inode);

  // A cookie of nothing that is kept.
  [[nodiscard]] std::shared_ptr<fscache::Cookie> uncached_cookie(
      fscache::ObjectDescription description) {
    return uncached_->acquire_cookie(std::move(description));
  }

  // To be called once, before the first request.
  void set_invalidation_sink(std::shared_ptr<InvalidationSink> sink) {
    invalidation_ = std::move(sink);
  }

  // Tells the front end, if there is one.
  void tell_changed(const Inode& inode) {
    if (invalidation_ != nullptr) {
      invalidation_->data_changed(inode);
    }
  }

  void tell_attributes_changed(std::uint64_t holder) {
    if (invalidation_ != nullptr) {
      invalidation_->attributes_changed(holder);
    }
  }

  // The cache is pressed for room: what the front end keeps of closed files. False: nothing.
  bool give_front_room() { return invalidation_ != nullptr && invalidation_->give_room(); }

  // Who is asked then.
  void add_room_giver(std::weak_ptr<fscache::RoomGiver> giver) {
    if (cache_ != nullptr) {
      cache_->add_room_giver(std::move(giver));
    }
  }

  // To be called once, before the first request.
  void set_write_store(std::unique_ptr<WriteStore> store) { write_store = std::move(store); }

  const std::unique_ptr<Adapter> owned_adapter;
  Adapter& adapter;
  Executor& executor;
  const std::uint32_t read_size;   // bytes of one READ
  const std::uint32_t write_size;  // bytes of one WRITE
  BufferPool buffers;
  ServerTime server_time;
  InodeTable inodes;
  const std::shared_ptr<NameCache> names;
  KnownNames known_names;
  HiddenNames hidden_names;
  std::unique_ptr<WriteStore> write_store = make_heap_write_store(kMostStoredBytes);
  ShareCounters counters;

  // Opens of files that somebody holds.
  std::atomic<std::uint64_t> opens{0};

  // Prefetches under way, over all files.
  std::atomic<int> prefetches{0};
  // Bytes fetched, not yet on the cache's disk: bounds the memory of a cache slower than its
  // server.
  std::atomic<std::uint64_t> unwritten_bytes{0};
  // Bytes on the cache's disk that are also kept in memory for a moment, because a reader is about
  // to come for them.
  std::atomic<std::uint64_t> held_bytes{0};

  // Bytes of writes that were answered before the server had them, and that are not safe on its
  // disk yet: lost if we end now.
  std::atomic<std::uint64_t> unsafe_bytes{0};

  // The server says with a WRITE what the file was like before it: nobody else's change goes
  // unnoticed.
  std::atomic<bool> writes_tell{false};

  // Of files that are being written from nothing (WholeCopy).
  const CopiedBytes copied_bytes = std::make_shared<std::atomic<std::uint64_t>>(0);

  // Files of which the server may not have yet what was answered.
  std::atomic<std::uint64_t> files_behind{0};

  static constexpr int kMostPrefetches = 16;
  static constexpr std::uint64_t kMostUnwrittenBytes = std::uint64_t{128} << 20;
  static constexpr std::uint64_t kMostHeldBytes = std::uint64_t{64} << 20;

 private:
  static constexpr unsigned kMostQuestions = 3;

  void ask_attributes(const InodeRef& inode, const Caller& caller, unsigned questions,
                      Done<Attributes> done);

  const std::shared_ptr<fscache::Cache> cache_;
  const std::shared_ptr<fscache::Volume> uncached_;
  std::shared_ptr<InvalidationSink> invalidation_;
  const std::uint32_t client_;  // drawn: tells this share's verifiers and names from others'
  std::atomic<std::uint32_t> last_made_{0};
  Mutex mutex_{LockRank::kVolume};
  std::map<std::uint64_t, std::shared_ptr<fscache::Volume>> volumes_ GUARDED_BY(mutex_);
};

// The volume key on disk of the files of `fsid` in a share (docs/on-disk-format.md): nothing in it
// depends on mount options.
[[nodiscard]] std::string volume_key(const ShareName& name, std::uint64_t fsid);

}  // namespace larder::netfs
