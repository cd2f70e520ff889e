#include "cachefiles/graveyard.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::size_t kMostNames = 128;  // in one step
constexpr std::size_t kMostStuck = 1024;

}  // namespace

bool Graveyard::empty_some() {
  const std::uint64_t buried = core_.buried();
  if ((begun_ && looked_at_ == buried) || stuck_.size() >= kMostStuck) {
    return false;
  }
  begun_ = true;
  for (std::size_t left = kMostNames; left > 0;) {
    std::string next;
    const Result<> listed = core_.graveyard->list([&](const os::DirectoryEntry& entry) {
      next = stuck_.contains(entry.name) ? std::string() : entry.name;
      return next.empty();
    });
    if (!listed || next.empty()) {
      looked_at_ = buried;
      return false;
    }
    --left;
    const Result<bool> gone = open_grave(next, left);
    if (!gone) {
      log_warning("the cache: graveyard/{} cannot be removed: {}", next, gone.error().message());
      stuck_.insert(next);
      if (stuck_.size() >= kMostStuck) {
        return false;
      }
    } else if (!*gone) {
      break;
    }
  }
  return true;
}

Result<bool> Graveyard::open_grave(const std::string& name, std::size_t& left) {
  if (TRY(core_.graveyard->stat(name)).type != os::NodeType::kDirectory) {
    TRY(core_.graveyard->unlink(name));
    return true;
  }
  if (!TRY(empty_grave(name, left))) {
    return false;
  }
  TRY(core_.graveyard->remove_directory(name));
  return true;
}

Result<bool> Graveyard::empty_grave(const std::string& name, std::size_t& left) {
  const auto grave = TRY(core_.graveyard->open_directory(name));
  std::vector<os::DirectoryEntry> entries;
  TRY(grave->list([&](const os::DirectoryEntry& entry) {
    entries.push_back(entry);
    return entries.size() <= left;
  }));
  for (const os::DirectoryEntry& entry : entries) {
    if (left == 0) {
      return false;
    }
    --left;
    TRY(take_out(*grave, entry));
  }
  return true;
}

Result<> Graveyard::take_out(os::Directory& grave, const os::DirectoryEntry& entry) {
  const os::NodeType type = entry.type ? *entry.type : TRY(grave.stat(entry.name)).type;
  if (type == os::NodeType::kDirectory) {
    const std::string name = TRY(core_.grave_name());
    return grave.rename(entry.name, *core_.graveyard, name);
  }
  return grave.unlink(entry.name);
}

}  // namespace larder::cachefiles
