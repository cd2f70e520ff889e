// Log lines: to stderr (or the journal behind it) or syslog, and a ring of the last ones for
// `larder log`.
//
// Log where an error stops, not where it passes. Lines carry ids, never secrets or file contents.
// Threads: everything here may be called from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace larder {

enum class LogLevel : std::uint8_t {
  kError,    // somebody must do something
  kWarning,  // works, but not as asked (cache withdrawn, server away)
  kInfo,     // life of caches, mounts and processes
  kDebug,    // decisions with their reasons
};

// Lines less important than `level` are dropped; kInfo at start.
void set_log_level(LogLevel level);
// What counts now.
[[nodiscard]] LogLevel log_level();

// Somebody's wish for everything: as long as one lives no line is dropped, whatever the level.
class VerboseLog {
 public:
  VerboseLog();
  VerboseLog(const VerboseLog&) = delete;
  VerboseLog& operator=(const VerboseLog&) = delete;
  ~VerboseLog();
};

// "error", "warning", "info", "debug"; false when `name` is none of them.
[[nodiscard]] bool parse_log_level(std::string_view name, LogLevel& level);
// A word before each line that says which process speaks ("keeper", "engine").
void set_log_name(std::string name);

// From now on lines go to syslog(3), as those of a daemon by the name that was set; to stderr too
// if `also_stderr`.
void log_to_syslog(bool also_stderr);

// One line, without a newline. Under systemd (JOURNAL_STREAM) the priority goes in front.
void log_line(LogLevel level, std::string_view text);
// The last lines (at most 1000), oldest first, with time and level.
[[nodiscard]] std::vector<std::string> recent_log_lines();

template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() >= LogLevel::kDebug) {
    log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
  }
}

}  // namespace larder
