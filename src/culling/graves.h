// Graves: removes, in small steps, the dead directories that lie in one, the graveyard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "base/result.h"
#include "os/filesystem.h"

namespace larder::culling {

// Who put them there is not known, nor how deep they are: a directory inside of one becomes a grave
// of its own, so that one open directory is enough. What cannot be removed is left alone for this
// life of the object. Threads: one at a time.
class Graves {
 public:
  struct Rules {
    // A name that nothing in the graveyard has.
    std::function<Result<std::string>()> new_name;
    // A file beside the graves that is to stay: somebody is about to give it its place. Empty:
    // none.
    std::function<bool(const os::FileStat&)> spares;
  };

  explicit Graves(Rules rules) : rules_(std::move(rules)) {}

  using KeepGoing = std::function<bool()>;

  // Of one and the same `graveyard` in all calls. Blocks for some 128 names, or until `keep_going`,
  // asked between them, says no. True: there is more to do.
  bool empty_some(os::Directory& graveyard, const KeepGoing& keep_going = [] { return true; });

  // Names that went, ever.
  [[nodiscard]] std::uint64_t removed() const { return removed_; }

 private:
  // The next that is neither stuck nor spared; "" when there is none.
  [[nodiscard]] std::string next_grave(os::Directory& graveyard) const;

  // What a step may still do.
  struct Step {
    std::size_t left = 0;  // names
    const KeepGoing& keep_going;

    [[nodiscard]] bool is_over() const { return left == 0 || !keep_going(); }
  };

  // False: there is more in it.
  [[nodiscard]] Result<bool> open_grave(os::Directory& graveyard, const std::string& name,
                                        Step& step);
  // False: the step is over, and there are more.
  [[nodiscard]] Result<bool> empty_grave(os::Directory& graveyard, const std::string& name,
                                         Step& step);
  [[nodiscard]] Result<> take_out(os::Directory& graveyard, os::Directory& grave,
                                  const os::DirectoryEntry& entry);
  [[nodiscard]] bool is_spared(os::Directory& graveyard, const os::DirectoryEntry& entry) const;

  const Rules rules_;
  std::set<std::string> stuck_;
  std::uint64_t removed_ = 0;
};

}  // namespace larder::culling
