// Calls that a process before us may have had done: a second share, which knows nothing, goes on
// from what the first one noted.
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"
#include "netfs/writer.h"

namespace larder::netfs {
namespace {

// Keeps what is noted until its process dies.
class FakeJournal final : public CallJournal {
 public:
  explicit FakeJournal(CallNotes earlier = {}) : earlier_(earlier), now_(std::move(earlier)) {}

  [[nodiscard]] const CallNotes& earlier() const override { return earlier_; }

  void note_sent() override { now_.sent = true; }

  void note_verifier(const CreateVerifier& verifier) override { now_.verifier = verifier; }

  void note_made(const FileHandle& handle) override { now_.made = handle; }

  void note_offset(std::uint64_t offset) override {
    now_.offset = offset;
    now_.sent = true;
  }

  void note_hidden_name(std::string_view name) override { now_.hidden_name = name; }

  void note_hidden() override { now_.has_hidden = true; }

  [[nodiscard]] const CallNotes& now() const { return now_; }

 private:
  const CallNotes earlier_;
  CallNotes now_;
};

class ShareJournalTest : public ShareTest {
 protected:
  using Start = std::function<void(const Caller& caller, Done<void> done)>;

  ShareJournalTest() { caller_.credential = std::make_shared<const Credential>(1000U, 100U); }

  void TearDown() override {
    close();
    ShareTest::TearDown();
  }

  Start removal(std::string name) {
    return [this, name = std::move(name)](const Caller& caller, Done<void> done) {
      share_->remove(share_->root(), name, caller, std::move(done));
    };
  }

  Start renaming(std::string from, std::string to) {
    return
        [this, from = std::move(from), to = std::move(to)](const Caller& caller, Done<void> done) {
          share_->rename(share_->root(), from, share_->root(), to, caller, std::move(done));
        };
  }

  Start creation(std::string name) {
    return [this, name = std::move(name)](const Caller& caller, Done<void> done) {
      share_->create(share_->root(), name, {.mode = 0640, .exclusive = true, .open = {}}, caller,
                     [done = std::move(done)](const Result<Created>& created) mutable {
                       done(created ? Result<>() : fail(created.error()));
                     });
    };
  }

  Caller journaled() const { return {caller_.credential, nullptr, journal_}; }

  // The process dies while the server is asked for `procedure`, after `skipped` others of it, and
  // has it done or not. The next knows what was noted by then.
  void die_in(const Start& call, const std::string& procedure, unsigned skipped, bool done) {
    control_->hold_of[procedure] = skipped;
    call(journaled(), [](const Result<>&) {});
    stepper_.run();
    ASSERT_EQ(control_->held.size(), 1U);
    const CallNotes left = journal_->now();
    if (done) {
      control_->lost_answers.emplace_back(Errc::kCancelled, "the process is dead");
      control_->release();
    }
    control_->unreachable = true;
    control_->release();
    stepper_.run();
    close();
    unmount();
    journal_ = std::make_shared<FakeJournal>(left);
    mount();
  }

  Result<> again(const Start& call) {
    return wait<void>([&](auto done) { call(journaled(), std::move(done)); });
  }

  void hold(const std::string& name) {
    const auto inode = look_up(name);
    ASSERT_TRUE(inode);
    const auto opened = wait<OpenFile>(
        [&](auto done) { share_->open(*inode, {.write = true}, caller_, std::move(done)); });
    ASSERT_TRUE(opened);
    open_ = *opened;
  }

  void close() {
    if (open_.file != nullptr) {
      share_->closed(open_.file);
    }
    open_ = {};
    stepper_.run();
  }

  std::shared_ptr<FakeJournal> journal_ = std::make_shared<FakeJournal>();
  OpenFile open_;
};

TEST_F(ShareJournalTest, AnExclusiveCreationKeepsItsVerifier) {
  mount();
  die_in(creation("new"), "CREATE", 0, true);
  ASSERT_TRUE(journal_->earlier().verifier);
  EXPECT_EQ(journal_->earlier().made, std::nullopt);
  EXPECT_TRUE(again(creation("new")));
  EXPECT_EQ(server_.attributes(*server_.find_name("new")).mode, 0640U);
}

TEST_F(ShareJournalTest, WhatACreationMadeIsTakenWithoutAnother) {
  mount();
  die_in(creation("new"), "SETATTR", 0, true);
  ASSERT_TRUE(journal_->earlier().made);
  const std::uint64_t creations = server_.calls["CREATE"];
  EXPECT_TRUE(again(creation("new")));
  EXPECT_EQ(server_.calls["CREATE"], creations) << "its verifier is gone from its stamps";
}

TEST_F(ShareJournalTest, WhatWasMadeAndIsGoneIsNotMadeAnew) {
  mount();
  die_in(creation("new"), "SETATTR", 0, true);
  server_.remove("new");
  EXPECT_EQ(again(creation("new")).error().error_number(), ESTALE);
  EXPECT_FALSE(server_.find_name("new"));
}

TEST_F(ShareJournalTest, AHiddenFileThatNobodyHoldsAnyMoreGoes) {
  server_.add_file("file", "content");
  mount();
  hold("file");
  die_in(removal("file"), "RENAME", 0, true);
  EXPECT_EQ(server_.names(), std::vector{journal_->earlier().hidden_name});
  EXPECT_TRUE(again(removal("file")));
  stepper_.run();
  EXPECT_TRUE(server_.names().empty());
}

TEST_F(ShareJournalTest, ARemovalThatWasToHideAndDidNotRemoves) {
  server_.add_file("file", "content");
  mount();
  hold("file");
  die_in(removal("file"), "RENAME", 0, false);
  EXPECT_TRUE(again(removal("file")));
  EXPECT_TRUE(server_.names().empty());
}

TEST_F(ShareJournalTest, AReplacedFileThatNobodyHoldsAnyMoreGoesOnceItIsReplaced) {
  const std::uint64_t moved = server_.add_file("new", "new");
  server_.add_file("old", "old");
  mount();
  hold("old");
  die_in(renaming("new", "old"), "RENAME", 0, true);
  EXPECT_FALSE(server_.find_name("old"));
  EXPECT_FALSE(journal_->earlier().sent);
  EXPECT_TRUE(again(renaming("new", "old")));
  stepper_.run();
  EXPECT_EQ(server_.names(), std::vector<std::string>{"old"});
  EXPECT_EQ(server_.find_name("old"), moved);
}

TEST_F(ShareJournalTest, WhatWasHiddenForARenameThatIsRefusedHasItsNameBackBeforeTheAnswer) {
  server_.add_directory("new");
  const std::uint64_t old = server_.add_file("old", "old");
  mount();
  hold("old");
  die_in(renaming("new", "old"), "RENAME", 1, false);
  EXPECT_TRUE(journal_->earlier().sent);
  server_.remove("new");
  EXPECT_EQ(again(renaming("new", "old")).error().error_number(), ENOENT);
  EXPECT_EQ(server_.names(), std::vector<std::string>{"old"});
  EXPECT_EQ(server_.find_name("old"), old);
}

TEST_F(ShareJournalTest, ARenameThatWasDoneDoesNotHideWhatItMoved) {
  const std::uint64_t moved = server_.add_file("new", "new");
  server_.add_file("old", "old");
  mount();
  die_in(renaming("new", "old"), "RENAME", 0, true);
  hold("old");
  ASSERT_EQ(server_.find_name("old"), moved);
  EXPECT_TRUE(again(renaming("new", "old")));
  EXPECT_EQ(server_.names(), std::vector<std::string>{"old"});
}

TEST_F(ShareJournalTest, WhatWasHiddenAndClosedDoesNotComeBack) {
  const std::uint64_t moved = server_.add_file("new", "new");
  server_.add_file("old", "old");
  mount();
  hold("old");
  die_in(renaming("new", "old"), "RENAME", 1, true);
  ASSERT_TRUE(journal_->earlier().has_hidden);
  server_.remove(journal_->earlier().hidden_name);
  hold("old");  // the file that was moved
  EXPECT_TRUE(again(renaming("new", "old")));
  EXPECT_EQ(server_.names(), std::vector<std::string>{"old"});
  EXPECT_EQ(server_.find_name("old"), moved);
}

// No name may be taken away from what may be the wrong file.
TEST_F(ShareJournalTest, ARenameOfWhichNobodyKnowsLosesNoFile) {
  const std::uint64_t moved = server_.add_file("new", "new");
  server_.add_file("old", "old");
  mount();
  hold("old");
  ASSERT_TRUE(look_up("new"));
  control_->hold_of["RENAME"] = 1;
  std::optional<Result<>> renamed;
  share_->rename(share_->root(), "new", share_->root(), "old", caller_,
                 [&](Result<> result) { renamed = std::move(result); });
  stepper_.run();
  control_->lost_answers.emplace_back(Errc::kTimedOut, ETIMEDOUT, "soft");
  control_->release();
  stepper_.run();
  ASSERT_TRUE(renamed);
  EXPECT_EQ(renamed->error().code(), Errc::kTimedOut);
  EXPECT_EQ(server_.find_name("old"), moved);
  close();
  EXPECT_EQ(server_.names().size(), 2U) << "the one that may not have been replaced is kept";
}

TEST_F(ShareJournalTest, AnAppendGoesWhereItWentBefore) {
  const std::uint64_t file = server_.add_file("file", "begin");
  mount();
  const auto append = [this](const Caller& caller, Done<void> done) {
    static const std::string more = " and more";
    share_->write(open_, {.offset = 0, .append = true}, {nullptr, bytes_of(more)}, caller,
                  [done = std::move(done)](const Result<Written>& written) mutable {
                    EXPECT_TRUE(!written || written->offset == 5);
                    done(written ? Result<>() : fail(written.error()));
                  });
  };
  hold("file");
  die_in(append, "WRITE", 0, true);
  EXPECT_EQ(server_.content(file), "begin and more");
  EXPECT_EQ(journal_->earlier().offset, 5U);
  server_.append(file, " of others");
  hold("file");
  EXPECT_TRUE(again(append));
  EXPECT_EQ(server_.content(file), "begin and more of others");
}

}  // namespace
}  // namespace larder::netfs
