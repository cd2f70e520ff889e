// InUse: which names of a volume have open objects, and who may change a name on the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::cachefiles {

class Object;

// A mark forbids the cull of a name as long as an object is open. A claim is the right to link,
// unlink or look up a name, held over disk I/O; others wait for it.
// Threads: any. Life: the volume's.
class InUse {
 public:
  class Claim {
   public:
    Claim() = default;

    Claim(Claim&& other) noexcept
        : in_use_(std::exchange(other.in_use_, nullptr)), name_(std::move(other.name_)) {}

    Claim& operator=(Claim&&) = delete;
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

    ~Claim() {
      if (in_use_ != nullptr) {
        in_use_->release(name_);
      }
    }

   private:
    friend class InUse;

    Claim(InUse* in_use, std::string name) : in_use_(in_use), name_(std::move(name)) {}

    InUse* in_use_ = nullptr;
    std::string name_;
  };

  // Waits for whoever holds the name.
  [[nodiscard]] Claim claim(std::string_view name) EXCLUDES(mutex_);
  // nullopt when the name is marked or claimed: for culling.
  [[nodiscard]] std::optional<Claim> claim_unused(std::string_view name) EXCLUDES(mutex_);

  // The open objects' names for which `which` says true of one of them; at most `most`. It is
  // called under a lock and may only read atomics.
  [[nodiscard]] std::vector<std::string> names_where(
      const std::function<bool(const Object&)>& which, std::size_t most) const EXCLUDES(mutex_);
  // nullopt when somebody has it: does not wait.
  [[nodiscard]] std::optional<Claim> try_claim(std::string_view name) EXCLUDES(mutex_);

  // By the holder of the claim.
  void mark(std::string_view name, Object* object) EXCLUDES(mutex_);
  // `bytes`: what the name holds, 0 if the object does not know it any more. Returns what came out
  // of use: nothing, unless it was the last object of the name.
  [[nodiscard]] std::uint64_t unmark(std::string_view name, Object* object, std::uint64_t bytes)
      EXCLUDES(mutex_);
  // The open objects of a name; they stay as long as the claim is held.
  [[nodiscard]] std::vector<Object*> marked(std::string_view name) const EXCLUDES(mutex_);

  [[nodiscard]] bool in_use(std::string_view name) const EXCLUDES(mutex_);
  // Calls `look` for each open object of the name, under a lock: it may only read atomics.
  void look_at(std::string_view name, const std::function<void(const Object&)>& look) const
      EXCLUDES(mutex_);
  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);

 private:
  struct Entry {
    bool claimed = false;
    unsigned waiting = 0;
    std::vector<Object*> objects;
    std::uint64_t bytes = 0;  // that the name holds, by those who have closed it
  };

  void release(const std::string& name) EXCLUDES(mutex_);
  void forget_if_empty(const std::string& name) REQUIRES(mutex_);

  mutable Mutex mutex_{LockRank::kCache};
  CondVar released_;
  std::unordered_map<std::string, Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
