// What is written to a file that somebody reads in passthrough: he sees what the server has, as
// soon as it has it, or goes on with what he opened.
#include "netfs/held_versions.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"
#include "netfs/writer.h"

namespace larder::netfs {
namespace {

constexpr std::uint64_t kLength = 300'000;

class ToldHolders final : public InvalidationSink {
 public:
  void data_changed(const Inode& /*inode*/) override {}

  void attributes_changed(std::uint64_t holder) override { told.push_back(holder); }

  bool give_room() override { return false; }

  std::vector<std::uint64_t> told;
};

class HeldVersionsTest : public ShareTest {
 protected:
  // A file that somebody reads in passthrough, and its writer.
  void begin(ShareOptions options = {}) {
    content_ = pattern(kLength, 1);
    file_ = server_.add_file("file", content_);
    mount(options);
    sink_ = std::make_shared<ToldHolders>();
    share_->set_invalidation_sink(sink_);
    reader_ = fill();
    stored_ = stored();
    hold_ = Share::hold_for_passthrough(*reader_, 7);
    ASSERT_NE(hold_, nullptr);
    writer_ = open_to_write();
  }

  void TearDown() override {
    hold_.reset();
    second_.reset();
    reader_.reset();
    writer_.reset();
    ShareTest::TearDown();
  }

  // Open, with all of it in the cache.
  OpenFile fill() {
    EXPECT_EQ(cat("file").value(), server_.content(file_));
    OpenFile opened = open(*look_up("file")).value();
    EXPECT_TRUE(opened.version->cookie->complete());
    return opened;
  }

  // What the cache's disk has of it now, as who holds its file open sees it later on, too.
  std::shared_ptr<MemoryDisk::Stored> stored() {
    for (const auto& [key, objects] : disk_.volumes) {
      for (const auto& [name, stored] : objects) {
        return stored;
      }
    }
    return nullptr;
  }

  OpenFile open_to_write() {
    const OpenIntent intent{.read = true, .write = true};
    return wait<OpenFile>(
               [&](auto done) { share_->open(*look_up("file"), intent, caller_, std::move(done)); })
        .value();
  }

  using Answer = std::shared_ptr<std::optional<Result<Written>>>;

  Answer start_write(const WritePlace& place, const std::string& text) {
    auto answer = std::make_shared<std::optional<Result<Written>>>();
    share_->write(*writer_, place, bytes_of_text(text), caller_,
                  [answer](Result<Written> written) { *answer = std::move(written); });
    return answer;
  }

  Result<Written> write(const WritePlace& place, const std::string& text) {
    return wait<Written>([&](auto done) {
      share_->write(*writer_, place, bytes_of_text(text), caller_, std::move(done));
    });
  }

  Result<> cut(std::uint64_t size) {
    AttributeChanges changes;
    changes.size = size;
    return set(changes);
  }

  Result<> set(const AttributeChanges& changes) {
    TRY(wait<FreshAttributes>([&](auto done) {
      share_->set_attributes(writer_->file->inode(), changes, &*writer_, caller_, std::move(done));
    }));
    return {};
  }

  Result<> sync() {
    return wait<void>([&](auto done) { share_->sync(*writer_, caller_, std::move(done)); });
  }

  // The reader sees this all the time, and the server has it safe in the end.
  void sync_watching(const std::string& content) {
    std::optional<Result<>> synced;
    share_->sync(*writer_, caller_, [&synced](Result<> result) { synced = std::move(result); });
    stepper_.run_until(
        [&] {
          EXPECT_EQ(stored_->bytes, content);
          return synced.has_value();
        },
        kLongEnough);
    ASSERT_TRUE(synced && synced->has_value());
    EXPECT_EQ(server_.stable_content(file_), content);
  }

  void close_writer() {
    ASSERT_TRUE(sync());
    writer_.reset();
    stepper_.run();
  }

  // Stamps of others' changes differ from ours.
  void others_write(const std::string& content) {
    stepper_.advance(std::chrono::milliseconds(50));
    server_.write_file(file_, content);
    stepper_.advance(std::chrono::milliseconds(50));
  }

  // The reader sees what the server has.
  void expect_in_step() {
    EXPECT_EQ(stored_->bytes, server_.content(file_));
    const Attributes now = writer_->file->inode()->attributes().attributes;
    EXPECT_EQ(hold_->shown(now).size, server_.content(file_).size());
    EXPECT_EQ(hold_->shown(now).modified, server_.attributes(file_).modified);
  }

  // The reader sees this, whatever the server has; and its size.
  void expect_left_with(const std::string& content) {
    EXPECT_TRUE(stored_->bytes == content);
    const Attributes now = writer_->file->inode()->attributes().attributes;
    EXPECT_EQ(hold_->shown(now).size, content.size());
    EXPECT_FALSE(writer_->file->held().any_in_step());
  }

  std::string content_;
  std::uint64_t file_ = 0;
  std::shared_ptr<ToldHolders> sink_;
  std::optional<OpenFile> reader_, writer_;
  std::shared_ptr<MemoryDisk::Stored> stored_;
  PassthroughHoldRef hold_, second_;
};

TEST_F(HeldVersionsTest, AWriteIsThereWhenItIsAnsweredAndNotBeforeTheServerHasIt) {
  begin();
  control_->hold = true;
  const Answer answer = start_write({.offset = 5}, "new bytes");
  stepper_.run();
  EXPECT_FALSE(*answer) << "no write is answered early";
  EXPECT_EQ(stored_->bytes, content_);
  control_->release();
  stepper_.run_until(
      [&] {
        EXPECT_TRUE(!*answer || stored_->bytes == server_.content(file_));
        return answer->has_value();
      },
      kLongEnough);
  ASSERT_TRUE(*answer && (*answer)->has_value());
  expect_in_step();
  EXPECT_EQ(sink_->told, (std::vector<std::uint64_t>{7}));
  EXPECT_EQ(share_->statistics().bytes_shared, 9U);
}

TEST_F(HeldVersionsTest, WritesThatOverlapArriveInTheServersOrder) {
  server_.write_size = 10'000;  // and the rest of each by itself
  begin();
  std::vector<Answer> answers(5);
  unsigned number = 0;
  for (Answer& answer : answers) {
    answer = start_write({.offset = 70'000 + number * 3000, .through = true},
                         pattern(35'000, 100 + number));
    ++number;
  }
  stepper_.run();
  for (const Answer& answer : answers) {
    ASSERT_TRUE(*answer && (*answer)->has_value());
    EXPECT_EQ((**answer)->length, 35'000U);
  }
  expect_in_step();
}

TEST_F(HeldVersionsTest, WhatIsAppendedAndCutIsThereToo) {
  begin();
  ASSERT_TRUE(write({.append = true}, pattern(100'000, 2)));
  expect_in_step();
  ASSERT_TRUE(cut(1234));
  expect_in_step();
  ASSERT_TRUE(cut(400'000));
  expect_in_step();
  ASSERT_TRUE(write({.offset = 450'000}, "behind a hole"));
  expect_in_step();
  ASSERT_TRUE(cut(0));
  expect_in_step();
  ASSERT_TRUE(write({.offset = 0, .through = true, .of_mapping = true}, "no longer than the file"));
  ASSERT_TRUE(write({}, "from nothing"));
  expect_in_step();
}

TEST_F(HeldVersionsTest, WhatTheServerRefusesIsNotThere) {
  begin();
  server_.capacity = kLength + 10;
  EXPECT_EQ(write({.offset = kLength}, std::string(100, 'x')).error().error_number(), ENOSPC);
  expect_in_step();
  EXPECT_TRUE(write({.offset = kLength}, "fits"));
  expect_in_step();
}

// It may have the bytes or not.
TEST_F(HeldVersionsTest, AWriteOfWhichNobodyKnowsEndsIt) {
  begin();
  ASSERT_TRUE(write({.offset = 50}, "known"));  // and that the server tells of others
  const std::string seen = stored_->bytes;
  control_->lost_answers.emplace_back(Errc::kTimedOut, EIO, "no answer");
  EXPECT_FALSE(write({.offset = 5}, "lost"));
  EXPECT_TRUE(write({.offset = 100}, "known"));
  expect_left_with(seen);
}

// Whether it has lost them or not, it has had them.
TEST_F(HeldVersionsTest, WhatIsSentAgainChangesNothing) {
  begin();
  ASSERT_TRUE(write({.offset = 0}, "first"));
  ASSERT_TRUE(write({.offset = 3}, "second"));
  const std::string before = stored_->bytes;
  server_.restart_without_loss();
  sync_watching(before);
  expect_in_step();
  ASSERT_TRUE(write({.offset = 0}, "third"));
  expect_in_step();
}

// Its stamps have gone back with the bytes: that nobody else was there, nobody can tell.
TEST_F(HeldVersionsTest, AServerThatLostSomethingEndsIt) {
  begin();
  ASSERT_TRUE(write({.offset = 0}, "first"));
  ASSERT_TRUE(write({.offset = 3}, "second"));
  const std::string before = stored_->bytes;
  server_.restart();
  EXPECT_EQ(server_.content(file_), content_);
  sync_watching(before);
  ASSERT_TRUE(write({.offset = 0}, "third"));
  expect_left_with(before);
}

TEST_F(HeldVersionsTest, ALossEndsIt) {
  begin();
  ASSERT_TRUE(write({.offset = 0}, "lost in the end"));
  const std::string seen = stored_->bytes;
  server_.restart_without_loss();
  control_->errors_of.emplace("WRITE", Error(Errc::kRemote, ENOSPC, "no room"));
  EXPECT_FALSE(sync());
  control_->errors_of.clear();
  EXPECT_TRUE(write({.offset = 100}, "later"));
  expect_left_with(seen);
}

// He who holds it has an older version: our bytes were never together with those at the server.
TEST_F(HeldVersionsTest, AnOlderVersionIsLeftAlone) {
  begin();
  writer_.reset();
  stepper_.run();
  others_write(pattern(kLength, 9));
  writer_ = open_to_write();  // which asks the server
  ASSERT_TRUE(write({.offset = 5}, "new"));
  expect_left_with(content_);
}

TEST_F(HeldVersionsTest, AChangeByOthersBetweenOursEndsIt) {
  for (const auto& [tells_before, by_cut] : std::vector<std::pair<bool, bool>>{
           {true, false}, {true, true}, {false, false}, {false, true}}) {
    SCOPED_TRACE(tells_before);
    server_.tells_before = tells_before;
    begin();
    ASSERT_TRUE(write({.offset = 5}, "ours"));
    expect_in_step();
    const std::string seen = stored_->bytes;
    const auto looked = wait<FreshAttributes>(
        [&](auto done) { share_->getattr(writer_->file->inode(), caller_, std::move(done)); });
    EXPECT_GT(looked->fresh_for.count(), 0) << "what is known is believed for a while";
    others_write(pattern(kLength, 9));
    if (by_cut) {
      ASSERT_TRUE(cut(kLength - 5));
    } else {
      ASSERT_TRUE(write({.offset = 100}, "ours again"));
    }
    expect_left_with(seen);
    ASSERT_TRUE(cut(10));
    expect_left_with(seen);
    TearDown();
    server_.remove("file");
    disk_.volumes.clear();
  }
}

// Where the server does not say what was before, its size says something.
TEST_F(HeldVersionsTest, AnotherSizeThanOursMadeEndsIt) {
  server_.tells_before = false;
  begin();
  control_->hold = true;
  const Answer answer = start_write({.offset = 5}, "ours");
  stepper_.run();
  control_->release();  // the question before it
  control_->hold = true;
  stepper_.run();
  ASSERT_EQ(control_->held.size(), 1U);
  others_write(pattern(kLength + 5, 9));
  control_->release();
  stepper_.run();
  ASSERT_TRUE(*answer && (*answer)->has_value());
  expect_left_with(content_);
}

// With another change of ours on its way, whose the strange one was is known only at its end.
TEST_F(HeldVersionsTest, AChangeThatDoesNotFitYetIsNotWaitedFor) {
  begin();
  ASSERT_TRUE(write({.offset = 50}, "ours"));
  ASSERT_TRUE(sync());
  const std::string seen = stored_->bytes;
  control_->hold = true;
  AttributeChanges changes;
  changes.mode = 0600;
  share_->set_attributes(writer_->file->inode(), changes, &*writer_, caller_,
                         [](const Result<FreshAttributes>& set) { EXPECT_TRUE(set); });
  stepper_.run();
  const Answer answer = start_write({.offset = 5}, "ours again");
  stepper_.run();
  ASSERT_EQ(control_->held.size(), 2U);
  others_write(pattern(kLength, 9));
  control_->held.back()();
  control_->held.pop_back();
  stepper_.run();
  EXPECT_TRUE(*answer);
  EXPECT_EQ(stored_->bytes, seen);
  control_->release();
  stepper_.run();
  expect_left_with(seen);
}

TEST_F(HeldVersionsTest, AServerThatTellsNothingOfBeforeIsAskedFirst) {
  server_.tells_before = false;
  begin();
  for (unsigned i = 0; i < 5; ++i) {
    ASSERT_TRUE(write({.offset = i * 10}, "write" + std::to_string(i)));
    expect_in_step();
  }
  ASSERT_TRUE(cut(50));
  expect_in_step();
}

// Modes and owners are no bytes.
TEST_F(HeldVersionsTest, ItGoesOnAfterOtherChangesOfOurs) {
  begin();
  AttributeChanges changes;
  changes.mode = 0600;
  stepper_.advance(std::chrono::seconds(1));
  ASSERT_TRUE(set(changes));
  ASSERT_TRUE(write({.offset = 5}, "new"));
  expect_in_step();
}

TEST_F(HeldVersionsTest, TheNextWriterIsSeenAsWell) {
  begin();
  ASSERT_TRUE(write({.offset = 5}, "first"));
  close_writer();
  // Who opens it now gets a version of its own, and holds that too.
  stepper_.advance(std::chrono::seconds(10));
  second_ = Share::hold_for_passthrough(fill(), 8);
  ASSERT_NE(second_, nullptr);
  const std::shared_ptr<MemoryDisk::Stored> other = stored();
  ASSERT_NE(other, stored_);
  writer_ = open_to_write();
  ASSERT_TRUE(write({.offset = kLength - 3}, "second"));
  expect_in_step();
  EXPECT_EQ(other->bytes, server_.content(file_));
  sink_->told.clear();
  ASSERT_TRUE(cut(10));
  EXPECT_EQ(other->bytes, server_.content(file_));
  std::ranges::sort(sink_->told);
  EXPECT_EQ(sink_->told, (std::vector<std::uint64_t>{7, 8}));
}

TEST_F(HeldVersionsTest, AnotherClientsChangeBetweenTwoWritersEndsIt) {
  begin();
  ASSERT_TRUE(write({.offset = 5}, "first"));
  close_writer();
  const std::string seen = stored_->bytes;
  others_write(pattern(kLength, 9));
  writer_ = open_to_write();
  ASSERT_TRUE(write({.offset = 100}, "second"));
  expect_left_with(seen);
}

// First law: the write counts, whatever becomes of the cache.
TEST_F(HeldVersionsTest, ACacheThatTakesNoMoreFailsNoWrite) {
  begin();
  ASSERT_TRUE(write({.offset = 5}, "seen"));
  const std::string seen = stored_->bytes;
  disk_.fail_overwrites = 1;
  ASSERT_TRUE(write({.offset = 5}, "unseen"));
  ASSERT_TRUE(write({.offset = 100}, "later"));
  ASSERT_TRUE(sync());
  EXPECT_EQ(server_.content(file_).substr(5, 6), "unseen");
  expect_left_with(seen);
  EXPECT_EQ(share_->statistics().holders_left_behind, 1U);
  EXPECT_GT(share_->statistics().writes_gathered, 0U) << "nobody needs to wait any more";
}

TEST_F(HeldVersionsTest, ADiskThatHangsDelaysAWriteOnceAtMost) {
  begin();
  Answer slow;
  disk_.before_overwrite = [&] {
    stepper_.advance(std::chrono::seconds(7));
    stepper_.run();
    ASSERT_TRUE(*slow && (*slow)->has_value());
    EXPECT_FALSE(writer_->file->held().any_in_step());
    ASSERT_TRUE(write({.offset = 50}, "later")) << "which does not even try";
  };
  slow = start_write({.offset = 5}, "slow");
  stepper_.run();
  ASSERT_TRUE(*slow);
  ASSERT_TRUE(sync());
  EXPECT_EQ(share_->statistics().holders_left_behind, 1U);
  EXPECT_EQ(stored_->bytes.substr(5, 4), "slow") << "it has come in the end, as to the server";
  EXPECT_EQ(stored_->bytes.substr(50, 5), content_.substr(50, 5));
}

// No holder begins in the midst of a change.
TEST_F(HeldVersionsTest, NobodyHoldsWhatCanBeWritten) {
  begin();
  EXPECT_EQ(Share::hold_for_passthrough(*reader_, 9), nullptr);
  ASSERT_TRUE(write({.offset = 5}, "new"));
  close_writer();
  EXPECT_EQ(Share::hold_for_passthrough(*reader_, 9), nullptr) << "not this version any more";
}

TEST_F(HeldVersionsTest, WithoutHoldersWritesAreAnsweredEarlyAgain) {
  begin();
  hold_.reset();
  control_->hold = true;
  const Answer answer = start_write({.offset = 5}, "early");
  EXPECT_TRUE(*answer);
  control_->release();
  stepper_.run();
  EXPECT_EQ(stored_->bytes, content_);
}

// A mapping is there after its file was closed; or it is not.
TEST_F(HeldVersionsTest, WhoClosedItSeesOnAsLongAsHeHasItMapped) {
  for (const bool mapped : {true, false}) {
    SCOPED_TRACE(mapped);
    begin();
    hold_->note_closed();
    stored_->open_elsewhere = mapped;
    ASSERT_TRUE(write({.offset = 5}, "new"));
    EXPECT_EQ(stored_->bytes == server_.content(file_), mapped);
    EXPECT_EQ(writer_->file->held().any_in_step(), mapped);
    EXPECT_EQ(share_->statistics().holders_left_behind, 0U);
    TearDown();
    server_.remove("file");
    disk_.volumes.clear();
  }
}

// Second law, under load: after each change the reader sees the server's bytes, or what it saw
// before others, or a failure, ended that.
TEST_F(HeldVersionsTest, WhateverIsDoneTheReaderSeesWhatTheServerHad) {
  std::mt19937 random(static_cast<unsigned>(::testing::UnitTest::GetInstance()->random_seed()) + 1);
  const auto below = [&random](std::uint64_t end) { return static_cast<unsigned>(random() % end); };
  for (int run = 0; run < 30; ++run) {
    SCOPED_TRACE(run);
    server_.tells_before = run % 2 == 0;
    server_.write_size = 1000 + below(50'000);
    begin();
    bool over = false;
    for (int step = 0; step < 60 && !over; ++step) {
      const std::uint64_t offset = below(server_.content(file_).size() + 5000);
      const std::string text = pattern(1 + below(80'000), below(1000));
      switch (below(8)) {
        case 0:
          ASSERT_TRUE(cut(offset));
          break;
        case 1:
          ASSERT_TRUE(write({.append = true}, text));
          break;
        case 2:
          ASSERT_TRUE(sync());
          break;
        case 3:
          static_cast<void>(start_write({.offset = offset}, text));
          static_cast<void>(start_write({.offset = offset / 2}, text));
          stepper_.run();
          break;
        default:
          ASSERT_TRUE(write({.offset = offset}, text));
      }
      expect_in_step();
      if (below(40) == 0) {
        const std::string seen = stored_->bytes;
        others_write(pattern(kLength + below(3), 5));
        ASSERT_TRUE(write({.offset = offset}, text));
        expect_left_with(seen);
        over = true;
      }
    }
    TearDown();
    server_.remove("file");
    disk_.volumes.clear();
  }
}

}  // namespace
}  // namespace larder::netfs
