#include "adapters/nfs/options.h"

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::nfs {

namespace {

constexpr std::uint32_t kMostTimeo = 6000;  // ten minutes
constexpr std::uint32_t kMostRetrans = 1000;

struct Limits {
  std::uint32_t least;
  std::uint32_t most;
};

Result<std::uint32_t> parse_number(std::string_view key, std::string_view text, Limits limits) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < limits.least ||
      value > limits.most) {
    return fail(Errc::kInvalid, fmt::format("option {}={}: it must be a number from {} to {}", key,
                                            text, limits.least, limits.most));
  }
  return value;
}

// True: `word` was one of those without a value.
bool apply_flag(NfsOptions& options, std::string_view word) {
  if (word == "soft" || word == "hard") {
    options.soft = word == "soft";
    return true;
  }
  if (word == "resvport" || word == "noresvport") {
    options.privileged_port = word == "resvport";
    return true;
  }
  return false;
}

Result<OptionOutcome> apply_value(NfsOptions& options, std::string_view key,
                                  std::string_view value) {
  if (key == "rsize" || key == "wsize") {
    (key == "rsize" ? options.read_size : options.write_size) = TRY(
        parse_number(key, value, {NfsOptions::kLeastTransferSize, NfsOptions::kMostTransferSize}));
  } else if (key == "nconnect") {
    options.connections = TRY(parse_number(key, value, {1, NfsOptions::kMostConnections}));
  } else if (key == "timeo") {
    static constexpr std::chrono::milliseconds kTenth{100};
    options.timeout = TRY(parse_number(key, value, {1, kMostTimeo})) * kTenth;
  } else if (key == "retrans") {
    options.retrans = TRY(parse_number(key, value, {1, kMostRetrans}));
  } else if (key == "port" || key == "nfsport") {
    options.nfs_port = TRY(parse_port(value, fmt::format("option {}", key)));
  } else if (key == "mountport") {
    options.mount_port = TRY(parse_port(value, "option mountport"));
  } else {
    return OptionOutcome::kUnknown;
  }
  return OptionOutcome::kApplied;
}

}  // namespace

Result<std::uint16_t> parse_port(std::string_view text, std::string_view where) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) {
    return fail(Errc::kInvalid,
                fmt::format("{}: '{}' is no port; give a number from 1 to 65535", where, text));
  }
  return port;
}

Result<OptionOutcome> apply_option(NfsOptions& options, std::string_view word) {
  if (apply_flag(options, word)) {
    return OptionOutcome::kApplied;
  }
  const std::size_t equals = word.find('=');
  if (equals == std::string_view::npos) {
    return OptionOutcome::kUnknown;
  }
  return apply_value(options, word.substr(0, equals), word.substr(equals + 1));
}

}  // namespace larder::nfs
