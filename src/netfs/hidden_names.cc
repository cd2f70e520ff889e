#include "netfs/hidden_names.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "netfs/attributes.h"
#include "netfs/hidden_name_store.h"

namespace larder::netfs {

std::vector<LeftName> HiddenNames::adopt_left() {
  return store_ == nullptr ? std::vector<LeftName>() : store_->adopt();
}

void HiddenNames::announce(const LeftName& name) {
  if (store_ != nullptr) {
    store_->put(name);
  }
}

void HiddenNames::forget(const FileHandle& directory, std::string_view name) {
  if (store_ != nullptr) {
    store_->remove(directory, name);
  }
}

void HiddenNames::add(const FileHandle& directory, const std::string& name,
                      std::weak_ptr<File> file) {
  const MutexLock lock(mutex_);
  names_[directory].emplace_back(name, std::move(file));
}

void HiddenNames::remove(const FileHandle& directory, std::string_view name) {
  const MutexLock lock(mutex_);
  const auto found = names_.find(directory);
  if (found == names_.end()) {
    return;
  }
  std::erase_if(found->second, [name](const Name& each) { return each.first == name; });
  if (found->second.empty()) {
    names_.erase(found);
  }
}

std::vector<HiddenNames::Name> HiddenNames::in(const FileHandle& directory) const {
  const MutexLock lock(mutex_);
  const auto found = names_.find(directory);
  return found == names_.end() ? std::vector<Name>() : found->second;
}

bool HiddenNames::contains(const FileHandle& directory, std::string_view name) const {
  const MutexLock lock(mutex_);
  const auto found = names_.find(directory);
  return found != names_.end() && std::ranges::any_of(found->second, [name](const Name& each) {
           return each.first == name;
         });
}

std::vector<std::shared_ptr<File>> HiddenNames::files() const {
  std::vector<std::shared_ptr<File>> files;
  const MutexLock lock(mutex_);
  for (const auto& [directory, names] : names_) {
    for (const Name& name : names) {
      if (auto file = name.second.lock()) {
        files.push_back(std::move(file));
      }
    }
  }
  return files;
}

std::size_t HiddenNames::size() const {
  const MutexLock lock(mutex_);
  std::size_t count = 0;
  for (const auto& [directory, names] : names_) {
    count += names.size();
  }
  return count;
}

}  // namespace larder::netfs
