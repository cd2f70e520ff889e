#include "device/working_directory.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::device {
namespace {

constexpr std::size_t kDepth = 3;  // of "cache/Ivolume/@3f"
constexpr std::string_view kCache = "cache";
constexpr std::string_view kGraveyard = "graveyard";

using Names = std::vector<std::string>;

// The last names of a path, at most kDepth.
Names last_names(std::string_view path) {
  Names names;
  while (names.size() < kDepth && path.size() > 1) {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) {
      break;
    }
    names.emplace_back(path.substr(slash + 1));
    path = path.substr(0, slash);
  }
  std::ranges::reverse(names);
  return names;
}

// Null: there is no such directory.
Result<std::unique_ptr<os::Directory>> open_beneath(os::Directory& root,
                                                    std::span<const std::string> names) {
  std::unique_ptr<os::Directory> opened;
  for (const std::string& name : names) {
    os::Directory& parent = opened == nullptr ? root : *opened;
    Result<std::unique_ptr<os::Directory>> next = parent.open_directory(name);
    if (!next) {
      return nullptr;
    }
    opened = std::move(*next);
  }
  return opened;
}

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool is_fan_out(std::span<const std::string> names) {
  return names.size() == kDepth && names[1].starts_with('I') && names[2].size() == 3 &&
         names[2][0] == '@' && is_hex(names[2][1]) && is_hex(names[2][2]);
}

WorkingPlace place_at(std::span<const std::string> names,
                      std::unique_ptr<os::Directory> directory) {
  if (names.front() == kGraveyard) {
    return {};
  }
  if (is_fan_out(names)) {
    return {PlaceKind::kFanOut, names[1] + '/' + names[2], std::move(directory)};
  }
  return {PlaceKind::kAbove, {}, std::move(directory)};
}

bool is_same(const os::FileStat& one, const os::FileStat& other) {
  return one.device == other.device && one.inode == other.inode;
}

}  // namespace

Result<UniqueFd> open_working_directory(std::uint32_t pid) {
  if (pid == 0) {
    return fail(Errc::kIo,
                "a process of another pid namespace, whose working directory we cannot "
                "see");
  }
  UniqueFd directory(
      ::open(fmt::format("/proc/{}/cwd", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return fail_errno(errno, fmt::format("the working directory of process {}", pid));
  }
  return directory;
}

Result<std::string> path_of(const UniqueFd& directory) {
  std::array<char, PATH_MAX> buffer{};
  const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", directory.get()).c_str(),
                                    buffer.data(), buffer.size());
  if (length < 0) {
    return fail_errno(errno, "the path of a working directory");
  }
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

Result<WorkingPlace> find_place(UniqueFd directory, os::Directory& root) {
  const Names names = last_names(TRY(path_of(directory)));
  std::unique_ptr<os::Directory> standing = TRY(os::adopt_directory(std::move(directory)));
  const os::FileStat here = TRY(standing->stat_self());
  if (here.link_count == 0) {
    return WorkingPlace{};
  }
  const os::FileStat top = TRY(root.stat_self());
  if (is_same(here, top)) {
    return WorkingPlace{PlaceKind::kAbove, {}, std::move(standing)};
  }
  for (std::size_t depth = names.size(); depth > 0; --depth) {
    const std::span<const std::string> tail = std::span(names).last(depth);
    if (tail.front() != kCache && tail.front() != kGraveyard) {
      continue;
    }
    std::unique_ptr<os::Directory> found = TRY(open_beneath(root, tail));
    if (found == nullptr) {
      continue;
    }
    const os::FileStat there = TRY(found->stat_self());
    if (is_same(here, there)) {
      return place_at(tail, std::move(found));
    }
  }
  return fail(Errc::kIo, "the working directory is nowhere in the cache");
}

}  // namespace larder::device
