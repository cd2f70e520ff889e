// The seam below fscache: what one kind of cache must be able to do. cachefiles implements it on a
// directory; the tests' form (testing/memory_backend.h) in memory.
//
// Everything that may touch the disk blocks and says so; fscache calls it on its disk pool only.
// A failure never means more than "not from this cache": kNotFound or kCorrupt (ask the server for
// this range), kNoSpace (do not keep this), kStale (a newer version of the object exists),
// kCacheDead or kIo (the whole cache is to be withdrawn).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::fscache {

// What, together with the size, decides whether a file is still the same: opaque here, compared for
// equality (NFSv3: mtime and ctime, packed by netfs/coherency.h).
using CoherencyData = std::array<std::byte, 16>;

// One version of one file of a volume.
struct ObjectDescription {
  std::string key;         // 1 to 128 bytes, any: the server's file handle
  std::uint64_t size = 0;  // bytes of the file
  CoherencyData coherency{};
  // The version may still change without its coherency data changing (it was made within the
  // granularity of the server's clock): recorded in a new object, see BackendObject::racy().
  bool racy = false;
};

enum class Source : std::uint8_t {
  kCache,
  kServer,
};

// Why a plan says what it says; printed by the log and counted.
enum class ReadWhy : std::uint8_t {
  kPresent,     // the map says that the bytes are there
  kHole,        // they were never fetched, or were dropped
  kUnverified,  // they are there, but their checksum must be looked at first: read() does it
  kSuperseded,  // a newer version of the file took the object's place
  kDead,        // the cache had an I/O error or is being withdrawn
  kHangs,       // the cache's disk does not answer
};

// The longest prefix of the range asked for that has a single source.
struct ReadPlan {
  Source source = Source::kServer;
  ByteRange range;
  ReadWhy why = ReadWhy::kHole;
};

// The backend's side of a cookie: one version of one file. While it lives it counts as in use.
//
// Small objects (up to kMostSmallBytes) are written and read whole.
// Threads: any; reads and writes of ranges that do not overlap may run at once. Life: owned by the
// cookie, destroyed on the disk pool: that closes the file and, where something worth keeping was
// written, gives it its name.
class BackendObject {
 public:
  static constexpr std::uint64_t kMostSmallBytes = std::uint64_t{64} * 1024;

  BackendObject() = default;
  BackendObject(const BackendObject&) = delete;
  BackendObject& operator=(const BackendObject&) = delete;
  virtual ~BackendObject() = default;

  // ---- From memory; never blocks.

  [[nodiscard]] virtual ReadPlan plan_read(ByteRange wanted) const = 0;
  // Every byte of the file is present (not yet: complete()).
  [[nodiscard]] virtual bool has_everything() const = 0;
  // mark_complete() succeeded, now or in an earlier life.
  [[nodiscard]] virtual bool complete() const = 0;
  // As the ObjectDescription said when the object was first made.
  [[nodiscard]] virtual bool racy() const = 0;
  // The server has a newer version: no more writes (kStale), never gets its name (back); reads of
  // those who still hold this version go on.
  virtual void supersede() = 0;
  // A place that the kernel may have failed to read for somebody who reads the backing file past
  // us: read() tells. It is not looked for each time.
  [[nodiscard]] virtual std::optional<std::uint64_t> find_failed_read() = 0;
  // Somebody uses it. The time of last use reaches the disk now and then, and at the end.
  virtual void note_use() = 0;

  // ---- May block on the disk.

  // Exactly into.size() bytes at `offset`, all of them planned as kCache. Verifies what has not
  // been verified since bind; kCorrupt drops the bad range from the map first.
  [[nodiscard]] virtual Result<> read(std::uint64_t offset, MutableBytes into) = 0;
  // Bytes that the server held in this version. Reserves room first. Whole blocks of 4 KiB (or up
  // to the end of the file) become present; the ragged ends of `from` are left out.
  [[nodiscard]] virtual Result<> write(std::uint64_t offset, Bytes from) = 0;
  // The server confirmed, after the last piece, that this still is the version: from now on it may
  // be handed out for passthrough. kNotFound: a range was found corrupt and dropped meanwhile.
  [[nodiscard]] virtual Result<> mark_complete() = 0;
  // A descriptor of the backing file for registration with the kernel; verified as
  // docs/on-disk-format.md says, exactly as long as the file. Requires complete(). kBusy: the disk
  // may not have taken all of it yet; soon after.
  [[nodiscard]] virtual Result<UniqueFd> open_for_passthrough() = 0;

  // For who has the backing file open and reads it past us: what is changed in the server's file is
  // changed in it too. The first call ends the object as a version, for good: it is superseded, no
  // name leads to it, read() says kStale, and nothing of it is believed after a crash. After an
  // error the file may hold a part of the change. One call at a time; larger objects only.
  [[nodiscard]] virtual Result<> overwrite(std::uint64_t offset, Bytes from) = 0;
  [[nodiscard]] virtual Result<> resize(std::uint64_t size) = 0;
  // Somebody has the backing file open past us, or mapped: mappings outlive the open file.
  [[nodiscard]] virtual Result<bool> is_open_elsewhere() = 0;
};

// The objects of one server share.
class BackendVolume {
 public:
  BackendVolume() = default;
  BackendVolume(const BackendVolume&) = delete;
  BackendVolume& operator=(const BackendVolume&) = delete;
  virtual ~BackendVolume() = default;

  // Blocks. The object of this version: the one on disk if its label agrees, else an empty one
  // (what was there under this key is out of date and is taken out of the cache). Open objects of
  // older versions of the key are superseded. At most one object of one version is open at a time:
  // the caller shares it.
  [[nodiscard]] virtual Result<std::unique_ptr<BackendObject>> open_object(
      const ObjectDescription& description) = 0;
  // Blocks. Takes whatever is kept under the key out of the cache; an open object is superseded.
  [[nodiscard]] virtual Result<> discard(std::string_view key) = 0;
};

// Of the filesystem's blocks or inodes: culling ends when `run` are free, begins when less than
// `cull` are, and below `stop` nothing new is kept.
struct FilesystemLimits {
  std::uint64_t free = 0, run = 0, cull = 0, stop = 0;
};

// For `larder status`; bytes are real blocks of the disk.
struct BackendStatus {
  std::string path;
  std::uint64_t used_bytes = 0;
  std::uint64_t limit_bytes = 0;
  FilesystemLimits blocks, files;  // bytes, inodes
  std::uint64_t objects = 0;       // as far as known; exact after a first round of the culler
  bool objects_exact = false;
  bool culling = false;
  std::string trouble;  // why nothing (new) is cached, as a sentence; "" when all is well
  std::uint64_t culled_objects = 0;
  std::uint64_t culled_bytes = 0;
  std::uint64_t culled_last_hour = 0;  // objects
  double oldest_seconds = 0;           // since the longest unused object was used; 0: never looked
  std::uint64_t open_objects = 0;      // in use
  std::uint64_t open_directories = 0;  // kept open between uses
  std::uint64_t corrupt_ranges = 0;    // checksums that did not fit
  std::uint64_t damaged_objects = 0;   // labels, lengths, map logs or types that made no sense
};

// One cache, online since it was made.
// Life: volumes and objects are destroyed before it.
class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  // Blocks. `key` is printable text without '/', any length.
  [[nodiscard]] virtual Result<std::unique_ptr<BackendVolume>> open_volume(
      std::string_view key) = 0;

  // Blocks. Does what is due (closing an epoch, culling a slice, writing the state file) and says
  // in how long it wants to be called again. Called by one thread at a time.
  virtual Duration run_maintenance() = 0;
  // `wake` is called, from any thread, when maintenance should run sooner than it said.
  virtual void set_maintenance_wake(std::move_only_function<void()> wake) = 0;

  // Blocks. Makes everything durable and marks the cache clean: the last call before destruction,
  // after every object and volume is gone.
  [[nodiscard]] virtual Result<> withdraw() = 0;

  // ---- From memory.

  [[nodiscard]] virtual BackendStatus status() const = 0;
  // Room is short, and nobody can make any, because what is left is in use. To be asked once after
  // each run_maintenance(), by the same thread.
  [[nodiscard]] virtual bool take_pressed() = 0;
  // False after an I/O error: nothing of it may be used any more, only destroyed.
  [[nodiscard]] virtual bool usable() const = 0;
};

}  // namespace larder::fscache
