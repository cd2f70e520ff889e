// Journal: the calls that must not happen twice, of all mounts, by the kernel's number of each.
//
// When an engine dies under a mount, the kernel gives the next one every request again that was not
// answered, with kUniqueResend in its number. The reads among them are simply done again. A MKDIR
// done again would find its own directory, a REMOVE nothing, an append its own bytes. So each such
// call has a slot in the keeper's memory from before the server hears of it until the kernel has
// its answer.
//
// The process may be killed between any two stores. They come in this order, each as one store that
// makes what was written before it count:
//
//   begun       the call's slot: opcode, number, then the mount
//   chosen      verifier, hidden name: before the server is asked with it
//   sent        before anything leaves that may carry out the call; of an append with its offset
//   done        what the server has made or hidden, before it is asked for the next step
//   taken       the node whose lookup count was raised for the answer, the open: right after it was
//               done, so that a kill in between leaves one too many, never one too few
//   answered    the answer, before it is written to the kernel
//   free        after it was written: the kernel never sends the request again
//
// What an engine finds in the slot of a request that comes again:
//
//   begun       it is a new call
//   sent        netfs asks the server as for a repetition, with what was chosen, and goes on from
//               what is known to be done; what was taken is given back first
//   answered    the same answer, without the server
//
// What was answered, and died before its slot was free, is not sent again: such slots are left
// until the mount ends, as are those of callers who were killed while nobody listened. They cannot
// be told apart, so what the latter had taken stays taken as long.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/uio.h>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/changes.h"

namespace larder::fuse {

class JournaledCall;

// Threads: any. Life: the engine's; outlives every call.
class Journal {
 public:
  // Takes over what is in it.
  explicit Journal(handover::Table<handover::JournalRecord> records);
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal() = default;

  // The slot of a request that has come: the one that an engine before us left, else a new one.
  // Null: the table is full, and the call goes on without; that is counted.
  [[nodiscard]] std::shared_ptr<JournaledCall> begin(std::uint32_t mount_id, std::uint64_t unique,
                                                     std::uint32_t opcode) EXCLUDES(mutex_);
  // The mount is over: nobody comes for what was left of it.
  void drop_mount(std::uint32_t mount_id) EXCLUDES(mutex_);

  // Slots that are not free.
  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);

  // Calls that found the table full.
  [[nodiscard]] std::uint64_t unjournaled() const { return unjournaled_.load(); }

 private:
  friend class JournaledCall;

  using Record = handover::JournalRecord;
  using Key = std::pair<std::uint32_t, std::uint64_t>;  // mount, number

  [[nodiscard]] std::optional<std::uint32_t> take_slot() REQUIRES(mutex_);
  void free_slot(std::uint32_t slot) EXCLUDES(mutex_);

  const handover::Table<Record> records_;
  std::atomic<std::uint64_t> unjournaled_{0};

  mutable Mutex mutex_{LockRank::kStats};
  std::map<Key, std::uint32_t> left_ GUARDED_BY(mutex_);  // slots that an engine before us left
  std::vector<std::uint32_t> free_ GUARDED_BY(mutex_);    // below next_unused_; the last goes first
  std::uint32_t next_unused_ GUARDED_BY(mutex_) = 0;
};

// One call and its slot. Threads: any. Life: shared by the request and whoever works for it; the
// slot is its own until end(), after which notes go nowhere.
class JournaledCall final : public netfs::CallJournal {
 public:
  struct Answer {
    int error_number = 0;
    std::vector<std::byte> body;
  };

  // What the kernel would give back, had it got the answer; 0: nothing.
  struct Taken {
    std::uint64_t nodeid = 0;
    std::uint64_t fh = 0;
  };

  JournaledCall(Journal& journal, std::uint32_t slot);

  // ---- What an engine before us left; the same for as long as it lives.

  [[nodiscard]] const std::optional<Answer>& earlier_answer() const { return earlier_answer_; }

  [[nodiscard]] const Taken& earlier_taken() const { return earlier_taken_; }

  [[nodiscard]] const netfs::CallNotes& earlier() const override { return earlier_; }

  // ---- Notes.

  void note_sent() override EXCLUDES(mutex_);
  void note_verifier(const netfs::CreateVerifier& verifier) override EXCLUDES(mutex_);
  void note_made(const netfs::FileHandle& handle) override EXCLUDES(mutex_);
  void note_offset(std::uint64_t offset) override EXCLUDES(mutex_);
  void note_hidden_name(std::string_view name) override EXCLUDES(mutex_);
  void note_hidden() override EXCLUDES(mutex_);
  // 0: given back.
  void note_node(std::uint64_t nodeid) EXCLUDES(mutex_);
  void note_handle(std::uint64_t fh) EXCLUDES(mutex_);

  // The answer is about to be written; one that an engine before us left stays as it is.
  void note_answer(int error_number, std::span<const iovec> parts) EXCLUDES(mutex_);
  // The kernel has it, or does not want it any more.
  void end() EXCLUDES(mutex_);

 private:
  using Record = handover::JournalRecord;

  void note_flag(handover::CallFlags flag) REQUIRES(mutex_);

  Journal& journal_;
  const std::uint32_t slot_;
  netfs::CallNotes earlier_;
  std::optional<Answer> earlier_answer_;
  Taken earlier_taken_;

  Mutex mutex_{LockRank::kStats};
  Record* record_ GUARDED_BY(mutex_);  // null: ended
};

}  // namespace larder::fuse
