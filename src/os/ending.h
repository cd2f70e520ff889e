// Whether a thread that waits for us is about to end, or has only been sent a signal.
//
// The kernel sends an INTERRUPT for any signal. A program that catches SIGALRM or SIGCHLD does not
// expect EINTR from stat(2), open(2) or read(2) of a file, and would not get it from a disk nor
// from the kernel's NFS: only a thread that is going to be killed stops waiting.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace larder::os {

// Reads a small file of /proc/PID; nullopt if it cannot. The tests put their own here.
using ReadProc = std::function<std::optional<std::string>(std::uint32_t pid, const char* file)>;

// The real one.
[[nodiscard]] std::optional<std::string> read_proc_file(std::uint32_t pid, const char* file);

// By the text of a /proc/PID/status: a signal is pending that is neither blocked, caught nor
// ignored, and whose default is to end the process. True as well when the text makes no sense:
// better an EINTR too many than a process that cannot be killed.
[[nodiscard]] bool is_ending(const std::string& status);

// The same of a thread; true if nothing can be known of it.
[[nodiscard]] bool is_thread_ending(const ReadProc& read_proc, std::uint32_t pid);

}  // namespace larder::os
