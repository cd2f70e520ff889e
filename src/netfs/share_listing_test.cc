// Listings, and the names that are known from them.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/directory_stream.h"
#include "netfs/inode.h"
#include "netfs/share_fixture_test.h"

namespace larder::netfs {
namespace {

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

// The call ends with its last waiter, and whoever comes later asks anew.
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

}  // namespace
}  // namespace larder::netfs
