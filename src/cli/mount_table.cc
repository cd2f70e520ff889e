#include "cli/mount_table.h"

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/result.h"

namespace larder::cli {

namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) {
      return parts;
    }
    text.remove_prefix(end + 1);
  }
}

// The kernel writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view escaped) {
  std::string text;
  for (std::size_t i = 0; i < escaped.size(); ++i) {
    unsigned char byte = 0;
    const std::string_view digits = escaped.substr(i).substr(0, 4);
    if (digits.size() == 4 && digits[0] == '\\' &&
        std::from_chars(digits.data() + 1, digits.data() + 4, byte, 8).ptr == digits.data() + 4) {
      text.push_back(static_cast<char>(byte));
      i += 3;
    } else {
      text.push_back(escaped[i]);
    }
  }
  return text;
}

bool parse_number(std::string_view text, unsigned& number) {
  return std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc();
}

}  // namespace

std::vector<MountEntry> parse_mount_table(std::string_view text) {
  std::vector<MountEntry> table;
  for (const std::string_view line : split(text, '\n')) {
    // id parent major:minor root mountpoint options [fields...] - type source options
    const std::vector<std::string_view> words = split(line, ' ');
    std::size_t dash = 6;
    while (dash < words.size() && words[dash] != "-") {
      ++dash;
    }
    if (words.size() < 7 || dash + 2 >= words.size()) {
      continue;
    }
    MountEntry entry;
    const std::vector<std::string_view> device = split(words[2], ':');
    if (device.size() != 2 || !parse_number(device[0], entry.device_major) ||
        !parse_number(device[1], entry.device_minor)) {
      continue;
    }
    entry.mountpoint = unescape(words[4]);
    entry.type = unescape(words[dash + 1]);
    entry.source = unescape(words[dash + 2]);
    table.push_back(std::move(entry));
  }
  return table;
}

Result<std::vector<MountEntry>> read_mount_table() {
  const std::ifstream stream("/proc/self/mountinfo");
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) {
    return fail_errno(errno, "/proc/self/mountinfo");
  }
  return parse_mount_table(text.str());
}

bool is_within(std::string_view path, std::string_view directory) {
  if (directory == "/") {
    return path.starts_with('/');
  }
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

const MountEntry* mount_of(const std::vector<MountEntry>& table, std::string_view path) {
  const MountEntry* found = nullptr;
  for (const MountEntry& entry : table) {
    // Of those at the same place the last one hides the others.
    if (is_within(path, entry.mountpoint) &&
        (found == nullptr || entry.mountpoint.size() >= found->mountpoint.size())) {
      found = &entry;
    }
  }
  return found;
}

}  // namespace larder::cli
