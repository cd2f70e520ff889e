#include "base/log.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <syslog.h>
#include <unistd.h>

namespace larder {

namespace {

constexpr std::size_t kRingLines = 1000;
constexpr std::array<std::string_view, 4> kLevelNames = {"error", "warning", "info", "debug"};
// syslog(3) priorities, as the journal reads them from the head of a line.
constexpr std::array<std::string_view, 4> kJournalPriorities = {"<3>", "<4>", "<6>", "<7>"};
constexpr std::array<int, 4> kSyslogPriorities = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

// Plain std::mutex: the log is below every rank, and a failed rank check logs.
struct LogState {
  std::mutex mutex;
  std::string name;
  std::deque<std::string> ring;
  bool to_stderr = true;
  bool to_syslog = false;
  std::string syslog_name;  // syslog(3) keeps a pointer to it
};

LogState& state() {
  static LogState& instance = *new LogState;  // never destroyed: threads may log while we exit
  return instance;
}

std::atomic<LogLevel>& level_variable() {
  static std::atomic<LogLevel> level{LogLevel::kInfo};
  return level;
}

std::atomic<int>& verbose_wishes() {
  static std::atomic<int> wishes{0};
  return wishes;
}

bool journal_behind_stderr() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing of ours changes the environment
  static const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  return journal;
}

std::string stamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto count = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(std::time_t{count / 1000}),
                     count % 1000);
}

}  // namespace

void set_log_level(LogLevel level) {
  level_variable().store(level, std::memory_order_relaxed);
}

LogLevel log_level() {
  return verbose_wishes().load(std::memory_order_relaxed) > 0
             ? LogLevel::kDebug
             : level_variable().load(std::memory_order_relaxed);
}

VerboseLog::VerboseLog() {
  verbose_wishes().fetch_add(1, std::memory_order_relaxed);
}

VerboseLog::~VerboseLog() {
  verbose_wishes().fetch_sub(1, std::memory_order_relaxed);
}

bool parse_log_level(std::string_view name, LogLevel& level) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames.at(i) == name) {
      level = static_cast<LogLevel>(i);
      return true;
    }
  }
  return false;
}

void set_log_name(std::string name) {
  const std::lock_guard lock(state().mutex);
  state().name = std::move(name);
}

void log_to_syslog(bool also_stderr) {
  const std::lock_guard lock(state().mutex);
  state().syslog_name = state().name;
  // Now, not at the first line: by then we may not be allowed to.
  ::openlog(state().syslog_name.c_str(), LOG_PID | LOG_NDELAY, LOG_DAEMON);
  state().to_syslog = true;
  state().to_stderr = also_stderr;
}

void log_line(LogLevel level, std::string_view text) {
  if (level > log_level()) {
    return;
  }
  const auto index = static_cast<std::size_t>(std::to_underlying(level));
  const std::string time = stamp();
  const std::lock_guard lock(state().mutex);
  std::string line = fmt::format("{} {} {}: {}", time, state().name, kLevelNames.at(index), text);
  const std::string output =
      journal_behind_stderr()
          ? fmt::format("{}{}: {}\n", kJournalPriorities.at(index), state().name, text)
          : line + "\n";
  if (state().to_syslog) {
    ::syslog(kSyslogPriorities.at(index), "%s", std::string(text).c_str());
  }
  if (state().to_stderr) {
    // A full or closed stderr must not stop a filesystem; the ring keeps the line.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, output.data(), output.size());
  }
  state().ring.push_back(std::move(line));
  if (state().ring.size() > kRingLines) {
    state().ring.pop_front();
  }
}

std::vector<std::string> recent_log_lines() {
  const std::lock_guard lock(state().mutex);
  return {state().ring.begin(), state().ring.end()};
}

}  // namespace larder
