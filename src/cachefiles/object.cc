// Object: reads and writes.
#include "cachefiles/object.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/checksum.h"
#include "cachefiles/content_map.h"
#include "cachefiles/core.h"
#include "cachefiles/epochs.h"
#include "cachefiles/in_use.h"
#include "cachefiles/key.h"
#include "cachefiles/layout.h"
#include "cachefiles/map_log.h"
#include "cachefiles/object_log.h"
#include "cachefiles/stamp.h"
#include "cachefiles/volume.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// Charged for what does not show in the data: the log's last block, a block of extents, the growth
// of the directory. Corrected when the file is closed.
constexpr std::uint64_t kSmallOverhead = 4096;
constexpr std::uint64_t kLargeOverhead = 3 * std::uint64_t{4096};
// A map record, and an extent of a fragmented file.
constexpr std::uint64_t kRecordCharge = kMapRecordBytes + 32;
// Then it gets its name: a crash of the engine shall not lose more.
constexpr std::uint64_t kWorthAName = std::uint64_t{1024} * 1024;

std::vector<MapPiece> pieces_of(ByteRange run, Bytes from) {
  std::vector<MapPiece> pieces;
  for (std::uint64_t at = run.offset; at < run.end();) {
    const std::uint64_t end = std::min(run.end(), (at / kCellBytes + 1) * kCellBytes);
    const Bytes part =
        from.subspan(static_cast<std::size_t>(at - run.offset), static_cast<std::size_t>(end - at));
    pieces.push_back({ByteRange::between(at, end), crc32c(part)});
    at = end;
  }
  return pieces;
}

}  // namespace

Object::Object(Volume& volume, const fscache::ObjectDescription& description)
    : volume_(volume),
      core_(volume.core()),
      description_(description),
      name_(cook_key(description.key)),
      index_(volume.fan_out_of(description.key)),
      small_(description.size <= kMostSmallBytes),
      account_(volume.account(index_)),
      racy_(description.racy),
      file_(volume.core().open_files),
      map_(description.size) {}

Object::~Object() {
  if (registered_) {
    finish();
  }
}

fscache::ReadPlan Object::plan_read(ByteRange wanted) const {
  using fscache::ReadWhy;
  using fscache::Source;
  if (!core_.usable()) {
    return {Source::kServer, wanted, ReadWhy::kDead};
  }
  const MutexLock lock(mutex_);
  const std::optional<ByteRange> next = map_.present().first_at_or_after(wanted.offset);
  if (next && next->offset == wanted.offset) {
    const ByteRange here = next->intersection(wanted);
    const ReadWhy why = map_.has_unverified(here) ? ReadWhy::kUnverified : ReadWhy::kPresent;
    return {Source::kCache, here, why};
  }
  const std::uint64_t end = next ? std::min(next->offset, wanted.end()) : wanted.end();
  return {Source::kServer, ByteRange::between(wanted.offset, end),
          superseded_ ? ReadWhy::kSuperseded : ReadWhy::kHole};
}

bool Object::has_everything() const {
  const MutexLock lock(mutex_);
  return map_.full();
}

bool Object::complete() const {
  const MutexLock lock(mutex_);
  return complete_;
}

Result<> Object::read(std::uint64_t offset, MutableBytes into) {
  if (!core_.usable()) {
    return fail(Errc::kCacheDead, "the cache was given up");
  }
  const ByteRange range{offset, into.size()};
  std::uint64_t drops = 0;
  std::uint64_t doubts = 0;
  {
    const MutexLock lock(mutex_);
    if (overwritten_) {
      return fail(Errc::kStale, "the backing file is no version any more");
    }
    if (!map_.present().contains(range)) {
      return fail(Errc::kNotFound, "not in the cache");
    }
    drops = drops_;
    doubts = doubts_;
  }
  const Result<std::shared_ptr<os::File>> file = file_.get();
  if (!file) {
    if (core_.note(file.error()).code() != Errc::kIo) {
      lose_file(file.error().context());
    }
    return fail(file.error());
  }
  const Result<std::size_t> got = (*file)->read_at(offset, into, os::ReadHint::kDropBehind);
  if (!got) {
    return fail(core_.note(got.error()));
  }
  if (*got < into.size()) {
    lose_file("the backing file is too short");
    return fail(Errc::kCorrupt, "the backing file is too short");
  }
  const std::vector<MapPiece> to_check = TRY(pieces_to_check(**file, range));
  TRY(check_pieces(**file, to_check, range, into, doubts));
  const MutexLock lock(mutex_);
  if (drops_ != drops && !map_.present().contains(range)) {
    return fail(Errc::kNotFound, "dropped while it was read");
  }
  if (drops_ != drops) {
    return fail(Errc::kCorrupt, "dropped and fetched again while it was read");
  }
  return {};
}

bool Object::is_overwritten() const {
  const MutexLock lock(mutex_);
  return overwritten_;
}

void Object::doubt() {
  if (is_overwritten()) {
    return;
  }
  log_warning("{}: somebody changed the cache's copy; its checksums are looked at again", name_);
  const MutexLock lock(mutex_);
  ++doubts_;
  map_.doubt();
}

Result<std::vector<MapPiece>> Object::pieces_to_check(os::File& file, ByteRange range) {
  const Result<os::FileStat> stat = watch_.look(file);
  if (!stat) {
    return fail(core_.note(stat.error()));
  }
  const MutexLock lock(mutex_);
  // The disk may fail to take what we wrote, and nobody is told before the next syncfs.
  return core_.epochs.durable(newest_data_) ? map_.unverified_in(range) : map_.pieces_in(range);
}

// What is checked is what is handed out: where a piece reaches beyond `into`, it is read again as a
// whole and its part copied from there.
Result<> Object::check_pieces(os::File& file, const std::vector<MapPiece>& pieces, ByteRange range,
                              MutableBytes into, std::uint64_t doubts) {
  std::vector<std::byte> whole;
  for (const MapPiece& piece : pieces) {
    const auto part_of = [](ByteRange inner, ByteRange outer, MutableBytes bytes) {
      return bytes.subspan(static_cast<std::size_t>(inner.offset - outer.offset),
                           static_cast<std::size_t>(inner.length));
    };
    if (range.contains(piece.range)) {
      const Result<> fits = check_piece(piece, part_of(piece.range, range, into), doubts);
      if (!fits) {
        return fits;
      }
      continue;
    }
    whole.resize(static_cast<std::size_t>(piece.range.length));
    TRY(read_piece(file, piece, whole));
    TRY(check_piece(piece, whole, doubts));
    const ByteRange shared = range.intersection(piece.range);
    std::ranges::copy(part_of(shared, piece.range, whole), part_of(shared, range, into).begin());
  }
  return {};
}

Result<> Object::read_piece(os::File& file, const MapPiece& piece, MutableBytes into) {
  const Result<std::size_t> got = file.read_at(piece.range.offset, into, os::ReadHint::kDropBehind);
  if (!got) {
    return fail(core_.note(got.error()));
  }
  if (*got < into.size()) {
    lose_file("the backing file is too short");
    return fail(Errc::kCorrupt, "the backing file is too short");
  }
  return {};
}

Result<> Object::check_piece(const MapPiece& piece, Bytes bytes, std::uint64_t doubts) {
  if (crc32c(bytes) != piece.checksum) {
    drop_corrupt(piece.range);
    return fail(Errc::kCorrupt,
                fmt::format("{}: the checksum at {} does not fit", name_, piece.range.offset));
  }
  const MutexLock lock(mutex_);
  if (doubts == doubts_) {
    map_.mark_verified(piece.range);
  }
  return {};
}

void Object::drop_corrupt(ByteRange piece) {
  if (is_overwritten()) {
    return;  // by us, while it was read
  }
  core_.counters.corrupt_ranges.add();
  log_warning(
      "{}: bytes at {} of the cache's copy do not fit their checksum; they are fetched again",
      name_, piece.offset);
  if (small_) {
    lose_file("its bytes do not fit their checksum");
    return;
  }
  Stamp stamp;
  stamp.generation = core_.epochs.generation();
  MapRecord record;
  record.type = MapRecordType::kDropped;
  record.stamp = stamp;
  record.run = piece;
  {
    const MutexLock lock(mutex_);
    map_.remove(piece);
    complete_ = false;
    sealed_ = false;
    ++drops_;
  }
  core_.write_back.forget(log_.nonce());
  const Result<> appended = log_.append({record});
  if (!appended) {
    (void)core_.note(appended.error());
  }
}

void Object::lose_file(std::string_view why) {
  if (is_overwritten()) {
    return;
  }
  core_.counters.damaged_objects.add();
  log_debug("{}: given up: {}", name_, why);
  const InUse::Claim claim = volume_.in_use().claim(name_);
  std::uint64_t charged = 0;
  bool linked = false;
  {
    const MutexLock lock(mutex_);
    map_.clear();
    ++drops_;
    ++incarnation_;
    complete_ = false;
    sealed_ = false;
    has_file_ = false;
    linked = naming_ == Naming::kLinked;
    if (linked) {
      core_.accounts.unlinked(account_, charged_);
      linked_bytes_ = 0;
      naming_ = Naming::kNone;
    }
    charged = std::exchange(charged_, 0);
    core_.accounts.change(nullptr, -static_cast<std::int64_t>(charged), 0);
  }
  if (linked) {
    const Result<Removed> removed = volume_.remove(index_, name_);
    if (!removed) {
      log_debug("{}: {}", name_, removed.error().message());
    }
  }
  log_.reset();
  watch_.forget();
  file_.close();
}

Result<> Object::write(std::uint64_t offset, Bytes from) {
  if (!core_.usable()) {
    return fail(Errc::kCacheDead, "the cache was given up");
  }
  if (superseded_) {
    return fail(Errc::kStale, "there is a newer version");
  }
  const ByteRange run = ByteRange{offset, from.size()}.intersection({0, description_.size});
  std::vector<ByteRange> missing;
  bool name_it = false;
  {
    const MutexLock lock(mutex_);
    const ByteRange units = map_.whole_units_in(run);
    if (units.empty() || (small_ && units.length != description_.size)) {
      return {};
    }
    for (const ByteRange& hole : map_.present().missing_in(units)) {
      for (const ByteRange& free : writing_.missing_in(hole)) {
        missing.push_back(free);
      }
    }
    for (const ByteRange& part : missing) {
      writing_.add(part);
    }
  }
  Result<> written;
  for (const ByteRange& part : missing) {
    if (written) {
      written = write_missing(part, from.subspan(static_cast<std::size_t>(part.offset - offset),
                                                 static_cast<std::size_t>(part.length)));
    }
  }
  {
    const MutexLock lock(mutex_);
    for (const ByteRange& part : missing) {
      writing_.remove(part);
    }
    name_it = !small_ && naming_ == Naming::kNone && map_.present().total_bytes() >= kWorthAName;
  }
  if (written && name_it) {
    return commit();
  }
  return written;
}

Result<> Object::write_missing(ByteRange run, Bytes from) {
  const std::vector<MapPiece> pieces = pieces_of(run, from);
  const std::uint64_t room = run.rounded_out(kUnitBytes).length +
                             (small_ ? 0 : kRecordCharge * (pieces.size() / kMostCells + 1));
  TRY(charge(room));
  std::uint64_t incarnation = 0;
  {
    const MutexLock lock(mutex_);
    incarnation = incarnation_;
  }
  const Epochs::Lease lease = core_.epochs.begin(run.length);
  const Result<std::shared_ptr<os::File>> file = file_for_writing();
  const Result<> put =
      file ? write_watched(**file, run.offset, from) : Result<>(fail(file.error()));
  if (!put) {
    uncharge(room);
    return fail(core_.note(put.error()));
  }
  core_.space.note_written(run.length);
  std::vector<std::uint32_t> checksums;
  checksums.reserve(pieces.size());
  for (const MapPiece& piece : pieces) {
    checksums.push_back(piece.checksum);
  }
  {
    const MutexLock lock(mutex_);
    if (incarnation != incarnation_) {
      return {};  // the file that we wrote to is gone
    }
    map_.add(run, checksums, true);
    one_writer_ = one_writer_ && (!written_ || written_through_.lock() == *file);
    written_through_ = *file;
    newest_data_ = std::max(newest_data_, lease.stamp());
    written_ = true;
    sealed_ = false;
  }
  last_use_ = nanoseconds_of(core_.file_time());
  if (!small_) {
    const Result<> appended = log_.append(records_of(pieces, lease.stamp()));
    if (!appended) {
      return fail(core_.note(appended.error()));
    }
  }
  return {};
}

Result<> Object::write_watched(os::File& file, std::uint64_t offset, Bytes from) {
  const std::uint64_t life = TRY(watch_.begin_write(file));
  const Result<> written = file.write_at(offset, from);
  const Result<> ended = watch_.end_write(file, life);
  return written ? ended : written;
}

Result<std::shared_ptr<os::File>> Object::file_for_writing() {
  bool create = false;
  {
    const MutexLock lock(mutex_);
    while (creating_) {
      changed_.wait(mutex_);
    }
    create = !has_file_;
    creating_ = create;
  }
  if (!create) {
    return file_.get();
  }
  Result<std::shared_ptr<os::File>> made = make_file();
  const MutexLock lock(mutex_);
  creating_ = false;
  has_file_ = made.has_value();
  changed_.notify_all();
  return made;
}

Result<std::shared_ptr<os::File>> Object::make_file() {
  std::shared_ptr<os::File> file;
  const Result<> made = volume_.put_in_fan_out(index_, [&](const auto& directory) -> Result<> {
    file = TRY(directory->make_tmpfile(kFileMode));
    return {};
  });
  TRY(made);
  if (!small_) {
    TRY(file->set_size(description_.size));  // sparse: a hole takes no room
  }
  file_.set(file);
  return file;
}

Result<> Object::charge(std::uint64_t bytes) {
  Result<> reserved;
  {
    const MutexLock lock(mutex_);
    const bool linked = naming_ == Naming::kLinked;
    const std::uint64_t all =
        bytes + (has_file_ || charged_ != 0 ? 0 : (small_ ? kSmallOverhead : kLargeOverhead));
    reserved = core_.accounts.reserve(linked ? &account_ : nullptr, all);
    if (reserved) {
      charged_ += all;
      linked_bytes_ = linked ? charged_ : 0;
    }
  }
  if (!reserved) {
    core_.note_refused();
  }
  if (!reserved || core_.space.wants_care()) {
    core_.wake();
  }
  return reserved;
}

void Object::uncharge(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  const bool linked = naming_ == Naming::kLinked;
  const std::uint64_t back = std::min(bytes, charged_);
  core_.accounts.change(linked ? &account_ : nullptr, -static_cast<std::int64_t>(back), 0);
  charged_ -= back;
  linked_bytes_ = linked ? charged_ : 0;
}

}  // namespace larder::cachefiles
