#include "cli/checks.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <expected>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/result.h"
#include "cli/mount_table.h"

namespace larder::cli {

namespace {

Result<std::string> real_path(const std::string& path) {
  std::array<char, PATH_MAX> buffer{};
  if (::realpath(path.c_str(), buffer.data()) == nullptr) {
    return fail_errno(errno, path);
  }
  return std::string(buffer.data());
}

std::unexpected<Error> refuse(std::string sentence) {
  return fail(Errc::kInvalid, std::move(sentence));
}

Result<> check_not_on_own_mount(std::string_view what, const std::string& path,
                                const std::vector<MountEntry>& table) {
  const MountEntry* const mount = mount_of(table, path);
  if (mount != nullptr && mount->is_ours()) {
    return refuse(
        fmt::format("{} {} lies on {}, which is itself a mount of larder: choose another "
                    "place",
                    what, path, mount->mountpoint));
  }
  return {};
}

Result<> check_apart(std::string_view what, const std::string& path,
                     const std::string& mountpoint) {
  if (is_within(path, mountpoint)) {
    return refuse(
        fmt::format("the mount point {} would hide {} {}: choose another place for one "
                    "of them",
                    mountpoint, what, path));
  }
  if (is_within(mountpoint, path)) {
    return refuse(
        fmt::format("the mount point {} lies in {} {}: choose another", mountpoint, what, path));
  }
  return {};
}

}  // namespace

Result<std::string> resolve_parent(const std::string& path) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error).lexically_normal();
  if (!absolute.has_filename()) {
    absolute = absolute.parent_path();  // a slash at the end
  }
  if (error || path.empty()) {
    return refuse(fmt::format("\"{}\" is not a path", path));
  }
  if (absolute == absolute.root_path()) {
    return absolute.string();
  }
  const Result<std::string> parent = real_path(absolute.parent_path());
  if (!parent) {
    return fail(parent.error());
  }
  return (std::filesystem::path(*parent) / absolute.filename()).string();
}

Result<std::string> check_mountpoint(const std::string& given,
                                     const std::vector<MountEntry>& table) {
  const Result<std::string> path = resolve_parent(given);
  if (!path) {
    return refuse(
        fmt::format("the mount point {} does not exist: make it with `mkdir -p {}`", given, given));
  }
  const auto busy = [](const std::string& place) {
    return fail(Errc::kBusy, fmt::format("{0} already is a mount of larder: `larder umount {0}` "
                                         "ends it",
                                         place));
  };
  const auto is_own_mount = [&table](const std::string& place) {
    const MountEntry* const mount = mount_of(table, place);
    return mount != nullptr && mount->is_ours() && mount->mountpoint == place;
  };
  if (is_own_mount(*path)) {
    return busy(*path);
  }
  struct stat status{};
  if (::stat(path->c_str(), &status) != 0) {
    switch (errno) {
      case ENOENT:
        return refuse(
            fmt::format("the mount point {0} does not exist: make it with "
                        "`mkdir -p {0}`",
                        *path));
      case ENOTCONN:
        return refuse(
            fmt::format("{0} is a mount whose server has died: `umount {0}` first", *path));
      default:
        return fail_errno(errno, fmt::format("the mount point {}", *path));
    }
  }
  if (!S_ISDIR(status.st_mode)) {
    return refuse(fmt::format("the mount point {} is not a directory", *path));
  }
  std::string real = TRY(real_path(*path));  // it may be a link
  if (is_own_mount(real)) {
    return busy(real);
  }
  return real;
}

Result<std::string> check_configuration(const std::string& given) {
  struct stat status{};
  if (::stat(given.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return refuse(
        fmt::format("the configuration {} of a cachefilesd is not there: see "
                    "cachefilesd.conf(5) for what belongs into it",
                    given));
  }
  return real_path(given);
}

Result<std::string> check_tag(const std::string& given) {
  const bool printable = std::ranges::all_of(given, [](char c) { return c > ' ' && c != 0x7f; });
  if (given.empty() || !printable) {
    return refuse(
        fmt::format("cache \"{}\": give a directory (with a / in it), the tag of a cache "
                    "that a cachefilesd holds, or none",
                    given));
  }
  return given;
}

Result<std::string> resolve_cache(const std::string& given, const std::vector<MountEntry>& table) {
  const Result<std::string> path = resolve_parent(given);
  if (!path) {
    return refuse(
        fmt::format("the cache directory {} cannot be made: the directory above it does "
                    "not exist",
                    given));
  }
  // Before its last component is touched, which might be a mount that does not answer.
  TRY(check_not_on_own_mount("the cache directory", *path, table));
  struct stat status{};
  if (::stat(path->c_str(), &status) != 0) {
    return *path;
  }
  if (!S_ISDIR(status.st_mode)) {
    return refuse(fmt::format("the cache directory {} is not a directory", *path));
  }
  return real_path(*path);
}

Result<> check_places(const Places& places, const std::vector<MountEntry>& table) {
  TRY(check_apart("the runtime directory", places.runtime_directory, places.mountpoint));
  if (!places.cache.empty()) {
    TRY(check_not_on_own_mount("the cache directory", places.cache, table));
    TRY(check_apart("the cache directory", places.cache, places.mountpoint));
  }
  return {};
}

Result<> check_source(std::string_view source, const std::string& mountpoint,
                      const std::vector<MountEntry>& table) {
  constexpr std::string_view kScheme = "localdir://";
  if (source.starts_with(kScheme)) {
    source.remove_prefix(kScheme.size());
  }
  if (!source.starts_with('/')) {
    return {};
  }
  const Result<std::string> path = resolve_parent(std::string(source));
  if (!path) {
    return refuse(fmt::format("the source {} does not exist", source));
  }
  TRY(check_not_on_own_mount("the source", *path, table));
  const Result<std::string> real = real_path(*path);
  if (!real) {
    return refuse(fmt::format("the source {} does not exist", *path));
  }
  TRY(check_not_on_own_mount("the source", *real, table));
  return check_apart("the source", *real, mountpoint);
}

}  // namespace larder::cli
