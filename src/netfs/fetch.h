// Fetch: one download of a range of one version, however many readers wait for it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/inode.h"
#include "netfs/version.h"

namespace larder::netfs {

// Life: shared by the file's table, by the call under way and by its waiters.
struct Fetch {
  // ---- Constant.
  VersionRef version;
  ByteRange range;
  Buffer buffer;  // range.length bytes
  CredentialRef credential;
  bool prefetch = false;  // begun before anybody asked

  // ---- Only by the call under way, of which there is one at a time.
  std::uint64_t received = 0;
  CheckTicket ticket = 0;

  // ---- Guarded by the file's lock.
  CallId call = 0;
  bool landed = false;          // the bytes are there and are the version's
  bool kept = false;            // the cache has them, or will not have them
  bool written = false;         // the cache has them
  bool held = false;            // kept, and still in memory for the reader that comes for them
  std::uint64_t served = 0;     // bytes that readers took, or wait for
  std::uint64_t round = 0;      // of the file's ticks, when it was first held
  bool prefetch_ended = false;  // it does not count as a prefetch under way any more
  bool gone = false;            // not in the file's table any more
  std::uint64_t last_waiter = 0;
  std::map<std::uint64_t, std::move_only_function<void(Result<Buffer>)>> waiters;
};

}  // namespace larder::netfs
