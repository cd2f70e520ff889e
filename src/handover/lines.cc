#include "handover/lines.h"

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::handover {

namespace {

bool is_plain(char c) {
  return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '%';
}

Result<std::string> unescape(std::string_view escaped) {
  std::string value;
  for (std::size_t i = 0; i < escaped.size(); ++i) {
    if (escaped[i] != '%') {
      value.push_back(escaped[i]);
      continue;
    }
    unsigned char byte = 0;
    const std::string_view digits = escaped.substr(i + 1, 2);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2) {
      return fail(Errc::kInvalid, fmt::format("broken escape in \"{}\"", escaped));
    }
    value.push_back(static_cast<char>(byte));
    i += 2;
  }
  return value;
}

}  // namespace

void append_line(std::string& text, std::string_view key, std::string_view value) {
  text += key;
  text += '=';
  for (const char c : value) {
    if (is_plain(c)) {
      text += c;
    } else {
      text += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    }
  }
  text += '\n';
}

Result<std::vector<std::pair<std::string, std::string>>> parse_lines(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const std::size_t equals = line.find('=');
    if (end == std::string_view::npos || equals == std::string_view::npos || equals == 0) {
      return fail(Errc::kInvalid, fmt::format("\"{}\" is not a line of key=value", line));
    }
    std::string value = TRY(unescape(line.substr(equals + 1)));
    lines.emplace_back(line.substr(0, equals), std::move(value));
    text.remove_prefix(end + 1);
  }
  return lines;
}

bool has_line(std::string_view text, std::string_view key, std::string_view value) {
  std::string line;
  append_line(line, key, value);
  for (std::size_t at = text.find(line); at != std::string_view::npos;
       at = text.find(line, at + 1)) {
    if (at == 0 || text[at - 1] == '\n') {
      return true;
    }
  }
  return false;
}

}  // namespace larder::handover
