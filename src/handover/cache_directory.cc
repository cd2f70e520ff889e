#include "handover/cache_directory.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"

namespace larder::handover {

namespace {

// What a cache of ours has at its top; the file "format" is made first (docs/on-disk-format.md).
constexpr auto kOurNames = std::to_array<std::string_view>(
    {"cache", "format", "graveyard", "lock", "maps", "meta", "state"});

enum class Contents : std::uint8_t { kNothing, kLikeOurs, kOurCache, kOther };

Result<UniqueFd> open_directory(const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  UniqueFd directory(
      static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
  if (directory.valid()) {
    return directory;
  }
  switch (errno) {
    case ELOOP:
      return fail(Errc::kUnsuitable, fmt::format("the cache directory {} leads through a symbolic "
                                                 "link: give the path without it",
                                                 path));
    case ENOTDIR:
      return fail(Errc::kUnsuitable,
                  fmt::format("the cache directory {} is not a directory: give another", path));
    default:
      return fail_errno(errno, fmt::format("the cache directory {} cannot be opened", path));
  }
}

Result<UniqueFd> open_or_make(const std::string& path) {
  // Not the other way round: where nothing can be written, mkdir(2) fails or waits.
  Result<UniqueFd> directory = open_directory(path);
  if (directory || directory.error().code() != Errc::kNotFound) {
    return directory;
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, fmt::format("the cache directory {} cannot be made", path));
  }
  return open_directory(path);
}

Result<Contents> look_inside(const UniqueFd& directory, const std::string& path) {
  struct Close {
    void operator()(DIR* stream) const { ::closedir(stream); }
  };

  // A description of its own: reading moves the position.
  const int again = ::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, Close> stream(again < 0 ? nullptr : ::fdopendir(again));
  if (stream == nullptr) {
    return fail_errno(errno, fmt::format("the cache directory {} cannot be read", path));
  }
  Contents contents = Contents::kNothing;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own
  while (const dirent* const entry = ::readdir(stream.get())) {
    const std::string_view name = &entry->d_name[0];
    // lost+found: a filesystem made for the cache alone is empty, too.
    if (name == "." || name == ".." || name == "lost+found") {
      continue;
    }
    if (std::ranges::find(kOurNames, name) == kOurNames.end()) {
      return Contents::kOther;
    }
    contents = std::max(contents, name == "format" ? Contents::kOurCache : Contents::kLikeOurs);
  }
  return contents;
}

}  // namespace

Result<UniqueFd> open_cache_directory(const std::string& path, const EngineUser& user) {
  if (!path.starts_with('/')) {
    return fail(Errc::kInvalid,
                fmt::format("the cache directory {} is not an absolute path", path));
  }
  UniqueFd directory = TRY(open_or_make(path));
  struct stat status{};
  if (::fstat(directory.get(), &status) != 0) {
    return fail_errno(errno, fmt::format("the cache directory {}", path));
  }
  const Contents contents = TRY(look_inside(directory, path));
  if (contents == Contents::kOther) {
    return fail(Errc::kUnsuitable, fmt::format("the cache directory {} holds other files: give an "
                                               "empty directory or one that larder made",
                                               path));
  }
  if (status.st_uid != user.uid) {
    if (contents ==
        Contents::kLikeOurs) {  // of an interrupted first use they would be the engine's
      return fail(Errc::kUnsuitable, fmt::format("the cache directory {} was not made by larder: "
                                                 "give an empty one",
                                                 path));
    }
    if (contents == Contents::kOurCache) {
      return fail(Errc::kUnsuitable,
                  fmt::format("the cache in {} belongs to uid {}, the engine runs as uid {}: "
                              "`chown -R {}:{} {}` or give another directory",
                              path, status.st_uid, user.uid, user.uid, user.gid, path));
    }
    if (::fchown(directory.get(), user.uid, user.gid) != 0) {
      return fail_errno(
          errno, fmt::format("the cache directory {} cannot be given to uid {}", path, user.uid));
    }
  }
  if ((status.st_mode & 0777U) != 0700 && ::fchmod(directory.get(), 0700) != 0) {
    return fail_errno(errno, fmt::format("the mode of the cache directory {}", path));
  }
  return directory;
}

}  // namespace larder::handover
