// The state file: what a cache knows of its own past. Two slots, written in turn, each with a
// checksum: a torn write leaves the other. docs/on-disk-format.md has the bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

inline constexpr std::uint32_t kWholeGeneration = std::numeric_limits<std::uint32_t>::max();

// What counts of the generations first..last: epochs up to `durable`.
struct PastGenerations {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  std::uint32_t durable = 0;  // kWholeGeneration: all of them
  bool verify = false;        // a file of theirs is verified whole before it is registered

  bool operator==(const PastGenerations&) const = default;
};

struct CacheState {
  std::array<std::byte, 16> uuid{};
  std::string boot_id;         // at most 40 bytes
  std::uint64_t mount_id = 0;  // of the filesystem, when the cache was bound
  std::uint32_t generation = 0;
  std::uint32_t durable_epoch = 0;  // of this generation
  bool clean = false;               // withdrawn: everything was synced
  std::uint64_t used_bytes = 0;
  std::uint64_t ceiling_bytes = 0;  // use never passed this until the next state was written
  std::uint64_t objects = 0;
  std::uint64_t rotation = 0;         // the culler's cursor
  std::vector<PastGenerations> past;  // oldest first

  bool operator==(const CacheState&) const = default;
};

inline constexpr std::size_t kStateSlotBytes = 4096;
// More would not fit a slot; then the oldest are forgotten, and with them what they hold.
inline constexpr std::size_t kMostPastGenerations = 240;

using StateSlot = std::array<std::byte, kStateSlotBytes>;
[[nodiscard]] StateSlot encode_state(const CacheState& state, std::uint64_t sequence);

// The state and its sequence number; nullopt when torn, empty or of another format.
struct NumberedState {
  CacheState state;
  std::uint64_t sequence = 0;
};

[[nodiscard]] std::optional<NumberedState> decode_state(Bytes slot);

// Threads: external synchronisation.
class StateFile {
 public:
  // Opens or makes `state` in `root`; a third field, which is never synced, holds doubts().
  [[nodiscard]] static Result<std::unique_ptr<StateFile>> open(os::Directory& root);

  // The newest state that checks; nullopt: none does.
  [[nodiscard]] Result<std::optional<CacheState>> load();
  // Durable when it returns.
  [[nodiscard]] Result<> store(const CacheState& state);

  // Before a syncfs: should it fail and the engine die before that is stored, a later engine of the
  // same boot still learns that this epoch of this generation may be lost.
  [[nodiscard]] Result<> note_doubt(std::uint32_t generation, std::uint32_t epoch);
  // The epoch noted for `generation`; 0 when none.
  [[nodiscard]] Result<std::uint32_t> doubted_epoch(std::uint32_t generation);

 private:
  explicit StateFile(std::unique_ptr<os::File> file) : file_(std::move(file)) {}

  std::unique_ptr<os::File> file_;
  std::uint64_t sequence_ = 0;
};

}  // namespace larder::cachefiles
