#include "base/buffer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder {

namespace {

constexpr std::size_t kAlignment = 4096;
constexpr std::size_t kSmallestShift = 12;
constexpr std::size_t kLargestShift = 20;
constexpr std::size_t kMostKeptBytes = std::size_t{32} << 20;

std::byte* new_block(std::size_t size) {
  return static_cast<std::byte*>(::operator new(size, std::align_val_t{kAlignment}));
}

void delete_block(std::byte* block) {
  ::operator delete(block, std::align_val_t{kAlignment});
}

}  // namespace

// The freed blocks, by size class.
class BufferPool::Shelf {
 public:
  Shelf() = default;
  Shelf(const Shelf&) = delete;
  Shelf& operator=(const Shelf&) = delete;

  ~Shelf() {
    for (const auto& blocks : free_) {
      for (std::byte* block : blocks) {
        delete_block(block);
      }
    }
  }

  std::byte* take(std::size_t shift) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      auto& blocks = free_.at(shift - kSmallestShift);
      if (!blocks.empty()) {
        std::byte* block = blocks.back();
        blocks.pop_back();
        kept_bytes_ -= std::size_t{1} << shift;
        return block;
      }
    }
    return new_block(std::size_t{1} << shift);
  }

  void give_back(std::byte* block, std::size_t shift) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      const std::size_t size = std::size_t{1} << shift;
      if (kept_bytes_ + size <= kMostKeptBytes) {
        kept_bytes_ += size;
        free_.at(shift - kSmallestShift).push_back(block);
        return;
      }
    }
    delete_block(block);
  }

 private:
  Mutex mutex_{LockRank::kBuffers};
  std::array<std::vector<std::byte*>, kLargestShift - kSmallestShift + 1> free_ GUARDED_BY(mutex_);
  std::size_t kept_bytes_ GUARDED_BY(mutex_) = 0;
};

BufferPool::BufferPool() : shelf_(std::make_shared<Shelf>()) {}

Buffer BufferPool::allocate(std::size_t size) {
  if (size > std::size_t{1} << kLargestShift) {
    return {std::shared_ptr<std::byte[]>(new_block(size), delete_block), size};
  }
  const std::size_t rounded = std::bit_ceil(std::max(size, std::size_t{1} << kSmallestShift));
  const auto shift = static_cast<std::size_t>(std::countr_zero(rounded));
  return {std::shared_ptr<std::byte[]>(
              shelf_->take(shift),
              [shelf = shelf_, shift](std::byte* block) { shelf->give_back(block, shift); }),
          size};
}

}  // namespace larder
