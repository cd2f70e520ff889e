// A table of fixed-size records in shared memory: a header, then the slots.
//
// The memory is a memfd that the keeper makes at its start and hands to each engine. It is sparse:
// a page takes real memory from its first use on, and gives it back when the engine releases it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::handover {

// What the keeper hands over, in the order of the descriptors in HELLO.
enum class TableKind : std::uint8_t {
  kNodes,
  kHandles,
  kBackings,
  kHiddenNames,
  kJournal,
  kWrites,
  kWritePages
};

struct TableShape {
  TableKind kind;
  const char* name;  // seen in /proc/PID/maps
  std::uint32_t record_size;
  std::uint32_t capacity;  // slots
  // What the next engine works off; of the others each engine begins with an empty one, because
  // the mounts that they are about end with an engine.
  bool outlives_engine = false;
};

// The shapes of all tables, in the order of TableKind.
[[nodiscard]] std::span<const TableShape> table_shapes();

// A mapped table, untyped. Life: unmaps when destroyed; the descriptor is not kept open by it.
class TableMemory {
 public:
  // The keeper's side: a fresh memfd of that shape, its header written.
  [[nodiscard]] static Result<UniqueFd> create(const TableShape& shape);
  // Maps a table and checks its header against `shape` (kInvalid: another version or shape).
  [[nodiscard]] static Result<TableMemory> map(const UniqueFd& descriptor, const TableShape& shape);
  // Memory of this process only, for tests and for engines without a keeper.
  [[nodiscard]] static Result<TableMemory> make_private(const TableShape& shape);

  TableMemory() = default;
  TableMemory(TableMemory&& other) noexcept;
  TableMemory& operator=(TableMemory&& other) noexcept;
  TableMemory(const TableMemory&) = delete;
  TableMemory& operator=(const TableMemory&) = delete;
  ~TableMemory();

  [[nodiscard]] std::uint32_t capacity() const { return shape_.capacity; }

  // Slots from here on had no memory when it was mapped: they read as zero, which takes some. Of a
  // table that outlives an engine, else 0.
  [[nodiscard]] std::uint32_t used_end() const { return used_end_; }

  [[nodiscard]] std::byte* slot(std::uint32_t index) const;
  // Gives the memory of whole free pages among the slots [first, first + count) back to the system;
  // their records read as zero afterwards. Requires: all those slots are free.
  void release(std::uint32_t first, std::uint32_t count) const;

 private:
  TableMemory(void* base, std::size_t length, const TableShape& shape)
      : base_(base), length_(length), shape_(shape) {}

  void* base_ = nullptr;
  std::size_t length_ = 0;
  TableShape shape_{};
  std::uint32_t used_end_ = 0;
};

// A typed view of a table.
// Threads: external synchronisation, slot by slot.
template <class Record>
class Table {
 public:
  Table() = default;

  explicit Table(TableMemory memory) : memory_(std::move(memory)) {}

  [[nodiscard]] std::uint32_t capacity() const { return memory_.capacity(); }

  [[nodiscard]] std::uint32_t used_end() const { return memory_.used_end(); }

  [[nodiscard]] Record& operator[](std::uint32_t index) const {
    return *reinterpret_cast<Record*>(memory_.slot(index));
  }

  void release(std::uint32_t first, std::uint32_t count) const { memory_.release(first, count); }

 private:
  TableMemory memory_;
};

}  // namespace larder::handover
