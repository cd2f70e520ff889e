// A mount as the person who made it wants it: where from, where to, with which options.
//
// The command line writes it as lines of text, the keeper stores it unread, the engine reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace larder::handover {

struct MountOptions {
  // Of the mount itself; the command line hands them to mount(2).
  bool read_only = false;  // the engine refuses changes too
  bool nosuid = true;
  bool nodev = true;
  bool noexec = false;

  // Seconds for which attributes of files and of directories count as fresh.
  std::uint32_t acregmin = 3;
  std::uint32_t acregmax = 60;
  std::uint32_t acdirmin = 30;
  std::uint32_t acdirmax = 60;
  bool nocto = false;  // opens do not ask the server whether the file changed
  bool sync = false;   // a write returns when the server has its bytes

  // Of the connection to the server; nullopt: the adapter's default.
  std::optional<std::uint32_t> nconnect;  // connections, 1 to 16
  std::optional<std::uint32_t> rsize;     // bytes of one read, 4096 to 1 MiB
  std::optional<std::uint32_t> timeo;     // tenths of a second until a call is sent again
  std::optional<std::uint32_t> retrans;   // how often, before a soft mount gives up
  bool soft = false;

  bool passthrough = true;  // complete files may be handed to the kernel
  bool local_lock = false;  // the kernel keeps locks by itself, by node (docs/writing.md)

  // What nobody here knows, "name" or "name=value" in order: the adapter takes or refuses it.
  std::vector<std::string> adapter;

  bool operator==(const MountOptions&) const = default;
};

struct MountSpec {
  std::string source;      // as given
  std::string mountpoint;  // absolute
  std::string cache;       // absolute path of the cache directory, "" for none
  MountOptions options = {};
  std::uint64_t cache_size = 0;  // bytes that the cache may take; 0: not named

  bool operator==(const MountSpec&) const = default;
};

// Applies one option, "name" or "name=value". Errors are sentences: a value out of range, or
// something that is refused (profile=tools).
[[nodiscard]] Result<> apply_option(MountOptions& options, std::string_view word);
// The words that make these options out of default ones; those of the adapter last.
[[nodiscard]] std::vector<std::string> words_of(const MountOptions& options);

// kInvalid, as a sentence, if it is longer than kMostSpecBytes.
[[nodiscard]] Result<std::string> encode_spec(const MountSpec& spec);
[[nodiscard]] Result<MountSpec> decode_spec(std::string_view text);

}  // namespace larder::handover
