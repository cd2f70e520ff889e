#include "cachefiles/bind.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/byte_count.h"
#include "base/bytes.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefiles/cache.h"
#include "cachefiles/checksum.h"
#include "cachefiles/epochs.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "cachefiles/space.h"
#include "cachefiles/state_file.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kMostDefaultBytes = std::uint64_t{20} << 30U;
constexpr std::uint64_t kLeastBytes = std::uint64_t{1} << 20U;
constexpr std::string_view kFormatWord = "larder cache ";  // what all formats begin with
constexpr std::size_t kLockBytes = 8;                      // generation, checksum

using DirectoryPointer = std::unique_ptr<os::Directory>;

bool in_order(const Percentages& percentages) {
  return percentages.stop < percentages.cull && percentages.cull < percentages.run &&
         percentages.run < 100;
}

Result<> check_limits(const Limits& limits, const std::string& path) {
  if (!in_order(limits.blocks) || !in_order(limits.files)) {
    return fail(
        Errc::kInvalid,
        fmt::format("the limits of the cache {} are not in order: stop < cull < run < 100", path));
  }
  if (limits.size_bytes != 0 && limits.size_bytes < kLeastBytes) {
    return fail(Errc::kInvalid,
                fmt::format("the size of the cache {} must be at least 1 MiB", path));
  }
  return {};
}

// More than there is would be a promise that nothing can keep: whoever named it meant another disk.
Result<std::uint64_t> size_limit_of(std::uint64_t asked, const std::string& path,
                                    os::Directory& root) {
  const os::FilesystemSpace space = TRY(root.space());
  const std::uint64_t all = space.blocks * space.block_size;
  if (asked > all) {
    return fail(Errc::kUnsuitable,
                fmt::format("the size of the cache {} is to be {}, but its filesystem has {} in "
                            "all: name less, or a directory of another filesystem",
                            path, byte_count_text(asked), byte_count_text(all)));
  }
  return asked != 0 ? asked : std::min(all / 10, kMostDefaultBytes);
}

Result<std::set<std::string>> names_in(os::Directory& directory) {
  std::set<std::string> names;
  TRY(directory.list([&names](const os::DirectoryEntry& entry) {
    names.insert(entry.name);
    return names.size() < 64;  // more than enough to see that it is not ours
  }));
  return names;
}

// An interrupted first bind leaves our names, but nothing in cache/.
Result<bool> can_become_ours(os::Directory& root, const std::string& path) {
  const std::set<std::string_view> ours{kCacheDirectory, kGraveyardDirectory, kMapsDirectory,
                                        kMetaDirectory,  kStateFile,          kLockFile,
                                        kFormatFile};
  const std::set<std::string> names = TRY(names_in(root));
  for (const std::string& name : names) {
    if (name != "lost+found" && !ours.contains(name)) {
      return fail(Errc::kUnsuitable,
                  fmt::format("the directory {} is not empty and no cache of larder's (it holds "
                              "\"{}\"); name an empty one",
                              path, name));
    }
  }
  if (!names.contains(std::string(kCacheDirectory))) {
    return true;
  }
  const DirectoryPointer cache = TRY(root.open_directory(kCacheDirectory));
  return TRY(names_in(*cache)).empty();
}

Result<std::string> read_text(os::File& file) {
  std::string text(256, '\0');
  const std::size_t got =
      TRY(file.read_at(0, {reinterpret_cast<std::byte*>(text.data()), text.size()}));
  text.resize(got);
  return text;
}

// What a crash of make_format leaves: some of the text, or its length without its bytes.
bool is_half_written(std::string_view text) {
  return kFormatText.starts_with(text) || (text.size() <= kFormatText.size() &&
                                           text.find_first_not_of('\0') == std::string_view::npos);
}

// True: a cache of our format. False: it may be made one.
Result<bool> check_format(os::Directory& root, const std::string& path) {
  Result<std::unique_ptr<os::File>> file = root.open_file(kFormatFile, os::OpenMode::kRead);
  if (!file && file.error().code() != Errc::kNotFound) {
    return fail(file.error().within(path));
  }
  const std::string text = file ? TRY(read_text(**file)) : std::string();
  if (text == kFormatText) {
    return true;
  }
  if (text.starts_with(kFormatWord) && !is_half_written(text)) {
    const std::string line = text.substr(0, text.find('\n'));
    return fail(Errc::kUnsuitable,
                fmt::format("the cache {} has a format that this version does not know (\"{}\"); "
                            "use the version that made it, or remove the directory",
                            path, line));
  }
  if (!is_half_written(text)) {
    return fail(Errc::kUnsuitable,
                fmt::format("the directory {} holds a file \"format\" that larder did not write; "
                            "name an empty one",
                            path));
  }
  if (!TRY(can_become_ours(root, path))) {
    return fail(Errc::kUnsuitable,
                fmt::format("the cache {} has no format file, so larder did not make it or has "
                            "lost it; remove the directory or name another",
                            path));
  }
  return false;
}

Result<std::unique_ptr<os::File>> open_or_create(os::Directory& root, std::string_view name) {
  Result<std::unique_ptr<os::File>> file = root.open_file(name, os::OpenMode::kReadWrite);
  if (!file && file.error().code() == Errc::kNotFound) {
    file = root.create_file(name, kFileMode);
  }
  return file;
}

// Every label needs an attribute, every new version an unnamed file.
Result<> probe(os::Directory& directory, const std::string& path) {
  const Result<std::unique_ptr<os::File>> file = directory.make_tmpfile(kFileMode);
  if (!file) {
    return fail(file.error().within(fmt::format(
        "the filesystem of the cache {} does not make unnamed files; use ext4, xfs or btrfs",
        path)));
  }
  const Result<> set = (*file)->set_xattr(kLabelName, bytes_of("probe"));
  if (!set) {
    return fail(set.error().within(fmt::format(
        "the filesystem of the cache {} keeps no user attributes; use ext4, xfs or btrfs", path)));
  }
  return {};
}

Result<> make_format(os::Directory& root) {
  const std::unique_ptr<os::File> file = TRY(open_or_create(root, kFormatFile));
  TRY(file->set_size(kFormatText.size()));
  TRY(file->write_at(0, bytes_of(kFormatText)));
  TRY(file->sync());
  return root.sync();
}

Result<std::uint32_t> generation_in_lock(os::File& lock) {
  std::array<std::byte, kLockBytes> bytes{};
  const std::size_t got = TRY(lock.read_at(0, bytes));
  const Bytes number = Bytes(bytes).first(4);
  if (got < bytes.size() || load_be<std::uint32_t>(bytes.data() + 4) != crc32c(number)) {
    return 0;
  }
  return load_be<std::uint32_t>(bytes.data());
}

Result<> store_generation_in_lock(os::File& lock, std::uint32_t generation) {
  std::array<std::byte, kLockBytes> bytes{};
  store_be(bytes.data(), generation);
  store_be(bytes.data() + 4, crc32c(Bytes(bytes).first(4)));
  TRY(lock.write_at(0, bytes));
  return lock.sync();
}

// How the last life ended. `locked_generation`: the one in the lock file, written before the
// state's; a greater one means that the state is an old copy.
Result<LastEnd> last_end_of(const CacheState& last, const CacheState& now,
                            std::uint32_t locked_generation, StateFile& file, os::Directory& root) {
  const bool newest = locked_generation == last.generation || locked_generation == 0;
  if (newest && last.clean) {
    return LastEnd::kClean;
  }
  if (!newest || last.boot_id != now.boot_id || last.mount_id != now.mount_id) {
    return LastEnd::kMachine;
  }
  // Same boot, same mount: only the engine died. But did all that it wrote reach the disk so far?
  const std::uint32_t doubted = TRY(file.doubted_epoch(last.generation));
  if (doubted > last.durable_epoch || !root.sync_filesystem()) {
    return LastEnd::kMachine;
  }
  return LastEnd::kEngine;
}

// The state of the new life, from that of the last one.
Result<> begin_generation(Bound& bound, os::Filesystem& filesystem) {
  const os::FilesystemIdentity identity = TRY(bound.root->identity());
  const std::optional<CacheState> last = TRY(bound.state_file->load());
  const std::uint32_t locked = TRY(generation_in_lock(*bound.lock));
  CacheState& state = bound.state;
  state.boot_id = TRY(filesystem.boot_id());
  state.mount_id = identity.mount_id;
  if (last) {
    bound.last_end = TRY(last_end_of(*last, state, locked, *bound.state_file, *bound.root));
    state.uuid = last->uuid;
    state.generation = std::max(last->generation, locked) + 1;
    state.used_bytes = last->clean ? last->used_bytes : last->ceiling_bytes;
    state.objects = last->objects;
    state.rotation = last->rotation;
    bound.past = past_of(*last, bound.last_end, state.generation);
  } else {
    TRY(filesystem.random_bytes(state.uuid));
    bound.last_end = bound.fresh ? LastEnd::kClean : LastEnd::kUnknown;
    state.generation = std::max(locked, bound.fresh ? 0U : 1U << 20U) + 1;
    if (!bound.fresh) {
      bound.past = past_of({}, LastEnd::kUnknown, state.generation);
    }
  }
  state.past = bound.past;
  return store_generation_in_lock(*bound.lock, state.generation);
}

}  // namespace

Result<Limits> limits_of(const Limits& asked, const std::string& path, os::Directory& root) {
  TRY(check_limits(asked, path));
  Limits limits = asked;
  limits.size_bytes = TRY(size_limit_of(asked.size_bytes, path, root));
  return limits;
}

Result<DirectoryPointer> open_or_make(os::Directory& parent, std::string_view name) {
  Result<DirectoryPointer> opened = parent.open_directory(name);
  if (opened || opened.error().code() != Errc::kNotFound) {
    return opened;
  }
  const Result<> made = parent.make_directory(name, kDirectoryMode);
  if (!made && made.error().code() != Errc::kExists) {
    return fail(made.error());
  }
  return parent.open_directory(name);
}

Result<Bound> open_cache_directory(std::unique_ptr<os::Directory> root, os::Filesystem& filesystem,
                                   const CacheOptions& options) {
  const std::string& path = options.path_for_messages;
  Bound bound;
  bound.limits = TRY(limits_of(options.limits, path, *root));
  bound.fresh = !TRY(check_format(*root, path));
  bound.lock = TRY(open_or_create(*root, kLockFile));
  const Result<> locked = bound.lock->lock_exclusive();
  if (!locked && locked.error().code() == Errc::kBusy) {
    return fail(Errc::kUnsuitable,
                fmt::format("the cache {} is in use by another keeper; name another directory, or "
                            "stop that one with `larder stop`",
                            path));
  }
  if (!locked) {
    return fail(locked.error().within(path));
  }
  bound.cache = TRY(open_or_make(*root, kCacheDirectory));
  TRY(open_or_make(*root, kGraveyardDirectory));
  bound.maps = TRY(open_or_make(*root, kMapsDirectory));
  bound.meta = TRY(open_or_make(*root, kMetaDirectory));
  TRY(probe(*bound.cache, path));
  bound.state_file = TRY(StateFile::open(*root));
  if (bound.fresh) {
    TRY(make_format(*root));
  }
  bound.root = std::move(root);
  TRY(begin_generation(bound, filesystem));
  if (bound.last_end == LastEnd::kUnknown) {
    bound.state.used_bytes = bound.limits.size_bytes;  // until it was counted
  }
  return bound;
}

}  // namespace larder::cachefiles
