#include "netfs/share.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/error.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/credential.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/read_request.h"
#include "netfs/share_fixture_test.h"
#include "netfs/version.h"
#include "testing/fake_server.h"
#include "testing/memory_backend.h"

namespace larder::netfs {
namespace {

TEST_F(ShareTest, ReadsWhatTheServerHas) {
  server_.add_file("small", pattern(1000, 1));
  server_.add_file("large", pattern(3'000'001, 2));
  server_.add_file("empty", "");
  mount();
  EXPECT_EQ(cat("small").value(), pattern(1000, 1));
  EXPECT_EQ(cat("large").value(), pattern(3'000'001, 2));
  EXPECT_EQ(cat("empty").value(), "");
  EXPECT_EQ(cat("absent").error().error_number(), ENOENT);
}

// The point of the product: what was read once is not read from the server again.
TEST_F(ShareTest, ReadsFromTheCacheAfterARemount) {
  server_.add_file("small", pattern(1000, 1));
  server_.add_file("large", pattern(3'000'001, 2));
  mount();
  ASSERT_TRUE(cat("small"));
  ASSERT_TRUE(cat("large"));
  unmount();
  server_.calls.clear();
  mount();
  EXPECT_EQ(cat("small").value(), pattern(1000, 1));
  EXPECT_EQ(cat("large").value(), pattern(3'000'001, 2));
  EXPECT_EQ(server_.calls["READ"], 0U);
  EXPECT_EQ(share_->statistics().bytes_from_server, 0U);
  EXPECT_EQ(share_->statistics().misses, 0U);
  EXPECT_GT(share_->statistics().hits, 0U);
}

// An administrator judges the cache by this ratio.
TEST_F(ShareTest, CountsAReadOfASmallFileThatTheOpenFetchedAsAMiss) {
  server_.add_file("small", pattern(1000, 1));
  mount();
  ASSERT_TRUE(cat("small"));
  EXPECT_EQ(share_->statistics().misses, 1U);
  EXPECT_EQ(share_->statistics().hits, 0U);
  ASSERT_TRUE(cat("small"));
  EXPECT_EQ(share_->statistics().hits, 1U);
}

// Random reads that happen to fill a file have no readahead whose credential could be borrowed.
TEST_F(ShareTest, AFileFilledByRandomReadsBecomesComplete) {
  server_.add_file("file", pattern(640 * 1024, 1));
  mount();
  const auto inode = look_up("file");
  const auto opened = open(*inode);
  ASSERT_TRUE(opened);
  for (const std::uint64_t cell : {9U, 3U, 7U, 1U, 5U, 0U, 8U, 2U, 6U, 4U}) {
    ASSERT_TRUE(read(*opened, {cell * 65536, 100}));
    stepper_.run();
  }
  EXPECT_TRUE(opened->version->cookie->complete());
}

// Or an engine that ended in between would leave it to the cache's reads for ever.
TEST_F(ShareTest, AFileThatLacksOnlyTheMarkIsMarkedByALaterOpen) {
  server_.add_file("file", pattern(640 * 1024, 1));
  disk_.fail_completions = 2;
  mount();
  ASSERT_TRUE(cat("file"));
  const auto inode = look_up("file");
  const auto opened = open(*inode);  // the second try
  stepper_.run();
  EXPECT_TRUE(opened->version->cookie->has_everything());
  EXPECT_FALSE(opened->version->cookie->complete());
  ASSERT_TRUE(open(*inode));
  stepper_.run();
  EXPECT_FALSE(opened->version->cookie->complete()) << "tried again at once";
  stepper_.advance(std::chrono::seconds(10));
  ASSERT_TRUE(open(*inode));
  stepper_.run();
  EXPECT_TRUE(opened->version->cookie->complete());
}

TEST_F(ShareTest, WorksWithoutACache) {
  with_cache_ = false;
  server_.add_file("large", pattern(3'000'001, 2));
  mount();
  EXPECT_EQ(cat("large").value(), pattern(3'000'001, 2));
}

TEST_F(ShareTest, FetchesAChangedFileAgain) {
  const std::uint64_t file = server_.add_file("file", pattern(300'000, 1));
  mount();
  ASSERT_TRUE(cat("file"));
  stepper_.advance(std::chrono::seconds(1));
  server_.write_file(file, pattern(300'000, 9));
  EXPECT_EQ(cat("file").value(), pattern(300'000, 9));
}

// Equal size and equal stamps: only the rule of the settling time finds such a change.
TEST_F(ShareTest, FetchesARacyFileAgainWhenItHasSettled) {
  server_.granularity = {1, 0};
  server_.say_granularity = false;
  mount();
  const std::uint64_t file = server_.add_file("file", pattern(300'000, 1));
  ASSERT_EQ(cat("file").value(), pattern(300'000, 1));
  server_.write_file(file, pattern(300'000, 9));  // within the same second
  stepper_.advance(std::chrono::seconds(10));
  EXPECT_EQ(cat("file").value(), pattern(300'000, 9));
  server_.calls.clear();
  EXPECT_EQ(cat("file").value(), pattern(300'000, 9));
  EXPECT_EQ(server_.calls["READ"], 0U) << "fetched again once, not for ever";
}

TEST_F(ShareTest, ReadersOfOneRangeShareOneDownload) {
  server_.add_file("file", pattern(200'000, 1));
  mount();
  const auto inode = look_up("file");
  ASSERT_TRUE(inode);
  const auto opened = open(*inode);
  ASSERT_TRUE(opened);
  server_.calls.clear();
  int answered = 0;
  for (int i = 0; i < 16; ++i) {
    share_->read(*opened, {0, 4096}, std::make_shared<CallScope>(),
                 [&answered](const Result<ReadOutcome>& outcome) {
                   answered +=
                       outcome && text_of_outcome(*outcome) == pattern(200'000, 1).substr(0, 4096);
                 });
  }
  stepper_.run();
  EXPECT_EQ(answered, 16);
  EXPECT_EQ(server_.calls["READ"], 1U);
}

TEST_F(ShareTest, AnInterruptEndsAReadThatWaits) {
  server_.add_file("file", pattern(200'000, 1));
  mount();
  const auto inode = look_up("file");
  const auto opened = open(*inode);
  ASSERT_TRUE(opened);
  control_->hold = true;
  auto scope = std::make_shared<CallScope>();
  std::optional<Result<ReadOutcome>> answer;
  share_->read(*opened, {0, 4096}, scope,
               [&](Result<ReadOutcome> outcome) { answer = std::move(outcome); });
  stepper_.run();
  ASSERT_FALSE(answer);
  scope->cancel();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->error().code(), Errc::kCancelled);
  control_->release();
  stepper_.run();
  EXPECT_EQ(read(*opened, {0, 4096}).value(), pattern(200'000, 1).substr(0, 4096));
}

// open(2) of a small file fetches it: on a server that stalls, ^C must end it.
TEST_F(ShareTest, AnInterruptEndsAnOpenThatWaitsForASmallFile) {
  server_.add_file("small", pattern(1000, 1));
  mount();
  const auto inode = look_up("small");
  const auto opened =
      wait<OpenFile>([&](auto done) { share_->open(*inode, {}, caller_, std::move(done)); });
  ASSERT_TRUE(opened);
  control_->hold = true;
  const Caller caller{caller_.credential, std::make_shared<CallScope>()};
  std::optional<Result<VersionRef>> answer;
  share_->prepare(*opened, caller,
                  [&](Result<VersionRef> version) { answer = std::move(version); });
  expect_interruptible(caller, answer);
  EXPECT_EQ(cat("small").value(), pattern(1000, 1));
}

// The answer may begin the next wait before the first call's start returns: ^C must end the wait.
TEST_F(ShareTest, AnInterruptEndsALookupWhoseFirstAnswerWasFasterThanItsStart) {
  server_.add_file("file", pattern(1000, 1));
  server_.post_op_attributes = false;  // a LOOKUP then needs a GETATTR behind it
  mount();
  control_->at_once = 1;
  control_->hold = true;
  const Caller caller{caller_.credential, std::make_shared<CallScope>()};
  std::optional<Result<LookupOutcome>> answer;
  share_->lookup(share_->root(), "file", caller,
                 [&](Result<LookupOutcome> outcome) { answer = std::move(outcome); });
  expect_interruptible(caller, answer);
}

TEST_F(ShareTest, AnInterruptEndsAnOpenWhoseFirstAnswerWasFasterThanItsStart) {
  server_.add_file("file", pattern(1000, 1));
  server_.post_op_attributes = false;  // an ACCESS then needs a GETATTR behind it
  mount();
  const auto inode = look_up("file");
  ASSERT_TRUE(inode);
  control_->at_once = 1;
  control_->hold = true;
  const Caller caller{caller_.credential, std::make_shared<CallScope>()};
  std::optional<Result<OpenFile>> answer;
  share_->open(*inode, {}, caller, [&](Result<OpenFile> opened) { answer = std::move(opened); });
  expect_interruptible(caller, answer);
}

// First law: whatever the cache does, the bytes come from the server.
TEST_F(ShareTest, ReadsGoOnWhenTheCacheFails) {
  server_.add_file("file", pattern(500'000, 1));
  mount();
  ASSERT_TRUE(cat("file"));
  disk_.fail_reads = 2;
  EXPECT_EQ(cat("file").value(), pattern(500'000, 1));
  disk_.fail_writes = 100;
  server_.add_file("other", pattern(500'000, 2));
  EXPECT_EQ(cat("other").value(), pattern(500'000, 2));
  disk_.dead = true;
  EXPECT_EQ(cat("file").value(), pattern(500'000, 1));
  EXPECT_EQ(cat("other").value(), pattern(500'000, 2));
  EXPECT_EQ(cache_->status().state, fscache::CacheState::kError);
  EXPECT_NE(cache_->status().trouble, "");
}

// What the disk delivers in the end must not get into what the reader has by then.
TEST_F(ShareTest, AReadThatHangsOnTheDiskIsServedFromTheServer) {
  const std::string content = pattern(200'000, 1);
  server_.add_file("file", content);
  mount();
  ASSERT_EQ(cat("file").value(), content);
  unmount();  // nothing is in memory
  mount();
  const auto opened = open(*look_up("file"));
  ASSERT_TRUE(opened);
  const std::uint64_t calls = server_.calls["READ"];
  std::optional<Result<ReadOutcome>> answer;
  int hung = 0;
  disk_.before_read = [&] {
    if (++hung > 1) {
      return;
    }
    stepper_.advance(std::chrono::seconds(7));
    stepper_.run();
    EXPECT_EQ(cache_->status().state, fscache::CacheState::kSuspended);
    ASSERT_TRUE(answer && answer->has_value()) << "the reader waits for the disk";
    EXPECT_EQ(read(*opened, {100'000, 4096}).value(), content.substr(100'000, 4096));
    EXPECT_EQ(hung, 1) << "others do not even try";
    for (auto& [volume, objects] : disk_.volumes) {
      for (auto& [key, stored] : objects) {
        std::ranges::fill(stored->bytes, '!');
      }
    }
  };
  share_->read(*opened, {0, 4096}, std::make_shared<CallScope>(),
               [&](Result<ReadOutcome> outcome) { answer = std::move(outcome); });
  stepper_.run();
  EXPECT_EQ(hung, 1);
  ASSERT_TRUE(answer && answer->has_value());
  EXPECT_EQ(text_of_outcome(**answer), content.substr(0, 4096));
  EXPECT_GT(server_.calls["READ"], calls);
  EXPECT_EQ(cache_->status().state, fscache::CacheState::kActive) << "the disk answers again";
}

TEST_F(ShareTest, ACacheThatAppearsLaterIsUsed) {
  with_cache_ = false;
  server_.add_file("file", pattern(500'000, 1));
  mount();
  ASSERT_TRUE(cat("file"));
  ASSERT_TRUE(cache_->add_backend(testing::make_memory_backend(disk_)));
  stepper_.advance(std::chrono::seconds(30));  // the file is not remembered any more
  stepper_.run();
  ASSERT_TRUE(cat("file"));
  server_.calls.clear();
  EXPECT_EQ(cat("file").value(), pattern(500'000, 1));
  EXPECT_EQ(server_.calls["READ"], 0U);
}

TEST_F(ShareTest, RepliesWithoutAttributesAreServedAndKept) {
  server_.add_file("file", pattern(300'000, 1));
  server_.add_file("small", pattern(300, 2));
  server_.post_op_attributes = false;
  mount();
  EXPECT_EQ(cat("file").value(), pattern(300'000, 1));
  EXPECT_EQ(cat("small").value(), pattern(300, 2));
  server_.calls.clear();
  EXPECT_EQ(cat("file").value(), pattern(300'000, 1));
  EXPECT_EQ(cat("small").value(), pattern(300, 2));
  EXPECT_EQ(server_.calls["READ"], 0U);
}

TEST_F(ShareTest, AServerOfSmallReadsIsAskedOften) {
  server_.read_size = 10'000;  // not a power of two, and smaller than a small file
  server_.add_file("file", pattern(300'000, 1));
  server_.add_file("small", pattern(60'000, 2));
  mount();
  EXPECT_EQ(cat("file").value(), pattern(300'000, 1));
  EXPECT_EQ(cat("small").value(), pattern(60'000, 2));
  server_.calls.clear();
  EXPECT_EQ(cat("small").value(), pattern(60'000, 2));
  EXPECT_EQ(server_.calls["READ"], 0U);
}

// To the kernel an answer that is shorter than asked is the end of the file.
TEST_F(ShareTest, AReadOfAFileThatChangesAllTheTimeIsNotCutShort) {
  constexpr std::uint64_t kSize = 300'000;
  server_.read_size = 10'000;
  const std::uint64_t file = server_.add_file("file", pattern(kSize, 1));
  mount();
  const auto opened = open(look_up("file").value());
  ASSERT_TRUE(opened);
  unsigned round = 1;
  server_.before_read = [&] {
    stepper_.advance(std::chrono::milliseconds(10));
    server_.write_file(file, pattern(kSize, ++round));
  };
  const ByteRange wanted{100'000, 131'072};
  const auto read = wait<ReadOutcome>(
      [&](auto done) { share_->read(*opened, wanted, nullptr, std::move(done)); });
  ASSERT_TRUE(read);
  EXPECT_EQ(read->version, nullptr) << "nobody may keep it";
  EXPECT_EQ(read->length, wanted.length);
  const auto to_end = wait<ReadOutcome>([&](auto done) {
    share_->read(*opened, {kSize - 15'000, 131'072}, nullptr, std::move(done));
  });
  ASSERT_TRUE(to_end);
  EXPECT_EQ(to_end->length, 15'000U);
}

// AUTH_SYS carries 16 groups: the one that opens the file must be among them.
TEST(CredentialTest, TheFilesGroupComesFirstWhenThereAreTooMany) {
  Credential many{1000, 1000, {}};
  for (std::uint32_t group = 1; group <= 20; ++group) {
    many.groups.push_back(group);
  }
  const auto credential = std::make_shared<const Credential>(many);
  const CredentialRef reordered = with_group_first(credential, 19);
  EXPECT_EQ(reordered->groups.front(), 19U);
  EXPECT_EQ(reordered->groups.size(), 20U);
  EXPECT_EQ(reordered->groups[1], 1U);
  EXPECT_EQ(with_group_first(credential, 77), credential) << "not a member";
}

TEST_F(ShareTest, TheServerDecidesWhoMayOpen) {
  server_.add_file("file", "secret");
  mount();
  ASSERT_TRUE(cat("file"));
  server_.denied_uid = 1000;
  caller_.credential = std::make_shared<const Credential>(Credential{1000, 1000, {}});
  EXPECT_EQ(cat("file").error().error_number(), EACCES);
}

TEST_F(ShareTest, AFileRemovedOnTheServerIsStale) {
  server_.add_file("file", pattern(100'000, 1));
  mount();
  const auto inode = look_up("file");
  ASSERT_TRUE(inode);
  server_.remove("file");
  EXPECT_EQ(open(*inode).error().error_number(), ESTALE);
}

class CountingSink final : public InvalidationSink {
 public:
  void data_changed(const Inode& /*inode*/) override { ++count; }

  void attributes_changed(std::uint64_t /*holder*/) override {}

  bool give_room() override { return false; }

  int count = 0;
};

// A page cache above must not keep pages of a version that is gone.
TEST_F(ShareTest, TellsOfAChangeOnlyWhenNoOldReplyIsUnderWay) {
  const std::uint64_t file = server_.add_file("file", pattern(300'000, 1));
  mount();
  auto sink = std::make_shared<CountingSink>();
  share_->set_invalidation_sink(sink);
  const auto inode = look_up("file");
  const auto opened = open(*inode);
  ASSERT_TRUE(opened);
  ASSERT_TRUE(opened->file->begin_reply(opened->version));
  stepper_.advance(std::chrono::seconds(5));
  server_.write_file(file, pattern(300'000, 2));
  ASSERT_TRUE(open(*inode));
  EXPECT_EQ(sink->count, 0);
  EXPECT_FALSE(opened->file->begin_reply(opened->version)) << "the old version is gone";
  opened->file->end_reply();
  EXPECT_EQ(sink->count, 1);
}

TEST_F(ShareTest, WhatIsFlushedIsFlushedInTheFrontEndToo) {
  server_.add_file("file", pattern(1000, 1));
  mount();
  auto sink = std::make_shared<CountingSink>();
  share_->set_invalidation_sink(sink);
  const auto inode = look_up("file");
  ASSERT_TRUE(inode);
  for (const bool is_open : {false, true}) {
    std::optional<Result<OpenFile>> held;
    if (is_open) {
      held = open(*inode);
    }
    sink->count = 0;
    EXPECT_TRUE(wait<void>([&](auto done) { share_->flush(*inode, std::move(done)); }));
    EXPECT_EQ(sink->count, 1);
  }
}

// Nobody has the file open, so no page is out of date; but the size that the front end knows is,
// and whoever opens the file now shall not read up to there only.
TEST_F(ShareTest, AnOpenThatFindsAChangeMarksWhatTheFrontEndKnows) {
  const std::uint64_t file = server_.add_file("file", pattern(1000, 1));
  mount();
  const auto inode = look_up("file");
  ASSERT_TRUE(inode);
  EXPECT_FALSE((*inode)->take_front_outdated());
  stepper_.advance(std::chrono::seconds(1));  // its attributes are fresh still
  server_.write_file(file, pattern(2000, 2));
  ASSERT_TRUE(open(*inode));
  EXPECT_TRUE((*inode)->take_front_outdated());
  ASSERT_TRUE(open(*inode));
  EXPECT_FALSE((*inode)->take_front_outdated()) << "nothing changed in between";
}

// Its threads may run the very callback that tells of the failure: it cannot be destroyed there.
TEST_F(ShareTest, AnAdapterThatDoesNotConnectIsHandedBackBeforeTheError) {
  auto adapter = std::make_unique<FakeAdapter>(server_, stepper_);
  adapter->control()->errors.emplace_back(Errc::kRemote, ENOENT, "no such export");
  bool told = false;
  std::unique_ptr<Adapter> failed;
  Share::start_mount(
      std::move(adapter), stepper_, cache_, {},
      [&](const Result<std::unique_ptr<Share>>& share) {
        told = true;
        EXPECT_EQ(share.error().error_number(), ENOENT);
        EXPECT_NE(failed, nullptr);
      },
      [&](std::unique_ptr<Adapter> adapter_back) { failed = std::move(adapter_back); });
  stepper_.run();
  EXPECT_TRUE(told);
  ASSERT_NE(failed, nullptr);
  failed->shut_down();
}

}  // namespace
}  // namespace larder::netfs
