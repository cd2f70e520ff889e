#include "netfs/share.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/credential.h"
#include "netfs/directory_stream.h"
#include "netfs/inode.h"
#include "netfs/invalidation.h"
#include "netfs/read_request.h"
#include "netfs/share_context.h"
#include "testing/fake_server.h"
#include "testing/memory_backend.h"
#include "testing/stepper.h"

namespace larder::netfs {
namespace {

using testing::FakeAdapter;
using testing::FakeServer;
using testing::MemoryDisk;
using testing::Stepper;

constexpr auto kLongEnough = std::chrono::hours(1);

std::string text_of_outcome(const ReadOutcome& outcome) {
  std::string text;
  for (const auto& slice : outcome.slices) {
    text += text_of(slice.bytes);
  }
  return text;
}

std::string pattern(std::size_t size, unsigned seed) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 131 + i / 4096 + seed * 7919) & 0xff);
  }
  return text;
}

// A share of a fake server with a cache in memory, under a stepper.
class ShareTest : public ::testing::Test {
 protected:
  ShareTest() { cache_ = caches_.find_or_make("test"); }

  void TearDown() override {
    unmount();
    cache_->withdraw([] {});
    stepper_.run();
  }

  void mount(ShareOptions options = {}) {
    if (cache_->online() == nullptr && with_cache_) {
      ASSERT_TRUE(cache_->add_backend(testing::make_memory_backend(disk_)));
    }
    auto adapter = std::make_unique<FakeAdapter>(server_, stepper_);
    control_ = adapter->control();
    std::optional<Result<std::unique_ptr<Share>>> mounted;
    Share::start_mount(
        std::move(adapter), stepper_, cache_, options,
        [&](Result<std::unique_ptr<Share>> share) { mounted = std::move(share); },
        [&](std::unique_ptr<Adapter> failed) { retired_ = std::move(failed); });
    stepper_.run();
    ASSERT_TRUE(mounted && mounted->has_value());
    share_ = std::move(**mounted);
    // Everything that was made before is older than the server's clock is known to be.
    stepper_.advance(std::chrono::seconds(10));
    stepper_.run();
  }

  void unmount() {
    if (share_ != nullptr) {
      share_->shut_down();
      stepper_.run();
      share_.reset();
      stepper_.run();
    }
  }

  // Runs until the answer of an asynchronous call is there.
  template <class T, class Start>
  Result<T> wait(Start start) {
    std::optional<Result<T>> answer;
    start([&answer](Result<T> result) { answer = std::move(result); });
    stepper_.run_until([&] { return answer.has_value(); }, kLongEnough);
    if (!answer) {
      return fail(Errc::kTimedOut, "no answer");
    }
    return std::move(*answer);
  }

  // What waits for a held call is not answered until its caller is interrupted, and then at once.
  template <class T>
  void expect_interruptible(const Caller& caller, const std::optional<Result<T>>& answer) {
    stepper_.run();
    ASSERT_FALSE(answer);
    caller.scope->cancel();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->error().code(), Errc::kCancelled);
    control_->release();
    stepper_.run();
  }

  Result<InodeRef> look_up(const std::string& name) {
    auto outcome = wait<LookupOutcome>(
        [&](auto done) { share_->lookup(share_->root(), name, caller_, std::move(done)); });
    if (!outcome) {
      return fail(outcome.error());
    }
    return outcome->inode;
  }

  Result<OpenFile> open(const InodeRef& inode) {
    OpenFile opened =
        TRY(wait<OpenFile>([&](auto done) { share_->open(inode, {}, caller_, std::move(done)); }));
    opened.version = TRY(
        wait<VersionRef>([&](auto done) { share_->prepare(opened, caller_, std::move(done)); }));
    return opened;
  }

  Result<std::string> read(const OpenFile& opened, ByteRange range) {
    const ReadOutcome outcome = TRY(wait<ReadOutcome>([&](auto done) {
      share_->read(opened, range, std::make_shared<CallScope>(), std::move(done));
    }));
    return text_of_outcome(outcome);
  }

  Result<std::shared_ptr<DirectoryStream>> open_directory() {
    return wait<std::shared_ptr<DirectoryStream>>(
        [&](auto done) { share_->open_directory(share_->root(), caller_, std::move(done)); });
  }

  // To the end of the listing.
  Result<> load_all(const std::shared_ptr<DirectoryStream>& stream) {
    std::optional<Result<>> loaded;
    stream->load(1'000'000, caller_, [&](Result<> result) { loaded = std::move(result); });
    stepper_.run();
    return loaded ? std::move(*loaded) : fail(Errc::kTimedOut, "no answer");
  }

  // As `ls` would.
  void list() {
    const auto stream = open_directory();
    ASSERT_TRUE(stream);
    ASSERT_TRUE(load_all(*stream));
  }

  // As `cat` would: open, read to the end, close.
  Result<std::string> cat(const std::string& name) {
    const InodeRef inode = TRY(look_up(name));
    const OpenFile opened = TRY(open(inode));
    std::string text;
    while (true) {
      const std::string piece = TRY(read(opened, {text.size(), 128 * 1024}));
      if (piece.empty()) {
        break;
      }
      text += piece;
    }
    share_->closed(opened.file);
    stepper_.run();
    return text;
  }

  Stepper stepper_{
      ::testing::UnitTest::GetInstance()->random_seed() == 0
          ? 1U
          : static_cast<std::uint64_t>(::testing::UnitTest::GetInstance()->random_seed())};
  FakeServer server_{stepper_.clock()};
  MemoryDisk disk_;
  fscache::Caches caches_{stepper_};
  std::shared_ptr<fscache::Cache> cache_;
  bool with_cache_ = true;
  std::shared_ptr<FakeAdapter::Control> control_;
  std::unique_ptr<Share> share_;
  std::unique_ptr<Adapter> retired_;
  Caller caller_{std::make_shared<const Credential>(), nullptr};
};

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

// What readahead brought is handed on from memory: written to the cache, but not read back from it.
TEST_F(ShareTest, SequentialReadsAreHandedOnFromMemory) {
  const std::string content = pattern(20 << 20, 3);
  server_.add_file("file", content);
  mount();
  EXPECT_EQ(cat("file").value(), content);
  EXPECT_EQ(share_->statistics().bytes_from_cache, 0U);
  EXPECT_GE(share_->statistics().bytes_handed_on, content.size() * 9 / 10);
  EXPECT_EQ(share_->statistics().bytes_from_server, content.size());
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  EXPECT_EQ(cat("file").value(), content);
  EXPECT_EQ(share_->statistics().bytes_from_cache, content.size());
}

TEST_F(ShareTest, MemoryDoesNotWaitForAReaderThatStopped) {
  const std::string content = pattern(32 << 20, 3);
  server_.add_file("file", content);
  mount();
  const auto opened = open(*look_up("file"));
  ASSERT_TRUE(opened);
  for (std::uint64_t at = 0; at < (std::uint64_t{5} << 20); at += 128 * 1024) {
    ASSERT_EQ(read(*opened, {at, 128 * 1024}).value(), content.substr(at, 128 * 1024));
  }
  stepper_.run();
  EXPECT_GT(share_->statistics().held_bytes, 0U);
  EXPECT_LT(server_.bytes_read, content.size()) << "downloads wait for the reader ...";
  for (int i = 0; i < 3; ++i) {
    stepper_.advance(std::chrono::seconds(1));
    stepper_.run();
  }
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  EXPECT_EQ(server_.bytes_read, content.size()) << "... but not for ever";
  EXPECT_EQ(read(*opened, {20 << 20, 4096}).value(), content.substr(20 << 20, 4096));
  EXPECT_EQ(share_->statistics().bytes_from_cache, 4096U);
}

TEST_F(ShareTest, TheLastCloseLetsGoOfMemory) {
  const std::string content = pattern(32 << 20, 3);
  server_.add_file("file", content);
  mount();
  const auto opened = open(*look_up("file"));
  for (std::uint64_t at = 0; at < (std::uint64_t{5} << 20); at += 128 * 1024) {
    ASSERT_TRUE(read(*opened, {at, 128 * 1024}));
  }
  stepper_.run();
  ASSERT_GT(share_->statistics().held_bytes, 0U);
  share_->closed(opened->file);
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  stepper_.run();
  EXPECT_EQ(server_.bytes_read, content.size());
}

// Second law: what was downloaded of one version is not handed on once another one is known.
TEST_F(ShareTest, WhatIsHeldGoesWithItsVersion) {
  const std::string old_content = pattern(28 << 20, 3);
  const std::string new_content = pattern(28 << 20, 4);
  const std::uint64_t file = server_.add_file("file", old_content);
  mount();
  const auto opened = open(*look_up("file"));
  for (std::uint64_t at = 0; at < (std::uint64_t{5} << 20); at += 128 * 1024) {
    ASSERT_EQ(read(*opened, {at, 128 * 1024}).value(), old_content.substr(at, 128 * 1024));
  }
  stepper_.run();
  ASSERT_GT(share_->statistics().held_bytes, 0U);
  stepper_.advance(std::chrono::milliseconds(10));
  server_.write_file(file, new_content);
  const auto again = open(opened->file->inode());
  ASSERT_TRUE(again);
  EXPECT_EQ(share_->statistics().held_bytes, 0U);
  EXPECT_EQ(read(*opened, {5 << 20, 1 << 20}).value(), new_content.substr(5 << 20, 1 << 20));
}

TEST_F(ShareTest, ManyReadersShareABoundOfMemory) {
  constexpr int kFiles = 6;
  mount();
  std::vector<OpenFile> opens;
  for (int i = 0; i < kFiles; ++i) {
    const std::string name = "file" + std::to_string(i);
    server_.add_file(name, pattern(20 << 20, 1));
    stepper_.advance(std::chrono::milliseconds(1));
    opens.push_back(open(*look_up(name)).value());
  }
  std::uint64_t most = 0;
  for (std::uint64_t at = 0; at < (std::uint64_t{3} << 20); at += 128 * 1024) {
    for (const OpenFile& opened : opens) {
      ASSERT_TRUE(read(opened, {at, 128 * 1024}));
      stepper_.run();
      most = std::max(most, share_->statistics().held_bytes);
    }
  }
  EXPECT_GT(most, std::uint64_t{32} << 20);
  EXPECT_LE(most, ShareContext::kMostHeldBytes);
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
  int round = 1;
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

TEST_F(ShareTest, ListsEveryNameOnce) {
  for (int i = 0; i < 1234; ++i) {
    server_.add_file("f" + std::to_string(i), "");
  }
  mount();
  auto stream = wait<std::shared_ptr<DirectoryStream>>(
      [&](auto done) { share_->open_directory(share_->root(), caller_, std::move(done)); });
  ASSERT_TRUE(stream);
  std::size_t index = 0;
  while (true) {
    std::optional<Result<>> loaded;
    (*stream)->load(index, caller_, [&](Result<> result) { loaded = std::move(result); });
    stepper_.run();
    ASSERT_TRUE(loaded && loaded->has_value());
    const std::size_t before = index;
    (*stream)->visit(index, [&](std::size_t at, const ListedEntry& entry) {
      EXPECT_EQ(entry.name, "f" + std::to_string(at));
      ++index;
      return true;
    });
    if (index == before) {
      break;
    }
  }
  EXPECT_EQ(index, 1234U);
}

// Two threads may read one directory stream: ^C is for one of them.
TEST_F(ShareTest, AnInterruptEndsOneOfTwoWaitsForAListing) {
  server_.add_file("file", "");
  mount();
  for (const bool first_is_interrupted : {true, false}) {
    const auto stream = open_directory();
    ASSERT_TRUE(stream);
    control_->hold = true;
    const std::uint64_t calls = server_.calls["READDIR"];
    const Caller interrupted{caller_.credential, std::make_shared<CallScope>()};
    const Caller other{caller_.credential, std::make_shared<CallScope>()};
    std::optional<Result<>> cancelled;
    std::optional<Result<>> listed;
    const auto wait_interrupted = [&] {
      (*stream)->load(0, interrupted, [&](Result<> result) { cancelled = std::move(result); });
    };
    const auto wait_other = [&] {
      (*stream)->load(0, other, [&](Result<> result) { listed = std::move(result); });
    };
    first_is_interrupted ? wait_interrupted() : wait_other();
    first_is_interrupted ? wait_other() : wait_interrupted();
    stepper_.run();
    interrupted.scope->cancel();
    ASSERT_TRUE(cancelled);
    EXPECT_EQ(cancelled->error().code(), Errc::kCancelled);
    EXPECT_FALSE(listed);
    control_->release();
    stepper_.run();
    ASSERT_TRUE(listed);
    EXPECT_TRUE(listed->has_value());
    EXPECT_EQ(server_.calls["READDIR"], calls + 1) << "both shared one call";
  }
}

// The call ends with its last waiter; who comes before its end is heard of has one of his own.
TEST_F(ShareTest, AnInterruptOfEveryWaitForAListingEndsItsCall) {
  server_.add_file("file", "");
  mount();
  const auto stream = open_directory();
  ASSERT_TRUE(stream);
  control_->hold = true;
  std::vector<Caller> callers;
  std::vector<Result<>> ends;
  for (int i = 0; i < 2; ++i) {
    callers.push_back({caller_.credential, std::make_shared<CallScope>()});
    (*stream)->load(0, callers.back(), [&](Result<> result) { ends.push_back(std::move(result)); });
  }
  stepper_.run();
  for (const Caller& caller : callers) {
    caller.scope->cancel();
  }
  ASSERT_EQ(ends.size(), 2U);
  EXPECT_EQ(ends[0].error().code(), Errc::kCancelled);
  EXPECT_EQ(ends[1].error().code(), Errc::kCancelled);
  const std::uint64_t calls = server_.calls["READDIR"];
  control_->release();
  stepper_.run();
  EXPECT_EQ(server_.calls["READDIR"], calls) << "the call that nobody waits for went on";
  EXPECT_TRUE(load_all(*stream));
}

class CountingSink final : public InvalidationSink {
 public:
  void data_changed(const Inode& /*inode*/) override { ++count; }

  int count = 0;
};

// A page cache above must not keep pages of a version that is gone.
TEST_F(ShareTest, NamesThatWereJustListedAreNotLookedUp) {
  for (int i = 0; i < 250; ++i) {
    server_.add_file("name" + std::to_string(i), pattern(100, 1));
  }
  mount();
  list();
  server_.calls.clear();
  for (int i = 0; i < 250; ++i) {
    const auto inode = look_up("name" + std::to_string(i));
    ASSERT_TRUE(inode);
    EXPECT_EQ((*inode)->attributes().attributes.size, 100U);
  }
  EXPECT_EQ(server_.calls["LOOKUP"] + server_.calls["GETATTR"], 0U);
  EXPECT_EQ(share_->statistics().listed_lookups, 250U);
  EXPECT_EQ(cat("name7").value(), pattern(100, 1));
}

// Attributes from a listing grow old from the moment of the listing, not of the LOOKUP.
TEST_F(ShareTest, AListedNameIsGoodForNoLongerThanItsAttributes) {
  server_.add_file("early", "a");
  server_.add_file("late", "b");
  mount();
  list();
  server_.calls.clear();
  stepper_.advance(std::chrono::milliseconds(2900));
  const auto early = look_up("early");
  ASSERT_TRUE(early);
  EXPECT_EQ(server_.calls["LOOKUP"], 0U);
  EXPECT_LE((*early)->attributes().fresh_for, std::chrono::milliseconds(100));
  EXPECT_GT((*early)->attributes().fresh_for, std::chrono::milliseconds(0));
  stepper_.advance(std::chrono::milliseconds(100));
  ASSERT_TRUE(look_up("late"));
  EXPECT_EQ(server_.calls["LOOKUP"], 1U);
}

TEST_F(ShareTest, AListedNameIsForgottenWhenItsDirectoryIsSeenChanged) {
  server_.add_file("file", "old");
  server_.add_file("other", "b");
  mount();
  list();
  stepper_.advance(std::chrono::milliseconds(10));
  server_.remove("file");
  const std::uint64_t fresh = server_.add_file("file", "new one");
  ASSERT_FALSE(look_up("no such name"));  // says nothing of the directory
  ASSERT_TRUE(open_directory());          // but this does
  server_.calls.clear();
  const auto inode = look_up("file");
  ASSERT_TRUE(inode);
  EXPECT_EQ((*inode)->attributes().attributes.fileid, fresh);
  EXPECT_EQ(server_.calls["LOOKUP"], 1U);
}

TEST_F(ShareTest, AChangeWhileADirectoryIsListedSpoilsItsNames) {
  for (int i = 0; i < 150; ++i) {
    server_.add_file("name" + std::to_string(i), "a");
  }
  mount();
  const auto stream = open_directory();
  ASSERT_TRUE(stream);
  stepper_.advance(std::chrono::milliseconds(10));
  server_.add_file("more", "b");  // between ACCESS and READDIR
  ASSERT_TRUE(load_all(*stream));
  server_.calls.clear();
  const auto first = look_up("name1");
  ASSERT_TRUE(first);
  EXPECT_EQ(server_.calls["LOOKUP"], 1U) << "the first answer's names may be of either version";
  ASSERT_TRUE(look_up("name120"));
  EXPECT_EQ(server_.calls["LOOKUP"], 1U) << "the second answer's are of the new one";
}

TEST_F(ShareTest, ListedNamesAreTheListersAlone) {
  server_.add_file("file", "a");
  mount();
  list();
  server_.calls.clear();
  caller_.credential = std::make_shared<Credential>(Credential{4711, 100, {}});
  ASSERT_TRUE(look_up("file"));
  EXPECT_EQ(server_.calls["LOOKUP"], 1U);
  stepper_.advance(std::chrono::milliseconds(10));
}

// Whoever may read a directory need not be allowed to search it: that the server said so counts for
// three seconds, as everywhere.
TEST_F(ShareTest, ListedNamesNeedTheRightToSearch) {
  server_.add_directory("a");
  server_.add_directory("b");
  server_.add_directory("c");
  mount();
  list();
  stepper_.advance(std::chrono::seconds(4));  // directories are good for 30
  server_.calls.clear();
  const auto first = look_up("a");
  ASSERT_TRUE(first);
  EXPECT_EQ(server_.calls["LOOKUP"], 1U);
  ASSERT_TRUE(look_up("b"));
  EXPECT_EQ(server_.calls["LOOKUP"], 1U) << "the server let him look up a";
  stepper_.advance(std::chrono::seconds(4));
  ASSERT_TRUE(look_up("c"));
  EXPECT_EQ(server_.calls["LOOKUP"], 2U);
}

// What is newer than a listing is not undone by it.
TEST_F(ShareTest, AListedNameYieldsToWhatIsKnownSince) {
  const std::uint64_t file = server_.add_file("file", "old");
  mount();
  InodeRef known = look_up("file").value();
  list();
  stepper_.advance(std::chrono::milliseconds(10));
  server_.write_file(file, "newer");
  ASSERT_TRUE(open(known));  // sees the change
  EXPECT_EQ(look_up("file").value()->attributes().attributes.size, 5U);
  list();
  stepper_.advance(std::chrono::milliseconds(10));
  server_.write_file(file, "newest one");
  ASSERT_TRUE(open(known));
  known = nullptr;  // the kernel forgets it
  stepper_.advance(std::chrono::seconds(11));
  stepper_.run();
  EXPECT_EQ(look_up("file").value()->attributes().attributes.size, 10U);
}

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
