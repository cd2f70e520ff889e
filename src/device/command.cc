#include "device/command.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"
#include "control/cache_protocol.h"

namespace larder::device {
namespace {

using control::CacheVerb;

// An engine knows more; a kernel does not.
constexpr auto kKernelsVerbs = std::to_array<CacheVerb>(
    {CacheVerb::kDir, CacheVerb::kTag, CacheVerb::kSecctx, CacheVerb::kDebug, CacheVerb::kBrun,
     CacheVerb::kBcull, CacheVerb::kBstop, CacheVerb::kFrun, CacheVerb::kFcull, CacheVerb::kFstop,
     CacheVerb::kBind, CacheVerb::kCull, CacheVerb::kInuse});

// As the kernel's isspace(): with the no-break space of Latin-1.
bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == '\xa0';
}

unsigned digit_of(char c) {
  return c >= '0' && c <= '9'   ? static_cast<unsigned>(c - '0')
         : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a') + 10
         : c >= 'A' && c <= 'F' ? static_cast<unsigned>(c - 'A') + 10
                                : 16;
}

// Takes the digits off the front; too many wrap around, as in the kernel's simple_strtoul().
std::uint64_t take_number(std::string_view& text, unsigned base) {
  std::uint64_t number = 0;
  while (!text.empty() && digit_of(text.front()) < base) {
    number = number * base + digit_of(text.front());
    text.remove_prefix(1);
  }
  return number;
}

unsigned take_base(std::string_view& text) {
  if (!text.starts_with('0')) {
    return 10;
  }
  if (text.size() > 2 && (text[1] == 'x' || text[1] == 'X') && digit_of(text[2]) < 16) {
    text.remove_prefix(2);
    return 16;
  }
  return 8;
}

}  // namespace

Result<control::CacheCommand> parse_write(std::string_view text) {
  if (text.size() > kMostWriteBytes) {
    return fail(Errc::kNotSupported, fmt::format("a command of {} bytes", text.size()));
  }
  if (text.find('\0') != std::string_view::npos) {
    return fail(Errc::kInvalid, "a command with a NUL in it");
  }
  if (text.starts_with('\n')) {
    return fail(Errc::kInvalid, "a command that begins with a newline");
  }
  text = text.substr(0, text.find('\n'));
  const auto* const word_end = std::ranges::find_if(text, is_space);
  const std::string_view word(text.begin(), word_end);
  const auto* const known = std::ranges::find(kKernelsVerbs, word, control::name_of);
  if (known == kKernelsVerbs.end()) {
    return fail(Errc::kNotSupported, fmt::format("\"{}\" is no command", word.substr(0, 100)));
  }
  const auto* const argument = std::find_if_not(word_end, text.end(), is_space);
  return control::CacheCommand{*known, std::string(argument, text.end()), {}};
}

Result<std::uint64_t> parse_kernel_percent(std::string_view argument) {
  std::string_view left = argument;
  const std::uint64_t number = take_number(left, 10);
  if (argument.empty() || left != "%") {
    return fail(Errc::kInvalid, fmt::format("\"{}\" is no percentage", argument.substr(0, 100)));
  }
  return number;
}

Result<std::uint64_t> parse_mask(std::string_view argument) {
  std::string_view left = argument;
  const unsigned base = take_base(left);
  const std::uint64_t mask = take_number(left, base);
  if (!left.empty()) {
    return fail(Errc::kInvalid, fmt::format("\"{}\" is no number", argument.substr(0, 100)));
  }
  return mask;
}

}  // namespace larder::device
