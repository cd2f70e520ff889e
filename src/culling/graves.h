// Graves: removes, in small steps, the dead directories that lie in one, the graveyard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::culling {

// Who put them there is not known, nor how deep they are: a directory inside of one becomes a grave
// of its own, so that one open directory is enough. A step costs the same however many there are:
// names are listed by thousands, and kept from step to step. What cannot be removed is passed over
// until try_again(). Threads: one at a time.
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

  // Of one and the same `graveyard` in all calls, which may be another open directory of it. Blocks
  // for some 128 names, or until `keep_going`, asked between them, says no. True: there is more to
  // do.
  bool empty_some(os::Directory& graveyard, const KeepGoing& keep_going = [] { return true; });

  // Something was spared or could not be removed. Known once empty_some() has said that there is
  // nothing more to do.
  [[nodiscard]] bool anything_stays() const { return spared_ || !stuck_.empty(); }

  // What could not be removed may go by now.
  void try_again();

  // Names that went, ever.
  [[nodiscard]] std::uint64_t removed() const { return removed_; }

 private:
  // Finds the next ones that are neither stuck nor spared. False: there are none.
  [[nodiscard]] bool find_graves(os::Directory& graveyard);

  // What a step may still do.
  struct Step {
    std::size_t left = 0;  // names
    const KeepGoing& keep_going;

    [[nodiscard]] bool is_over() const { return left == 0 || !keep_going(); }
  };

  // The last of `found_`. False: there is more in it.
  [[nodiscard]] Result<bool> open_grave(os::Directory& graveyard, Step& step);
  // Finds the next names in it, unless some are known.
  [[nodiscard]] Result<> find_inside(os::Directory& grave);
  // False: the step is over, and there are more.
  [[nodiscard]] Result<bool> empty_grave(os::Directory& graveyard, os::Directory& grave,
                                         Step& step);
  [[nodiscard]] Result<> take_out(os::Directory& graveyard, os::Directory& grave,
                                  const os::DirectoryEntry& entry);
  [[nodiscard]] bool is_spared(os::Directory& graveyard, const os::DirectoryEntry& entry) const;
  void pass_over(const std::string& name, const Error& why);

  const Rules rules_;
  bool spared_ = false;                     // something, when the graveyard was listed last
  std::set<std::string> stuck_;             // since try_again()
  std::set<std::string> warned_;            // of these, when they were stuck before
  std::vector<std::string> found_;          // graves
  std::vector<os::DirectoryEntry> inside_;  // of the last of them
  std::uint64_t removed_ = 0;
};

}  // namespace larder::culling
