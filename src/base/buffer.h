// Buffer: bytes that several requests share while they travel from the network to the kernel and to
// the disk; BufferPool gives them out and takes them back, so that a megabyte is not mapped, zeroed
// and unmapped for every read.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder {

// A block of memory with shared owners; its bytes are indeterminate at first.
// Threads: the pointer is as safe as a shared_ptr; who writes the bytes must be alone.
class Buffer {
 public:
  Buffer() = default;

  [[nodiscard]] MutableBytes bytes() const { return {block_.get(), size_}; }

  [[nodiscard]] std::size_t size() const { return size_; }

  explicit operator bool() const { return block_ != nullptr; }

 private:
  friend class BufferPool;

  Buffer(std::shared_ptr<std::byte[]> block, std::size_t size)
      : block_(std::move(block)), size_(size) {}

  std::shared_ptr<std::byte[]> block_;
  std::size_t size_ = 0;
};

// Keeps freed blocks of powers of two from 4 KiB to 1 MiB, at most 32 MiB in all; larger ones are
// allocated each time. Blocks are aligned to 4 KiB.
// Threads: any. Life: buffers may outlive the pool.
class BufferPool {
 public:
  BufferPool();

  [[nodiscard]] Buffer allocate(std::size_t size);

 private:
  class Shelf;

  std::shared_ptr<Shelf> shelf_;
};

}  // namespace larder
