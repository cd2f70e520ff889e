#include "cli/mount_options.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <fmt/format.h>

#include "base/byte_count.h"
#include "base/error.h"
#include "base/result.h"
#include "handover/mount_spec.h"

namespace larder::cli {

namespace {

constexpr std::uint64_t kLeastCacheSize = std::uint64_t{1024} * 1024;

// For mount(8), systemd or nobody at all: access times are the server's.
constexpr auto kIgnored = std::to_array<std::string_view>(
    {"_netdev",    "atime",       "auto",          "defaults", "diratime",   "group",
     "lazytime",   "loud",        "noatime",       "noauto",   "nodiratime", "nofail",
     "nolazytime", "norelatime",  "nostrictatime", "nouser",   "owner",      "relatime",
     "silent",     "strictatime", "user",          "users"});

bool is_ignored(std::string_view word) {
  return std::ranges::find(kIgnored, word) != kIgnored.end() || word.starts_with("x-") ||
         word.starts_with("X-") || word.starts_with("comment=");
}

Result<> apply_word(OptionWords& words, std::string_view word) {
  constexpr std::string_view kCache = "cache=";
  constexpr std::string_view kCacheSize = "cachesize=";
  constexpr std::string_view kRuntime = "runtime_dir=";
  if (word.empty() || is_ignored(word)) {
    return {};
  }
  if (word.starts_with(kCache)) {
    words.cache = word.substr(kCache.size());
    return {};
  }
  if (word.starts_with(kCacheSize)) {
    words.cache_size = TRY(parse_cache_size("option cachesize", word.substr(kCacheSize.size())));
    return {};
  }
  if (word.starts_with(kRuntime)) {
    words.runtime_directory = word.substr(kRuntime.size());
    return {};
  }
  if (word == "remount" || word == "bind" || word == "move") {
    return fail(Errc::kNotSupported,
                fmt::format("option {}: unmount and mount again with the options you want", word));
  }
  return apply_option(words.options, word);
}

}  // namespace

Result<std::uint64_t> parse_cache_size(std::string_view name, std::string_view text) {
  const Result<std::uint64_t> size = parse_byte_count(text);
  if (!size || *size < kLeastCacheSize) {
    return fail(Errc::kInvalid,
                fmt::format("{}=\"{}\": give a whole number with K, M, G or T behind it, as 20G, "
                            "and 1M at least",
                            name, text));
  }
  return *size;
}

Result<OptionWords> parse_option_words(std::string_view text) {
  OptionWords words;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    TRY(apply_word(words, text.substr(0, comma)));
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return words;
}

}  // namespace larder::cli
