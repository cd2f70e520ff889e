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

bool Graves::empty_some(os::Directory& graveyard, const KeepGoing& keep_going) {
  if (stuck_.size() >= kMostStuck) {
    return false;
  }
  Step step{kMostNames, keep_going};
  do {
    const std::string next = next_grave(graveyard);
    if (next.empty()) {
      return false;
    }
    --step.left;
    const Result<bool> gone = open_grave(graveyard, next, step);
    if (!gone) {
      log_warning("the cache: graveyard/{} cannot be removed: {}", next, gone.error().message());
      stuck_.insert(next);
      if (stuck_.size() >= kMostStuck) {
        return false;
      }
    } else if (!*gone) {
      break;
    }
  } while (!step.is_over());
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

Result<bool> Graves::open_grave(os::Directory& graveyard, const std::string& name, Step& step) {
  if (TRY(graveyard.stat(name)).type != os::NodeType::kDirectory) {
    TRY(graveyard.unlink(name));
    ++removed_;
    return true;
  }
  if (!TRY(empty_grave(graveyard, name, step))) {
    return false;
  }
  TRY(graveyard.remove_directory(name));
  ++removed_;
  return true;
}

Result<bool> Graves::empty_grave(os::Directory& graveyard, const std::string& name, Step& step) {
  const auto grave = TRY(graveyard.open_directory(name));
  std::vector<os::DirectoryEntry> entries;
  TRY(grave->list([&](const os::DirectoryEntry& entry) {
    entries.push_back(entry);
    return entries.size() <= step.left;
  }));
  for (const os::DirectoryEntry& entry : entries) {
    if (step.is_over()) {
      return false;
    }
    --step.left;
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
