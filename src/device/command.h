// What is written to the device: one command a write, read as the kernel reads it
// (fs/cachefiles/daemon.c), which differs in small things from a packet of a cache channel.
//
// Reads bytes of others. Threads: plain functions on values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "control/cache_protocol.h"

namespace larder::device {

// Of the kernel's, less than a page.
inline constexpr std::size_t kMostWriteBytes = 4095;

// A command that the kernel knows, with its argument: no newline, no NUL, no space in front.
// kNotSupported: too long, no such command, a space in front; kInvalid: a NUL, a newline in front.
[[nodiscard]] Result<control::CacheCommand> parse_write(std::string_view text);

// "12%" as 12, whatever the number; without digits 0, as the kernel has it. kInvalid: anything
// else.
[[nodiscard]] Result<std::uint64_t> parse_kernel_percent(std::string_view argument);
// A number as C writes it; nothing is 0. kInvalid: anything else.
[[nodiscard]] Result<std::uint64_t> parse_mask(std::string_view argument);

}  // namespace larder::device
