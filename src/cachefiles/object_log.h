// ObjectLog: the map log of one open object, from memory to its file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/content_map.h"
#include "cachefiles/map_log.h"
#include "cachefiles/stamp.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// What a log says: header and the records that check.
struct LoadedLog {
  MapHeader header;
  std::vector<MapRecord> records;
  std::uint64_t bytes = 0;  // of the file, rounded up to whole records
};

// Until the log has a file, records wait in memory.
// Threads: any. Life: the object's.
class ObjectLog {
 public:
  // Takes over an existing log of `bytes` bytes.
  void adopt(std::unique_ptr<os::File> file, std::uint64_t nonce, std::uint64_t bytes)
      EXCLUDES(mutex_);
  // The file is there with its header and `bytes` bytes; records that waited go into it. They get
  // `stamp`, a lease of which the caller holds: their data was written before.
  [[nodiscard]] Result<> start(std::unique_ptr<os::File> file, std::uint64_t nonce,
                               std::uint64_t bytes, Stamp stamp) EXCLUDES(mutex_);
  // Appends, or lets the records wait.
  [[nodiscard]] Result<> append(std::vector<MapRecord> records) EXCLUDES(mutex_);
  // What has been written to the file; no appends may be under way.
  [[nodiscard]] Result<LoadedLog> load() EXCLUDES(mutex_);
  // Takes away what waits: it is in the header's first records.
  void forget_waiting() EXCLUDES(mutex_);
  // The log is gone from the disk or about to be: records are dropped from now on.
  void stop() EXCLUDES(mutex_);
  // As new.
  void reset() EXCLUDES(mutex_);

  [[nodiscard]] bool started() const EXCLUDES(mutex_);
  // 0 when there is no file.
  [[nodiscard]] std::uint64_t nonce() const EXCLUDES(mutex_);
  [[nodiscard]] std::uint64_t bytes() const EXCLUDES(mutex_);
  // 0 when there is no file.
  [[nodiscard]] std::uint64_t allocated() const EXCLUDES(mutex_);

 private:
  [[nodiscard]] static Result<> write(os::File& file, std::uint64_t nonce, std::uint64_t offset,
                                      std::span<const MapRecord> records);

  mutable Mutex mutex_{LockRank::kCache};
  std::shared_ptr<os::File> file_ GUARDED_BY(mutex_);
  std::uint64_t nonce_ GUARDED_BY(mutex_) = 0;
  std::uint64_t end_ GUARDED_BY(mutex_) = 0;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::vector<MapRecord> waiting_ GUARDED_BY(mutex_);
};

// The records that say what `pieces` say, as few as possible, all with `stamp`.
[[nodiscard]] std::vector<MapRecord> records_of(std::span<const MapPiece> pieces, Stamp stamp);
// The same from what a log that counts said of them `before`: what was durable stays so, the pieces
// of a cell of which something was not get its newest stamp.
[[nodiscard]] std::vector<MapRecord> rewritten_records(
    std::span<const MapPiece> pieces, std::span<const MapRecord> before,
    const std::function<bool(const Stamp&)>& durable);

[[nodiscard]] Result<LoadedLog> load_log(os::File& file);

}  // namespace larder::cachefiles
