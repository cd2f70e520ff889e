#include "os/ending.h"

#include <array>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include "base/unique_fd.h"

namespace larder::os {

namespace {

// Room for the 65,536 groups that a process may have, ten digits and a space each, and the rest.
constexpr std::size_t kMostProcBytes = std::size_t{800} * 1024;

using SignalSet = std::uint64_t;  // bit n - 1: signal n

constexpr SignalSet set_of(std::initializer_list<int> signals) {
  SignalSet set = 0;
  for (const int signal : signals) {
    set |= SignalSet{1} << static_cast<unsigned>(signal - 1);
  }
  return set;
}

// signal(7): what does not end a process that did not say what to do.
constexpr SignalSet kHarmless =
    set_of({SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU});

// A line like "SigPnd:\t0000000000000100".
std::optional<SignalSet> signals_of(std::string_view status, std::string_view name) {
  const std::string head = fmt::format("\n{}:\t", name);
  const std::size_t at = status.find(head);
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view line = status.substr(at + head.size());
  SignalSet set = 0;
  const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), set, 16);
  return code == std::errc{} ? std::optional(set) : std::nullopt;
}

}  // namespace

std::optional<std::string> read_proc_file(std::uint32_t pid, const char* file) {
  const UniqueFd descriptor(
      ::open(fmt::format("/proc/{}/{}", pid, file).c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor.valid()) {
    return std::nullopt;
  }
  std::string text;
  std::array<char, 4096> piece{};
  while (text.size() < kMostProcBytes) {
    const ssize_t got = ::read(descriptor.get(), piece.data(), piece.size());
    if (got < 0) {
      return std::nullopt;
    }
    if (got == 0) {
      return text;
    }
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  return std::nullopt;
}

bool is_ending(const std::string& status) {
  const auto of_thread = signals_of(status, "SigPnd");
  const auto of_process = signals_of(status, "ShdPnd");
  const auto blocked = signals_of(status, "SigBlk");
  const auto ignored = signals_of(status, "SigIgn");
  const auto caught = signals_of(status, "SigCgt");
  if (!of_thread || !of_process || !blocked || !ignored || !caught) {
    return true;
  }
  return ((*of_thread | *of_process) & ~(*blocked | *ignored | *caught | kHarmless)) != 0;
}

bool is_thread_ending(const ReadProc& read_proc, std::uint32_t pid) {
  if (pid == 0) {
    return true;  // a thread outside of the mounter's pid namespace
  }
  const auto status = read_proc(pid, "status");
  return !status || is_ending(*status);
}

}  // namespace larder::os
