// NfsOptions: what a person may say about an NFS mount, as words of `-o` or of a URL's query.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace larder::nfs {

struct NfsOptions {
  // Bytes of one READ; 0: what the server prefers. At most kMostTransferSize.
  std::uint32_t read_size = 0;
  std::uint32_t write_size = 0;  // bytes of one WRITE, likewise
  // One keeps small calls clear of large replies, the other carries the reads: on one machine two
  // connections already saturate what a server gives, and each costs a thread.
  unsigned connections = 2;
  std::chrono::milliseconds timeout{60'000};  // nfs(5) says it in tenths of a second
  unsigned retrans = 2;
  bool soft = false;
  bool privileged_port = true;              // tried first; falls back to any
  std::optional<std::uint16_t> nfs_port;    // without it the portmapper is asked
  std::optional<std::uint16_t> mount_port;  // likewise

  static constexpr std::uint32_t kLeastTransferSize = 4096;
  static constexpr std::uint32_t kMostTransferSize = 1U << 20;
  static constexpr unsigned kMostConnections = 16;

  bool operator==(const NfsOptions&) const = default;
};

enum class OptionOutcome : std::uint8_t {
  kApplied,
  kUnknown,  // not an option of NFS: somebody else may know it
};

// One word: "soft", "hard", "resvport", "noresvport", or KEY=VALUE with rsize and wsize (bytes),
// nconnect, timeo (tenths of a second), retrans, port or nfsport, mountport.
// Errors: kInvalid with a sentence for a known key with a bad value.
[[nodiscard]] Result<OptionOutcome> apply_option(NfsOptions& options, std::string_view word);

// A port of a URL or an option, 1 to 65535; `where` says whose.
[[nodiscard]] Result<std::uint16_t> parse_port(std::string_view text, std::string_view where);

}  // namespace larder::nfs
