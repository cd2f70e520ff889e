// WriteWatch: the writes that the kernel waits for, so that a write-back beside them is noticed.
//
// A page that a mapping changed is written back as far as the file goes, and Linux clears what it
// has of the page behind that (iomap_writeback_handle_eof, since 6.17). The bytes of a write(2)
// that makes the file longer are in the page already while we have not answered it: they are with
// us, but gone from the page, which whoever reads would see as zeros, and a mapping would write
// back so. Such a page has to be dropped: before the write is answered and the file longer, if we
// know by then, else afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::fuse {

// Threads: any. Life: the filesystem's.
class WriteWatch {
 public:
  // One WRITE of a program, from its arrival until just before its answer.
  struct Write {
    std::uint64_t nodeid = 0;
    std::uint64_t end = 0;                      // as far as the kernel takes it to go
    std::optional<std::uint64_t> cleared_from;  // guarded by the watch
  };

  using WriteRef = std::shared_ptr<Write>;

  [[nodiscard]] WriteRef begin(std::uint64_t nodeid, std::uint64_t end) EXCLUDES(mutex_);
  // It is about to be answered. From where on the kernel has cleared a page under it; nothing:
  // nowhere, as far as is known.
  [[nodiscard]] std::optional<std::uint64_t> end(const WriteRef& write) EXCLUDES(mutex_);
  // A write-back that ends in the midst of a page has come: the kernel takes that for the file's
  // end.
  void note_write_back(std::uint64_t nodeid, std::uint64_t end) EXCLUDES(mutex_);

 private:
  Mutex mutex_{LockRank::kStats};
  std::unordered_map<std::uint64_t, std::vector<WriteRef>> writes_ GUARDED_BY(mutex_);  // by node
};

}  // namespace larder::fuse
