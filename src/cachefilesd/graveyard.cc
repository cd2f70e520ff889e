#include "cachefilesd/graveyard.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"
#include "cachefiles/layout.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {
Graveyard::Graveyard(os::Directory& root, std::function<os::FileTime()> now)
    : root_(root),
      now_(std::move(now)),
      graves_({.new_name = [this] { return free_name(); },
               .spares =
                   [this](const os::FileStat& stat) {
                     const std::int64_t age = now_().seconds - stat.changed.seconds;
                     return age >= 0 && age < kSparedFor.count();
                   }}) {}

bool Graveyard::empty_some(const std::function<bool()>& keep_going) {
  const Result<std::unique_ptr<os::Directory>> graveyard = open();
  return graveyard && graves_.empty_some(**graveyard, keep_going);
}

Result<std::unique_ptr<os::Directory>> Graveyard::open() {
  return root_.open_directory(cachefiles::kGraveyardDirectory);
}

Result<> Graveyard::bury(os::Directory& parent, const std::string& name) {
  if (TRY(parent.stat(name)).type != os::NodeType::kDirectory) {
    return parent.unlink(name);
  }
  const std::unique_ptr<os::Directory> graveyard = TRY(open());
  const std::string grave = TRY(free_name());
  return parent.rename(name, *graveyard, grave);
}

// As the original's. A rename would replace what has the name.
Result<std::string> Graveyard::free_name() {
  const std::unique_ptr<os::Directory> graveyard = TRY(open());
  for (;;) {
    std::string name = fmt::format("x{:x}x{:x}x", now_().seconds, ++names_given_);
    const Result<os::FileStat> taken = graveyard->stat(name);
    if (!taken) {
      if (taken.error().code() != Errc::kNotFound) {
        return fail(taken.error());
      }
      return name;
    }
  }
}

}  // namespace larder::cachefilesd
