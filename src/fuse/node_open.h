// NodeOpen: how a node is open: the mode is latched from its first open to its last close, because
// the kernel refuses two modes on one inode.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "netfs/file.h"
#include "netfs/held_versions.h"
#include "netfs/version.h"

namespace larder::fuse {

// Stored in the records that outlive the engine.
enum class OpenMode : std::uint8_t {
  kClosed = 0,
  kPageCache = 1,    // the kernel caches pages, we answer its READs
  kPassthrough = 2,  // the kernel reads the backing file by itself
};

// Why an open got its mode; counted and shown by `larder status`.
enum class OpenWhy : std::uint8_t {
  kLatched,     // as the node is open already
  kSmall,       // a small file: the page cache is the better place
  kComplete,    // all of it is in the cache: passthrough
  kIncomplete,  // not (yet) all of it is in the cache
  kTurnedOff,   // passthrough=no, or the kernel has none
  kUnwritten,   // complete, but the cache's disk may not have taken all of it yet
  kRefused,     // the kernel or the keeper refused to register the backing file
  kWritten,     // it is being written: pages of our own writes are right, a backing file is not
};

[[nodiscard]] std::string_view name_of(OpenWhy why);

struct NodeOpen {
  OpenMode mode = OpenMode::kClosed;
  std::uint32_t handles = 0;
  // The first open is being decided; the others wait for the outcome.
  bool deciding = false;
  std::vector<std::move_only_function<void()>> waiting;
  // What is open; with passthrough the version that the backing file holds.
  std::shared_ptr<netfs::File> file;
  netfs::VersionRef version;
  std::int32_t backing_id = 0;     // also kept for a while after the last close
  netfs::PassthroughHoldRef hold;  // of the version, as long as there is a backing id
};

}  // namespace larder::fuse
