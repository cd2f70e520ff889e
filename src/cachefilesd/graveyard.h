// Graveyard: where dead directories of a cache lie, and what is to be removed there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "culling/graves.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// Threads: one. Life: from a bind to the release.
class Graveyard {
 public:
  // What was spared is old enough then.
  static constexpr std::chrono::seconds kSparedFor{60};

  // In `root`, the cache's directory, which outlives it. It is opened anew each time: whoever finds
  // it empty may take it away, and then who keeps the cache makes it again.
  // `now`: the time by which files are stamped. What lies there as a file, and was put there just
  // now, is spared: an engine that replaces an object's file has the new one there for a moment.
  Graveyard(os::Directory& root, std::function<os::FileTime()> now);

  // Blocks for some 128 names, or until `keep_going`, asked between them, says no. True: there is
  // more to do.
  bool empty_some(const std::function<bool()>& keep_going);

  // As culling::Graves.
  [[nodiscard]] bool anything_stays() const { return graves_.anything_stays(); }

  void try_again() { graves_.try_again(); }

  // Names that went, ever.
  [[nodiscard]] std::uint64_t removed() const { return graves_.removed(); }

  // Takes a name out of a directory of the cache: a directory is moved here, all else is removed.
  [[nodiscard]] Result<> bury(os::Directory& parent, const std::string& name);

 private:
  [[nodiscard]] Result<std::unique_ptr<os::Directory>> open();
  [[nodiscard]] Result<std::string> free_name();

  os::Directory& root_;
  const std::function<os::FileTime()> now_;
  std::uint64_t names_given_ = 0;
  culling::Graves graves_;
};

}  // namespace larder::cachefilesd
