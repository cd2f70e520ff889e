// KnownNames: which file a name was, when we last had to do with it: who is about to remove a name
// must know whether somebody has its file open.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"

namespace larder::netfs {

// A table of one size, in which a later name may take the place of an earlier one; a name that is
// not known costs a LOOKUP. Mostly the kernel has just looked up what it removes. What another
// client did to a name meanwhile does no harm: the file that is open here then has lost it already.
// Names are kept as 128 bits of hash: one that is taken for another costs a hidden name, or its
// holder a stale handle, as if another client had removed it.
// Threads: any.
class KnownNames {
 public:
  static constexpr std::size_t kSlots = 4096;  // about 350 KiB

  KnownNames();

  void note(const FileHandle& directory, std::string_view name, const FileHandle& file)
      EXCLUDES(mutex_);
  void forget(const FileHandle& directory, std::string_view name) EXCLUDES(mutex_);
  [[nodiscard]] std::optional<FileHandle> find(const FileHandle& directory,
                                               std::string_view name) const EXCLUDES(mutex_);

 private:
  struct Key {
    std::uint64_t place = 0;
    std::uint64_t check = 0;

    bool operator==(const Key&) const = default;
  };

  struct Slot {
    Key key;
    FileHandle file;  // empty: nothing is known
  };

  [[nodiscard]] static Key key_of(const FileHandle& directory, std::string_view name);

  mutable Mutex mutex_{LockRank::kStats};
  std::unique_ptr<std::array<Slot, kSlots>> slots_ GUARDED_BY(mutex_);
};

}  // namespace larder::netfs
