#include "engine/write_table.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "engine/free_pages.h"
#include "handover/records.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/write_store.h"

namespace larder::engine {

namespace {

using handover::WritePage;
using handover::WriteRecord;

constexpr std::uint32_t kTimesFree = 3;
// Pages that the timers' thread gives back, and when it goes on.
constexpr std::uint32_t kMostAtOnce = (8U << 20U) / WritePage::kBytes;
constexpr auto kReleaseInterval = std::chrono::milliseconds(100);

std::uint32_t pages_for(std::size_t bytes) {
  return static_cast<std::uint32_t>((bytes + WritePage::kBytes - 1) / WritePage::kBytes);
}

// Not before what the engine stored until then: it may be killed after any store, and others read.
void store_last(std::uint32_t& member, std::uint32_t value) {
  std::atomic_ref(member).store(value, std::memory_order_release);
}

// What is stored from now on comes after that.
void store_first(std::uint32_t& member, std::uint32_t value) {
  std::atomic_ref(member).exchange(value, std::memory_order_acq_rel);
}

void describe(WriteRecord& record, const netfs::StoredWrite& what, std::uint64_t order) {
  const Bytes handle = what.file.bytes();
  const auto& groups = what.credential->groups;
  record.uid = what.credential->uid;
  record.gid = what.credential->gid;
  record.group_count = static_cast<std::uint16_t>(std::min(groups.size(), record.groups.size()));
  record.handle_length = static_cast<std::uint8_t>(handle.size());
  record.order = order;
  record.offset = what.offset;
  record.fsid = what.fsid;
  record.fileid = what.fileid;
  std::copy_n(groups.begin(), record.group_count, record.groups.begin());
  std::ranges::copy(handle, record.handle.begin());
  record.at_server = 0;
  record.length = 0;
}

}  // namespace

class WriteTable::Space final : public netfs::WriteSpace {
 public:
  Space(WriteTable& table, std::uint32_t mount_id, PageRun pages)
      : mount(mount_id),
        run(pages),
        table_(table),
        record_(table.records_[pages.first]),
        begin_(table.pages_[pages.first].bytes.data()) {}

  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;

  ~Space() override {
    store_first(record_.mount_id, 0);
    table_.free(*this);
  }

  [[nodiscard]] std::size_t append(Bytes bytes) override {
    if (length_ + bytes.size() > room_) {
      room_ = table_.grow(*this, length_ + bytes.size());
    }
    const Bytes part = bytes.first(std::min(bytes.size(), room_ - length_));
    std::memcpy(begin_ + length_, part.data(), part.size());
    length_ += part.size();
    store_last(record_.length, static_cast<std::uint32_t>(length_));
    return part.size();
  }

  void close() override { table_.close(*this); }

  void note_at_server(const netfs::WriteVerifier& verifier) override {
    record_.verifier = verifier;
    store_last(record_.at_server, 1);
  }

  void note_lost() override { store_first(record_.at_server, 0); }

  [[nodiscard]] Bytes bytes() const override { return {begin_, length_}; }

  // Of the table, under its lock.
  const std::uint32_t mount;
  PageRun run;
  std::uint32_t used = 0;  // pages with bytes; those behind them are free to others who need them

 private:
  WriteTable& table_;
  WriteRecord& record_;
  std::byte* const begin_;
  std::size_t length_ = 0;
  std::size_t room_ = 0;  // of the used pages
};

class WriteTable::Store final : public netfs::WriteStore {
 public:
  Store(WriteTable& table, std::uint32_t mount_id) : table_(table), mount_id_(mount_id) {}

  [[nodiscard]] std::unique_ptr<netfs::WriteSpace> reserve(const netfs::StoredWrite& what,
                                                           std::size_t most) override {
    return table_.reserve(mount_id_, what, most);
  }

 private:
  WriteTable& table_;
  const std::uint32_t mount_id_;
};

WriteTable::WriteTable(Records records, Pages pages, Executor& executor)
    : records_(std::move(records)),
      pages_(std::move(pages)),
      left_(take_left()),
      executor_(executor),
      free_(pages_.capacity()),
      has_memory_(pages_.capacity(), false) {
  CHECK(records_.capacity() == pages_.capacity());
}

WriteTable::~WriteTable() {
  timers_->close_and_wait();
}

LeftWrites WriteTable::take_left() const {
  LeftWrites left;
  std::set<std::pair<std::uint64_t, std::uint64_t>> files;
  for (std::uint32_t slot = 0; slot < records_.used_end(); ++slot) {
    Record& record = records_[slot];
    if (record.mount_id != 0 && record.length != 0) {
      left.bytes += record.length;
      files.emplace(record.fsid, record.fileid);
    }
    store_first(record.mount_id, 0);
  }
  left.files = files.size();
  records_.release(0, records_.capacity());
  pages_.release(0, pages_.capacity());
  return left;
}

std::unique_ptr<netfs::WriteStore> WriteTable::store_for(std::uint32_t mount_id) {
  return std::make_unique<Store>(*this, mount_id);
}

std::uint32_t WriteTable::used_pages() const {
  const MutexLock lock(mutex_);
  return used_;
}

std::uint32_t WriteTable::kept_pages() const {
  const MutexLock lock(mutex_);
  return kept_;
}

std::unique_ptr<netfs::WriteSpace> WriteTable::reserve(std::uint32_t mount_id,
                                                       const netfs::StoredWrite& what,
                                                       std::size_t most) {
  std::unique_ptr<Space> space;
  std::uint64_t order = 0;
  {
    const MutexLock lock(mutex_);
    if (may_take(mount_id) == 0) {
      return nullptr;
    }
    PageRun run = free_.take(pages_for(most));
    if (run.count < pages_for(most) && !growing_.empty()) {
      free_.give(run);
      while (!growing_.empty()) {
        end_growth(**growing_.begin());
      }
      run = free_.take(pages_for(most));
    }
    if (run.count == 0) {
      return nullptr;
    }
    space = std::make_unique<Space>(*this, mount_id, run);
    growing_.insert(space.get());
    order = ++last_order_;
  }
  Record& record = records_[space->run.first];
  describe(record, what, order);
  store_last(record.mount_id, mount_id);
  return space;
}

std::size_t WriteTable::grow(Space& space, std::size_t bytes) {
  const MutexLock lock(mutex_);
  const std::uint32_t wanted = pages_for(bytes);
  if (wanted > space.run.count) {
    space.run.count += free_.take_at(space.run.end(), wanted - space.run.count).count;
  }
  use(space, std::min(std::min(wanted, space.run.count) - space.used, may_take(space.mount)));
  return std::size_t{space.used} * WritePage::kBytes;
}

// What it may still take when it has taken it: three times what is free then.
std::uint32_t WriteTable::may_take(std::uint32_t mount_id) const {
  const auto found = used_by_.find(mount_id);
  const std::uint32_t has = found == used_by_.end() ? 0 : found->second;
  const std::uint32_t most = kTimesFree * (pages_.capacity() - used_);
  return most > has ? (most - has) / (kTimesFree + 1) : 0;
}

void WriteTable::use(Space& space, std::uint32_t pages) {
  if (pages == 0) {
    return;
  }
  const std::uint32_t first = space.run.first + space.used;
  for (std::uint32_t page = first; page < first + pages; ++page) {
    kept_ -= has_memory_[page] ? 1 : 0;
    has_memory_[page] = true;
  }
  unneeded_ = std::min(unneeded_, kept_);
  space.used += pages;
  used_by_[space.mount] += pages;
  used_ += pages;
}

// The first page stays, with the record of its number.
void WriteTable::end_growth(Space& space) {
  const std::uint32_t kept = std::max(space.used, 1U);
  free_.give({space.run.first + kept, space.run.count - kept});
  space.run.count = kept;
  growing_.erase(&space);
}

void WriteTable::close(Space& space) {
  const MutexLock lock(mutex_);
  end_growth(space);
}

void WriteTable::free(Space& space) {
  std::vector<PageRun> runs;
  bool set_timer = false;
  {
    const MutexLock lock(mutex_);
    free_.give(space.run);
    growing_.erase(&space);
    used_ -= space.used;
    kept_ += space.used;
    std::uint32_t& of_mount = used_by_[space.mount];
    of_mount -= space.used;
    if (of_mount == 0) {
      used_by_.erase(space.mount);
    }
    const std::uint32_t most = kMostKeptPages + used_ / 2;
    if (kept_ > most) {
      runs = take_kept(kept_ - most / 2);  // so much that it is seldom
    }
    set_timer = kept_ > kKeptPages && !std::exchange(timer_set_, true);
    unneeded_ = set_timer ? kept_ : std::min(unneeded_, kept_);
  }
  release(runs);
  if (set_timer) {
    release_later(kKeepingTime);
  }
}

// From the end on.
std::vector<PageRun> WriteTable::take_kept(std::uint32_t count) {
  std::vector<PageRun> runs;
  for (auto run = free_.runs().rbegin(); run != free_.runs().rend() && count != 0; ++run) {
    std::uint32_t page = run->first + run->second;
    PageRun taken{page, 0};
    while (page != run->first && count != 0) {
      if (has_memory_[--page]) {
        has_memory_[page] = false;
        --kept_;
        --count;
        taken = {page, taken.end() - page};
      }
    }
    if (taken.count != 0) {
      runs.push_back(taken);
    }
  }
  for (const PageRun& run : runs) {
    [[maybe_unused]] const PageRun taken = free_.take_at(run.first, run.count);
  }
  return runs;
}

void WriteTable::release(const std::vector<PageRun>& runs) {
  if (runs.empty()) {
    return;
  }
  for (const PageRun& run : runs) {
    pages_.release(run.first, run.count);
    records_.release(run.first, run.count);
  }
  const MutexLock lock(mutex_);
  for (const PageRun& run : runs) {
    free_.give(run);
  }
}

void WriteTable::release_later(Duration delay) {
  executor_.timers().schedule(delay, [this, weak = std::weak_ptr<Gate>(timers_)] {
    const auto gate = weak.lock();
    if (const Gate::Pass pass = gate ? gate->enter() : Gate::Pass()) {
      release_unneeded();
    }
  });
}

// A little at a time: others need the timers' thread.
void WriteTable::release_unneeded() {
  std::vector<PageRun> runs;
  Duration again{0};
  {
    const MutexLock lock(mutex_);
    const std::uint32_t many = unneeded_ > kKeptPages ? unneeded_ - kKeptPages : 0;
    runs = take_kept(std::min(many, kMostAtOnce));
    unneeded_ = kept_;
    timer_set_ = kept_ > kKeptPages;
    if (timer_set_) {
      again = many > kMostAtOnce ? kReleaseInterval : kKeepingTime;
    }
  }
  release(runs);
  if (again != Duration::zero()) {
    release_later(again);
  }
}

}  // namespace larder::engine
