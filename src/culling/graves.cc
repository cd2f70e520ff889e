#include "culling/graves.h"

#include <cstddef>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr std::size_t kMostNames = 128;  // in one step
constexpr std::size_t kMostStuck = 1024;
// Listed at once. Each time a filesystem passes by all the room of names that went before.
constexpr std::size_t kMostFound = 4096;

// Somebody else may have been quicker.
bool is_gone(const Result<>& removed) {
  return removed || removed.error().code() == Errc::kNotFound;
}

}  // namespace

bool Graves::empty_some(os::Directory& graveyard, const KeepGoing& keep_going) {
  if (stuck_.size() >= kMostStuck) {
    return false;
  }
  Step step{kMostNames, keep_going};
  do {
    if (found_.empty() && !find_graves(graveyard)) {
      return false;
    }
    --step.left;
    const Result<bool> gone = open_grave(graveyard, step);
    if (gone && !*gone) {
      break;
    }
    if (!gone) {
      pass_over(found_.back(), gone.error());
      if (stuck_.size() >= kMostStuck) {
        return false;
      }
    }
    inside_.clear();
    found_.pop_back();
  } while (!step.is_over());
  return true;
}

void Graves::pass_over(const std::string& name, const Error& why) {
  if (!warned_.contains(name)) {
    log_warning("the cache: graveyard/{} cannot be removed: {}", name, why.message());
  }
  stuck_.insert(name);
}

void Graves::try_again() {
  warned_ = std::exchange(stuck_, {});
}

bool Graves::find_graves(os::Directory& graveyard) {
  spared_ = false;
  const Result<> listed = graveyard.list([&](const os::DirectoryEntry& entry) {
    if (stuck_.contains(entry.name)) {
      return true;
    }
    if (is_spared(graveyard, entry)) {
      spared_ = true;
    } else {
      found_.push_back(entry.name);
    }
    return found_.size() < kMostFound;
  });
  return listed && !found_.empty();
}

bool Graves::is_spared(os::Directory& graveyard, const os::DirectoryEntry& entry) const {
  if (!rules_.spares || entry.type == os::NodeType::kDirectory) {
    return false;
  }
  const Result<os::FileStat> stat = graveyard.stat(entry.name);
  return !stat || (stat->type != os::NodeType::kDirectory && rules_.spares(*stat));
}

Result<bool> Graves::open_grave(os::Directory& graveyard, Step& step) {
  const std::string& name = found_.back();
  const Result<os::FileStat> stat = graveyard.stat(name);
  if (!stat) {
    return stat.error().code() == Errc::kNotFound ? Result<bool>(true) : fail(stat.error());
  }
  if (stat->type != os::NodeType::kDirectory) {
    TRY(graveyard.unlink(name));
    ++removed_;
    return true;
  }
  const auto grave = TRY(graveyard.open_directory(name));
  if (!TRY(empty_grave(graveyard, *grave, step))) {
    return false;
  }
  TRY(graveyard.remove_directory(name));
  ++removed_;
  return true;
}

Result<> Graves::find_inside(os::Directory& grave) {
  if (!inside_.empty()) {
    return {};
  }
  return grave.list([&](const os::DirectoryEntry& entry) {
    inside_.push_back(entry);
    return inside_.size() < kMostFound;
  });
}

Result<bool> Graves::empty_grave(os::Directory& graveyard, os::Directory& grave, Step& step) {
  TRY(find_inside(grave));
  while (!inside_.empty()) {
    if (step.is_over()) {
      return false;
    }
    --step.left;
    TRY(take_out(graveyard, grave, inside_.back()));
    inside_.pop_back();
    TRY(find_inside(grave));
  }
  return true;
}

Result<> Graves::take_out(os::Directory& graveyard, os::Directory& grave,
                          const os::DirectoryEntry& entry) {
  const os::NodeType type = entry.type ? *entry.type : TRY(grave.stat(entry.name)).type;
  if (type == os::NodeType::kDirectory) {
    const std::string name = TRY(rules_.new_name());
    const Result<> moved = grave.rename(entry.name, graveyard, name);
    return is_gone(moved) ? Result<>() : moved;
  }
  const Result<> removed = grave.unlink(entry.name);
  removed_ += removed ? 1 : 0;
  return is_gone(removed) ? Result<>() : removed;
}

}  // namespace larder::culling
