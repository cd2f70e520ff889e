#include "engine/backing_table.h"

#include <cstdint>

#include <gtest/gtest.h>

#include "base/unique_fd.h"
#include "handover/records.h"
#include "handover/table.h"

namespace larder::engine {
namespace {

using handover::BackingRecord;
using handover::Table;
using handover::TableKind;
using handover::TableMemory;

constexpr handover::TableShape kSmall{TableKind::kBackings, "test-backings", sizeof(BackingRecord),
                                      3};

BackingRecord record(std::uint32_t mount_id, std::int32_t id) {
  return {.mount_id = mount_id,
          .backing_id = id,
          .nodeid = 7,
          .device = 1,
          .inode = 2,
          .charged_bytes = 4096};
}

// What the next engine would see of it.
class BackingTableTest : public ::testing::Test {
 protected:
  [[nodiscard]] int records() const {
    int count = 0;
    for (std::uint32_t slot = 0; slot < kSmall.capacity; ++slot) {
      count += seen_[slot].mount_id != 0 ? 1 : 0;
    }
    return count;
  }

  UniqueFd memory_ = TableMemory::create(kSmall).value();
  Table<BackingRecord> seen_{TableMemory::map(memory_, kSmall).value()};
  BackingTable table_{Table<BackingRecord>(TableMemory::map(memory_, kSmall).value())};
};

TEST_F(BackingTableTest, RecordsComeAndGoByMountAndId) {
  table_.put(record(1, 5));
  table_.put(record(2, 5));
  EXPECT_EQ(records(), 2);
  table_.remove(1, 5);
  EXPECT_EQ(records(), 1);
  EXPECT_EQ(seen_[1].mount_id, 2U);
  table_.remove(1, 5);
  table_.remove(9, 9);
  EXPECT_EQ(records(), 1);
}

TEST_F(BackingTableTest, SlotsAreUsedAgainAndAFullTableDoesNotGrow) {
  for (std::int32_t id = 1; id <= 4; ++id) {
    table_.put(record(1, id));
  }
  EXPECT_EQ(records(), 3);
  table_.remove(1, 2);
  table_.put(record(1, 9));
  EXPECT_EQ(seen_[1].backing_id, 9);
  for (const std::int32_t id : {1, 3, 4, 9}) {
    table_.remove(1, id);
  }
  EXPECT_EQ(records(), 0);
}

}  // namespace
}  // namespace larder::engine
