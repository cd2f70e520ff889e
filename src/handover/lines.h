// Lines of `key=value`, as the mount spec and the keeper's greeting are written.
//
// In a value every byte below 0x20, 0x7f and '%' is written %XX, so that any path fits on a line.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace larder::handover {

// "key=value\n" with the value escaped.
void append_line(std::string& text, std::string_view key, std::string_view value);
// All lines in their order, values unescaped. kInvalid: a line without '=' or end, a broken escape.
[[nodiscard]] Result<std::vector<std::pair<std::string, std::string>>> parse_lines(
    std::string_view text);
// Whether `line`, as append_line writes it, is one of the lines of `text`.
[[nodiscard]] bool has_line(std::string_view text, std::string_view key, std::string_view value);

}  // namespace larder::handover
