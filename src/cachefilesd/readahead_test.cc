// What is listed ahead must be what a listing would show, and nobody may wait for what was
// forgotten.
#include "cachefilesd/readahead.h"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "cachefilesd/daemon_fixture_test.h"
#include "culling/candidate.h"
#include "os/filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefilesd {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

bool always() {
  return true;
}

class ReadaheadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& [directory, name] : {std::pair("@00", "Da"), std::pair("@00", "Db"),
                                          std::pair("@01", "Dc"), std::pair("@00", "what")}) {
      ASSERT_TRUE(cache_.directory({"cache", "Ivolume", directory})->create_file(name, 0600));
    }
  }

  static std::vector<ExpectedDirectory> all() {
    return {{0, "Ivolume", "@00"}, {1, "Ivolume", "@01"}, {2, "Ivolume", "@02"}};
  }

  // Once it was begun.
  static std::optional<Result<Listing>> taken(Readahead& readahead,
                                              const std::vector<ExpectedDirectory>& expected,
                                              std::size_t number) {
    for (int i = 0; i < 1000; ++i) {
      readahead.expect(expected);
      std::this_thread::sleep_for(std::chrono::milliseconds(i));
      if (auto listing = readahead.take(number, always)) {
        return listing;
      }
    }
    return std::nullopt;
  }

  static std::vector<std::string> names(const Listing& listing) {
    std::vector<std::string> names;
    names.reserve(listing.objects.size());
    for (const culling::Candidate& object : listing.objects) {
      names.push_back(object.name);
    }
    return names;
  }

  FakeCache cache_;
  testing::FaultyFilesystem faulty_{cache_.filesystem};
  std::unique_ptr<os::Directory> top_ =
      faulty_.open_root("/").value()->open_directory("cache").value();
};

TEST_F(ReadaheadTest, ListsWhatIsExpectedOnce) {
  Readahead readahead(*top_);
  const auto first = taken(readahead, all(), 0).value().value();
  EXPECT_THAT(names(first), UnorderedElementsAre("Da", "Db"));
  EXPECT_THAT(first.unexpected, ElementsAre("what"));
  EXPECT_FALSE(readahead.take(0, always).has_value());
  EXPECT_THAT(names(taken(readahead, all(), 1).value().value()), ElementsAre("Dc"));
}

TEST_F(ReadaheadTest, ADirectoryThatIsNotThereHasNothing) {
  Readahead readahead(*top_);
  EXPECT_TRUE(taken(readahead, all(), 2).value().value().objects.empty());
}

TEST_F(ReadaheadTest, ADiskThatFailsIsToldToWhoAsks) {
  Readahead readahead(*top_);
  faulty_.faults().fail_all(testing::FileCall::kOpen, EIO);
  EXPECT_EQ(taken(readahead, all(), 1).value().error().code(), Errc::kIo);
}

TEST_F(ReadaheadTest, WhatIsForgottenOrWasNeverExpectedIsNotThere) {
  Readahead readahead(*top_);
  EXPECT_FALSE(readahead.take(0, always).has_value());
  readahead.expect(all());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  readahead.expect({});
  EXPECT_FALSE(readahead.take(0, always).has_value());
}

// Whatever it is doing when it ends, nobody waits for it for long.
TEST_F(ReadaheadTest, EndsInTheMiddle) {
  for (int i = 0; i < 200; ++i) {
    Readahead readahead(*top_);
    readahead.expect(all());
    if (i % 2 == 0) {
      (void)readahead.take(static_cast<std::size_t>(i % 3), always);
    }
  }
}

}  // namespace
}  // namespace larder::cachefilesd
