#include "netfs/known_names.h"

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/mutex.h"
#include "netfs/attributes.h"

namespace larder::netfs {

std::string KnownNames::key_of(const FileHandle& directory, std::string_view name) {
  std::string key(1, static_cast<char>(directory.bytes().size()));
  key += text_of(directory.bytes());
  key += name;
  return key;
}

void KnownNames::note(const FileHandle& directory, std::string_view name, const FileHandle& file) {
  std::string key = key_of(directory, name);
  const MutexLock lock(mutex_);
  const auto [place, added] = names_.insert_or_assign(key, file);
  if (!added) {
    return;
  }
  order_.push_back(std::move(key));
  while (order_.size() > kMostNames) {
    names_.erase(order_.front());
    order_.pop_front();
  }
}

void KnownNames::forget(const FileHandle& directory, std::string_view name) {
  const std::string key = key_of(directory, name);
  const MutexLock lock(mutex_);
  names_.erase(key);
}

std::optional<FileHandle> KnownNames::find(const FileHandle& directory,
                                           std::string_view name) const {
  const std::string key = key_of(directory, name);
  const MutexLock lock(mutex_);
  const auto found = names_.find(key);
  return found == names_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace larder::netfs
