#include "fuse/caller.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "netfs/attributes.h"
#include "os/ending.h"

namespace larder::fuse {

namespace {

// The whitespace-separated numbers behind "Name:"; nullopt if there is no such line.
std::optional<std::vector<std::uint32_t>> numbers_of(std::string_view text, std::string_view name) {
  const std::string head = fmt::format("\n{}:", name);
  const std::size_t at = text.find(head);
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view line = text.substr(at + head.size());
  line = line.substr(0, line.find('\n'));
  std::vector<std::uint32_t> numbers;
  while (true) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) {
      return numbers;
    }
    line.remove_prefix(begin);
    std::uint32_t number = 0;
    const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), number);
    if (code != std::errc{}) {
      return std::nullopt;
    }
    numbers.push_back(number);
    line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  }
}

}  // namespace

std::optional<ProcessStatus> parse_process_status(const std::string& text) {
  // "Uid:" and "Gid:" give real, effective, saved and filesystem ids (proc_pid_status(5)).
  constexpr std::size_t kFilesystemId = 3;
  auto uids = numbers_of(text, "Uid");
  auto gids = numbers_of(text, "Gid");
  auto groups = numbers_of(text, "Groups");
  if (!uids || !gids || !groups || uids->size() <= kFilesystemId || gids->size() <= kFilesystemId) {
    return std::nullopt;
  }
  return ProcessStatus{(*uids)[kFilesystemId], (*gids)[kFilesystemId], std::move(*groups)};
}

std::optional<std::uint64_t> parse_start_time(const std::string& text) {
  // The name in parentheses may hold anything, also parentheses: fields are counted behind the
  // last.
  constexpr int kFieldsBehindName = 20;
  const std::size_t close = text.rfind(')');
  if (close == std::string::npos) {
    return std::nullopt;
  }
  std::size_t at = close + 1;
  for (int field = 0; field < kFieldsBehindName - 1; ++field) {
    at = text.find(' ', at + 1);
    if (at == std::string::npos) {
      return std::nullopt;
    }
  }
  std::uint64_t start = 0;
  const auto [end, code] = std::from_chars(text.data() + at + 1, text.data() + text.size(), start);
  return code == std::errc{} ? std::optional(start) : std::nullopt;
}

CallerTable::CallerTable(const Clock& clock) : CallerTable(clock, os::read_proc_file) {}

netfs::CredentialRef CallerTable::credential(std::uint32_t uid, std::uint32_t gid,
                                             std::uint32_t pid) {
  const auto without_groups = [&] {
    return std::make_shared<const netfs::Credential>(netfs::Credential{uid, gid, {}});
  };
  if (pid == 0) {
    return without_groups();  // a caller outside of the mounter's pid namespace
  }
  const auto stat = read_proc_(pid, "stat");
  const auto start_time = stat ? parse_start_time(*stat) : std::nullopt;
  if (!start_time) {
    return without_groups();
  }
  const MonotonicTime now = clock_.now();
  {
    const MutexLock lock(mutex_);
    const auto found = entries_.find(pid);
    if (found != entries_.end() && found->second.start_time == *start_time &&
        found->second.until >= now && found->second.credential->uid == uid &&
        found->second.credential->gid == gid) {
      return found->second.credential;
    }
  }
  const auto text = read_proc_(pid, "status");
  auto status = text ? parse_process_status(*text) : std::nullopt;
  if (!status || status->fs_uid != uid || status->fs_gid != gid) {
    return without_groups();
  }
  auto credential = std::make_shared<const netfs::Credential>(
      netfs::Credential{uid, gid, std::move(status->groups)});
  const MutexLock lock(mutex_);
  if (entries_.size() >= kMostEntries) {
    entries_.clear();
  }
  entries_.insert_or_assign(pid, Entry{*start_time, credential, now + kLifetime});
  return credential;
}

}  // namespace larder::fuse
