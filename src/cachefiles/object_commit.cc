// Object: from memory to a name on the disk, completion, and its end.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/checksum.h"
#include "cachefiles/content_map.h"
#include "cachefiles/core.h"
#include "cachefiles/epochs.h"
#include "cachefiles/in_use.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "cachefiles/map_log.h"
#include "cachefiles/object.h"
#include "cachefiles/object_log.h"
#include "cachefiles/stamp.h"
#include "cachefiles/volume.h"
#include "cachefiles/write_back.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// A map log is rewritten when it has this many bytes, and so many times those that it needs.
constexpr std::uint64_t kLongLog = std::uint64_t{2} * 4096;
constexpr std::uint64_t kLongLogFactor = 4;

}  // namespace

bool Object::worth_a_name() const {
  return has_file_ && (small_ ? map_.full() : !map_.present().empty());
}

Result<> Object::commit() {
  {
    const MutexLock lock(mutex_);
    while (naming_ == Naming::kLinking) {
      changed_.wait(mutex_);
    }
    if (naming_ != Naming::kNone || !worth_a_name()) {
      return {};
    }
    naming_ = Naming::kLinking;
  }
  Result<> done;
  {
    const InUse::Claim claim = volume_.in_use().claim(name_);
    if (!superseded_) {
      done = commit_claimed();
    }
    const MutexLock lock(mutex_);
    if (naming_ == Naming::kLinking) {
      naming_ = Naming::kNone;
    }
    changed_.notify_all();
  }
  if (!done) {
    return fail(core_.note(done.error()));
  }
  return {};
}

// The order counts: label and map log before the name.
Result<> Object::commit_claimed() {
  {
    const MutexLock lock(mutex_);
    if (!worth_a_name()) {
      return {};  // lost its file while we waited
    }
  }
  const Epochs::Lease lease = core_.epochs.begin(kLabelBytes);
  const std::shared_ptr<os::File> file = TRY(file_.get());
  TRY(write_label(*file, lease.stamp()));
  if (!small_) {
    TRY(install_log(lease.stamp()));
  }
  std::shared_ptr<os::Directory> directory;
  const Result<> linked = volume_.put_in_fan_out(index_, [&](const auto& there) -> Result<> {
    directory = there;
    return give_name(*there, *file);
  });
  if (!linked) {
    log_.reset();  // the pieces are in the map: the next try writes a new one
    return linked;
  }
  const os::FileStat stat = TRY(file->stat());
  file_.set_name(directory, name_, stat);
  {
    const MutexLock lock(mutex_);
    naming_ = Naming::kLinked;
    core_.accounts.linked(account_, charged_);
    linked_bytes_ = charged_;
  }
  volume_.account_directory(index_, *directory, false);
  return {};
}

Result<> Object::give_name(os::Directory& directory, os::File& file) {
  const Result<> linked = directory.link(file, name_);
  if (linked || linked.error().code() != Errc::kExists) {
    return linked;
  }
  TRY(core_.bury(directory, name_));
  return directory.link(file, name_);
}

Result<> Object::write_label(os::File& file, Stamp stamp) {
  Label label;
  {
    const MutexLock lock(mutex_);
    label.size = description_.size;
    label.coherency = description_.coherency;
    label.stamp = stamp;
    label.small = small_;
    label.racy = racy_;
    if (small_) {
      label.complete = complete_;
      const std::vector<MapPiece> pieces = map_.pieces();
      label.checksum = crc32c_combine(identity_checksum(volume_.key(), description_),
                                      pieces.front().checksum, description_.size);
    }
    label_stamp_ = stamp;
  }
  return file.set_xattr(kLabelName, encode_label(label));
}

Result<> Object::install_log(Stamp stamp) {
  const std::uint64_t nonce = TRY(core_.random());
  // What waits was in the map before it waited; what comes from here on waits until the start.
  log_.forget_waiting();
  std::vector<MapPiece> pieces;
  {
    const MutexLock lock(mutex_);
    pieces = map_.pieces();
  }
  const std::vector<std::byte> bytes = log_bytes(nonce, records_of(pieces, stamp));
  std::unique_ptr<os::File> file;
  const Result<> put = volume_.put_in_maps(index_, [&](const auto& directory) -> Result<> {
    file = TRY(directory->make_tmpfile(kFileMode));
    TRY(file->write_at(0, bytes));
    TRY(core_.bury(*directory, name_));  // an older version's
    volume_.note_log(index_);
    TRY(directory->link(*file, name_));
    volume_.account_directory(index_, *directory, true);
    return {};
  });
  TRY(put);
  return log_.start(std::move(file), nonce, bytes.size(), stamp);
}

std::vector<std::byte> Object::log_bytes(std::uint64_t nonce,
                                         std::span<const MapRecord> records) const {
  MapHeader header;
  header.size = description_.size;
  header.coherency = description_.coherency;
  header.digest = digest_of_object(volume_.key(), description_.key);
  header.nonce = nonce;
  const MapRecordBytes first = encode_map_header(header);
  std::vector<std::byte> bytes(first.begin(), first.end());
  for (const MapRecord& record : records) {
    const MapRecordBytes encoded = encode_map_record(record, nonce);
    bytes.insert(bytes.end(), encoded.begin(), encoded.end());
  }
  return bytes;
}

bool Object::log_is_long() const {
  const std::uint64_t now = log_.bytes();
  if (now < kLongLog) {
    return false;
  }
  const MutexLock lock(mutex_);
  const std::size_t needed = records_of(map_.pieces(), Stamp{}).size() + 2;
  return now > kLongLogFactor * needed * kMapRecordBytes;
}

// The new log is on the disk before it takes the name: whichever of the two a crash leaves there
// says the same. A record keeps its stamp, or gets a later one.
Result<> Object::rewrite_log() {
  const LoadedLog before = TRY(log_.load());
  std::vector<MapPiece> pieces;
  std::optional<MapRecord> seal;
  {
    const MutexLock lock(mutex_);
    pieces = map_.pieces();
    seal = sealed_ ? std::optional(seal_) : std::nullopt;
  }
  std::vector<MapRecord> counting;
  std::ranges::copy_if(
      before.records, std::back_inserter(counting),
      [this](const MapRecord& record) { return core_.epochs.counts(record.stamp); });
  std::vector<MapRecord> records = rewritten_records(
      pieces, counting, [this](const Stamp& stamp) { return core_.epochs.durable(stamp); });
  if (seal) {
    records.push_back(*seal);
  }
  const std::uint64_t nonce = TRY(core_.random());
  const std::vector<std::byte> bytes = log_bytes(nonce, records);
  if (bytes.size() * 2 > before.bytes) {
    return {};
  }
  const std::unique_ptr<os::Directory> directory = TRY(volume_.map_fan_out(index_, false));
  std::unique_ptr<os::File> file = TRY(directory->make_tmpfile(kFileMode));
  TRY(file->write_at(0, bytes));
  TRY(file->sync());
  // A file without a name cannot replace one; in the graveyard nobody misses what a crash leaves.
  const std::string aside = TRY(core_.grave_name());
  const std::unique_ptr<os::Directory> graveyard = TRY(core_.open_graveyard());
  TRY(graveyard->link(*file, aside));
  volume_.note_log(index_);
  TRY(graveyard->rename(aside, *directory, name_));
  log_debug("{}: map log rewritten, {} bytes instead of {}", name_, bytes.size(), before.bytes);
  core_.write_back.known_by(log_.nonce(), nonce);
  return log_.start(std::move(file), nonce, bytes.size(), Stamp{});
}

bool Object::rewrite_log_if_long() {
  if (!core_.usable() || superseded_ || small_ || linked_bytes_ == 0 || !log_is_long()) {
    return false;
  }
  const Result<> done = rewrite_log();
  if (!done) {
    (void)core_.note(done.error());
  }
  return true;
}

Result<> Object::seal(os::FileTime modified) {
  const Epochs::Lease lease = core_.epochs.begin(kMapRecordBytes);
  MapRecord record;
  record.type = MapRecordType::kSealed;
  record.stamp = lease.stamp();
  record.complete = true;
  record.modified = modified;
  TRY(log_.append({record}));
  const MutexLock lock(mutex_);
  sealed_ = true;
  seal_ = record;
  return {};
}

// What is sealed is registered unseen: also what an earlier life of the object has left.
Result<> Object::verify_and_seal() {
  const std::shared_ptr<os::File> file = TRY(file_.get());
  const os::FileStat stat = TRY(watch_.look(*file));
  TRY(verify_everything(*file));
  return seal(stat.modified);
}

Result<> Object::mark_complete() {
  if (!core_.usable()) {
    return fail(Errc::kCacheDead, "the cache was given up");
  }
  bool relabel = false;
  Stamp stamp;
  {
    const MutexLock lock(mutex_);
    if (!map_.full()) {
      return fail(Errc::kInvalid, "bytes are missing");
    }
    if (complete_) {
      return {};
    }
    complete_ = true;
    if (description_.size == 0) {
      return {};
    }
    relabel = small_ && naming_ == Naming::kLinked;
    stamp = label_stamp_;
  }
  Result<> done = commit();
  if (done && relabel) {
    // With the old stamp: the bytes that it speaks of are those of then.
    const Result<std::shared_ptr<os::File>> file = file_.get();
    done = file ? write_label(**file, stamp) : Result<>(fail(file.error()));
  }
  if (done && !small_) {
    done = verify_and_seal();
  }
  if (!done) {
    const MutexLock lock(mutex_);
    complete_ = false;
    return fail(core_.note(done.error()));
  }
  ask_for_write_back();
  return {};
}

void Object::ask_for_write_back() {
  WriteBack::Wanted wanted;
  wanted.nonce = log_.nonce();
  wanted.size = description_.size;
  std::shared_ptr<os::File> file;
  Stamp loaded;
  {
    const MutexLock lock(mutex_);
    wanted.newest = newest_data_;
    loaded = loaded_data_;
    file = one_writer_ ? written_through_.lock() : nullptr;
  }
  // What an earlier life of the object wrote may have been lost without a word to this file.
  if (file == nullptr || !core_.epochs.durable(loaded)) {
    return;
  }
  const Result<os::FileStat> stat = file->stat();
  if (stat) {
    wanted.inode = stat->inode;
    if (core_.write_back.add(wanted, std::move(file))) {
      core_.wake();
    }
  }
}

bool Object::on_disk() const {
  Stamp newest;
  {
    const MutexLock lock(mutex_);
    newest = newest_data_;
  }
  return core_.epochs.durable(newest) || core_.write_back.done(log_.nonce());
}

Result<> Object::verify_everything(os::File& file) {
  std::vector<MapPiece> pieces;
  std::uint64_t doubts = 0;
  {
    const MutexLock lock(mutex_);
    pieces = map_.unverified_in({0, description_.size});
    doubts = doubts_;
  }
  std::vector<std::byte> bytes;
  for (const MapPiece& piece : pieces) {
    bytes.resize(static_cast<std::size_t>(piece.range.length));
    TRY(read_piece(file, piece, bytes));
    TRY(check_piece(piece, bytes, doubts));
  }
  return {};
}

Result<UniqueFd> Object::open_for_passthrough() {
  if (!core_.usable()) {
    return fail(Errc::kCacheDead, "the cache was given up");
  }
  bool sealed = false;
  MapRecord seal_record;
  {
    const MutexLock lock(mutex_);
    if (!complete_ || !has_file_) {
      return fail(Errc::kInvalid, "the object is not complete");
    }
    sealed = sealed_;
    seal_record = seal_;
  }
  if (!on_disk()) {
    return fail(Errc::kBusy, "the disk may not have taken all of it yet");
  }
  const std::shared_ptr<os::File> file = TRY(file_.get());
  const Result<os::FileStat> stat = watch_.look(*file);
  if (!stat) {
    return fail(core_.note(stat.error()));
  }
  if (stat->size != description_.size) {
    lose_file("the backing file has another size than the file");
    return fail(Errc::kCorrupt, "the backing file has another size than the file");
  }
  const bool trusted = !small_ && sealed && seal_record.modified == stat->modified &&
                       !core_.epochs.needs_verification(seal_record.stamp);
  if (!trusted) {
    TRY(verify_everything(*file));
    if (!small_) {
      const Result<> sealed_again = seal(stat->modified);
      if (!sealed_again) {
        return fail(core_.note(sealed_again.error()));
      }
    }
  }
  TRY(try_to_read(*file));
  return file->duplicate_descriptor();
}

Result<> Object::try_to_read(os::File& file) {
  std::array<std::byte, 1> byte{};
  if (const auto offset = failed_reads_.find(file, description_.size, core_.clock)) {
    const Result<std::size_t> got = file.read_at(*offset, byte);
    if (!got) {
      return fail(core_.note(got.error()));
    }
  }
  return {};
}

std::optional<std::uint64_t> Object::find_failed_read() {
  const std::shared_ptr<os::File> file = file_.if_open();
  return file == nullptr ? std::nullopt : failed_reads_.find(*file, description_.size, core_.clock);
}

bool Object::stamp_due(os::FileTime now, double seconds) const {
  return used_ && !superseded_ && linked_bytes_ > 0 &&
         static_cast<double>(nanoseconds_of(now) - last_use_) * 1e-9 >= seconds;
}

void Object::stamp_last_use() {
  const os::FileTime now = core_.file_time();
  const Result<std::shared_ptr<os::File>> file = file_.get();
  const Result<> stamped = file ? (*file)->set_accessed_now() : Result<>(fail(file.error()));
  if (!stamped) {
    (void)core_.note(stamped.error());
  }
  last_use_ = nanoseconds_of(now);
}

void Object::correct_charge() {
  const Result<std::shared_ptr<os::File>> file = file_.get();
  const Result<os::FileStat> stat =
      file ? (*file)->stat() : Result<os::FileStat>(fail(file.error()));
  const std::uint64_t log_bytes = log_.allocated();
  const MutexLock lock(mutex_);
  if (!stat || naming_ != Naming::kLinked) {
    return;
  }
  const std::uint64_t real = stat->allocated + log_bytes;
  core_.accounts.change(&account_,
                        static_cast<std::int64_t>(real) - static_cast<std::int64_t>(charged_), 0);
  charged_ = real;
  linked_bytes_ = real;
}

bool Object::keep() {
  const Result<> done = commit();
  bool written = false;
  bool seal_it = false;
  {
    const MutexLock lock(mutex_);
    written = written_;
    seal_it = !small_ && complete_ && !sealed_ && naming_ == Naming::kLinked;
  }
  const Result<> sealed = seal_it ? verify_and_seal() : Result<>();
  if (!sealed) {
    (void)core_.note(sealed.error());
  }
  if (!done) {
    log_debug("{}: not kept: {}", name_, done.error().message());
  }
  // What was made in this life carries the time of its making.
  if (loaded_ && stamp_due(core_.file_time(), core_.stamp_seconds)) {
    stamp_last_use();
  }
  return written;
}

void Object::finish() {
  const bool written = core_.usable() && !superseded_ && keep();
  // Whoever is told may cull it at once.
  if (const std::uint64_t released = leave(written); released != 0) {
    core_.note_released(released);
  }
}

std::uint64_t Object::leave(bool written) {
  const InUse::Claim claim = volume_.in_use().claim(name_);
  if (superseded_ && give_up_name()) {
    const Result<Removed> removed = volume_.remove(index_, name_);
    if (!removed) {
      log_debug("{}: {}", name_, removed.error().message());
    }
  }
  if (rewrite_log_if_long() || written) {
    correct_charge();
  }
  {
    const MutexLock lock(mutex_);
    if (naming_ != Naming::kLinked) {
      core_.accounts.change(nullptr, -static_cast<std::int64_t>(charged_), 0);
    }
  }
  file_.close();
  log_.stop();
  return volume_.in_use().unmark(name_, this, linked_bytes_);
}

}  // namespace larder::cachefiles
