#include "netfs/write_store.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/changes.h"

namespace larder::netfs {

namespace {

class HeapStore final : public WriteStore {
 public:
  explicit HeapStore(std::uint64_t capacity) : free_(capacity) {}

  [[nodiscard]] std::unique_ptr<WriteSpace> reserve(const StoredWrite& what,
                                                    std::size_t most) override;

  [[nodiscard]] std::size_t take(std::size_t wanted) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const std::size_t taken = std::min<std::uint64_t>(wanted, free_);
    free_ -= taken;
    return taken;
  }

  void give_back(std::size_t bytes) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    free_ += bytes;
  }

 private:
  Mutex mutex_{LockRank::kStats};
  std::uint64_t free_ GUARDED_BY(mutex_);
};

class HeapSpace final : public WriteSpace {
 public:
  explicit HeapSpace(HeapStore& store) : store_(store) {}

  HeapSpace(const HeapSpace&) = delete;
  HeapSpace& operator=(const HeapSpace&) = delete;

  ~HeapSpace() override { store_.give_back(bytes_.size()); }

  [[nodiscard]] std::size_t append(Bytes bytes) override {
    const Bytes part = bytes.first(store_.take(bytes.size()));
    bytes_.insert(bytes_.end(), part.begin(), part.end());
    return part.size();
  }

  void close() override {}

  void note_at_server(const WriteVerifier& /*nobody comes after us*/) override {}

  void note_lost() override {}

  [[nodiscard]] Bytes bytes() const override { return bytes_; }

 private:
  HeapStore& store_;
  std::vector<std::byte> bytes_;
};

std::unique_ptr<WriteSpace> HeapStore::reserve(const StoredWrite& /*nobody comes after us*/,
                                               std::size_t /*most*/) {
  return std::make_unique<HeapSpace>(*this);
}

}  // namespace

std::unique_ptr<WriteStore> make_heap_write_store(std::uint64_t capacity) {
  return std::make_unique<HeapStore>(capacity);
}

}  // namespace larder::netfs
