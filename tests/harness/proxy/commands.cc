// The proxy's command language: a table of words, each with its handler.
#include "commands.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ratio>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "base/error.h"
#include "base/result.h"
#include "behaviour.h"
#include "direction.h"
#include "faults.h"
#include "proxy.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

using Words = std::vector<std::string_view>;

Words split(std::string_view line) {
  Words words;
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(' '), line.size());
    if (end > 0) {
      words.push_back(line.substr(0, end));
    }
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

template <class Number>
Result<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Errc::kInvalid, fmt::format("'{}' is not a number", text));
  }
  return value;
}

Result<std::optional<Procedure>> parse_procedure(std::string_view text) {
  if (text == "*") {
    return std::optional<Procedure>();
  }
  const std::optional<Procedure> procedure = procedure_named(text);
  if (!procedure) {
    return fail(Errc::kInvalid, fmt::format("there is no procedure '{}'", text));
  }
  return procedure;
}

Result<Direction> parse_direction(std::string_view text) {
  if (text == "calls") {
    return Direction::kCalls;
  }
  if (text == "replies") {
    return Direction::kReplies;
  }
  return fail(Errc::kInvalid, fmt::format("'{}' is neither calls nor replies", text));
}

Result<std::vector<Direction>> parse_directions(std::string_view text) {
  if (text == "both") {
    return std::vector{Direction::kCalls, Direction::kReplies};
  }
  return std::vector{TRY(parse_direction(text))};
}

Result<bool> parse_switch(std::string_view text) {
  if (text == "on" || text == "off") {
    return text == "on";
  }
  return fail(Errc::kInvalid, fmt::format("'{}' is neither on nor off", text));
}

Result<Damage> parse_damage(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, Damage>, 4> kDamages{
      {{"mark", Damage::kMark},
       {"garbage", Damage::kGarbage},
       {"xid", Damage::kXid},
       {"short", Damage::kShort}}};
  for (const auto& [name, damage] : kDamages) {
    if (text == name) {
      return damage;
    }
  }
  return fail(Errc::kInvalid, fmt::format("'{}' is none of mark, garbage, xid, short", text));
}

Result<std::string> parse_handle(std::string_view hex) {
  std::string handle;
  for (std::size_t at = 0; at < hex.size(); at += 2) {
    unsigned char byte = 0;
    const std::string_view pair = hex.substr(at, 2);
    const auto [end, error] = std::from_chars(pair.data(), pair.data() + pair.size(), byte, 16);
    if (error != std::errc() || end != pair.data() + 2) {
      return fail(Errc::kInvalid, fmt::format("'{}' is no file handle in hex", hex));
    }
    handle.push_back(static_cast<char>(byte));
  }
  return handle;
}

// One pair of words that may stand behind every rule: `handle HEX`, `count N`.
Result<FaultRule> with_limit(FaultRule rule, std::string_view name, std::string_view value) {
  if (name == "handle") {
    rule.handle = TRY(parse_handle(value));
    return rule;
  }
  if (name == "count") {
    rule.remaining = TRY(parse_number<std::uint64_t>(value));
    return rule;
  }
  return fail(Errc::kInvalid, fmt::format("'{}' is neither handle nor count", name));
}

Result<std::string> add_rule(Proxy& proxy, FaultRule rule, const Words& words, std::size_t from) {
  if ((words.size() - from) % 2 != 0) {
    return fail(Errc::kInvalid, "after the rule come pairs: handle HEX, count N");
  }
  for (std::size_t at = from; at < words.size(); at += 2) {
    rule = TRY(with_limit(std::move(rule), words[at], words[at + 1]));
  }
  if (rule.remaining > 0) {
    proxy.behaviour().faults.add(std::move(rule));
  }
  return std::string();
}

Result<std::string> counts(Proxy& proxy, const Words& /*words*/) {
  return proxy.counts_json();
}

Result<std::string> reset(Proxy& proxy, const Words& /*words*/) {
  proxy.behaviour().counts.reset();
  return std::string();
}

Result<std::string> delay(Proxy& proxy, const Words& words) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  const auto delay = Milliseconds(TRY(parse_number<double>(words[2])));
  const auto jitter = Milliseconds(words.size() > 3 ? TRY(parse_number<double>(words[3])) : 0.0);
  for (const Direction direction : TRY(parse_directions(words[1]))) {
    proxy.behaviour()
        .shapers.at(index_of(direction))
        .set_delay(std::chrono::duration_cast<std::chrono::nanoseconds>(delay),
                   std::chrono::duration_cast<std::chrono::nanoseconds>(jitter));
  }
  return std::string();
}

Result<std::string> rate(Proxy& proxy, const Words& words) {
  const auto megabits = TRY(parse_number<double>(words[2]));
  for (const Direction direction : TRY(parse_directions(words[1]))) {
    proxy.behaviour().shapers.at(index_of(direction)).set_rate(megabits);
  }
  return std::string();
}

Result<std::string> segment(Proxy& proxy, const Words& words) {
  const auto bytes = TRY(parse_number<std::size_t>(words[1]));
  const auto gap = words.size() > 2 ? TRY(parse_number<std::int64_t>(words[2])) : 0;
  proxy.behaviour()
      .shapers.at(index_of(Direction::kReplies))
      .set_segments(bytes, std::chrono::microseconds(gap));
  return std::string();
}

Result<std::string> fragment(Proxy& proxy, const Words& words) {
  proxy.behaviour().fragment_bytes = TRY(parse_number<std::size_t>(words[1]));
  return std::string();
}

Result<std::string> drop(Proxy& proxy, const Words& words) {
  FaultRule rule{.fault = Fault::kDrop, .procedure = {}, .handle = {}};
  rule.direction = TRY(parse_direction(words[1]));
  rule.procedure = TRY(parse_procedure(words[2]));
  return add_rule(proxy, std::move(rule), words, 3);
}

Result<std::string> hold(Proxy& proxy, const Words& words) {
  FaultRule rule{.fault = Fault::kHold, .procedure = {}, .handle = {}};
  rule.direction = TRY(parse_direction(words[1]));
  rule.procedure = TRY(parse_procedure(words[2]));
  return add_rule(proxy, std::move(rule), words, 3);
}

Result<std::string> release(Proxy& proxy, const Words& words) {
  const std::optional<Procedure> procedure = TRY(parse_procedure(words[1]));
  proxy.behaviour().faults.end(Fault::kHold, procedure);
  return std::to_string(proxy.release(procedure));
}

Result<std::string> error(Proxy& proxy, const Words& words) {
  FaultRule rule{
      .fault = Fault::kError, .direction = Direction::kCalls, .procedure = {}, .handle = {}};
  rule.procedure = TRY(parse_procedure(words[1]));
  rule.number = TRY(parse_number<std::uint32_t>(words[2]));
  return add_rule(proxy, std::move(rule), words, 3);
}

Result<std::string> corrupt(Proxy& proxy, const Words& words) {
  FaultRule rule{
      .fault = Fault::kCorrupt, .direction = Direction::kReplies, .procedure = {}, .handle = {}};
  rule.procedure = TRY(parse_procedure(words[1]));
  rule.damage = TRY(parse_damage(words[2]));
  return add_rule(proxy, std::move(rule), words, 3);
}

Result<std::string> cut(Proxy& proxy, const Words& words) {
  if (words.size() == 1) {
    proxy.cut_all();
    return std::string();
  }
  if (words.size() < 3) {
    return fail(Errc::kInvalid, "cut needs nothing, or a procedure and a number of bytes");
  }
  FaultRule rule{
      .fault = Fault::kCut, .direction = Direction::kReplies, .procedure = {}, .handle = {}};
  rule.procedure = TRY(parse_procedure(words[1]));
  rule.number = TRY(parse_number<std::uint32_t>(words[2]));
  return add_rule(proxy, std::move(rule), words, 3);
}

Result<std::string> swallow(Proxy& proxy, const Words& words) {
  proxy.swallow(TRY(parse_switch(words[1])));
  return std::string();
}

Result<std::string> refuse(Proxy& proxy, const Words& words) {
  const bool refuses = TRY(parse_switch(words[1]));
  TRY(proxy.refuse(refuses));
  return std::string();
}

Result<std::string> strip(Proxy& proxy, const Words& words) {
  std::set<Procedure> procedures;
  for (std::size_t at = 1; at < words.size(); ++at) {
    const std::optional<Procedure> procedure = TRY(parse_procedure(words[at]));
    if (procedure) {
      procedures.insert(*procedure);
    }
  }
  proxy.behaviour().alterations.strip_attributes(std::move(procedures));
  return std::string();
}

Result<std::optional<std::uint64_t>> parse_fileid(std::string_view text) {
  if (text == "*") {
    return std::optional<std::uint64_t>();
  }
  return std::optional(TRY(parse_number<std::uint64_t>(text)));
}

Result<std::string> freeze(Proxy& proxy, const Words& words) {
  for (std::size_t at = 1; at < words.size(); ++at) {
    proxy.behaviour().alterations.freeze(TRY(parse_fileid(words[at])));
  }
  return std::string();
}

Result<std::string> thaw(Proxy& proxy, const Words& /*words*/) {
  proxy.behaviour().alterations.thaw();
  return std::string();
}

Result<std::string> shift(Proxy& proxy, const Words& words) {
  proxy.behaviour().alterations.shift_times(TRY(parse_number<std::int64_t>(words[1])));
  return std::string();
}

Result<std::string> whole_seconds(Proxy& proxy, const Words& words) {
  proxy.behaviour().alterations.round_times_to_seconds(TRY(parse_switch(words[1])));
  return std::string();
}

Result<std::string> complete_wcc(Proxy& proxy, const Words& words) {
  proxy.behaviour().alterations.complete_wcc(TRY(parse_switch(words[1])));
  return std::string();
}

Result<std::string> fsid(Proxy& proxy, const Words& words) {
  const auto id = TRY(parse_number<std::uint64_t>(words[1]));
  for (std::size_t at = 2; at < words.size(); ++at) {
    const auto fileid = TRY(parse_number<std::uint64_t>(words[at]));
    proxy.behaviour().alterations.change_fsid(fileid, id);
  }
  return std::string();
}

// Everything is as at the start again, and what was held goes on.
Result<std::string> heal(Proxy& proxy, const Words& /*words*/) {
  Behaviour& behaviour = proxy.behaviour();
  behaviour.faults.clear();
  behaviour.alterations = {};
  behaviour.shapers = {};
  behaviour.fragment_bytes = 0;
  proxy.swallow(false);
  TRY(proxy.refuse(false));
  return std::to_string(proxy.release(std::nullopt));
}

Result<std::string> quit(Proxy& proxy, const Words& /*words*/) {
  proxy.quit();
  return std::string();
}

struct Command {
  std::string_view name;
  std::string_view syntax;
  std::size_t least_words;  // with the name
  std::size_t most_words;
  Result<std::string> (*handler)(Proxy&, const Words&);
};

constexpr std::size_t kAny = 100'000;
constexpr std::array<Command, 23> kCommands{{
    {"counts", "counts", 1, 1, counts},
    {"reset", "reset", 1, 1, reset},
    {"delay", "delay calls|replies|both MS [JITTER_MS]", 3, 4, delay},
    {"rate", "rate calls|replies|both MBIT", 3, 3, rate},
    {"segment", "segment BYTES [GAP_US]", 2, 3, segment},
    {"fragment", "fragment BYTES", 2, 2, fragment},
    {"drop", "drop calls|replies PROC [handle HEX] [count N]", 3, 7, drop},
    {"hold", "hold calls|replies PROC [handle HEX] [count N]", 3, 7, hold},
    {"release", "release PROC", 2, 2, release},
    {"error", "error PROC STATUS [handle HEX] [count N]", 3, 7, error},
    {"corrupt", "corrupt PROC mark|garbage|xid|short [handle HEX] [count N]", 3, 7, corrupt},
    {"cut", "cut [PROC BYTES [handle HEX] [count N]]", 1, 7, cut},
    {"swallow", "swallow on|off", 2, 2, swallow},
    {"refuse", "refuse on|off", 2, 2, refuse},
    {"strip", "strip PROC...", 2, kAny, strip},
    {"freeze", "freeze FILEID...|*", 2, kAny, freeze},
    {"thaw", "thaw", 1, 1, thaw},
    {"shift", "shift SECONDS", 2, 2, shift},
    {"whole_seconds", "whole_seconds on|off", 2, 2, whole_seconds},
    {"complete_wcc", "complete_wcc on|off", 2, 2, complete_wcc},
    {"fsid", "fsid FSID FILEID...", 3, kAny, fsid},
    {"heal", "heal", 1, 1, heal},
    {"quit", "quit", 1, 1, quit},
}};

const Command* command_named(std::string_view name) {
  const auto* const command = std::ranges::find(kCommands, name, &Command::name);
  return command == kCommands.end() ? nullptr : command;
}

}  // namespace

std::string execute_command(Proxy& proxy, std::string_view line) {
  const Words words = split(line);
  const Command* const command = words.empty() ? nullptr : command_named(words.front());
  if (command == nullptr) {
    return fmt::format("error there is no command '{}'", line);
  }
  if (words.size() < command->least_words || words.size() > command->most_words) {
    return fmt::format("error the command is: {}", command->syntax);
  }
  const Result<std::string> answer = command->handler(proxy, words);
  if (!answer) {
    return "error " + answer.error().context();
  }
  return answer->empty() ? "ok" : "ok " + *answer;
}

}  // namespace larder::proxy
