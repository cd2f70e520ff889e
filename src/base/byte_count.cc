#include "base/byte_count.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"

namespace larder {

namespace {

constexpr std::string_view kUnits = "KMGT";
constexpr unsigned kBitsPerUnit = 10;

// 0 for no unit; npos for an unknown one.
std::size_t unit_of(std::string_view suffix) {
  if (suffix.empty()) {
    return 0;
  }
  const char letter =
      suffix[0] >= 'a' && suffix[0] <= 'z' ? static_cast<char>(suffix[0] - 'a' + 'A') : suffix[0];
  const std::size_t at = kUnits.find(letter);
  return suffix.size() > 1 || at == std::string_view::npos ? std::string_view::npos : at + 1;
}

}  // namespace

Result<std::uint64_t> parse_byte_count(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::size_t unit = unit_of(text.substr(static_cast<std::size_t>(end - text.data())));
  if (error != std::errc() || number == 0 || unit == std::string_view::npos ||
      number > std::numeric_limits<std::uint64_t>::max() >> (kBitsPerUnit * unit)) {
    return fail(Errc::kInvalid, fmt::format("\"{}\" is no amount of bytes", text));
  }
  return number << (kBitsPerUnit * unit);
}

std::string byte_count_text(std::uint64_t bytes) {
  std::size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{}{}", bytes, kUnits[unit - 1]);
}

}  // namespace larder
