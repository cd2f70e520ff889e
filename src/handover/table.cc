#include "handover/table.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/records.h"

namespace larder::handover {

namespace {

constexpr std::uint64_t kMagic = 0x4c41524445525442;  // "LARDERTB"
constexpr std::size_t kPageSize = 4096;  // of x86-64 and most arm64; also the header's room

struct Header {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t kind;
  std::uint32_t record_size;
  std::uint32_t capacity;
};

// 16 Mi nodes and 1 Mi handles: more than a machine's memory holds of inodes and open files; few
// files are removed while open, and few calls that change names are under way at a time. Only what
// is used takes memory.
constexpr auto kShapes = std::to_array<TableShape>({
    {TableKind::kNodes, "larder-nodes", sizeof(NodeRecord), 1U << 24U},
    {TableKind::kHandles, "larder-handles", sizeof(HandleRecord), 1U << 20U},
    {TableKind::kBackings, "larder-backings", sizeof(BackingRecord), 1U << 20U},
    {TableKind::kHiddenNames, "larder-hidden-names", sizeof(HiddenNameRecord), 1U << 16U, true},
    {TableKind::kJournal, "larder-journal", sizeof(JournalRecord), 1U << 16U},
    {TableKind::kWrites, "larder-writes", sizeof(WriteRecord), kMostWritePages, true},
    {TableKind::kWritePages, "larder-write-pages", sizeof(WritePage), kMostWritePages, true},
});

std::size_t length_of(const TableShape& shape) {
  return kPageSize + std::size_t{shape.record_size} * shape.capacity;
}

Header header_of(const TableShape& shape) {
  return {kMagic, kRecordsVersion, static_cast<std::uint32_t>(std::to_underlying(shape.kind)),
          shape.record_size, shape.capacity};
}

// Behind the last slot that has memory.
std::uint32_t end_of_memory(const UniqueFd& descriptor, const TableShape& shape) {
  off_t end = 0;
  for (off_t data = ::lseek(descriptor.get(), 0, SEEK_DATA); data >= 0;
       data = ::lseek(descriptor.get(), end, SEEK_DATA)) {
    end = ::lseek(descriptor.get(), data, SEEK_HOLE);
  }
  const std::size_t bytes = std::max<std::size_t>(static_cast<std::size_t>(end), kPageSize);
  const std::size_t slots = (bytes - kPageSize + shape.record_size - 1) / shape.record_size;
  return static_cast<std::uint32_t>(std::min<std::size_t>(slots, shape.capacity));
}

bool same(const Header& a, const Header& b) {
  return a.magic == b.magic && a.version == b.version && a.kind == b.kind &&
         a.record_size == b.record_size && a.capacity == b.capacity;
}

}  // namespace

std::span<const TableShape> table_shapes() {
  return kShapes;
}

Result<UniqueFd> TableMemory::create(const TableShape& shape) {
  UniqueFd descriptor(::memfd_create(shape.name, MFD_CLOEXEC));
  if (!descriptor.valid()) {
    return fail_errno(errno, fmt::format("memfd_create {}", shape.name));
  }
  const Header header = header_of(shape);
  if (::ftruncate(descriptor.get(), static_cast<off_t>(length_of(shape))) != 0 ||
      ::pwrite(descriptor.get(), &header, sizeof header, 0) != sizeof header) {
    return fail_errno(errno, fmt::format("size of the table {}", shape.name));
  }
  return descriptor;
}

Result<TableMemory> TableMemory::map(const UniqueFd& descriptor, const TableShape& shape) {
  const std::size_t length = length_of(shape);
  void* const base =
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.get(), 0);
  if (base == MAP_FAILED) {
    return fail_errno(errno, fmt::format("mmap of the table {}", shape.name));
  }
  TableMemory memory(base, length, shape);
  memory.used_end_ = shape.outlives_engine ? end_of_memory(descriptor, shape) : 0;
  if (!same(*static_cast<const Header*>(base), header_of(shape))) {
    return fail(Errc::kInvalid,
                fmt::format("the table {} was made by another version of larder: unmount, stop the "
                            "keeper with `larder stop` and start it again",
                            shape.name));
  }
  return memory;
}

Result<TableMemory> TableMemory::make_private(const TableShape& shape) {
  const UniqueFd descriptor = TRY(create(shape));
  return map(descriptor, shape);
}

TableMemory::TableMemory(TableMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      length_(other.length_),
      shape_(other.shape_),
      used_end_(other.used_end_) {}

TableMemory& TableMemory::operator=(TableMemory&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(length_, other.length_);
  std::swap(shape_, other.shape_);
  std::swap(used_end_, other.used_end_);
  return *this;
}

TableMemory::~TableMemory() {
  if (base_ != nullptr) {
    ::munmap(base_, length_);
  }
}

std::byte* TableMemory::slot(std::uint32_t index) const {
  CHECK(index < shape_.capacity, "slot {} of {}", index, shape_.name);
  return static_cast<std::byte*>(base_) + kPageSize + std::size_t{shape_.record_size} * index;
}

void TableMemory::release(std::uint32_t first, std::uint32_t count) const {
  const std::size_t begin = kPageSize + std::size_t{shape_.record_size} * first;
  const std::size_t end = begin + std::size_t{shape_.record_size} * count;
  const std::size_t first_page = (begin + kPageSize - 1) / kPageSize * kPageSize;
  const std::size_t last_page = end / kPageSize * kPageSize;
  if (last_page > first_page) {
    // A refusal only means that the memory stays ours.
    ::madvise(static_cast<std::byte*>(base_) + first_page, last_page - first_page, MADV_REMOVE);
  }
}

}  // namespace larder::handover
