#include "netfs/known_names.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/mutex.h"
#include "netfs/attributes.h"

namespace larder::netfs {

KnownNames::KnownNames() : slots_(std::make_unique<std::array<Slot, kSlots>>()) {}

KnownNames::Key KnownNames::key_of(const FileHandle& directory, std::string_view name) {
  // Parted by the handle's length.
  std::string text(1, static_cast<char>(directory.bytes().size()));
  text += text_of(directory.bytes());
  text += name;
  const std::hash<std::string_view> hash;
  const std::uint64_t place = hash(text);
  text += '/';  // no name has one
  return {place, hash(text)};
}

void KnownNames::note(const FileHandle& directory, std::string_view name, const FileHandle& file) {
  const Key key = key_of(directory, name);
  const MutexLock lock(mutex_);
  slots_->at(key.place % kSlots) = {key, file};
}

void KnownNames::forget(const FileHandle& directory, std::string_view name) {
  const Key key = key_of(directory, name);
  const MutexLock lock(mutex_);
  Slot& slot = slots_->at(key.place % kSlots);
  if (slot.key == key) {
    slot = {};
  }
}

std::optional<FileHandle> KnownNames::find(const FileHandle& directory,
                                           std::string_view name) const {
  const Key key = key_of(directory, name);
  const MutexLock lock(mutex_);
  const Slot& slot = slots_->at(key.place % kSlots);
  if (slot.file.bytes().empty() || !(slot.key == key)) {
    return std::nullopt;
  }
  return slot.file;
}

}  // namespace larder::netfs
