// CallerTable: who makes a request: uid and gid from its header, supplementary groups from /proc.
//
// The groups are believed only when the process still has the uid and gid of the header, and are
// remembered for a second by process and start time; whoever cannot be read has none: fewer rights,
// never more. Request headers carry a thread id of the namespace of whoever mounted.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"
#include "os/ending.h"

namespace larder::fuse {

// What /proc/PID/status says, as far as it is used.
struct ProcessStatus {
  std::uint32_t fs_uid = 0;
  std::uint32_t fs_gid = 0;
  std::vector<std::uint32_t> groups;
};

// Reads the text of a /proc/PID/status; nullopt when a line is missing or makes no sense.
[[nodiscard]] std::optional<ProcessStatus> parse_process_status(const std::string& text);
// The start time (field 22) of a /proc/PID/stat; nullopt when it makes no sense.
[[nodiscard]] std::optional<std::uint64_t> parse_start_time(const std::string& text);

// Threads: any. Life: the session's.
class CallerTable {
 public:
  explicit CallerTable(const Clock& clock);

  CallerTable(const Clock& clock, os::ReadProc read_proc)
      : clock_(clock), read_proc_(std::move(read_proc)) {}

  // Call it while the request is unanswered: until then the process waits, and its pid is its own.
  [[nodiscard]] netfs::CredentialRef credential(std::uint32_t uid, std::uint32_t gid,
                                                std::uint32_t pid) EXCLUDES(mutex_);

 private:
  static constexpr std::chrono::seconds kLifetime{1};
  static constexpr std::size_t kMostEntries = 4096;

  struct Entry {
    std::uint64_t start_time = 0;
    netfs::CredentialRef credential;
    MonotonicTime until;
  };

  const Clock& clock_;
  const os::ReadProc read_proc_;
  Mutex mutex_{LockRank::kStats};
  std::unordered_map<std::uint32_t, Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace larder::fuse
