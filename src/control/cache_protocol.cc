#include "control/cache_protocol.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <string.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::control {

namespace {

using enum CommandTime;

constexpr std::string_view kOkHead = "ok\n";
constexpr std::string_view kErrorHead = "error ";
constexpr std::string_view kStateHead = "state ";
constexpr std::size_t kMostSentence = 4096;
constexpr int kMostErrno = 133;

struct CommandText {
  CacheVerb verb;
  std::string_view name;
  CommandTime when;
};

constexpr auto kCacheCommands = std::to_array<CommandText>({
#define CACHE_COMMAND(verb, name, syntax, help, when) {CacheVerb::verb, name, when},
#include "control/cache_commands.def"
#undef CACHE_COMMAND
});

const CommandText& text_of_verb(CacheVerb verb) {
  return kCacheCommands.at(static_cast<std::size_t>(verb));
}

template <std::unsigned_integral Number>
std::optional<Number> parse_number(std::string_view text, int base) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

std::string errno_name(int error_number) {
  const char* const name = ::strerrorname_np(error_number);
  return name == nullptr ? std::string("EIO") : std::string(name);
}

std::optional<int> errno_of(std::string_view name) {
  for (int number = 1; number <= kMostErrno; ++number) {
    const char* const known = ::strerrorname_np(number);
    if (known != nullptr && name == known) {
      return number;
    }
  }
  return std::nullopt;
}

// Takes what stands before the first `separator` off the front.
std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t at = std::min(text.find(separator), text.size());
  const std::string_view taken = text.substr(0, at);
  text.remove_prefix(std::min(at + 1, text.size()));
  return taken;
}

// Relative, and every part a name.
bool leads_down(std::string_view directory) {
  for (std::string_view left = directory; !left.empty();) {
    const std::string_view part = take_until(left, '/');
    if (part.empty() || part == "." || part == "..") {
      return false;
    }
  }
  return !directory.empty() && !directory.ends_with('/');
}

struct StateKey {
  std::string_view name;
  std::uint64_t CacheState::* value;
  bool is_kernels;
};

constexpr auto kStateKeys = std::to_array<StateKey>({
    {"frun", &CacheState::frun, true},
    {"fcull", &CacheState::fcull, true},
    {"fstop", &CacheState::fstop, true},
    {"brun", &CacheState::brun, true},
    {"bcull", &CacheState::bcull, true},
    {"bstop", &CacheState::bstop, true},
    {"freleased", &CacheState::released_files, true},
    {"breleased", &CacheState::released_blocks, true},
    {"bsize", &CacheState::block_bytes, false},
    {"ffree", &CacheState::free_files, false},
    {"bfree", &CacheState::free_blocks, false},
    {"used", &CacheState::used_bytes, false},
    {"size", &CacheState::size_bytes, false},
    {"objects", &CacheState::objects, false},
    {"fexcess", &CacheState::excess_files, false},
    {"bexcess", &CacheState::excess_bytes, false},
});

struct StateFlag {
  std::string_view name;
  bool CacheState::* value;
  bool is_kernels;
};

constexpr auto kStateFlags = std::to_array<StateFlag>({
    {"cull", &CacheState::culling, true},
    {"stop", &CacheState::stopped, false},
    {"graveyard", &CacheState::graveyard, false},
});

}  // namespace

std::string_view name_of(CacheVerb verb) {
  return text_of_verb(verb).name;
}

CommandTime time_of(CacheVerb verb) {
  return text_of_verb(verb).when;
}

Result<CacheCommand> parse_cache_command(std::string_view packet) {
  if (packet.size() > kMostChannelPacketBytes) {
    return fail(Errc::kNotSupported,
                fmt::format("a command of more than {} bytes", kMostChannelPacketBytes));
  }
  if (packet.find('\0') != std::string_view::npos) {
    return fail(Errc::kInvalid, "a command with a NUL in it");
  }
  if (packet.starts_with('\n')) {
    return fail(Errc::kInvalid, "a command that begins with a newline");
  }
  std::string_view argument = take_until(packet, '\n');
  const std::string_view word = take_until(argument, ' ');
  const auto* const known = std::ranges::find(kCacheCommands, word, &CommandText::name);
  if (known == kCacheCommands.end()) {
    return fail(Errc::kNotSupported,
                fmt::format("\"{}\" is no command of a cache channel", word.substr(0, 100)));
  }
  argument.remove_prefix(std::min(argument.find_first_not_of(' '), argument.size()));
  CacheCommand command{known->verb, std::string(argument), {}};
  while (!packet.empty()) {
    if (const std::string_view line = take_until(packet, '\n'); !line.empty()) {
      command.more_lines.emplace_back(line);
    }
  }
  return command;
}

std::string encode_cache_command(const CacheCommand& command) {
  std::string packet(name_of(command.verb));
  if (!command.argument.empty()) {
    packet += ' ' + command.argument;
  }
  for (const std::string& line : command.more_lines) {
    packet += '\n' + line;
  }
  return packet;
}

Result<unsigned> parse_percent(std::string_view argument) {
  const bool marked = argument.ends_with('%');
  if (marked) {
    argument.remove_suffix(1);
  }
  const std::optional<unsigned> number = parse_number<unsigned>(argument, 10);
  if (!marked || !number || *number >= 100) {
    return fail(Errc::kInvalid,
                fmt::format("\"{}\" is no percentage: write a whole number from 0 to 99 and %",
                            argument.substr(0, 100)));
  }
  return *number;
}

Result<std::vector<ObjectPath>> objects_of(const CacheCommand& command) {
  if (command.more_lines.size() >= kMostObjectsAtOnce) {
    return fail(Errc::kInvalid, fmt::format("more than {} objects at once", kMostObjectsAtOnce));
  }
  std::vector<ObjectPath> objects;
  objects.reserve(command.more_lines.size() + 1);
  const auto add = [&objects](std::string_view line) -> Result<> {
    const std::size_t slash = line.rfind('/');
    ObjectPath object;
    if (slash != std::string_view::npos) {
      object = {std::string(line.substr(0, slash)), std::string(line.substr(slash + 1))};
    } else if (!objects.empty()) {
      object = {objects.back().directory, std::string(line)};
    }
    if (!leads_down(object.directory) || !leads_down(object.name)) {
      return fail(Errc::kInvalid,
                  fmt::format("\"{}\" names no object: give its path below cache/, as "
                              "Ivolume/@3f/name",
                              line.substr(0, 300)));
    }
    objects.push_back(std::move(object));
    return {};
  };
  TRY(add(command.argument));
  for (const std::string& line : command.more_lines) {
    TRY(add(line));
  }
  return objects;
}

ObjectsCommand objects_command(CacheVerb verb, std::span<const ObjectPath> objects) {
  ObjectsCommand all{{verb, {}, {}}, 0};
  std::size_t bytes = name_of(verb).size() + 1;
  for (const ObjectPath& object : objects.first(std::min(objects.size(), kMostObjectsAtOnce))) {
    const bool same = all.objects > 0 && objects[all.objects - 1].directory == object.directory;
    std::string line = same ? object.name : object.directory + '/' + object.name;
    bytes += line.size() + 1;
    if (all.objects > 0 && bytes > kMostChannelPacketBytes) {
      break;
    }
    if (all.objects == 0) {
      all.command.argument = std::move(line);
    } else {
      all.command.more_lines.push_back(std::move(line));
    }
    ++all.objects;
  }
  return all;
}

std::string encode_outcomes(std::span<const ObjectOutcome> outcomes) {
  std::string body;
  for (const ObjectOutcome& outcome : outcomes) {
    body += outcome.error_number != 0 ? errno_name(outcome.error_number)
                                      : fmt::format("{}", outcome.bytes);
    body += '\n';
  }
  return body;
}

Result<std::vector<ObjectOutcome>> parse_outcomes(std::string_view body) {
  std::vector<ObjectOutcome> outcomes;
  while (!body.empty()) {
    const std::string_view line = take_until(body, '\n');
    if (const auto bytes = parse_number<std::uint64_t>(line, 10)) {
      outcomes.push_back({0, *bytes});
    } else if (const auto error_number = errno_of(line)) {
      outcomes.push_back({*error_number, 0});
    } else {
      return fail(Errc::kCorrupt,
                  fmt::format("\"{}\" is neither bytes nor an error", line.substr(0, 100)));
    }
  }
  return outcomes;
}

// The kernel's keys in the kernel's order, then ours.
void add_released(CacheState& state, const CacheState& before) {
  state.released_files += before.released_files;
  state.released_blocks += before.released_blocks;
}

std::string encode_cache_state(const CacheState& state) {
  std::string line = fmt::format("cull={:d}", state.culling);
  for (const StateKey& key : kStateKeys) {
    if (key.is_kernels || state.block_bytes != 0) {
      line += fmt::format(" {}={:x}", key.name, state.*key.value);
    }
  }
  if (state.block_bytes != 0) {
    line += fmt::format(" stop={:d} graveyard={:d}", state.stopped, state.graveyard);
  }
  return line;
}

Result<CacheState> parse_cache_state(std::string_view line) {
  CacheState state;
  std::size_t kernels = 0;
  while (!line.empty()) {
    std::string_view value = take_until(line, ' ');
    const std::string_view name = take_until(value, '=');
    const auto number = parse_number<std::uint64_t>(value, 16);
    const auto* const key = std::ranges::find(kStateKeys, name, &StateKey::name);
    const auto* const flag = std::ranges::find(kStateFlags, name, &StateFlag::name);
    if (key == kStateKeys.end() && flag == kStateFlags.end()) {
      continue;
    }
    if (!number) {
      return fail(Errc::kCorrupt, fmt::format("the state line: {}=\"{}\" is no number", name,
                                              value.substr(0, 100)));
    }
    if (key != kStateKeys.end()) {
      state.*key->value = *number;
      kernels += key->is_kernels ? 1 : 0;
    } else {
      state.*flag->value = *number != 0;
      kernels += flag->is_kernels ? 1 : 0;
    }
  }
  // One given twice in place of another is nothing that a kernel or an engine sends.
  constexpr std::size_t kKernelsKeys = 9;
  if (kernels != kKernelsKeys) {
    return fail(Errc::kCorrupt, fmt::format("the state line has {} of {} keys of the kernel's",
                                            kernels, kKernelsKeys));
  }
  return state;
}

std::string encode_channel_packet(const ChannelPacket& packet) {
  switch (packet.kind) {
    case ChannelPacket::Kind::kOk:
      return fmt::format("{}{}", kOkHead, packet.text);
    case ChannelPacket::Kind::kState:
      return fmt::format("{}{}\n", kStateHead, packet.text);
    case ChannelPacket::Kind::kError:
      break;
  }
  std::string sentence = packet.text.substr(0, kMostSentence);
  std::ranges::replace(sentence, '\n', ' ');
  return fmt::format("{}{} {}\n", kErrorHead, errno_name(packet.error_number), sentence);
}

Result<ChannelPacket> parse_channel_packet(std::string_view packet) {
  if (packet.starts_with(kOkHead)) {
    return ChannelPacket{ChannelPacket::Kind::kOk, 0, std::string(packet.substr(kOkHead.size()))};
  }
  if (!packet.ends_with('\n')) {
    return fail(Errc::kCorrupt, "the engine's packet makes no sense");
  }
  packet.remove_suffix(1);
  if (packet.starts_with(kStateHead)) {
    return ChannelPacket{ChannelPacket::Kind::kState, 0,
                         std::string(packet.substr(kStateHead.size()))};
  }
  if (packet.starts_with(kErrorHead)) {
    packet.remove_prefix(kErrorHead.size());
    if (const auto error_number = errno_of(take_until(packet, ' '))) {
      return ChannelPacket{ChannelPacket::Kind::kError, *error_number, std::string(packet)};
    }
  }
  return fail(Errc::kCorrupt, "the engine's packet makes no sense");
}

ChannelPacket channel_reply(const Result<std::string>& reply) {
  if (reply) {
    return {ChannelPacket::Kind::kOk, 0, *reply};
  }
  return {ChannelPacket::Kind::kError, reply.error().error_number(), reply.error().message()};
}

}  // namespace larder::control
