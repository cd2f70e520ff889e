#include "engine/hidden_name_table.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/hidden_name_store.h"

namespace larder::engine {

namespace {

using handover::HiddenNameRecord;

std::string_view share_of(const HiddenNameRecord& record) {
  return std::string_view(record.share.data(), record.share.size()).substr(0, record.share_length);
}

std::string_view name_of(const HiddenNameRecord& record) {
  return std::string_view(record.name.data(), record.name.size()).substr(0, record.name_length);
}

Bytes handle_of(const HiddenNameRecord& record) {
  return Bytes(record.handle)
      .first(std::min<std::size_t>(record.handle_length, record.handle.size()));
}

// A slot counts once its mount is there: who reads it may be the next process.
void set_mount(HiddenNameRecord& record, std::uint32_t mount_id) {
  std::atomic_ref(record.mount_id).store(mount_id, std::memory_order_release);
}

}  // namespace

class HiddenNameTable::Store final : public netfs::HiddenNameStore {
 public:
  Store(HiddenNameTable& table, std::uint32_t mount_id, std::string share)
      : table_(table), mount_id_(mount_id), share_(std::move(share)) {}

  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  ~Store() override { table_.end_mount(mount_id_); }

  void put(const netfs::LeftName& name) override { table_.put(mount_id_, share_, name); }

  void remove(const netfs::FileHandle& directory, std::string_view name) override {
    table_.remove(mount_id_, directory, name);
  }

  [[nodiscard]] std::vector<netfs::LeftName> adopt() override {
    return table_.adopt(mount_id_, share_);
  }

 private:
  HiddenNameTable& table_;
  const std::uint32_t mount_id_;
  const std::string share_;
};

HiddenNameTable::HiddenNameTable(handover::Table<handover::HiddenNameRecord> records)
    : records_(std::move(records)) {
  const MutexLock lock(mutex_);
  while (next_unused_ < records_.capacity() && records_[next_unused_].ever_used != 0) {
    if (records_[next_unused_].mount_id != 0) {
      used_.insert(next_unused_);
    } else {
      free_.push_back(next_unused_);
    }
    ++next_unused_;
  }
}

std::unique_ptr<netfs::HiddenNameStore> HiddenNameTable::store_for(std::uint32_t mount_id,
                                                                   std::string share) {
  const MutexLock lock(mutex_);
  mounts_.insert(mount_id);
  return std::make_unique<Store>(*this, mount_id, std::move(share));
}

void HiddenNameTable::put(std::uint32_t mount_id, std::string_view share,
                          const netfs::LeftName& name) {
  const Bytes handle = name.directory.bytes();
  if (share.size() > Record::kMostShareBytes || name.name.size() > Record::kMostNameBytes) {
    return;
  }
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
  Record& record = records_[slot];
  record.ever_used = 1;
  record.uid = name.credential.uid;
  record.gid = name.credential.gid;
  record.share_length = static_cast<std::uint16_t>(share.size());
  record.name_length = static_cast<std::uint8_t>(name.name.size());
  record.handle_length = static_cast<std::uint8_t>(handle.size());
  std::ranges::copy(share, record.share.begin());
  std::ranges::copy(name.name, record.name.begin());
  std::ranges::copy(handle, record.handle.begin());
  set_mount(record, mount_id);
  used_.insert(slot);
}

void HiddenNameTable::remove(std::uint32_t mount_id, const netfs::FileHandle& directory,
                             std::string_view name) {
  const MutexLock lock(mutex_);
  const auto found = std::ranges::find_if(used_, [&](std::uint32_t slot) {
    const Record& record = records_[slot];
    return record.mount_id == mount_id && name_of(record) == name &&
           text_of(handle_of(record)) == text_of(directory.bytes());
  });
  if (found != used_.end()) {
    set_mount(records_[*found], 0);
    free_.push_back(*found);
    used_.erase(found);
  }
}

std::vector<netfs::LeftName> HiddenNameTable::adopt(std::uint32_t mount_id,
                                                    std::string_view share) {
  std::vector<netfs::LeftName> names;
  const MutexLock lock(mutex_);
  for (const std::uint32_t slot : used_) {
    Record& record = records_[slot];
    if (!mounts_.contains(record.mount_id) && share_of(record) == share) {
      set_mount(record, mount_id);
      names.push_back({netfs::FileHandle(handle_of(record)),
                       std::string(name_of(record)),
                       {record.uid, record.gid, {}}});
    }
  }
  return names;
}

void HiddenNameTable::end_mount(std::uint32_t mount_id) {
  const MutexLock lock(mutex_);
  mounts_.erase(mount_id);
}

}  // namespace larder::engine
