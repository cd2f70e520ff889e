#include "engine/write_table.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/unique_fd.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/write_store.h"
#include "testing/stepper.h"

namespace larder::engine {
namespace {

using handover::Table;
using handover::TableKind;
using handover::TableMemory;
using handover::TableShape;
using handover::WritePage;
using handover::WriteRecord;
using netfs::Credential;
using netfs::FileHandle;
using netfs::StoredWrite;
using netfs::WriteSpace;
using netfs::WriteStore;

constexpr std::size_t kPage = WritePage::kBytes;

StoredWrite write_to(std::uint64_t fileid, std::uint64_t offset) {
  return {FileHandle(bytes_of("file " + std::to_string(fileid))), 5, fileid, offset,
          std::make_shared<const Credential>(Credential{1000, 100, {7, 8}})};
}

// What a file's bytes are, so that they can be told from others.
std::byte byte_at(std::uint64_t fileid, std::uint64_t offset) {
  return static_cast<std::byte>(((fileid * 77 + offset) * 0x9E3779B97F4A7C15U) >> 56U);
}

std::vector<std::byte> bytes_at(std::uint64_t fileid, std::uint64_t offset, std::size_t length) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; ++i) {
    bytes[i] = byte_at(fileid, offset + i);
  }
  return bytes;
}

// A table of so many pages, and what the next engine would see of it.
class WriteTableTest : public ::testing::Test {
 protected:
  WriteTableTest() { make(16); }

  void make(std::uint32_t pages) {
    record_shape_ = {TableKind::kWrites, "test-writes", sizeof(WriteRecord), pages, true};
    page_shape_ = {TableKind::kWritePages, "test-write-pages", sizeof(WritePage), pages, true};
    records_memory_ = TableMemory::create(record_shape_).value();
    pages_memory_ = TableMemory::create(page_shape_).value();
    next_engine();
    records_ = map_records();
    pages_ = map_pages();
  }

  [[nodiscard]] Table<WriteRecord> map_records() const {
    return Table<WriteRecord>(TableMemory::map(records_memory_, record_shape_).value());
  }

  [[nodiscard]] Table<WritePage> map_pages() const {
    return Table<WritePage>(TableMemory::map(pages_memory_, page_shape_).value());
  }

  // The one before is dead.
  void next_engine() {
    table_ = std::make_unique<WriteTable>(map_records(), map_pages(), stepper_);
  }

  // Slots of records that tell of something, by order.
  [[nodiscard]] std::map<std::uint64_t, std::uint32_t> found() const {
    std::map<std::uint64_t, std::uint32_t> slots;
    for (std::uint32_t slot = 0; slot < records_.capacity(); ++slot) {
      if (records_[slot].mount_id != 0 && records_[slot].length != 0) {
        EXPECT_TRUE(slots.emplace(records_[slot].order, slot).second);
      }
    }
    return slots;
  }

  [[nodiscard]] std::string text_in(std::uint32_t slot) const {
    return std::string(text_of(Bytes(pages_[slot].bytes.data(), records_[slot].length)));
  }

  [[nodiscard]] static std::size_t fill(WriteSpace& space, std::size_t bytes) {
    return space.append(std::vector<std::byte>(bytes, std::byte{'x'}));
  }

  // That a process that finds the table now would send what was written.
  void expect_consistent() const {
    std::uint32_t free_from = 0;
    for (std::uint32_t slot = 0; slot < records_.capacity(); ++slot) {
      const WriteRecord& record = records_[slot];
      if (record.mount_id == 0 || record.length == 0) {
        continue;
      }
      ASSERT_GE(slot, free_from) << "its pages are another's";
      free_from = slot + static_cast<std::uint32_t>((record.length + kPage - 1) / kPage);
      ASSERT_LE(free_from, records_.capacity());
      const StoredWrite what = write_to(record.fileid, record.offset);
      ASSERT_EQ(text_of(Bytes(record.handle).first(record.handle_length)),
                text_of(what.file.bytes()));
      ASSERT_EQ(record.uid, what.credential->uid);
      ASSERT_EQ(record.group_count, 2);
      ASSERT_EQ(record.groups[1], 8U);
      const auto expected = bytes_at(record.fileid, record.offset, record.length);
      ASSERT_EQ(text_of(Bytes(pages_[slot].bytes.data(), record.length)), text_of(expected));
      if (record.at_server != 0) {
        ASSERT_EQ(record.verifier[0], byte_at(record.fileid, record.offset));
      }
    }
  }

  testing::Stepper stepper_;
  TableShape record_shape_{};
  TableShape page_shape_{};
  UniqueFd records_memory_;
  UniqueFd pages_memory_;
  Table<WriteRecord> records_;
  Table<WritePage> pages_;
  std::unique_ptr<WriteTable> table_;
};

TEST_F(WriteTableTest, TheNextEngineFindsWhatToSend) {
  const auto store = table_->store_for(3);
  const auto first = store->reserve(write_to(1, 100), 4 * kPage);
  EXPECT_EQ(first->append(bytes_of("some bytes")), 10U);
  const auto second = store->reserve(write_to(2, 0), 4 * kPage);
  EXPECT_EQ(second->append(bytes_of("others")), 6U);
  EXPECT_EQ(first->append(bytes_of(", and more")), 10U);
  EXPECT_EQ(text_of(first->bytes()), "some bytes, and more");

  const auto slots = found();
  ASSERT_EQ(slots.size(), 2U);
  const std::uint32_t slot = slots.begin()->second;
  EXPECT_EQ(text_in(slot), "some bytes, and more");
  EXPECT_EQ(text_in(slots.rbegin()->second), "others") << "accepted later";
  const WriteRecord& record = records_[slot];
  EXPECT_EQ(record.mount_id, 3U);
  EXPECT_EQ(record.offset, 100U);
  EXPECT_EQ(record.fsid, 5U);
  EXPECT_EQ(record.fileid, 1U);
  EXPECT_EQ(text_of(Bytes(record.handle).first(record.handle_length)), "file 1");
  EXPECT_EQ(record.uid, 1000U);
  EXPECT_EQ(record.gid, 100U);
  ASSERT_EQ(record.group_count, 2U);
  EXPECT_EQ(record.groups[0], 7U);
  EXPECT_EQ(record.at_server, 0U);

  first->close();
  first->note_at_server({std::byte{9}});
  EXPECT_EQ(record.at_server, 1U);
  EXPECT_EQ(record.verifier[0], std::byte{9});
  first->note_lost();
  EXPECT_EQ(record.at_server, 0U);
}

TEST_F(WriteTableTest, OfManyGroupsTheFirstAreKept) {
  StoredWrite what = write_to(1, 0);
  Credential many{1, 2, std::vector<std::uint32_t>(100)};
  for (std::uint32_t i = 0; i < 100; ++i) {
    many.groups[i] = i + 50;
  }
  what.credential = std::make_shared<const Credential>(many);
  const auto store = table_->store_for(1);
  const auto space = store->reserve(what, kPage);
  ASSERT_EQ(fill(*space, 1), 1U);
  const WriteRecord& record = records_[found().begin()->second];
  EXPECT_EQ(record.group_count, record.groups.size());
  EXPECT_EQ(record.groups.back(), 50 + record.groups.size() - 1);
}

TEST_F(WriteTableTest, TheNextEngineIsToldOfWhatIsLeftAndBeginsEmpty) {
  std::vector<std::unique_ptr<WriteSpace>> spaces;
  const auto store = table_->store_for(3);
  for (const std::uint64_t fileid : {1U, 2U, 1U}) {
    spaces.push_back(store->reserve(write_to(fileid, 0), kPage));
    ASSERT_EQ(fill(*spaces.back(), 100), 100U);
  }
  spaces.push_back(store->reserve(write_to(9, 0), kPage));
  spaces.erase(spaces.begin() + 1);  // safe
  EXPECT_EQ(table_->left().bytes, 0U);
  const WriteTable next(map_records(), map_pages(), stepper_);
  EXPECT_EQ(next.left().bytes, 200U);
  EXPECT_EQ(next.left().files, 1U);
  EXPECT_TRUE(found().empty());
  const WriteTable after(map_records(), map_pages(), stepper_);
  EXPECT_EQ(after.left().bytes, 0U);
}

TEST_F(WriteTableTest, AMountAloneGetsThreeQuarters) {
  const auto store = table_->store_for(1);
  const auto space = store->reserve(write_to(1, 0), 16 * kPage);
  EXPECT_EQ(fill(*space, 20 * kPage), 12 * kPage);
  EXPECT_EQ(fill(*space, 1), 0U);
  EXPECT_EQ(store->reserve(write_to(2, 0), kPage), nullptr);
}

// However many mounts do not get rid of theirs.
TEST_F(WriteTableTest, AMountThatHasLittleFindsRoom) {
  make(1024);
  std::vector<std::unique_ptr<WriteStore>> stores;
  std::vector<std::unique_ptr<WriteSpace>> spaces;
  std::size_t before = 2048 * kPage;
  for (std::uint32_t mount = 1; mount <= 4; ++mount) {
    stores.push_back(table_->store_for(mount));
    std::size_t has = 0;
    while (auto space = stores.back()->reserve(write_to(mount, has), 8 * kPage)) {
      has += fill(*space, 8 * kPage);
      space->close();
      spaces.push_back(std::move(space));
    }
    EXPECT_GT(has, 0U);
    EXPECT_LT(has, before);
    before = has;
  }
  spaces.erase(spaces.begin(), spaces.begin() + 10);
  const auto first = stores.front()->reserve(write_to(1, 0), kPage);
  EXPECT_EQ(first, nullptr) << "who has the most waits";
  EXPECT_NE(stores.back()->reserve(write_to(4, 0), kPage), nullptr);
}

// Each hopes for a megabyte.
TEST_F(WriteTableTest, ThousandsOfSmallFilesFit) {
  make(8192);
  const auto store = table_->store_for(1);
  std::vector<std::unique_ptr<WriteSpace>> growing;
  for (std::uint64_t file = 0; file < 5000; ++file) {
    growing.push_back(store->reserve(write_to(file, 0), 256 * kPage));
    ASSERT_NE(growing.back(), nullptr) << file;
    const auto bytes = bytes_at(file, 0, 100);
    ASSERT_EQ(growing.back()->append(bytes), 100U) << file;
  }
  EXPECT_EQ(table_->used_pages(), 5000U);
  EXPECT_EQ(found().size(), 5000U);
  expect_consistent();
}

TEST_F(WriteTableTest, WhatIsClosedLeavesItsRestToOthers) {
  const auto store = table_->store_for(1);
  const auto first = store->reserve(write_to(1, 0), 16 * kPage);
  ASSERT_EQ(fill(*first, kPage + 1), kPage + 1);
  first->close();
  const auto second = store->reserve(write_to(2, 0), 10 * kPage);
  EXPECT_EQ(fill(*second, 10 * kPage), 10 * kPage);
  EXPECT_EQ(text_of(first->bytes()), std::string(kPage + 1, 'x'));
}

// Who needs room takes what others only hope to need; they go on where it is free.
TEST_F(WriteTableTest, WhatIsHopedForIsTakenByWhoNeedsIt) {
  const auto store = table_->store_for(1);
  const auto first = store->reserve(write_to(1, 0), 16 * kPage);
  ASSERT_EQ(fill(*first, 1), 1U);
  auto second = store->reserve(write_to(2, 0), 4 * kPage);
  ASSERT_NE(second, nullptr);
  ASSERT_EQ(fill(*second, 1), 1U);
  EXPECT_EQ(fill(*first, 2 * kPage), kPage - 1) << "behind it is the second";
  second.reset();
  EXPECT_EQ(fill(*first, 2 * kPage), 2 * kPage);
  EXPECT_EQ(first->bytes().size(), 3 * kPage);
}

// Whose record would it be?
TEST_F(WriteTableTest, ASpaceWithoutBytesKeepsItsSlot) {
  const auto store = table_->store_for(1);
  auto empty = store->reserve(write_to(1, 0), 16 * kPage);
  empty->close();
  const auto other = store->reserve(write_to(2, 0), 4 * kPage);
  ASSERT_EQ(fill(*other, 10), 10U);
  empty.reset();
  ASSERT_EQ(found().size(), 1U);
  EXPECT_EQ(records_[found().begin()->second].fileid, 2U);
}

TEST_F(WriteTableTest, MemoryGoesBack) {
  constexpr std::uint32_t kPages = 4 * WriteTable::kMostKeptPages;
  make(kPages);
  const auto store = table_->store_for(1);
  std::vector<std::unique_ptr<WriteSpace>> spaces;
  while (auto space = store->reserve(write_to(1, 0), 256 * kPage)) {
    ASSERT_GT(fill(*space, 256 * kPage), 0U);
    space->close();
    spaces.push_back(std::move(space));
  }
  const auto blocks = [](const UniqueFd& memory) {
    struct stat status{};
    ::fstat(memory.get(), &status);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  EXPECT_GT(blocks(pages_memory_), std::uint64_t{kPages} / 2 * kPage);
  // In an order that leaves holes everywhere.
  for (std::size_t i = 0; i < spaces.size(); i += 2) {
    spaces[i].reset();
  }
  spaces.clear();
  EXPECT_EQ(table_->used_pages(), 0U);
  EXPECT_LE(table_->kept_pages(), WriteTable::kMostKeptPages);
  EXPECT_LE(blocks(pages_memory_), std::uint64_t{table_->kept_pages() + 1} * kPage);
  EXPECT_GT(table_->kept_pages(), WriteTable::kKeptPages) << "it may be needed again at once";
  stepper_.run_until([] { return false; }, std::chrono::minutes(1));
  EXPECT_LE(table_->kept_pages(), WriteTable::kKeptPages);
  EXPECT_LE(blocks(pages_memory_), std::uint64_t{table_->kept_pages() + 1} * kPage);
  EXPECT_LE(blocks(records_memory_),
            (std::uint64_t{table_->kept_pages()} + 256) * sizeof(WriteRecord) + 2 * kPage);
}

// What is used again and again does not go back meanwhile.
TEST_F(WriteTableTest, MemoryThatIsNeededStays) {
  make(4 * WriteTable::kMostKeptPages);
  const auto store = table_->store_for(1);
  constexpr std::uint32_t kPages = 2 * WriteTable::kKeptPages;
  for (int round = 0; round < 10; ++round) {
    const auto space = store->reserve(write_to(1, 0), kPages * kPage);
    ASSERT_EQ(fill(*space, kPages * kPage), kPages * kPage);
    stepper_.advance(WriteTable::kKeepingTime / 2);
    stepper_.run();
  }
  EXPECT_EQ(table_->kept_pages(), kPages);
  stepper_.run_until([] { return false; }, std::chrono::minutes(1));
  EXPECT_EQ(table_->kept_pages(), WriteTable::kKeptPages);
}

// The engine's part, until it is killed: writes to a few files, in a table that is full at times.
[[noreturn]] void write_until_killed(WriteTable& table, std::atomic<std::uint64_t>& steps,
                                     std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto store = table.store_for(1);

  struct Writing {
    std::unique_ptr<WriteSpace> space;
    std::uint64_t fileid;
    std::uint64_t offset;
    bool closed = false;
  };

  std::vector<Writing> all;
  while (true) {
    ++steps;
    if (all.size() < 10) {
      const std::uint64_t fileid = random() % 1000;
      const std::uint64_t offset = random() % 100'000;
      if (auto space = store->reserve(write_to(fileid, offset), (1 + random() % 6) * kPage)) {
        all.push_back({std::move(space), fileid, offset});
      }
    }
    std::swap(all[random() % all.size()], all.back());
    Writing& one = all.back();
    switch (random() % 4) {
      case 0:
        one.space->close();
        one.closed = true;
        break;
      case 1:
        if (one.closed) {
          one.space->note_at_server({byte_at(one.fileid, one.offset)});
        }
        break;
      case 2:
        all.pop_back();
        break;
      default:
        if (!one.closed) {
          const auto bytes = bytes_at(one.fileid, one.offset + one.space->bytes().size(),
                                      1 + random() % (2 * kPage));
          [[maybe_unused]] const std::size_t taken = one.space->append(bytes);
        }
    }
  }
}

TEST_F(WriteTableTest, AKillAtAnyMomentLeavesWhatCanBeSent) {
  auto* const steps = static_cast<std::atomic<std::uint64_t>*>(
      ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(steps, MAP_FAILED);
  std::mt19937_64 random(11);
  std::uint64_t seen = 0;
  for (std::uint64_t round = 0; round < 60; ++round) {
    make(40);
    *steps = 0;
    const std::uint64_t until = 1 + random() % 300;
    const auto engine = ::fork();
    ASSERT_GE(engine, 0);
    if (engine == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is ended leaves nothing running
      write_until_killed(*table_, *steps, round);
    }
    int status = 0;
    while (*steps < until) {
      // NOLINTNEXTLINE(misc-include-cleaner): of <sys/wait.h>
      ASSERT_EQ(::waitpid(engine, &status, WNOHANG), 0) << "it ended by itself";
    }
    ::kill(engine, SIGKILL);
    ASSERT_EQ(::waitpid(engine, &status, 0), engine);
    ASSERT_EQ(status, SIGKILL) << "it ended by itself";
    expect_consistent();
    if (HasFatalFailure()) {
      FAIL() << "round " << round;
    }
    seen += found().size();
  }
  EXPECT_GT(seen, 60U);
  ::munmap(steps, kPage);
}

}  // namespace
}  // namespace larder::engine
