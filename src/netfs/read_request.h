// ReadRequest: one read of a front end, split between cache and server, answered from one version.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/file.h"
#include "netfs/read_slice.h"
#include "netfs/version.h"

namespace larder::netfs {

// The bytes of a read, in order, in the buffers in which they arrived.
struct ReadOutcome {
  std::vector<ReadSlice> slices;
  std::size_t length = 0;  // of all slices; less than asked only at the end of the file
  // Of which version; null when the file changes too fast to say: nobody may keep these bytes.
  VersionRef version;
};

// Threads: finished by whoever delivers the last piece. Life: keeps itself alive until `done` ran.
class ReadRequest : public std::enable_shared_from_this<ReadRequest> {
 public:
  // Begins it. `done` runs exactly once, on any thread, perhaps before this returns.
  static void start(std::shared_ptr<File> file, std::shared_ptr<ShareContext> share, Caller caller,
                    ByteRange wanted, Done<ReadOutcome> done);

  // By start() only.
  ReadRequest(std::shared_ptr<File> file, std::shared_ptr<ShareContext> share, Caller caller,
              ByteRange wanted, Done<ReadOutcome> done);

 private:
  // A file that changes faster than this many reads of it is served without being cached.
  static constexpr int kMostAttempts = 3;

  struct Waiting {
    File::Piece piece;
    std::uint64_t id = 0;
  };

  void begin() EXCLUDES(mutex_);
  void begin_when_sure();
  void begin_written() EXCLUDES(mutex_);
  void begin_small() EXCLUDES(mutex_);
  void issue() EXCLUDES(mutex_);
  void issue_gap(ByteRange gap) EXCLUDES(mutex_);
  void issue_cache(ByteRange range) EXCLUDES(mutex_);
  void issue_server(ByteRange range) EXCLUDES(mutex_);
  void wait_for(const File::Piece& piece) EXCLUDES(mutex_);
  void add_piece(const File::Piece& piece) EXCLUDES(mutex_);
  void add_slice(std::uint64_t offset, Buffer owner, Bytes bytes) EXCLUDES(mutex_);
  void piece_done(Result<> result) EXCLUDES(mutex_);
  void finish() EXCLUDES(mutex_);
  [[nodiscard]] Result<ReadOutcome> collect() EXCLUDES(mutex_);
  void finish_with(Result<ReadOutcome> outcome) EXCLUDES(mutex_);
  void begin_after_check();
  void read_directly();
  void read_at_server() EXCLUDES(mutex_);
  [[nodiscard]] bool caller_cancelled() const;
  void cancel() EXCLUDES(mutex_);

  const std::shared_ptr<File> file_;
  const std::shared_ptr<ShareContext> share_;
  const Caller caller_;
  const ByteRange asked_;

  // ---- Of the attempt under way; written before its pieces are issued.
  VersionRef version_;
  ByteRange wanted_;
  std::uint64_t fetch_unit_ = 0;
  int attempts_ = 0;
  bool from_server_ = false;

  Mutex mutex_{LockRank::kStats};
  Done<ReadOutcome> done_ GUARDED_BY(mutex_);
  std::map<std::uint64_t, ReadSlice> slices_ GUARDED_BY(mutex_);
  std::vector<Waiting> waiting_ GUARDED_BY(mutex_);
  unsigned pending_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
  bool cancelled_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::netfs
