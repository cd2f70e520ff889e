// Graveyard: removes, in small steps, the directories that were found where files should be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "base/result.h"
#include "cachefiles/core.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// Who put them there is not known, nor how deep they are: a directory inside of one becomes a grave
// of its own, so that one open directory is enough. What cannot be removed is left alone for this
// life of the cache. Threads: the one that maintains. Life: the cache's.
class Graveyard {
 public:
  explicit Graveyard(Core& core) : core_(core) {}

  // Blocks. True: there is more to do.
  bool empty_some();

 private:
  // False: there is more in it.
  [[nodiscard]] Result<bool> open_grave(const std::string& name, std::size_t& left);
  // False: `left` names were taken out, and there are more.
  [[nodiscard]] Result<bool> empty_grave(const std::string& name, std::size_t& left);
  [[nodiscard]] Result<> take_out(os::Directory& grave, const os::DirectoryEntry& entry);

  Core& core_;
  std::set<std::string> stuck_;
  std::uint64_t looked_at_ = 0;  // burials, when all was empty
  bool begun_ = false;
};

}  // namespace larder::cachefiles
