// Map logs that have grown long are written anew, and say the same as before.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/content_map.h"
#include "cachefiles/map_log.h"
#include "cachefiles/object_log.h"
#include "cachefiles/stamp.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"

namespace larder::cachefiles {
namespace {

TEST(RewrittenRecordsTest, WhatWasDurableStaysSoAndNothingElseBecomesIt) {
  const std::uint32_t sums[] = {1, 2, 3, 4};
  std::vector<MapPiece> pieces;
  pieces.reserve(4);
  for (std::uint64_t cell = 0; cell < 4; ++cell) {
    pieces.push_back({{cell * kCellBytes, kCellBytes}, sums[cell]});
  }
  std::vector<MapRecord> before;
  const auto present = [&](std::uint64_t offset, std::uint64_t length, Stamp stamp) {
    MapRecord record;
    record.run = {offset, length};
    record.stamp = stamp;
    record.checksums.resize(cells_of(record.run));
    before.push_back(record);
  };
  present(0, kCellBytes, {6, 9});
  present(kCellBytes, 4096, {7, 1});
  present(kCellBytes + 4096, kCellBytes - 4096, {7, 3});
  present(2 * kCellBytes, 2 * kCellBytes, {7, 1});
  const auto records =
      rewritten_records(pieces, before, [](const Stamp& stamp) { return stamp <= Stamp{7, 2}; });
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].run, (ByteRange{0, kCellBytes}));
  EXPECT_EQ(records[0].stamp, (Stamp{7, 1}));
  EXPECT_EQ(records[1].run, (ByteRange{kCellBytes, kCellBytes}));
  EXPECT_EQ(records[1].stamp, (Stamp{7, 3}));
  EXPECT_EQ(records[2].run, (ByteRange{2 * kCellBytes, 2 * kCellBytes}));
  EXPECT_EQ(records[2].stamp, (Stamp{7, 1}));
  EXPECT_EQ(records[2].checksums, (std::vector<std::uint32_t>{3, 4}));
}

class MapRewriteTest : public CacheOnFake {
 protected:
  std::uint64_t log_size(const std::string& key) {
    const auto volume = filesystem_.open_root("/")
                            .value()
                            ->open_directory("maps")
                            .value()
                            ->open_directory("Ilarder,1,nfs,server,,%2fexport,0")
                            .value();
    std::uint64_t size = 0;
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
      const auto stat = volume->open_directory(entry.name).value()->stat("D" + key);
      size = stat ? stat->size : size;
      return true;
    }));
    return size;
  }

  // In pieces of one unit each, in random order; those of which `wanted` says true.
  template <class Wanted>
  void scatter(fscache::BackendObject& object, const std::vector<std::byte>& right, Wanted wanted) {
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t at = 0; at < right.size(); at += kUnitBytes) {
      if (wanted(at / kUnitBytes)) {
        offsets.push_back(at);
      }
    }
    std::ranges::shuffle(offsets, random_);
    for (const std::uint64_t at : offsets) {
      const std::size_t length = std::min<std::size_t>(kUnitBytes, right.size() - at);
      ASSERT_TRUE(object.write(at, Bytes(right).subspan(at, length)));
    }
  }

  std::mt19937_64 random_{std::random_device{}()};
};

TEST_F(MapRewriteTest, ALogOfScatteredPiecesShrinksAtTheClose) {
  const std::uint64_t size = 3 * kMega + 5;
  const auto right = content_of("a", 1, size);
  bind();
  {
    const auto object = open("a", 1, size);
    scatter(*object, right, [](std::uint64_t) { return true; });
    ASSERT_TRUE(object->mark_complete());
    EXPECT_GT(log_size("a"), std::uint64_t{600} * kMapRecordBytes);
  }
  EXPECT_LT(log_size("a"), 10 * kMapRecordBytes);
  EXPECT_EQ(open("a", 1, size)->open_for_passthrough().error().code(), Errc::kBusy);
  (void)cache_->run_maintenance();
  EXPECT_EQ(open("a", 1, size)->open_for_passthrough().error().code(), Errc::kNotSupported);
  const auto booked = cache_->status();
  drop();
  bind();
  EXPECT_EQ(served("a", 1, size), size);
  EXPECT_TRUE(open("a", 1, size)->complete());
  while (!cache_->status().objects_exact) {
    (void)cache_->run_maintenance();
  }
  EXPECT_EQ(cache_->status().used_bytes, booked.used_bytes);
}

TEST_F(MapRewriteTest, ALogThatNeedsItsRecordsStays) {
  const std::uint64_t size = 3 * kMega;
  const auto right = content_of("a", 1, size);
  bind();
  scatter(*open("a", 1, size), right, [](std::uint64_t unit) { return unit % 2 == 0; });
  EXPECT_GT(log_size("a"), std::uint64_t{380} * kMapRecordBytes);
  const std::uint64_t before = log_size("a");
  EXPECT_EQ(served("a", 1, size), size / 2);
  EXPECT_EQ(log_size("a"), before);
}

// Some of it durable, some not, when it is rewritten: after a crash exactly the former is there.
TEST_F(MapRewriteTest, DurablePiecesStayDurable) {
  const std::uint64_t size = kMega;
  const auto right = content_of("a", 1, size);
  constexpr std::uint64_t kFirst = 48;  // units: three cells, too few for a long log
  bind();
  scatter(*open("a", 1, size), right, [](std::uint64_t unit) { return unit < kFirst; });
  close_epoch();
  scatter(*open("a", 1, size), right, [](std::uint64_t unit) { return unit >= kFirst; });
  EXPECT_LT(log_size("a"), 10 * kMapRecordBytes);
  for (int again = 0; again < 2; ++again) {
    drop();
    filesystem_.crash(testing::CrashMode::kRandomSubset, random_());
    bind();
    const std::uint64_t here = served("a", 1, size);
    EXPECT_GE(here, kFirst * kUnitBytes);
    EXPECT_LE(here, kFirst * kUnitBytes + kCellBytes);
  }
}

}  // namespace
}  // namespace larder::cachefiles
