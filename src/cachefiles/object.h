// An object: one version of one file, and its backing file.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/mutex.h"
#include "base/range_set.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "cachefiles/content_map.h"
#include "cachefiles/epochs.h"
#include "cachefiles/failed_reads.h"
#include "cachefiles/label.h"
#include "cachefiles/map_log.h"
#include "cachefiles/object_log.h"
#include "cachefiles/open_files.h"
#include "cachefiles/stamp.h"
#include "cachefiles/touch_watch.h"
#include "cachefiles/volume.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// The order on disk: data, then label and map record, then the name. What has a name is described
// by its label; the data files of small objects (kMostSmallBytes) are complete or not there. Life:
// its user's; registered in the volume's InUse as long as it lives. Threads: any; the lock is held
// for what is in memory only.
class Object final : public fscache::BackendObject {
 public:
  [[nodiscard]] static Result<std::unique_ptr<fscache::BackendObject>> open(
      Volume& volume, const fscache::ObjectDescription& description);
  [[nodiscard]] static Result<> discard(Volume& volume, std::string_view key);

  Object(Volume& volume, const fscache::ObjectDescription& description);
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() override;

  fscache::ReadPlan plan_read(ByteRange wanted) const override EXCLUDES(mutex_);
  bool has_everything() const override EXCLUDES(mutex_);
  bool complete() const override EXCLUDES(mutex_);

  bool racy() const override { return racy_; }

  void supersede() override { superseded_ = true; }

  Result<> read(std::uint64_t offset, MutableBytes into) override EXCLUDES(mutex_);
  Result<> write(std::uint64_t offset, Bytes from) override EXCLUDES(mutex_);
  Result<> mark_complete() override EXCLUDES(mutex_);
  Result<UniqueFd> open_for_passthrough() override EXCLUDES(mutex_);
  Result<> overwrite(std::uint64_t offset, Bytes from) override EXCLUDES(mutex_);
  Result<> resize(std::uint64_t size) override EXCLUDES(mutex_);
  Result<bool> is_open_elsewhere() override;

  std::optional<std::uint64_t> find_failed_read() override;

  void note_use() override { used_ = true; }

  // It is in use, and its file says so since longer than `seconds` only. From memory.
  [[nodiscard]] bool stamp_due(os::FileTime now, double seconds) const;
  // Who holds the claim of its name may call it, besides the object itself.
  void stamp_last_use();

  // What the accounts hold for it under its directory; for the count of that directory.
  [[nodiscard]] std::uint64_t linked_bytes() const { return linked_bytes_; }

 private:
  enum class Naming : std::uint8_t {
    kNone,     // no name
    kLinking,  // a thread is giving it one
    kLinked,   // it has a name
    kLost,     // it had one, or will never get one
  };

  // ---- Opening. By the holder of the claim.
  [[nodiscard]] Result<> load();
  // False: there is nothing that can be used, and what is there is to be taken away.
  [[nodiscard]] Result<bool> load_file(const std::shared_ptr<os::Directory>& directory,
                                       const std::shared_ptr<os::File>& file);
  [[nodiscard]] Result<bool> check_label(os::File& file, Label& label);
  [[nodiscard]] Result<bool> load_map() EXCLUDES(mutex_);
  void apply_record(const MapRecord& record) REQUIRES(mutex_);
  // Takes what lies under a name off the disk, and its bytes off the accounts.
  [[nodiscard]] static Result<> clear_name(Volume& volume, std::uint8_t index,
                                           std::string_view name);
  // Supersedes the open objects of a name and takes the name from them and the disk.
  [[nodiscard]] static Result<> clear_claimed(Volume& volume, std::uint8_t index,
                                              std::string_view name);
  // This object's file is about to lose its name. True: it had one.
  [[nodiscard]] bool give_up_name() EXCLUDES(mutex_);

  // ---- Reading.
  [[nodiscard]] bool is_overwritten() const EXCLUDES(mutex_);
  // Somebody else wrote to the backing file: all of its checksums are to be looked at again.
  void doubt() EXCLUDES(mutex_);
  // Of `range`, after it was read.
  [[nodiscard]] Result<std::vector<MapPiece>> pieces_to_check(os::File& file, ByteRange range)
      EXCLUDES(mutex_);
  // `doubts`: those there were before anything was read.
  [[nodiscard]] Result<> check_pieces(os::File& file, const std::vector<MapPiece>& pieces,
                                      ByteRange range, MutableBytes into, std::uint64_t doubts);
  [[nodiscard]] Result<> read_piece(os::File& file, const MapPiece& piece, MutableBytes into);
  [[nodiscard]] Result<> check_piece(const MapPiece& piece, Bytes bytes, std::uint64_t doubts)
      EXCLUDES(mutex_);
  void drop_corrupt(ByteRange piece) EXCLUDES(mutex_);
  // The backing file is not what the label says: begin anew.
  void lose_file(std::string_view why) EXCLUDES(mutex_);
  [[nodiscard]] Result<> verify_everything(os::File& file) EXCLUDES(mutex_);
  // Looks whether the disk still gives what it holds, before somebody reads it past us.
  [[nodiscard]] Result<> try_to_read(os::File& file);
  // What is read past our checksums is what was written: the disk has it.
  [[nodiscard]] bool on_disk() const EXCLUDES(mutex_);
  void ask_for_write_back() EXCLUDES(mutex_);

  // ---- Writing.
  [[nodiscard]] Result<> write_missing(ByteRange run, Bytes from) EXCLUDES(mutex_);
  [[nodiscard]] Result<> write_watched(os::File& file, std::uint64_t offset, Bytes from);
  [[nodiscard]] Result<std::shared_ptr<os::File>> file_for_writing() EXCLUDES(mutex_);
  [[nodiscard]] Result<std::shared_ptr<os::File>> make_file();
  [[nodiscard]] Result<> charge(std::uint64_t bytes) EXCLUDES(mutex_);
  void uncharge(std::uint64_t bytes) EXCLUDES(mutex_);

  // ---- Changed in place.
  [[nodiscard]] Result<> overwrite_file(std::uint64_t offset, Bytes from) EXCLUDES(mutex_);
  [[nodiscard]] Result<> resize_file(std::uint64_t size) EXCLUDES(mutex_);
  // The backing file, no version's any more, and known for that on the disk. Takes the claim.
  [[nodiscard]] Result<std::shared_ptr<os::File>> file_to_overwrite() EXCLUDES(mutex_);
  [[nodiscard]] Result<> mark_dirty(os::File& file) EXCLUDES(mutex_);
  void charge_what_is_there(os::File& file) EXCLUDES(mutex_);

  // ---- Its name.
  [[nodiscard]] bool worth_a_name() const REQUIRES(mutex_);
  // Links it when it has something worth keeping. Takes the claim.
  [[nodiscard]] Result<> commit() EXCLUDES(mutex_);
  [[nodiscard]] Result<> commit_claimed() EXCLUDES(mutex_);
  // Buries what has the name.
  [[nodiscard]] Result<> give_name(os::Directory& directory, os::File& file);
  [[nodiscard]] Result<> install_log(Stamp stamp) EXCLUDES(mutex_);
  [[nodiscard]] Result<> write_label(os::File& file, Stamp stamp) EXCLUDES(mutex_);
  [[nodiscard]] std::vector<std::byte> log_bytes(std::uint64_t nonce,
                                                 std::span<const MapRecord> records) const;
  [[nodiscard]] bool log_is_long() const EXCLUDES(mutex_);
  // By the holder of the claim, when nobody else uses the object any more.
  [[nodiscard]] Result<> rewrite_log() EXCLUDES(mutex_);
  bool rewrite_log_if_long() EXCLUDES(mutex_);  // true: the bytes of the log may be others now
  // With the time of change that the backing file had when it was last looked at.
  [[nodiscard]] Result<> seal(os::FileTime modified) EXCLUDES(mutex_);
  [[nodiscard]] Result<> verify_and_seal() EXCLUDES(mutex_);
  // Gives it what a later life needs of it. True: something was written in this one.
  bool keep() EXCLUDES(mutex_);
  void finish() EXCLUDES(mutex_);
  // The bytes that came out of use.
  [[nodiscard]] std::uint64_t leave(bool written) EXCLUDES(mutex_);
  void correct_charge() EXCLUDES(mutex_);

  Volume& volume_;
  Core& core_;
  const fscache::ObjectDescription description_;
  const std::string name_;
  const std::uint8_t index_;
  const bool small_;
  DirectoryAccount& account_;

  // Written before the object is known to others.
  bool racy_;
  bool registered_ = false;
  bool loaded_ = false;

  std::atomic<bool> superseded_{false};
  std::atomic<bool> used_{false};
  std::atomic<std::int64_t> last_use_{0};  // ns: as its file says, or when it was last written
  std::atomic<std::uint64_t> linked_bytes_{0};
  BackingFile file_;
  TouchWatch watch_{[this] { doubt(); }};
  FailedReads failed_reads_;
  ObjectLog log_;

  mutable Mutex mutex_{LockRank::kObject};
  CondVar changed_;  // creating_, naming_
  ContentMap map_ GUARDED_BY(mutex_);
  RangeSet writing_ GUARDED_BY(mutex_);               // being written by some thread
  std::uint64_t drops_ GUARDED_BY(mutex_) = 0;        // times that something left the map
  std::uint64_t doubts_ GUARDED_BY(mutex_) = 0;       // times that all became unverified
  std::uint64_t incarnation_ GUARDED_BY(mutex_) = 0;  // backing files that it has lost
  bool has_file_ GUARDED_BY(mutex_) = false;
  bool creating_ GUARDED_BY(mutex_) = false;
  Naming naming_ GUARDED_BY(mutex_) = Naming::kNone;
  bool complete_ GUARDED_BY(mutex_) = false;
  bool written_ GUARDED_BY(mutex_) = false;      // since it was opened
  bool sealed_ GUARDED_BY(mutex_) = false;       // nothing was written since seal_
  bool overwritten_ GUARDED_BY(mutex_) = false;  // is about to be, or was: no version any more
  bool dirty_ GUARDED_BY(mutex_) = false;        // and the disk knows
  MapRecord seal_ GUARDED_BY(mutex_);
  Stamp label_stamp_ GUARDED_BY(mutex_);
  Stamp newest_data_ GUARDED_BY(mutex_);  // of the data in the map
  Stamp loaded_data_ GUARDED_BY(mutex_);  // of what was there when it was opened
  // What this object wrote was written through one open file: that one is told if it was lost.
  std::weak_ptr<os::File> written_through_ GUARDED_BY(mutex_);
  bool one_writer_ GUARDED_BY(mutex_) = true;
  std::uint64_t charged_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::cachefiles
