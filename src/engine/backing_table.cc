#include "engine/backing_table.h"

#include <cstdint>
#include <utility>

#include "base/mutex.h"
#include "handover/records.h"
#include "handover/table.h"

namespace larder::engine {

BackingTable::BackingTable(handover::Table<handover::BackingRecord> records)
    : records_(std::move(records)) {}

void BackingTable::put(const handover::BackingRecord& record) {
  const MutexLock lock(mutex_);
  std::uint32_t slot = next_unused_;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else if (next_unused_ < records_.capacity()) {
    ++next_unused_;
  } else {
    return;
  }
  records_[slot] = record;
  slots_.insert_or_assign({record.mount_id, record.backing_id}, slot);
}

void BackingTable::remove(std::uint32_t mount_id, std::int32_t backing_id) {
  const MutexLock lock(mutex_);
  const auto node = slots_.extract({mount_id, backing_id});
  if (!node.empty()) {
    records_[node.mapped()] = {};
    free_.push_back(node.mapped());
  }
}

}  // namespace larder::engine
