#include "culling/graves.h"

#include <cstddef>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr std::size_t kMostNames = 128;  // in one step
constexpr std::size_t kMostStuck = 1024;

}  // namespace

bool Graves::empty_some(os::Directory& graveyard) {
  if (stuck_.size() >= kMostStuck) {
    return false;
  }
  for (std::size_t left = kMostNames; left > 0;) {
    const std::string next = next_grave(graveyard);
    if (next.empty()) {
      return false;
    }
    --left;
    const Result<bool> gone = open_grave(graveyard, next, left);
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

std::string Graves::next_grave(os::Directory& graveyard) const {
  std::string next;
  const Result<> listed = graveyard.list([&](const os::DirectoryEntry& entry) {
    next = stuck_.contains(entry.name) || is_spared(graveyard, entry) ? std::string() : entry.name;
    return next.empty();
  });
  return listed ? next : std::string();
}

bool Graves::is_spared(os::Directory& graveyard, const os::DirectoryEntry& entry) const {
  if (!rules_.spares || entry.type == os::NodeType::kDirectory) {
    return false;
  }
  const Result<os::FileStat> stat = graveyard.stat(entry.name);
  return !stat || (stat->type != os::NodeType::kDirectory && rules_.spares(*stat));
}

Result<bool> Graves::open_grave(os::Directory& graveyard, const std::string& name,
                                std::size_t& left) {
  if (TRY(graveyard.stat(name)).type != os::NodeType::kDirectory) {
    TRY(graveyard.unlink(name));
    ++removed_;
    return true;
  }
  if (!TRY(empty_grave(graveyard, name, left))) {
    return false;
  }
  TRY(graveyard.remove_directory(name));
  ++removed_;
  return true;
}

Result<bool> Graves::empty_grave(os::Directory& graveyard, const std::string& name,
                                 std::size_t& left) {
  const auto grave = TRY(graveyard.open_directory(name));
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
    TRY(take_out(graveyard, *grave, entry));
  }
  return true;
}

Result<> Graves::take_out(os::Directory& graveyard, os::Directory& grave,
                          const os::DirectoryEntry& entry) {
  const os::NodeType type = entry.type ? *entry.type : TRY(grave.stat(entry.name)).type;
  if (type == os::NodeType::kDirectory) {
    const std::string name = TRY(rules_.new_name());
    return grave.rename(entry.name, graveyard, name);
  }
  TRY(grave.unlink(entry.name));
  ++removed_;
  return {};
}

}  // namespace larder::culling
