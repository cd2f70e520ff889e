// The kernel's FUSE protocol: its header, and what is newer than the header that Debian ships
// (7.38), each with the protocol version that brought it. Source: include/uapi/linux/fuse.h of
// Linux.
#pragma once

#include <cstdint>

#include <linux/fuse.h>  // IWYU pragma: export

namespace larder::fuse {

// We speak up to this; the kernel and we use the smaller of both.
inline constexpr std::uint32_t kMajorVersion = 7;
inline constexpr std::uint32_t kMinorVersion = 45;
// Below this a kernel lacks what every mount needs (7.31: Linux 5.4).
inline constexpr std::uint32_t kLeastMinorVersion = 31;

// ---- INIT flags.
inline constexpr std::uint64_t kInitPassthrough = 1ULL << 37;  // 7.40, Linux 6.9
inline constexpr std::uint64_t kInitHasResend = 1ULL << 39;    // 7.41
// Locks that are told to us; what is not, the kernel keeps.
inline constexpr std::uint64_t kInitLocks = FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;

// ---- Notifications.
inline constexpr std::uint32_t kPruneMinorVersion = 45;  // 7.45, Linux 6.18
inline constexpr std::int32_t kNotifyPrune = 9;  // nodes to be forgotten if nothing uses them

// The fixed part of that notification; so many nodeids follow.
struct NotifyPruneOut {
  std::uint32_t count;
  std::uint32_t padding;
  std::uint64_t spare;
};

static_assert(sizeof(NotifyPruneOut) == 16);

// ---- Flags of an open reply.
inline constexpr std::uint32_t kOpenNoFlush = 1U << 5;      // 7.35: FOPEN_NOFLUSH
inline constexpr std::uint32_t kOpenPassthrough = 1U << 7;  // 7.40: FOPEN_PASSTHROUGH

// Open flag of a file that is about to be executed (the kernel's FMODE_EXEC, seen in
// open_in.flags).
inline constexpr std::uint32_t kOpenForExecution = 0x20;

// A request that is sent again after NOTIFY_RESEND carries this bit (7.41).
inline constexpr std::uint64_t kUniqueResend = 1ULL << 63;

// INIT's answer since 7.40: the last of the reserved words have names.
struct InitOut {
  std::uint32_t major;
  std::uint32_t minor;
  std::uint32_t max_readahead;
  std::uint32_t flags;
  std::uint16_t max_background;
  std::uint16_t congestion_threshold;
  std::uint32_t max_write;
  std::uint32_t time_gran;
  std::uint16_t max_pages;
  std::uint16_t map_alignment;
  std::uint32_t flags2;
  std::uint32_t max_stack_depth;
  std::uint16_t request_timeout;
  std::uint16_t unused[11];
};

static_assert(sizeof(InitOut) == 64);

// An open reply since 7.40: the padding is the backing id.
struct OpenOut {
  std::uint64_t fh;
  std::uint32_t open_flags;
  std::int32_t backing_id;
};

static_assert(sizeof(OpenOut) == sizeof(fuse_open_out));

// Data of one request or reply, and of one READ.
inline constexpr std::uint32_t kMostIoBytes = 1024 * 1024;
inline constexpr std::uint16_t kMostPages = kMostIoBytes / 4096;
// What a buffer for requests must hold: the data, the headers and the names.
inline constexpr std::size_t kRequestBufferBytes = kMostIoBytes + 8192;

}  // namespace larder::fuse
