#include "os/mount_info.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

#include "os/filesystem.h"

namespace larder::os {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return parts;
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

// "36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue"
std::optional<MountLine> parse_line(std::string_view line) {
  const std::vector<std::string_view> words = split(line, ' ');
  std::size_t dash = 0;
  while (dash < words.size() && words[dash] != "-") {
    ++dash;
  }
  if (dash < 6 || dash + 3 >= words.size()) {
    return std::nullopt;
  }
  const std::vector<std::string_view> device = split(words[2], ':');
  const auto id = parse_number<std::uint64_t>(words[0]);
  if (!id || device.size() != 2) {
    return std::nullopt;
  }
  MountLine parsed;
  parsed.mount_id = *id;
  parsed.device_major = parse_number<unsigned>(device[0]).value_or(0);
  parsed.device_minor = parse_number<unsigned>(device[1]).value_or(0);
  parsed.type = words[dash + 1];
  parsed.super_options = words[dash + 3];
  return parsed;
}

bool has_word(std::string_view text, char separator, std::string_view word) {
  for (const std::string_view part : split(text, separator)) {
    if (part == word) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<MountLine> find_mount(std::string_view mountinfo, std::uint64_t mount_id) {
  for (const std::string_view line : split(mountinfo, '\n')) {
    std::optional<MountLine> parsed = parse_line(line);
    if (parsed && parsed->mount_id == mount_id) {
      return parsed;
    }
  }
  return std::nullopt;
}

CrashSafety crash_safety_of(std::string_view type, std::string_view super_options,
                            std::string_view ext4_options) {
  if (type == "xfs" || type == "btrfs") {
    return CrashSafety::kOrdered;
  }
  if (type == "ext4" && !has_word(super_options, ',', "data=writeback") &&
      (has_word(ext4_options, '\n', "data=ordered") ||
       has_word(ext4_options, '\n', "data=journal"))) {
    return CrashSafety::kOrdered;
  }
  return CrashSafety::kUnordered;
}

}  // namespace larder::os
