// WholeCopy: the content of a file that was written here from nothing, as far as our own writes
// make it, so that whoever reads it next does not fetch it.
//
// It begins when the file is known to be empty and follows the writes in the order in which they
// were accepted. It is given up when it grows too large, or when anything is not certain any more;
// whether somebody else wrote meanwhile is for its user to know (Inode::watch_for_others()).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"

namespace larder::netfs {

// Threads: external synchronisation; `total` is shared by all copies of a share.
class WholeCopy {
 public:
  // A larger file is fetched when it is read.
  static constexpr std::uint64_t kMostBytes = std::uint64_t{4} << 20;
  // Of all files of a share that are being written.
  static constexpr std::uint64_t kMostTotalBytes = std::uint64_t{64} << 20;

  // `total` counts the bytes of all copies that share it, and outlives this one.
  explicit WholeCopy(std::atomic<std::uint64_t>& total) : total_(total) {}

  ~WholeCopy() { give_up(); }

  WholeCopy(const WholeCopy&) = delete;
  WholeCopy& operator=(const WholeCopy&) = delete;

  // The file is empty.
  void begin();
  void write(std::uint64_t offset, Bytes bytes);
  // The file ends at `size` now: a gap reads as zeros.
  void set_size(std::uint64_t size);
  void give_up();

  // All of the file; nothing: it is not known, or empty. Gives it up.
  [[nodiscard]] std::optional<std::vector<std::byte>> take();

 private:
  // False: it had to be given up.
  bool resize(std::uint64_t size);

  std::atomic<std::uint64_t>& total_;
  bool whole_ = false;
  std::vector<std::byte> bytes_;
};

}  // namespace larder::netfs
