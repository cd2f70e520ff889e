// The bytes of a cache channel: the commands of the kernel's /dev/cachefiles, one a packet, and
// what the engine sends: a reply to each, and state lines in between. docs/protocol.md is the
// page.
//
// Both ends use it, and it reads what others wrote. Threads: plain functions on values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace larder::control {

inline constexpr std::size_t kMostChannelPacketBytes = 32768;
// Of one cull or inuse.
inline constexpr std::size_t kMostObjectsAtOnce = 512;

enum class CacheVerb : std::uint8_t {
#define CACHE_COMMAND(verb, name, syntax, help, when) verb,
#include "control/cache_commands.def"
#undef CACHE_COMMAND
};

enum class CommandTime : std::uint8_t { kBeforeBind, kAfterBind, kAnyTime };

// "brun".
[[nodiscard]] std::string_view name_of(CacheVerb verb);
[[nodiscard]] CommandTime time_of(CacheVerb verb);

struct CacheCommand {
  CacheVerb verb = CacheVerb::kState;
  std::string argument;  // all behind the spaces after the word, up to the first newline
  std::vector<std::string> more_lines;  // behind it, without empty ones

  friend bool operator==(const CacheCommand&, const CacheCommand&) = default;
};

// kNotSupported: too long, no known word; kInvalid: a NUL, a newline in front. The errnos are those
// that the kernel gives.
[[nodiscard]] Result<CacheCommand> parse_cache_command(std::string_view packet);
[[nodiscard]] std::string encode_cache_command(const CacheCommand& command);

// "12%" as 12. kInvalid: anything else.
[[nodiscard]] Result<unsigned> parse_percent(std::string_view argument);

// An object of the cache by its place below cache/.
struct ObjectPath {
  std::string directory;  // "Ikey/@3f"
  std::string name;       // "E1w0"

  friend bool operator==(const ObjectPath&, const ObjectPath&) = default;
};

// What a cull or inuse is about: PATH, and on further lines other paths or, without a '/', names in
// the directory of the line before. kInvalid: no path, a directory that leads elsewhere, too many.
[[nodiscard]] Result<std::vector<ObjectPath>> objects_of(const CacheCommand& command);

// As many as fit into one packet, from the first on; at least one.
struct ObjectsCommand {
  CacheCommand command;
  std::size_t objects = 0;
};

[[nodiscard]] ObjectsCommand objects_command(CacheVerb verb, std::span<const ObjectPath> objects);

// What became of one object of a cull.
struct ObjectOutcome {
  int error_number = 0;     // 0: done
  std::uint64_t bytes = 0;  // given back

  friend bool operator==(const ObjectOutcome&, const ObjectOutcome&) = default;
};

// A line each: the bytes, or the errno's name.
[[nodiscard]] std::string encode_outcomes(std::span<const ObjectOutcome> outcomes);
[[nodiscard]] Result<std::vector<ObjectOutcome>> parse_outcomes(std::string_view body);

// What the daemon is told of a cache. The first nine are the kernel's.
struct CacheState {
  bool culling = false;
  // Thresholds: inodes, and blocks of block_bytes, that must be free.
  std::uint64_t frun = 0, fcull = 0, fstop = 0, brun = 0, bcull = 0, bstop = 0;
  // Objects that came out of use since the last state line, and their blocks of 512 bytes.
  std::uint64_t released_files = 0, released_blocks = 0;

  // Not of a kernel's cache.
  bool stopped = false;           // nothing new is kept
  bool graveyard = false;         // something was buried since bind or the last empty graveyard
  std::uint64_t block_bytes = 0;  // 0: a kernel's line
  std::uint64_t free_files = 0, free_blocks = 0;  // now
  std::uint64_t used_bytes = 0, size_bytes = 0, objects = 0;
  // What is to be culled now: the way to frun and brun, or below the size.
  std::uint64_t excess_files = 0, excess_bytes = 0;

  friend bool operator==(const CacheState&, const CacheState&) = default;
};

// Into `state`, which takes the place of `before`, that nobody has seen: what was told once.
void add_released(CacheState& state, const CacheState& before);

[[nodiscard]] std::string encode_cache_state(const CacheState& state);
// Keys that it does not know are left out; kCorrupt: one of the kernel's nine is missing, or a
// value is no number.
[[nodiscard]] Result<CacheState> parse_cache_state(std::string_view line);

// What the engine sends.
struct ChannelPacket {
  enum class Kind : std::uint8_t { kOk, kError, kState };

  Kind kind = Kind::kOk;
  int error_number = 0;  // of kError
  std::string text;      // the body, the sentence, or the state line
};

[[nodiscard]] std::string encode_channel_packet(const ChannelPacket& packet);
[[nodiscard]] Result<ChannelPacket> parse_channel_packet(std::string_view packet);
// The packet of an answer to a command.
[[nodiscard]] ChannelPacket channel_reply(const Result<std::string>& reply);

}  // namespace larder::control
