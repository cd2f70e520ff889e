// WholeCopy: the content of a file that was written here from nothing, as far as our own writes
// make it, so that whoever reads it next does not fetch it.
//
// It begins when the file is known to be empty and follows the writes in the order in which they
// were accepted. It is given up when it grows too large, or when anything is not certain any more;
// whether somebody else wrote meanwhile is for its user to know (Inode::watch_for_others()). He
// cannot know of a change in the same tick of the server's clock as one of ours, so `since` tells
// how old what nobody could see may be.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"

namespace larder::netfs {

// The bytes of all copies of a share.
using CopiedBytes = std::shared_ptr<std::atomic<std::uint64_t>>;

// What becomes of a WholeCopy: all of the file. Threads: any. Life: shared.
class WrittenContent {
 public:
  // Takes over what `bytes` count in `total`.
  WrittenContent(std::vector<std::byte> bytes, MonotonicTime since, CopiedBytes total)
      : bytes_(std::move(bytes)), since_(since), total_(std::move(total)) {}

  ~WrittenContent() { *total_ -= bytes_.size(); }

  WrittenContent(const WrittenContent&) = delete;
  WrittenContent& operator=(const WrittenContent&) = delete;

  [[nodiscard]] Bytes bytes() const { return bytes_; }

  // Before the first change.
  [[nodiscard]] MonotonicTime since() const { return since_; }

 private:
  const std::vector<std::byte> bytes_;
  const MonotonicTime since_;
  const CopiedBytes total_;
};

// Threads: external synchronisation.
class WholeCopy {
 public:
  // A larger file is fetched when it is read.
  static constexpr std::uint64_t kMostBytes = std::uint64_t{4} << 20;
  // Of all files of a share that are being written, or were a moment ago.
  static constexpr std::uint64_t kMostTotalBytes = std::uint64_t{64} << 20;

  // The clock outlives it.
  WholeCopy(CopiedBytes total, const Clock& clock) : total_(std::move(total)), clock_(clock) {}

  ~WholeCopy() { give_up(); }

  WholeCopy(const WholeCopy&) = delete;
  WholeCopy& operator=(const WholeCopy&) = delete;

  // The file is empty.
  void begin();
  void write(std::uint64_t offset, Bytes bytes);
  // The file ends at `size` now: a gap reads as zeros.
  void set_size(std::uint64_t size);
  void give_up();

  // All of the file; null: it is not known, or empty. Gives it up.
  [[nodiscard]] std::shared_ptr<const WrittenContent> take();

 private:
  // False: it had to be given up.
  bool resize(std::uint64_t size);

  const CopiedBytes total_;
  const Clock& clock_;
  bool whole_ = false;
  MonotonicTime since_{};
  std::vector<std::byte> bytes_;
};

}  // namespace larder::netfs
