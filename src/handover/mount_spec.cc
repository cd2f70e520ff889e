#include "handover/mount_spec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/byte_count.h"
#include "base/error.h"
#include "base/result.h"
#include "handover/lines.h"
#include "handover/messages.h"

namespace larder::handover {

namespace {

constexpr std::uint32_t kMostSeconds = 7 * 24 * 3600;  // of an attribute's freshness

struct Switch {
  std::string_view name;
  bool MountOptions::* member;
  bool value;
};

constexpr auto kSwitches = std::to_array<Switch>({
    {"ro", &MountOptions::read_only, true},
    {"rw", &MountOptions::read_only, false},
    {"nosuid", &MountOptions::nosuid, true},
    {"suid", &MountOptions::nosuid, false},
    {"nodev", &MountOptions::nodev, true},
    {"dev", &MountOptions::nodev, false},
    {"noexec", &MountOptions::noexec, true},
    {"exec", &MountOptions::noexec, false},
    {"nocto", &MountOptions::nocto, true},
    {"cto", &MountOptions::nocto, false},
    {"sync", &MountOptions::sync, true},
    {"async", &MountOptions::sync, false},
    {"soft", &MountOptions::soft, true},
    {"hard", &MountOptions::soft, false},
    {"local_lock=all", &MountOptions::local_lock, true},
    {"local_lock=none", &MountOptions::local_lock, false},
    {"passthrough=yes", &MountOptions::passthrough, true},
    {"passthrough=no", &MountOptions::passthrough, false},
});

struct Seconds {
  std::string_view name;
  std::uint32_t MountOptions::* member;
};

constexpr auto kSeconds = std::to_array<Seconds>({
    {"acregmin", &MountOptions::acregmin},
    {"acregmax", &MountOptions::acregmax},
    {"acdirmin", &MountOptions::acdirmin},
    {"acdirmax", &MountOptions::acdirmax},
});

struct Number {
  std::string_view name;
  std::optional<std::uint32_t> MountOptions::* member;
  std::uint32_t least;
  std::uint32_t most;
};

constexpr auto kNumbers = std::to_array<Number>({
    {"nconnect", &MountOptions::nconnect, 1, 16},
    {"rsize", &MountOptions::rsize, 4096, 1024 * 1024},
    {"timeo", &MountOptions::timeo, 1, 6000},
    {"retrans", &MountOptions::retrans, 1, 1000},
});

Result<std::uint32_t> number_of(std::string_view name, std::string_view text, std::uint32_t least,
                                std::uint32_t most) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    return fail(Errc::kInvalid, fmt::format("option {}=\"{}\": give a number from {} to {}", name,
                                            text, least, most));
  }
  return value;
}

void set_all_times(MountOptions& options, std::uint32_t seconds) {
  for (const Seconds& entry : kSeconds) {
    options.*entry.member = seconds;
  }
}

// What is known by name, but not to be had.
Result<> refuse(std::string_view word) {
  if (word == "profile=tools") {
    return fail(Errc::kNotSupported,
                "option profile=tools: not there yet, leave it out for the profile data");
  }
  if (word.starts_with("profile=") || word.starts_with("passthrough")) {
    return fail(Errc::kInvalid, fmt::format("option {}: unknown value; profile=data, "
                                            "passthrough=yes and passthrough=no are known",
                                            word));
  }
  if (word.starts_with("local_lock=")) {
    return fail(Errc::kInvalid, fmt::format("option {}: unknown value; local_lock, local_lock=all "
                                            "and local_lock=none are known",
                                            word));
  }
  return {};
}

// True: `name` is one of those with a number, and was set.
Result<bool> apply_number(MountOptions& options, std::string_view name, std::string_view value) {
  const auto* const seconds = std::ranges::find(kSeconds, name, &Seconds::name);
  if (seconds != kSeconds.end()) {
    options.*seconds->member = TRY(number_of(name, value, 0, kMostSeconds));
    return true;
  }
  const auto* const number = std::ranges::find(kNumbers, name, &Number::name);
  if (number != kNumbers.end()) {
    options.*number->member = TRY(number_of(name, value, number->least, number->most));
    return true;
  }
  if (name == "actimeo") {
    const std::uint32_t timeout = TRY(number_of(name, value, 0, kMostSeconds));
    set_all_times(options, timeout);
    return true;
  }
  return false;
}

}  // namespace

Result<> apply_option(MountOptions& options, std::string_view word) {
  for (const Switch& entry : kSwitches) {
    if (entry.name == word) {
      options.*entry.member = entry.value;
      return {};
    }
  }
  if (word == "local_lock") {
    options.local_lock = true;
    return {};
  }
  if (word == "profile=data" || word.empty()) {
    return {};
  }
  if (word == "noac") {
    set_all_times(options, 0);
    options.sync = true;
    return {};
  }
  const std::size_t equals = word.find('=');
  const std::string_view value =
      equals == std::string_view::npos ? std::string_view() : word.substr(equals + 1);
  if (TRY(apply_number(options, word.substr(0, equals), value))) {
    return {};
  }
  TRY(refuse(word));
  options.adapter.emplace_back(word);
  return {};
}

std::vector<std::string> words_of(const MountOptions& options) {
  const MountOptions defaults;
  std::vector<std::string> words;
  for (const Switch& entry : kSwitches) {
    if (options.*entry.member == entry.value && defaults.*entry.member != entry.value) {
      words.emplace_back(entry.name);
    }
  }
  for (const Seconds& entry : kSeconds) {
    if (options.*entry.member != defaults.*entry.member) {
      words.push_back(fmt::format("{}={}", entry.name, options.*entry.member));
    }
  }
  for (const Number& entry : kNumbers) {
    if (const std::optional<std::uint32_t> value = options.*entry.member) {
      words.push_back(fmt::format("{}={}", entry.name, *value));
    }
  }
  words.insert(words.end(), options.adapter.begin(), options.adapter.end());
  return words;
}

Result<std::string> encode_spec(const MountSpec& spec) {
  std::string text;
  append_line(text, "source", spec.source);
  append_line(text, "mountpoint", spec.mountpoint);
  append_line(text, "cache", spec.cache);
  if (spec.cache_size != 0) {
    append_line(text, "cache_size", std::to_string(spec.cache_size));
  }
  for (const std::string& word : words_of(spec.options)) {
    append_line(text, "option", word);
  }
  if (text.size() > kMostSpecBytes) {
    return fail(Errc::kInvalid,
                fmt::format("source, mount point and options together take {} bytes, {} are the "
                            "most: shorten them",
                            text.size(), kMostSpecBytes));
  }
  return text;
}

namespace {

Result<> apply_line(MountSpec& spec, std::string_view key, std::string value) {
  if (key == "option") {
    return apply_option(spec.options, value);
  }
  if (key == "source") {
    spec.source = std::move(value);
  } else if (key == "mountpoint") {
    spec.mountpoint = std::move(value);
  } else if (key == "cache") {
    spec.cache = std::move(value);
  } else if (key == "cache_size") {
    spec.cache_size = TRY(parse_byte_count(value));
  } else {
    return fail(Errc::kInvalid, fmt::format("unknown line \"{}\" in a mount's description", key));
  }
  return {};
}

}  // namespace

Result<MountSpec> decode_spec(std::string_view text) {
  MountSpec spec;
  for (auto& [key, value] : TRY(parse_lines(text))) {
    TRY(apply_line(spec, key, std::move(value)));
  }
  if (spec.source.empty() || !spec.mountpoint.starts_with('/')) {
    return fail(Errc::kInvalid, "a mount's description without source or mount point");
  }
  return spec;
}

}  // namespace larder::handover
