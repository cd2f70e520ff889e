// FileOpen: one open(2) of a file, as long as somebody holds it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace larder::netfs {

class File;

// The file is told when it goes: the last open of all lets memory go and removes a hidden name, the
// last that can write ends the time in which the file is being written.
// Threads: any. Life: shared by the copies of an OpenFile.
class FileOpen {
 public:
  // By File::open() only.
  FileOpen(std::shared_ptr<File> file, bool writes) : file_(std::move(file)), writes_(writes) {}

  ~FileOpen();
  FileOpen(const FileOpen&) = delete;
  FileOpen& operator=(const FileOpen&) = delete;

  [[nodiscard]] bool writes() const { return writes_; }

  // How many late errors of the file this open was told of, or was too young for.
  [[nodiscard]] std::atomic<std::uint64_t>& errors_seen() { return errors_seen_; }

 private:
  const std::shared_ptr<File> file_;
  const bool writes_;
  std::atomic<std::uint64_t> errors_seen_{0};
};

using FileOpenRef = std::shared_ptr<FileOpen>;

}  // namespace larder::netfs
