#include "testing/fake_filesystem.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::testing {
namespace {

constexpr std::size_t kBlockBytes = 4096;
constexpr std::size_t kSectorBytes = 512;

using Block = std::array<std::byte, kBlockBytes>;
struct Inode;
using InodePointer = std::shared_ptr<Inode>;

// One of the two views of an inode.
struct Contents {
  std::map<std::uint64_t, Block> blocks;
  std::uint64_t size = 0;
  std::map<std::string, std::string, std::less<>> xattrs;
  std::map<std::string, InodePointer, std::less<>> names;
};

struct Inode {
  os::NodeType type = os::NodeType::kFile;
  std::uint64_t number = 0;
  std::uint32_t mode = 0;
  std::uint32_t links = 0;
  bool locked = false;
  std::uint64_t lost = 0;  // times that its data could not be written back
  os::FileTime accessed, modified, changed;
  Contents seen;  // by programs
  Contents disk;
};

using Random = std::mt19937_64;

bool toss(Random& random) {
  return (random() & 1U) != 0;
}

}  // namespace

struct FakeFilesystem::State {
  mutable Mutex mutex{LockRank::kStats};
  std::uint64_t capacity GUARDED_BY(mutex) = 0;
  os::CrashSafety safety = os::CrashSafety::kOrdered;
  InodePointer root GUARDED_BY(mutex);
  std::uint64_t next_inode GUARDED_BY(mutex) = 2;
  std::uint64_t free_inodes GUARDED_BY(mutex) = 0;  // as the space says; 0: without a limit
  std::uint64_t boot GUARDED_BY(mutex) = 1;
  std::uint64_t mount GUARDED_BY(mutex) = 1;
  std::uint64_t calls GUARDED_BY(mutex) = 0;
  std::uint64_t last_call GUARDED_BY(mutex) = UINT64_MAX;
  std::uint64_t next_random GUARDED_BY(mutex) = 88172645463325252ULL;
  std::uint64_t used_blocks GUARDED_BY(mutex) = 0;
  bool user_xattrs GUARDED_BY(mutex) = true;
  bool read_only GUARDED_BY(mutex) = false;
  int next_sync_error GUARDED_BY(mutex) = 0;
  std::function<void()> at_sync GUARDED_BY(mutex);
  std::map<std::uint64_t, std::set<std::uint64_t>> unreadable GUARDED_BY(mutex);  // blocks by inode
  os::FileTime now GUARDED_BY(mutex){1'700'000'000, 0};

  // By every call. `opened_in`: the boot in which the handle was opened.
  Result<> enter(std::uint64_t opened_in) REQUIRES(mutex) {
    tick();
    if (opened_in != boot || calls >= last_call) {
      return fail_errno(EIO, "the power is off");
    }
    return {};
  }

  Result<> enter_syncing(std::uint64_t opened_in) REQUIRES(mutex) {
    TRY(enter(opened_in));
    ++calls;
    return {};
  }

  Result<> enter_changing(std::uint64_t opened_in) REQUIRES(mutex) {
    TRY(enter_syncing(opened_in));
    if (read_only) {
      return fail_errno(EROFS, "read-only");
    }
    return {};
  }

  // Blocks of a range of bytes of the inode that the disk does not give.
  std::uint64_t unreadable_in(const Inode& inode, std::uint64_t offset, std::uint64_t length) const
      REQUIRES(mutex) {
    const auto found = unreadable.find(inode.number);
    if (found == unreadable.end() || length == 0) {
      return 0;
    }
    return static_cast<std::uint64_t>(
        std::distance(found->second.lower_bound(offset / kBlockBytes),
                      found->second.upper_bound((offset + length - 1) / kBlockBytes)));
  }

  void tick() REQUIRES(mutex) {
    now.nanoseconds += 1000;
    if (now.nanoseconds >= 1'000'000'000) {
      now.nanoseconds -= 1'000'000'000;
      ++now.seconds;
    }
  }

  InodePointer make_inode(os::NodeType type, std::uint32_t mode) REQUIRES(mutex) {
    auto inode = std::make_shared<Inode>();
    inode->type = type;
    inode->mode = mode;
    inode->number = next_inode++;
    inode->accessed = inode->modified = inode->changed = now;
    return inode;
  }

  // Each inode of either view once.
  std::vector<InodePointer> inodes() const REQUIRES(mutex) {
    std::set<InodePointer> found;
    std::vector<InodePointer> waiting{root};
    std::vector<InodePointer> in_order;
    while (!waiting.empty()) {
      const InodePointer inode = waiting.back();
      waiting.pop_back();
      if (!found.insert(inode).second) {
        continue;
      }
      for (const auto& [name, child] : inode->seen.names) {
        waiting.push_back(child);
      }
      for (const auto& [name, child] : inode->disk.names) {
        waiting.push_back(child);
      }
      in_order.push_back(inode);
    }
    return in_order;
  }

  void crash(CrashMode mode, std::uint64_t seed) REQUIRES(mutex);
  void crash_inode(Inode& inode, CrashMode mode, Random& random, const std::vector<Block>& loose)
      REQUIRES(mutex);
  [[nodiscard]] std::vector<Block> loose_blocks() REQUIRES(mutex);
};

// Bytes that other files' freed or new blocks hold.
std::vector<Block> FakeFilesystem::State::loose_blocks() {
  std::vector<Block> blocks;
  for (const InodePointer& inode : inodes()) {
    for (const auto& [index, block] : inode->seen.blocks) {
      blocks.push_back(block);
    }
  }
  return blocks;
}

namespace {

void crash_blocks(Inode& inode, Random& random, const std::vector<Block>& loose) {
  std::set<std::uint64_t> indexes;
  for (const auto& [index, block] : inode.seen.blocks) {
    indexes.insert(index);
  }
  for (const auto& [index, block] : inode.disk.blocks) {
    indexes.insert(index);
  }
  for (const std::uint64_t index : indexes) {
    const auto seen = inode.seen.blocks.find(index);
    const auto disk = inode.disk.blocks.find(index);
    const bool same = seen != inode.seen.blocks.end() && disk != inode.disk.blocks.end() &&
                      seen->second == disk->second;
    if (same) {
      continue;
    }
    Block mixed{};
    for (std::size_t at = 0; at < kBlockBytes; at += kSectorBytes) {
      const auto& from = toss(random) ? seen : disk;
      if (from != inode.seen.blocks.end() && from != inode.disk.blocks.end()) {
        std::copy_n(from->second.begin() + static_cast<std::ptrdiff_t>(at), kSectorBytes,
                    mixed.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    if (!loose.empty() && random() % 3 == 0) {
      mixed = loose[random() % loose.size()];
    }
    inode.disk.blocks[index] = mixed;
  }
}

template <class Map>
void crash_map(const Map& seen, Map& disk, Random& random) {
  Map mixed;
  std::set<typename Map::key_type> names;
  for (const auto& [name, value] : seen) {
    names.insert(name);
  }
  for (const auto& [name, value] : disk) {
    names.insert(name);
  }
  for (const auto& name : names) {
    const Map& from = toss(random) ? seen : disk;
    const auto found = from.find(name);
    if (found != from.end()) {
      mixed[name] = found->second;
    }
  }
  disk = std::move(mixed);
}

}  // namespace

void FakeFilesystem::State::crash_inode(Inode& inode, CrashMode mode, Random& random,
                                        const std::vector<Block>& loose) {
  if (mode == CrashMode::kRandomSubset) {
    const bool deleted = inode.links == 0 && inode.type == os::NodeType::kFile;
    if (safety == os::CrashSafety::kUnordered && deleted && !loose.empty()) {
      for (auto& [index, block] : inode.disk.blocks) {
        block = toss(random) ? loose[random() % loose.size()] : block;
      }
    } else {
      crash_blocks(inode, random,
                   safety == os::CrashSafety::kUnordered ? loose : std::vector<Block>());
    }
    inode.disk.size = toss(random) ? inode.seen.size : inode.disk.size;
    crash_map(inode.seen.xattrs, inode.disk.xattrs, random);
    crash_map(inode.seen.names, inode.disk.names, random);
  }
  inode.seen = inode.disk;
  inode.locked = false;
}

void FakeFilesystem::State::crash(CrashMode mode, std::uint64_t seed) {
  Random random(seed);
  const std::vector<Block> loose = loose_blocks();
  for (const InodePointer& inode : inodes()) {
    crash_inode(*inode, mode, random, loose);
  }
  used_blocks = 0;
  const std::vector<InodePointer> left = inodes();
  for (const InodePointer& inode : left) {
    inode->links = 0;
  }
  for (const InodePointer& inode : left) {
    used_blocks += inode->seen.blocks.size();
    for (const auto& [name, child] : inode->seen.names) {
      ++child->links;
    }
  }
  root->links = 1;
  ++boot;
  ++mount;
  last_call = UINT64_MAX;
}

namespace {

using StatePointer = std::shared_ptr<FakeFilesystem::State>;

os::FileStat stat_of(const Inode& inode) {
  os::FileStat stat;
  stat.type = inode.type;
  stat.mode = inode.mode;
  stat.device = 1;
  stat.inode = inode.number;
  stat.link_count = inode.links;
  stat.size = inode.seen.size;
  stat.allocated = inode.seen.blocks.size() * kBlockBytes;
  if (inode.type == os::NodeType::kDirectory) {
    stat.allocated = kBlockBytes;
  }
  stat.accessed = inode.accessed;
  stat.modified = inode.modified;
  stat.changed = inode.changed;
  return stat;
}

class FakeFile final : public os::File {
 public:
  FakeFile(StatePointer state, InodePointer inode, std::uint64_t boot, bool writable)
      : state_(std::move(state)),
        inode_(std::move(inode)),
        lost_seen_(inode_->lost),
        boot_(boot),
        writable_(writable) {}

  FakeFile(const FakeFile&) = delete;
  FakeFile& operator=(const FakeFile&) = delete;

  ~FakeFile() override {
    const MutexLock lock(state_->mutex);
    if (has_lock_ && boot_ == state_->boot) {
      inode_->locked = false;
    }
    if (inode_.use_count() == 1 && boot_ == state_->boot) {
      state_->used_blocks -= inode_->seen.blocks.size();  // unlinked, and closed by all
    }
  }

  [[nodiscard]] const InodePointer& inode() const { return inode_; }

  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes into, os::ReadHint) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    if (state_->unreadable_in(*inode_, offset, into.size()) > 0) {
      return fail_errno(EIO, "read");
    }
    const std::uint64_t size = inode_->seen.size;
    const std::size_t length =
        offset >= size
            ? 0
            : static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), size - offset));
    for (std::size_t done = 0; done < length;) {
      const std::uint64_t at = offset + done;
      const std::size_t in_block = at % kBlockBytes;
      const std::size_t part = std::min(kBlockBytes - in_block, length - done);
      const auto block = inode_->seen.blocks.find(at / kBlockBytes);
      const MutableBytes target = into.subspan(done, part);
      if (block == inode_->seen.blocks.end()) {
        std::ranges::fill(target, std::byte{0});
      } else {
        std::copy_n(block->second.begin() + static_cast<std::ptrdiff_t>(in_block), part,
                    target.begin());
      }
      done += part;
    }
    return length;
  }

  Result<> write_at(std::uint64_t offset, Bytes from) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    TRY(check_writable());
    for (std::size_t done = 0; done < from.size();) {
      const std::uint64_t at = offset + done;
      const std::size_t in_block = at % kBlockBytes;
      const std::size_t part = std::min(kBlockBytes - in_block, from.size() - done);
      if (!inode_->seen.blocks.contains(at / kBlockBytes)) {
        if ((state_->used_blocks + 1) * kBlockBytes > state_->capacity) {
          return fail_errno(ENOSPC, "write");
        }
        ++state_->used_blocks;
      }
      Block& block = inode_->seen.blocks[at / kBlockBytes];
      std::ranges::copy(from.subspan(done, part),
                        block.begin() + static_cast<std::ptrdiff_t>(in_block));
      done += part;
      inode_->seen.size = std::max(inode_->seen.size, offset + done);
    }
    inode_->modified = inode_->changed = state_->now;
    return {};
  }

  Result<> set_size(std::uint64_t size) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    TRY(check_writable());
    std::map<std::uint64_t, Block>& blocks = inode_->seen.blocks;
    const auto first_gone = blocks.lower_bound((size + kBlockBytes - 1) / kBlockBytes);
    state_->used_blocks -= static_cast<std::uint64_t>(std::distance(first_gone, blocks.end()));
    blocks.erase(first_gone, blocks.end());
    const auto last = blocks.find(size / kBlockBytes);
    if (last != blocks.end()) {
      std::fill(last->second.begin() + static_cast<std::ptrdiff_t>(size % kBlockBytes),
                last->second.end(), std::byte{0});
    }
    inode_->seen.size = size;
    inode_->modified = inode_->changed = state_->now;
    return {};
  }

  Result<os::FileStat> stat() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    return stat_of(*inode_);
  }

  Result<std::string> get_xattr(std::string_view name, std::size_t most_bytes) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    const auto found = inode_->seen.xattrs.find(name);
    if (found == inode_->seen.xattrs.end()) {
      return fail(Error(Errc::kNotFound, ENODATA, std::string(name)));
    }
    if (found->second.size() > most_bytes) {
      return fail(Errc::kInvalid, "the attribute is too long");
    }
    return found->second;
  }

  Result<> set_xattr(std::string_view name, Bytes value) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    if (!state_->user_xattrs) {
      return fail_errno(EOPNOTSUPP, "setxattr");
    }
    inode_->seen.xattrs.insert_or_assign(std::string(name), std::string(text_of(value)));
    inode_->changed = state_->now;
    return {};
  }

  Result<> sync() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_syncing(boot_));
    TRY(take_lost());
    inode_->disk = inode_->seen;
    return {};
  }

  Result<> write_back(std::uint64_t offset, std::uint64_t length) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_syncing(boot_));
    TRY(take_lost());
    const auto begin = inode_->seen.blocks.lower_bound(offset / kBlockBytes);
    const auto end =
        inode_->seen.blocks.lower_bound((offset + length + kBlockBytes - 1) / kBlockBytes);
    for (auto block = begin; block != end; ++block) {
      inode_->disk.blocks[block->first] = block->second;
    }
    return {};
  }

  Result<> set_times(std::optional<os::FileTime> accessed,
                     std::optional<os::FileTime> modified) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    inode_->accessed = accessed.value_or(inode_->accessed);
    inode_->modified = modified.value_or(inode_->modified);
    inode_->changed = state_->now;
    return {};
  }

  Result<> set_accessed_now() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    inode_->accessed = inode_->changed = state_->now;
    return {};
  }

  Result<> lock_exclusive() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    if (inode_->locked && !has_lock_) {
      return fail(Error(Errc::kBusy, EBUSY, "locked"));
    }
    inode_->locked = has_lock_ = true;
    return {};
  }

  Result<bool> is_open_elsewhere() override {
    return fail(Errc::kNotSupported, "a file in memory has no leases");
  }

  // All of it is.
  Result<os::PagesInMemory> pages_in_memory(std::uint64_t offset, std::uint64_t length) override {
    const MutexLock lock(state_->mutex);
    const std::uint64_t end = std::min(offset + length, inode_->seen.size);
    os::PagesInMemory pages;
    if (offset < end) {
      pages.all = (end + kBlockBytes - 1) / kBlockBytes - offset / kBlockBytes;
      pages.ready = pages.all - state_->unreadable_in(*inode_, offset, end - offset);
      pages.first_ready = state_->unreadable_in(*inode_, offset, 1) == 0;
    }
    return pages;
  }

  Result<UniqueFd> duplicate_descriptor() override {
    return fail(Errc::kNotSupported, "a file in memory has no descriptor");
  }

 private:
  [[nodiscard]] Result<> check_writable() const {
    return writable_ ? Result<>() : fail_errno(EROFS, "opened to be read");
  }

  [[nodiscard]] Result<> take_lost() {
    if (lost_seen_ == inode_->lost) {
      return {};
    }
    lost_seen_ = inode_->lost;
    return fail_errno(EIO, "writing back");
  }

  StatePointer state_;
  InodePointer inode_;
  std::uint64_t lost_seen_;
  const std::uint64_t boot_;
  const bool writable_;
  bool has_lock_ = false;
};

class FakeDirectory final : public os::Directory {
 public:
  FakeDirectory(StatePointer state, InodePointer inode, std::uint64_t boot)
      : state_(std::move(state)), inode_(std::move(inode)), boot_(boot) {}

  Result<std::unique_ptr<os::Directory>> open_directory(std::string_view name) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    InodePointer found = TRY(find(name));
    if (found->type != os::NodeType::kDirectory) {
      return fail_errno(ENOTDIR, std::string(name));
    }
    return std::make_unique<FakeDirectory>(state_, std::move(found), boot_);
  }

  Result<> make_directory(std::string_view name, std::uint32_t mode) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    return add(name, state_->make_inode(os::NodeType::kDirectory, mode));
  }

  Result<std::unique_ptr<os::File>> open_file(std::string_view name, os::OpenMode mode) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    InodePointer found = TRY(find(name));
    if (found->type != os::NodeType::kFile) {
      return fail(Errc::kInvalid, "not a regular file");
    }
    if (mode == os::OpenMode::kReadWrite && state_->read_only) {
      return fail_errno(EROFS, std::string(name));
    }
    return open(std::move(found), mode == os::OpenMode::kReadWrite);
  }

  Result<std::unique_ptr<os::File>> create_file(std::string_view name,
                                                std::uint32_t mode) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    InodePointer made = state_->make_inode(os::NodeType::kFile, mode);
    TRY(add(name, made));
    return open(std::move(made), true);
  }

  Result<std::unique_ptr<os::File>> make_tmpfile(std::uint32_t mode) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    TRY(check_there());
    return open(state_->make_inode(os::NodeType::kFile, mode), true);
  }

  Result<> link(os::File& file, std::string_view name) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    return add(name, static_cast<FakeFile&>(file).inode());
  }

  Result<> rename(std::string_view name, os::Directory& to, std::string_view new_name) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    auto& target = static_cast<FakeDirectory&>(to);
    InodePointer moved = TRY(find(name));
    TRY(target.check_there());
    auto& names = target.inode_->seen.names;
    const auto replaced = names.find(new_name);
    if (replaced != names.end() && replaced->second == moved) {
      return {};
    }
    if (replaced != names.end()) {
      drop(names, replaced);
    }
    inode_->seen.names.erase(inode_->seen.names.find(name));
    names.emplace(std::string(new_name), std::move(moved));
    return {};
  }

  Result<> unlink(std::string_view name) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    const InodePointer found = TRY(find(name));
    if (found->type == os::NodeType::kDirectory) {
      return fail_errno(EISDIR, std::string(name));
    }
    drop(inode_->seen.names, inode_->seen.names.find(name));
    if (found.use_count() == 1) {
      state_->used_blocks -= found->seen.blocks.size();
    }
    return {};
  }

  Result<> remove_directory(std::string_view name) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_changing(boot_));
    const InodePointer found = TRY(find(name));
    if (!found->seen.names.empty()) {
      return fail_errno(ENOTEMPTY, std::string(name));
    }
    drop(inode_->seen.names, inode_->seen.names.find(name));
    return {};
  }

  Result<os::FileStat> stat(std::string_view name) override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    return stat_of(*TRY(find(name)));
  }

  Result<os::FileStat> stat_self() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    return stat_of(*inode_);
  }

  Result<> list(const std::function<bool(const os::DirectoryEntry&)>& visit) override {
    std::vector<os::DirectoryEntry> entries;
    {
      const MutexLock lock(state_->mutex);
      TRY(state_->enter(boot_));
      for (const auto& [name, child] : inode_->seen.names) {
        entries.push_back({name, child->number, child->type});
      }
    }
    for (const os::DirectoryEntry& entry : entries) {
      if (!visit(entry)) {
        break;
      }
    }
    return {};
  }

  Result<> sync() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_syncing(boot_));
    inode_->disk.names = inode_->seen.names;
    return {};
  }

  Result<os::FilesystemSpace> space() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    os::FilesystemSpace space;
    space.block_size = kBlockBytes;
    space.blocks = state_->capacity / kBlockBytes;
    space.available_blocks = space.blocks - std::min(space.blocks, state_->used_blocks);
    space.files = space.free_files = state_->free_inodes;
    return space;
  }

  Result<os::FilesystemIdentity> identity() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter(boot_));
    return os::FilesystemIdentity{"fake", state_->safety, state_->mount, state_->user_xattrs};
  }

  Result<> sync_filesystem() override {
    const MutexLock lock(state_->mutex);
    TRY(state_->enter_syncing(boot_));
    if (state_->next_sync_error != 0) {
      return fail_errno(std::exchange(state_->next_sync_error, 0), "syncfs");
    }
    if (state_->at_sync) {
      state_->at_sync();
    }
    for (const InodePointer& inode : state_->inodes()) {
      inode->disk = inode->seen;
    }
    return {};
  }

 private:
  [[nodiscard]] Result<InodePointer> find(std::string_view name) const {
    CHECK(!name.empty() && name.find('/') == std::string_view::npos);
    const auto found = inode_->seen.names.find(name);
    if (found == inode_->seen.names.end()) {
      return fail_errno(ENOENT, std::string(name));
    }
    return found->second;
  }

  // One that was removed takes no names.
  [[nodiscard]] Result<> check_there() const {
    return inode_->links > 0 ? Result<>() : fail_errno(ENOENT, "the directory was removed");
  }

  Result<> add(std::string_view name, InodePointer inode) {
    TRY(check_there());
    if (inode_->seen.names.contains(name)) {
      return fail_errno(EEXIST, std::string(name));
    }
    ++inode->links;
    inode_->seen.names.emplace(std::string(name), std::move(inode));
    return {};
  }

  template <class Names, class Entry>
  void drop(Names& names, Entry entry) {
    --entry->second->links;
    names.erase(entry);
  }

  std::unique_ptr<os::File> open(InodePointer inode, bool writable) {
    return std::make_unique<FakeFile>(state_, std::move(inode), boot_, writable);
  }

  StatePointer state_;
  InodePointer inode_;
  const std::uint64_t boot_;
};

}  // namespace

FakeFilesystem::FakeFilesystem(os::CrashSafety crash_safety, std::uint64_t capacity_bytes)
    : state_(std::make_shared<State>()) {
  state_->safety = crash_safety;
  const MutexLock lock(state_->mutex);
  state_->capacity = capacity_bytes;
  state_->root = state_->make_inode(os::NodeType::kDirectory, 0700);
  state_->root->links = 1;
}

FakeFilesystem::~FakeFilesystem() = default;

Result<std::unique_ptr<os::Directory>> FakeFilesystem::open_root(const std::string& /*path*/) {
  const MutexLock lock(state_->mutex);
  return std::make_unique<FakeDirectory>(state_, state_->root, state_->boot);
}

UniqueFd FakeFilesystem::make_descriptor(std::string_view name) {
  const Result<> made = open_root("/").value()->make_directory(name, 0700);
  CHECK(made || made.error().code() == Errc::kExists, "{}: {}", name, made.error().message());
  UniqueFd descriptor(::memfd_create(std::string(name).c_str(), MFD_CLOEXEC));
  CHECK(descriptor.valid(), "{}", name);
  return descriptor;
}

Result<std::unique_ptr<os::Directory>> FakeFilesystem::adopt(UniqueFd descriptor) {
  constexpr std::string_view kBefore = "/memfd:";
  constexpr std::string_view kBehind = " (deleted)";
  std::error_code error;
  const std::string target =
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", descriptor.get()), error);
  std::string_view name = target;
  if (error || !name.starts_with(kBefore) || !name.ends_with(kBehind)) {
    return fail(Errc::kInvalid, "the descriptor is not a directory's");
  }
  name.remove_prefix(kBefore.size());
  name.remove_suffix(kBehind.size());
  return open_root("/").value()->open_directory(name);
}

Result<> FakeFilesystem::random_bytes(MutableBytes into) {
  const MutexLock lock(state_->mutex);
  for (std::byte& byte : into) {
    std::uint64_t& x = state_->next_random;
    x ^= x << 13U;
    x ^= x >> 7U;
    x ^= x << 17U;
    byte = static_cast<std::byte>(x & 0xFFU);
  }
  return {};
}

Result<std::string> FakeFilesystem::boot_id() {
  const MutexLock lock(state_->mutex);
  return fmt::format("boot-{}", state_->boot);
}

std::uint64_t FakeFilesystem::mutating_calls() const {
  const MutexLock lock(state_->mutex);
  return state_->calls;
}

void FakeFilesystem::set_inodes(std::uint64_t inodes) {
  const MutexLock lock(state_->mutex);
  state_->free_inodes = inodes;
}

void FakeFilesystem::set_read_only(bool read_only) {
  const MutexLock lock(state_->mutex);
  state_->read_only = read_only;
}

void FakeFilesystem::cut_power_after(std::uint64_t k) {
  const MutexLock lock(state_->mutex);
  state_->last_call = k;
}

void FakeFilesystem::crash(CrashMode mode, std::uint64_t seed) {
  const MutexLock lock(state_->mutex);
  state_->crash(mode, seed);
}

void FakeFilesystem::remount() {
  const MutexLock lock(state_->mutex);
  ++state_->mount;
}

void FakeFilesystem::advance_seconds(std::int64_t seconds) {
  const MutexLock lock(state_->mutex);
  state_->now.seconds += seconds;
}

void FakeFilesystem::set_user_xattrs(bool work) {
  const MutexLock lock(state_->mutex);
  state_->user_xattrs = work;
}

void FakeFilesystem::remove_root() {
  const MutexLock lock(state_->mutex);
  state_->root->links = 0;
}

void FakeFilesystem::leave_free(std::uint64_t bytes) {
  const MutexLock lock(state_->mutex);
  state_->capacity = state_->used_blocks * kBlockBytes + bytes;
}

void FakeFilesystem::lose_unwritten_data() {
  const MutexLock lock(state_->mutex);
  for (const InodePointer& inode : state_->inodes()) {
    if (inode->type != os::NodeType::kFile || inode->seen.blocks == inode->disk.blocks) {
      continue;
    }
    for (auto& [index, block] : inode->seen.blocks) {
      const auto disk = inode->disk.blocks.find(index);
      block = disk == inode->disk.blocks.end() ? Block{} : disk->second;
    }
    ++inode->lost;
    state_->next_sync_error = EIO;
  }
}

void FakeFilesystem::fail_to_read(std::uint64_t inode, std::uint64_t offset) {
  const MutexLock lock(state_->mutex);
  state_->unreadable[inode].insert(offset / kBlockBytes);
}

void FakeFilesystem::fail_next_sync(int error_number) {
  const MutexLock lock(state_->mutex);
  state_->next_sync_error = error_number;
}

void FakeFilesystem::set_at_sync(std::function<void()> call) {
  const MutexLock lock(state_->mutex);
  state_->at_sync = std::move(call);
}

}  // namespace larder::testing
