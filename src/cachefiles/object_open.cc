// Object: from the disk to memory, and names taken away.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/checksum.h"
#include "cachefiles/core.h"
#include "cachefiles/in_use.h"
#include "cachefiles/key.h"
#include "cachefiles/label.h"
#include "cachefiles/map_log.h"
#include "cachefiles/object.h"
#include "cachefiles/object_log.h"
#include "cachefiles/open_files.h"
#include "cachefiles/volume.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

Result<std::unique_ptr<fscache::BackendObject>> Object::open(
    Volume& volume, const fscache::ObjectDescription& description) {
  auto object = std::make_unique<Object>(volume, description);
  const InUse::Claim claim = volume.in_use().claim(object->name_);
  bool anybody = false;
  for (Object* const other : volume.in_use().marked(object->name_)) {
    const fscache::ObjectDescription& theirs = other->description_;
    if (!other->superseded_ && theirs.key == description.key && theirs.size == description.size &&
        theirs.coherency == description.coherency) {
      return fail(Errc::kBusy, "this version of the object is open already");
    }
    anybody = true;
  }
  if (anybody) {
    TRY(clear_claimed(volume, object->index_, object->name_));
  } else {
    TRY(object->load());
  }
  volume.in_use().mark(object->name_, object.get());
  object->registered_ = true;
  return object;
}

Result<> Object::discard(Volume& volume, std::string_view key) {
  const std::string name = cook_key(key);
  const InUse::Claim claim = volume.in_use().claim(name);
  return clear_claimed(volume, volume.fan_out_of(key), name);
}

Result<> Object::clear_claimed(Volume& volume, std::uint8_t index, std::string_view name) {
  bool owned = false;
  for (Object* const other : volume.in_use().marked(name)) {
    other->supersede();
    owned = other->give_up_name() || owned;
  }
  if (!owned) {
    return clear_name(volume, index, name);
  }
  TRY(volume.remove(index, name));  // its bytes are the open object's until that is closed
  return {};
}

bool Object::give_up_name() {
  {
    const MutexLock lock(mutex_);
    if (naming_ != Naming::kLinked) {
      return false;
    }
  }
  const Result<> kept = file_.keep_open();  // before the name goes
  log_.stop();
  const MutexLock lock(mutex_);
  if (!kept) {
    map_.clear();
    ++drops_;
    complete_ = false;
  }
  naming_ = Naming::kLost;
  core_.accounts.unlinked(account_, charged_);
  linked_bytes_ = 0;
  return true;
}

Result<> Object::clear_name(Volume& volume, std::uint8_t index, std::string_view name) {
  const Removed removed = TRY(volume.remove(index, name));
  if (removed.existed) {
    volume.core().accounts.change(&volume.account(index), -static_cast<std::int64_t>(removed.bytes),
                                  -1);
  }
  return {};
}

Result<> Object::load() {
  const Result<std::shared_ptr<os::Directory>> directory = volume_.fan_out(index_, false);
  if (!directory) {
    if (directory.error().code() == Errc::kNotFound) {
      return {};
    }
    return fail(core_.note(directory.error()));
  }
  Result<std::unique_ptr<os::File>> file = open_to_use(**directory, name_);
  if (!file && file.error().code() == Errc::kNotFound) {
    return {};
  }
  if (!file && core_.note(file.error()).code() == Errc::kIo) {
    return fail(file.error());
  }
  bool good = false;
  if (file) {
    good = TRY(load_file(*directory, std::shared_ptr<os::File>(std::move(*file))));
  } else {
    core_.counters.damaged_objects.add();
  }
  if (!good) {
    return clear_name(volume_, index_, name_);
  }
  return {};
}

Result<bool> Object::check_label(os::File& file, Label& label) {
  const Result<std::string> bytes = file.get_xattr(kLabelName, kLabelBytes);
  if (!bytes && core_.note(bytes.error()).code() == Errc::kIo) {
    return fail(bytes.error());
  }
  const Result<Label> decoded =
      bytes ? decode_label(bytes_of(*bytes)) : Result<Label>(fail(bytes.error()));
  if (!decoded) {
    core_.counters.damaged_objects.add();
    log_debug("{}: {}", name_, decoded.error().message());
    return false;
  }
  label = *decoded;
  if (!same_version(label, description_)) {
    return false;  // out of date: nothing is wrong with it
  }
  if (label.dirty || !core_.epochs.counts(label.stamp)) {
    core_.counters.undurable.add();
    return false;
  }
  if (label.small != small_) {
    core_.counters.damaged_objects.add();
    return false;
  }
  return true;
}

Result<bool> Object::load_file(const std::shared_ptr<os::Directory>& directory,
                               const std::shared_ptr<os::File>& file) {
  Label label;
  if (!TRY(check_label(*file, label))) {
    return false;
  }
  const Result<os::FileStat> stat = file->stat();
  if (!stat) {
    return fail(core_.note(stat.error()));
  }
  if (stat->size != description_.size) {
    core_.counters.damaged_objects.add();
    return false;
  }
  racy_ = label.racy;
  if (!small_ && !TRY(load_map())) {
    return false;
  }
  file_.set(file);
  file_.set_name(directory, name_, *stat);
  watch_.begin(stat->modified);
  loaded_ = true;
  last_use_ = nanoseconds_of(stat->accessed);
  const std::uint64_t log_bytes = log_.allocated();
  const MutexLock lock(mutex_);
  if (small_) {
    // The checksum covers whose bytes they are, and then the bytes: take the first part off.
    const std::uint32_t bytes_sum = crc32c_combine(identity_checksum(volume_.key(), description_),
                                                   label.checksum, description_.size);
    const std::uint32_t sums[] = {bytes_sum};
    map_.add({0, description_.size}, sums, false);
    newest_data_ = label.stamp;
    complete_ = label.complete;
  }
  loaded_data_ = newest_data_;
  has_file_ = true;
  naming_ = Naming::kLinked;
  label_stamp_ = label.stamp;
  charged_ = stat->allocated + log_bytes;
  linked_bytes_ = charged_;
  return true;
}

// A record whose stamp does not count says nothing: its data may never have reached the disk.
void Object::apply_record(const MapRecord& record) {
  if (record.type == MapRecordType::kDropped) {
    map_.remove(record.run);
    complete_ = false;
    return;
  }
  if (!core_.epochs.counts(record.stamp)) {
    core_.counters.undurable.add();
    return;
  }
  if (record.type == MapRecordType::kSealed) {
    sealed_ = true;
    seal_ = record;
    complete_ = record.complete;
    return;
  }
  const ByteRange run = record.run;
  const bool whole = map_.whole_units_in(run) == run;
  if (!whole || map_.present().contains(run)) {
    return;
  }
  map_.remove(run);
  map_.add(run, record.checksums, false);
  newest_data_ = std::max(newest_data_, record.stamp);
  sealed_ = false;
}

Result<bool> Object::load_map() {
  const Result<std::unique_ptr<os::Directory>> directory = volume_.map_fan_out(index_, false);
  Result<std::unique_ptr<os::File>> file =
      directory ? open_to_use(**directory, name_)
                : Result<std::unique_ptr<os::File>>(fail(directory.error()));
  Result<LoadedLog> log = file ? load_log(**file) : Result<LoadedLog>(fail(file.error()));
  if (!log) {
    if (core_.note(log.error()).code() == Errc::kIo) {
      return fail(log.error());
    }
    core_.counters.damaged_objects.add();
    return false;
  }
  const MapHeader& header = log->header;
  if (header.size != description_.size || header.coherency != description_.coherency ||
      header.digest != digest_of_object(volume_.key(), description_.key)) {
    core_.counters.damaged_objects.add();
    return false;
  }
  log_.adopt(std::move(*file), header.nonce, log->bytes);
  const MutexLock lock(mutex_);
  for (const MapRecord& record : log->records) {
    apply_record(record);
  }
  complete_ = complete_ && map_.full();
  return true;
}

}  // namespace larder::cachefiles
