#include "cachefilesd/config.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <ios>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/byte_count.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefilesd/limits.h"
#include "control/cache_protocol.h"

namespace larder::cachefilesd {
namespace {

constexpr std::size_t kMostLine = 4095;  // what the kernel takes
constexpr std::size_t kMostPath = 4086;
constexpr std::uint64_t kLeastTable = 12;
constexpr std::uint64_t kMostTable = 20;
constexpr std::string_view kSpaces = " \t\v\f\r";

enum class Word : std::uint8_t {
#define CONFIG_COMMAND(enumerator, name, syntax, help) enumerator,
#include "cachefilesd/config_commands.def"
#undef CONFIG_COMMAND
};

struct WordText {
  Word word;
  std::string_view name;
  std::string_view syntax;
};

constexpr auto kWords = std::to_array<WordText>({
#define CONFIG_COMMAND(enumerator, name, syntax, help) {Word::enumerator, name, syntax},
#include "cachefilesd/config_commands.def"
#undef CONFIG_COMMAND
});

constexpr auto kLimitVerbs = std::to_array<control::CacheVerb>(
    {control::CacheVerb::kBrun, control::CacheVerb::kBcull, control::CacheVerb::kBstop,
     control::CacheVerb::kFrun, control::CacheVerb::kFcull, control::CacheVerb::kFstop});

std::string_view skip_spaces(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  return text;
}

// Takes the next word off the front.
std::string_view take_word(std::string_view& text) {
  const std::size_t end = std::min(text.find_first_of(kSpaces), text.size());
  const std::string_view word = text.substr(0, end);
  text = skip_spaces(text.substr(end));
  return word;
}

std::optional<std::uint64_t> decimal(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number)
                                                                  : std::nullopt;
}

// As in C: 0x and 0 in front mean what they mean there.
std::optional<std::uint64_t> c_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    base = 16;
  } else if (text.size() > 1 && text.starts_with('0')) {
    text.remove_prefix(1);
    base = 8;
  }
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size() &&
                 number <= std::numeric_limits<std::uint32_t>::max()
             ? std::optional(number)
             : std::nullopt;
}

// What may stand in a message of a line that could hold anything.
std::string shown(std::string_view text) {
  std::string shown(text.substr(0, 200));
  std::ranges::replace_if(
      shown, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return shown;
}

class ConfigReader {
 public:
  explicit ConfigReader(std::string_view name) : name_(name) {}

  Result<Config> read(std::string_view text) {
    while (!text.empty()) {
      ++line_number_;
      const std::size_t end = std::min(text.find('\n'), text.size());
      read_line(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    if (!given_.contains("dir")) {
      errors_.push_back(fmt::format(
          "{}: there is no line `dir PATH`: say which directory is the cache's", name_));
    }
    if (config_.runtime_directory && config_.device) {
      errors_.push_back(
          fmt::format("{}: both `runtime-dir` and `device` are given: a cache is the "
                      "engine's or the kernel's, take one of them out",
                      name_));
    }
    if (!errors_.empty()) {
      return fail(Errc::kInvalid, fmt::format("{}", fmt::join(errors_, "\n")));
    }
    return std::move(config_);
  }

 private:
  template <class... Args>
  void wrong(fmt::format_string<Args...> format, Args&&... args) {
    errors_.push_back(fmt::format("{}:{}: {}", name_, line_number_,
                                  fmt::format(format, std::forward<Args>(args)...)));
  }

  void read_line(std::string_view line) {
    std::string_view argument = skip_spaces(line);
    if (argument.empty() || argument.starts_with('#')) {
      return;
    }
    if (line.size() > kMostLine || line.find('\0') != std::string_view::npos) {
      wrong("the line {}: take it out",
            line.size() > kMostLine ? "has more than 4095 bytes" : "has a NUL in it");
      return;
    }
    const std::string_view word = take_word(argument);
    const auto* const limit = std::ranges::find(kLimitVerbs, word, &control::name_of);
    if (limit != kLimitVerbs.end()) {
      on_limit(*limit, argument);
      return;
    }
    const auto* const known = std::ranges::find(kWords, word, &WordText::name);
    if (known == kWords.end()) {
      unknown(word);
    } else if (known->syntax.empty() != argument.empty()) {
      wrong("{0} {1}: write `{0}{2}{3}`", word,
            argument.empty() ? "says nothing" : "takes nothing behind it",
            known->syntax.empty() ? "" : " ", known->syntax);
    } else {
      on_word(known->word, word, argument);
    }
  }

  void unknown(std::string_view word) {
    if (word == "bind" || word == "cull" || word == "inuse") {
      wrong("`{}` is given by cachefilesd itself: take the line out", word);
      return;
    }
    wrong("\"{}\" is no command: see cachefilesd.conf(5), or take the line out", shown(word));
  }

  // The kernel refuses a second one.
  bool given_before(std::string_view word) {
    if (given_.emplace(word).second) {
      return false;
    }
    wrong("`{}` stands there a second time: take one of them out", word);
    return true;
  }

  void on_limit(control::CacheVerb verb, std::string_view argument) {
    const Result<unsigned> percent = control::parse_percent(argument);
    const Result<> set =
        percent ? set_limit(config_.limits, verb, *percent) : Result<>(fail(percent.error()));
    if (!set) {
      wrong("{}: {}", control::name_of(verb), shown(set.error().context()));
    }
  }

  void on_word(Word command, std::string_view word, std::string_view argument) {
    switch (command) {
      case Word::kDir:
        on_dir(argument);
        break;
      case Word::kTag:
        if (!given_before(word)) {
          config_.tag = argument;
        }
        break;
      case Word::kSecctx:
        if (!given_before(word)) {
          config_.security_context = argument;
        }
        break;
      case Word::kDebug:
        on_debug(argument);
        break;
      case Word::kSize:
        on_size(argument);
        break;
      case Word::kCulltable:
        on_culltable(argument);
        break;
      case Word::kNocull:
        config_.culls = false;
        break;
      case Word::kResumeThresholds:
        on_resume_thresholds(argument);
        break;
      case Word::kRuntimeDir:
        on_path(config_.runtime_directory, word, argument);
        break;
      case Word::kDevice:
        on_path(config_.device, word, argument);
        break;
    }
  }

  void on_dir(std::string_view argument) {
    if (given_before("dir")) {
      return;
    }
    if (!argument.starts_with('/') || argument.size() > kMostPath) {
      wrong("dir {}: give an absolute path of at most {} bytes", shown(argument), kMostPath);
      return;
    }
    config_.directory = argument;
  }

  void on_path(std::optional<std::string>& path, std::string_view word, std::string_view argument) {
    if (given_before(word)) {
      return;
    }
    if (!argument.starts_with('/')) {
      wrong("{} {}: give an absolute path", word, shown(argument));
      return;
    }
    path = argument;
  }

  void on_debug(std::string_view argument) {
    const std::optional<std::uint64_t> mask = c_number(argument);
    if (!mask) {
      wrong("debug {}: give a number, as 0 or 0x7", shown(argument));
      return;
    }
    config_.debug_mask = *mask;
  }

  void on_size(std::string_view argument) {
    const Result<std::uint64_t> bytes =
        argument == "0" ? Result<std::uint64_t>(0) : parse_byte_count(argument);
    if (!bytes) {
      wrong("size {}: give a number of bytes, alone or with K, M, G or T behind it, as 20G",
            shown(argument));
      return;
    }
    config_.size_bytes = *bytes;
  }

  void on_culltable(std::string_view argument) {
    const std::optional<std::uint64_t> size = decimal(argument);
    if (!size || *size < kLeastTable || *size > kMostTable) {
      wrong("culltable {}: give a number from {} to {}, or take the line out", shown(argument),
            kLeastTable, kMostTable);
      return;
    }
    config_.notes.push_back(
        fmt::format("{}:{}: culltable changes nothing: there is no table", name_, line_number_));
  }

  void on_resume_thresholds(std::string_view argument) {
    ResumeThresholds resume;
    for (std::optional<std::uint64_t>* const threshold : {&resume.blocks, &resume.files}) {
      const std::string_view word = take_word(argument);
      *threshold = word == "-" ? std::nullopt : decimal(word);
      if (word != "-" && threshold->value_or(0) == 0) {
        wrong(
            "resume_thresholds: give two numbers above 0, or - for one that does not count: "
            "blocks of 512 bytes, then files");
        return;
      }
    }
    if (!argument.empty()) {
      wrong("resume_thresholds: \"{}\" is one word too many", shown(argument));
      return;
    }
    config_.resume = resume;
  }

  const std::string_view name_;
  std::size_t line_number_ = 0;
  Config config_;
  std::set<std::string, std::less<>> given_;
  std::vector<std::string> errors_;
};

}  // namespace

Result<Config> parse_config(std::string_view text, std::string_view name) {
  return ConfigReader(name).read(text);
}

Result<Config> read_config(const std::string& path) {
  errno = 0;
  const std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream.is_open() || text.bad() || errno != 0) {
    return fail_errno(errno != 0 ? errno : EIO,
                      fmt::format("the configuration {} cannot be read", path));
  }
  return parse_config(text.view(), path);
}

}  // namespace larder::cachefilesd
