// Writing through a share: where bytes go, when they are safe, and what a change says of others.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"
#include "netfs/writer.h"

namespace larder::netfs {
namespace {

class ShareWriteTest : public ShareTest {
 protected:
  Result<OpenFile> open_to_write(const std::string& name, bool truncate = false) {
    const InodeRef inode = TRY(look_up(name));
    const OpenIntent intent{.read = true, .write = true, .truncate = truncate};
    return wait<OpenFile>(
        [&](auto done) { share_->open(inode, intent, caller_, std::move(done)); });
  }

  Result<Created> create(const std::string& name, bool exclusive = false) {
    CreateIntent intent{.mode = 0644, .exclusive = exclusive, .open = {}};
    intent.open.write = true;
    return wait<Created>(
        [&](auto done) { share_->create(share_->root(), name, intent, caller_, std::move(done)); });
  }

  // Answered when the server has it.
  Result<Written> write(const OpenFile& open, WritePlace place, const std::string& text) {
    place.through = true;
    return wait<Written>([&](auto done) {
      share_->write(open, place, bytes_of_text(text), caller_, std::move(done));
    });
  }

  // Begun, and answered into what is returned.
  std::shared_ptr<std::optional<Result<Written>>> start_write(const OpenFile& open,
                                                              std::uint64_t offset,
                                                              const std::string& text) {
    auto answer = std::make_shared<std::optional<Result<Written>>>();
    share_->write(open, {.offset = offset, .through = true}, bytes_of_text(text), caller_,
                  [answer](Result<Written> written) { *answer = std::move(written); });
    return answer;
  }

  Result<> sync(const OpenFile& open) {
    return wait<void>([&](auto done) { share_->sync(open, caller_, std::move(done)); });
  }
};

TEST_F(ShareWriteTest, BytesAreOnTheServersDiskWhenTheyAreSynced) {
  const std::uint64_t file = server_.add_file("file", "0123456789");
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  ASSERT_TRUE(write(*open, {.offset = 3}, "abc"));
  EXPECT_EQ(server_.content(file), "012abc6789");
  EXPECT_EQ(server_.stable_content(file), "0123456789") << "not asked for yet";
  ASSERT_TRUE(sync(*open));
  EXPECT_EQ(server_.stable_content(file), "012abc6789");
  server_.calls.clear();
  ASSERT_TRUE(sync(*open));
  EXPECT_EQ(server_.calls["COMMIT"], 0U) << "nothing is left to do";
}

TEST_F(ShareWriteTest, LargeWritesGoInPiecesAndShortAnswersAreContinued) {
  server_.write_size = 10'000;
  const std::uint64_t file = server_.add_file("file", "");
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  const std::string text = pattern(123'456, 1);
  const auto written = write(*open, {}, text);
  ASSERT_TRUE(written);
  EXPECT_EQ(written->length, text.size());
  EXPECT_EQ(server_.content(file), text);
  ASSERT_TRUE(sync(*open));
  EXPECT_EQ(server_.stable_content(file), text);
}

TEST_F(ShareWriteTest, WhatAServerLostIsSentAgainInOrder) {
  const std::uint64_t file = server_.add_file("file", std::string(100, '.'));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  ASSERT_TRUE(write(*open, {.offset = 0}, "first"));
  ASSERT_TRUE(write(*open, {.offset = 3}, "second"));
  server_.restart();
  EXPECT_EQ(server_.content(file), std::string(100, '.'));
  ASSERT_TRUE(write(*open, {.offset = 50}, "third"));  // with the new verifier
  ASSERT_TRUE(sync(*open));
  std::string expected(100, '.');
  expected.replace(0, 5, "first").replace(3, 6, "second").replace(50, 5, "third");
  EXPECT_EQ(server_.stable_content(file), expected);
}

TEST_F(ShareWriteTest, AnErrorOfAWriteIsThatWritesOwn) {
  server_.add_file("file", "");
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  server_.capacity = 10;
  EXPECT_EQ(write(*open, {}, std::string(100, 'x')).error().error_number(), ENOSPC);
  EXPECT_TRUE(sync(*open)) << "told already";
}

TEST_F(ShareWriteTest, WhatCannotBeSentAgainIsToldOnceToEachOpenFile) {
  server_.add_file("file", "");
  mount();
  const auto one = open_to_write("file");
  const auto other = open_to_write("file");
  ASSERT_TRUE(one && other);
  ASSERT_TRUE(write(*one, {}, "answered"));
  server_.restart();
  server_.capacity = 0;
  EXPECT_EQ(sync(*one).error().error_number(), ENOSPC);
  EXPECT_TRUE(sync(*one));
  EXPECT_EQ(sync(*other).error().error_number(), ENOSPC);
  EXPECT_TRUE(sync(*other));
  const auto late = open_to_write("file");
  ASSERT_TRUE(late);
  EXPECT_TRUE(sync(*late)) << "it was not open then";
}

TEST_F(ShareWriteTest, OverlappingWritesGoOneAfterTheOther) {
  const std::uint64_t file = server_.add_file("file", std::string(30, '.'));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  server_.calls.clear();
  control_->hold = true;
  const auto first = start_write(*open, 0, "aaaaaaaaaa");
  const auto over_it = start_write(*open, 5, "bbbbbbbbbb");
  const auto beside = start_write(*open, 20, "cccccccccc");
  stepper_.run();
  ASSERT_EQ(control_->held.size(), 2U) << "the first, and the one beside it";
  // The server takes them in any order.
  std::ranges::reverse(control_->held);
  control_->release();
  stepper_.run();
  ASSERT_TRUE(*first && *over_it && *beside);
  EXPECT_EQ(server_.content(file), "aaaaabbbbbbbbbb.....cccccccccc");
}

TEST_F(ShareWriteTest, ATruncationComesBetweenTheWritesAroundIt) {
  const std::uint64_t file = server_.add_file("file", std::string(30, '.'));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  control_->hold = true;
  const auto before = start_write(*open, 0, std::string(20, 'a'));
  std::optional<Result<FreshAttributes>> cut;
  AttributeChanges changes;
  changes.size = 10;
  share_->set_attributes(open->file->inode(), changes, &*open, caller_,
                         [&cut](Result<FreshAttributes> set) { cut = std::move(set); });
  const auto behind = start_write(*open, 15, "bbb");
  for (int i = 0; i < 10; ++i) {
    stepper_.run();
    control_->release();
    control_->hold = true;
  }
  control_->release();
  stepper_.run();
  ASSERT_TRUE(*before && cut && *behind);
  ASSERT_TRUE(cut->has_value());
  EXPECT_EQ(server_.content(file), std::string(10, 'a') + std::string(5, '\0') + "bbb");
  EXPECT_EQ(server_.stable_content(file).size(), 10U) << "what came before is safe, and cut";
}

// The kernel drops such pages when it truncates, and can have sent them before.
TEST_F(ShareWriteTest, ATruncationCutsWhatAMappingBroughtMeanwhile) {
  const std::uint64_t file = server_.add_file("file", std::string(30, '.'));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  control_->hold = true;
  AttributeChanges changes;
  changes.size = 10;
  share_->set_attributes(open->file->inode(), changes, &*open, caller_,
                         [](const Result<FreshAttributes>& set) { EXPECT_TRUE(set); });
  std::vector<std::optional<Result<Written>>> answers(3);
  for (std::uint64_t i = 0; i < 3; ++i) {
    share_->write(*open, {.offset = i * 8, .through = true, .of_mapping = true},
                  bytes_of_text("mmmmmm"), caller_,
                  [&answer = answers.at(i)](Result<Written> written) { answer = written; });
  }
  stepper_.run();
  EXPECT_FALSE(answers.front()) << "they wait for it";
  control_->release();
  stepper_.run();
  EXPECT_EQ(server_.content(file), "mmmmmm..mm");
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer);
    EXPECT_TRUE(answer->has_value());
  }
}

// What a mapping wrote lies within the file that the kernel knew.
TEST_F(ShareWriteTest, PagesOfAMappingDoNotMakeAFileLonger) {
  const std::uint64_t file = server_.add_file("file", std::string(10, '.'));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  const WritePlace beyond{.offset = 50, .through = true, .of_mapping = true};
  EXPECT_TRUE(write(*open, beyond, "mmm"));
  EXPECT_EQ(server_.content(file).size(), 10U);
  EXPECT_TRUE(write(*open, {.offset = 8, .through = true, .of_mapping = true}, "mmm"));
  EXPECT_EQ(server_.content(file), "........mm");
  // Also of what was answered and is not at the server yet.
  EXPECT_TRUE(write(*open, {.offset = 20}, "early"));
  EXPECT_TRUE(write(*open, {.offset = 23, .through = true, .of_mapping = true}, "mmm"));
  EXPECT_EQ(server_.content(file).substr(20), "earmm");
}

TEST_F(ShareWriteTest, AnAppendGoesToTheServersEnd) {
  const std::uint64_t file = server_.add_file("log", "one\n");
  ShareOptions options;
  options.times.file_least = options.times.file_most = std::chrono::milliseconds(0);
  mount(options);
  const auto open = open_to_write("log");
  ASSERT_TRUE(open);
  server_.append(file, "of another client\n");
  const auto written = write(*open, {.offset = 4, .append = true}, "two\n");
  ASSERT_TRUE(written);
  EXPECT_EQ(written->offset, 22U);
  EXPECT_EQ(server_.content(file), "one\nof another client\ntwo\n");
}

TEST_F(ShareWriteTest, AppendsAtOnceLieBehindEachOther) {
  const std::uint64_t file = server_.add_file("log", "");
  mount();
  const auto open = open_to_write("log");
  ASSERT_TRUE(open);
  control_->hold = true;
  std::vector<std::optional<Result<Written>>> answers(5);
  for (auto& answer : answers) {
    share_->write(*open, {.append = true, .through = true}, bytes_of_text("line\n"), caller_,
                  [&answer](Result<Written> written) { answer = std::move(written); });
  }
  stepper_.run();
  std::ranges::reverse(control_->held);
  control_->release();
  stepper_.run();
  EXPECT_EQ(server_.content(file), "line\nline\nline\nline\nline\n");
}

// Own changes move a version on; the kernel's pages, which they made, stay.
TEST_F(ShareWriteTest, OwnWritesAreNotTakenForSomebodyElses) {
  server_.add_file("file", pattern(100'000, 1));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  control_->hold = true;
  std::vector<std::shared_ptr<std::optional<Result<Written>>>> answers;
  answers.reserve(8);
  for (std::uint64_t i = 0; i < 8; ++i) {
    answers.push_back(start_write(*open, i * 10'000, "own"));
  }
  stepper_.run();
  std::ranges::reverse(control_->held);
  control_->release();
  stepper_.run();
  ASSERT_TRUE(sync(*open));
  EXPECT_EQ(share_->statistics().version_changes, 0U);
}

TEST_F(ShareWriteTest, SomebodyElsesWriteBetweenOursIsSeen) {
  const std::uint64_t file = server_.add_file("file", pattern(100'000, 1));
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  ASSERT_TRUE(write(*open, {}, "own"));
  stepper_.advance(std::chrono::seconds(1));
  server_.append(file, "foreign");
  ASSERT_TRUE(write(*open, {.offset = 10}, "own"));
  EXPECT_EQ(share_->statistics().version_changes, 1U);
}

TEST_F(ShareWriteTest, AServerThatDoesNotTellWhatWasBeforeIsNotTrusted) {
  server_.add_file("file", pattern(100'000, 1));
  server_.tells_before = false;
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  ASSERT_TRUE(write(*open, {}, "own"));
  EXPECT_GT(share_->statistics().version_changes, 0U);
}

TEST_F(ShareWriteTest, ReadersSeeWhatWasWrittenAndTheCacheKeepsItAfterwards) {
  const std::uint64_t file = server_.add_file("file", pattern(200'000, 1));
  mount();
  ASSERT_EQ(cat("file").value(), pattern(200'000, 1));
  auto open = open_to_write("file");
  ASSERT_TRUE(open);
  ASSERT_TRUE(write(*open, {.offset = 100'000}, pattern(50'000, 2)));
  EXPECT_EQ(read(*open, {100'000, 50'000}).value(), pattern(50'000, 2));
  EXPECT_EQ(cat("file").value(), server_.content(file));
  EXPECT_TRUE(Share::is_for_page_cache_only(*open));
  ASSERT_TRUE(sync(*open));
  open = fail(Errc::kStale, "closed");
  stepper_.advance(std::chrono::seconds(30));
  stepper_.run();
  ASSERT_EQ(cat("file").value(), server_.content(file));
  server_.calls.clear();
  EXPECT_EQ(cat("file").value(), server_.content(file));
  EXPECT_EQ(server_.calls["READ"], 0U) << "a version like any other";
}

TEST_F(ShareWriteTest, ACreationIsOpenAndEmpty) {
  mount();
  auto created = create("new", true);
  ASSERT_TRUE(created);
  EXPECT_FALSE(created->truncated);
  ASSERT_TRUE(write(created->open, {}, "content"));
  EXPECT_EQ(server_.content(server_.find_name("new").value()), "content");
  EXPECT_EQ(create("new", true).error().error_number(), EEXIST);
  EXPECT_TRUE(create("new", false));
}

TEST_F(ShareWriteTest, AFileRemovedWhileOpenGoesWithItsLastClose) {
  const std::uint64_t file = server_.add_file("file", "content");
  mount();
  auto one = open_to_write("file");
  auto other = open_to_write("file");
  ASSERT_TRUE(one && other);
  ASSERT_TRUE(wait<void>(
      [&](auto done) { share_->remove(share_->root(), "file", caller_, std::move(done)); }));
  EXPECT_FALSE(server_.find_name("file"));
  EXPECT_EQ(read(*one, {0, 100}).value(), "content");
  ASSERT_TRUE(write(*one, {}, "CON"));
  EXPECT_EQ(server_.content(file), "CONtent");
  EXPECT_EQ(one->file->inode()->attributes().attributes.link_count, 0U);
  one = fail(Errc::kStale, "closed");
  stepper_.run();
  EXPECT_EQ(server_.calls["REMOVE"], 0U) << "somebody has it open still";
  other = fail(Errc::kStale, "closed");
  stepper_.run();
  EXPECT_EQ(server_.calls["REMOVE"], 1U);
}

TEST_F(ShareWriteTest, AFileThatIsNotOpenIsRemovedAtOnce) {
  server_.add_file("file", "content");
  mount();
  ASSERT_TRUE(look_up("file"));
  ASSERT_TRUE(wait<void>(
      [&](auto done) { share_->remove(share_->root(), "file", caller_, std::move(done)); }));
  EXPECT_EQ(server_.calls["RENAME"], 0U);
  EXPECT_EQ(server_.calls["REMOVE"], 1U);
}

TEST_F(ShareWriteTest, WhatIsWrittenCountsThoughSuidCannotBeTakenOff) {
  const std::uint64_t file = server_.add_file("file", "content");
  server_.set_mode(file, 04755);
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  const WritePlace place{.clear_privileges = true};
  EXPECT_TRUE(write(*open, place, "CON"));
  EXPECT_EQ(open->file->inode()->attributes().attributes.mode, 0755U);
  server_.set_mode(file, 04755);
  ASSERT_TRUE(look_up("file"));
  control_->errors_of.emplace("SETATTR", Error(Errc::kRemote, EPERM, "not the owner"));
  EXPECT_TRUE(write(*open, place, "con"));
  EXPECT_EQ(server_.content(file), "content");
}

TEST_F(ShareWriteTest, AnInterruptEndsTheWaitForAWrite) {
  server_.add_file("file", "");
  mount();
  const auto open = open_to_write("file");
  ASSERT_TRUE(open);
  control_->hold = true;
  const Caller caller{caller_.credential, std::make_shared<CallScope>()};
  std::optional<Result<Written>> answer;
  share_->write(*open, {.through = true}, bytes_of_text("text"), caller,
                [&answer](Result<Written> written) { answer = std::move(written); });
  expect_interruptible(caller, answer);
}

TEST_F(ShareWriteTest, AnInterruptEndsTheWaitForAChangeOfNames) {
  server_.add_file("file", "");
  mount();
  ASSERT_TRUE(look_up("file"));
  const InodeRef& root = share_->root();
  const auto interrupted = [this](auto answer, auto start) {
    control_->hold = true;
    const Caller caller{caller_.credential, std::make_shared<CallScope>()};
    start(caller, [&answer](auto result) { answer = std::move(result); });
    expect_interruptible(caller, answer);
    control_->release();
    stepper_.run();
  };
  interrupted(std::optional<Result<LookupOutcome>>(), [&](const Caller& caller, auto done) {
    share_->make(root, "made", {}, caller, done);
  });
  interrupted(std::optional<Result<Created>>(), [&](const Caller& caller, auto done) {
    share_->create(root, "created", {}, caller, done);
  });
  interrupted(std::optional<Result<>>(), [&](const Caller& caller, auto done) {
    share_->rename(root, "file", root, "renamed", caller, done);
  });
  interrupted(std::optional<Result<>>(), [&](const Caller& caller, auto done) {
    share_->remove(root, "renamed", caller, done);
  });
  EXPECT_TRUE(server_.find_name("made") && server_.find_name("created")) << "done all the same";
  EXPECT_FALSE(server_.find_name("file") || server_.find_name("renamed"));
}

// ---- Writes that are answered before the server has them.

class ShareGatherTest : public ShareWriteTest {
 protected:
  // As write(2) does it.
  Result<Written> put(const OpenFile& open, std::uint64_t offset, const std::string& text) {
    return wait<Written>([&](auto done) {
      share_->write(open, {.offset = offset}, bytes_of_text(text), caller_, std::move(done));
    });
  }

  Result<Written> append(const OpenFile& open, const std::string& text) {
    return wait<Written>([&](auto done) {
      share_->write(open, {.append = true}, bytes_of_text(text), caller_, std::move(done));
    });
  }

  Result<FreshAttributes> stat(const OpenFile& open) {
    return wait<FreshAttributes>(
        [&](auto done) { share_->getattr(open.file->inode(), caller_, std::move(done)); });
  }

  OpenFile new_file() {
    mount();
    auto created = create("file");
    EXPECT_TRUE(created.has_value());
    server_.calls.clear();
    return created->open;
  }

  [[nodiscard]] std::string at_server() {
    return server_.content(server_.find_name("file").value());
  }
};

TEST_F(ShareGatherTest, SmallWritesGoTogetherAndTheLastCallMakesThemSafe) {
  const OpenFile open = new_file();
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    ASSERT_TRUE(put(open, expected.size(), line));
    expected += line;
  }
  EXPECT_EQ(server_.calls["WRITE"], 0U);
  ASSERT_TRUE(sync(open));
  EXPECT_EQ(server_.calls["WRITE"], 1U);
  EXPECT_EQ(server_.calls["COMMIT"], 0U) << "the one call did it";
  EXPECT_EQ(server_.stable_content(server_.find_name("file").value()), expected);
  EXPECT_EQ(share_->statistics().version_changes, 0U);
  EXPECT_EQ(share_->statistics().unsafe_bytes, 0U);
}

// The kernel asks for it with each write of somebody who is not root.
TEST_F(ShareGatherTest, WhereThereIsNoPrivilegeToClearNobodyWaits) {
  const OpenFile open = new_file();
  const std::uint64_t file = server_.find_name("file").value();
  const WritePlace place{.clear_privileges = true};
  for (const std::uint32_t mode : {0644U, 04755U}) {
    server_.set_mode(file, mode);
    open.file->inode()->expire();
    ASSERT_TRUE(stat(open));
    server_.calls.clear();
    ASSERT_TRUE(wait<Written>([&](auto done) {
      share_->write(open, place, bytes_of_text("text"), caller_, std::move(done));
    }));
    EXPECT_EQ(server_.calls["WRITE"], mode == 0644 ? 0U : 1U) << mode;
  }
  EXPECT_EQ(server_.attributes(file).mode, 0755U);
}

TEST_F(ShareGatherTest, WholePiecesAreSentAtOnce) {
  server_.write_size = 4096;
  const OpenFile open = new_file();
  ASSERT_TRUE(put(open, 0, pattern(3 * 4096 + 100, 1)));
  stepper_.run();
  EXPECT_EQ(at_server().size(), 3U * 4096U);
  ASSERT_TRUE(put(open, 3 * 4096 + 100, pattern(4096, 2)));
  stepper_.run();
  EXPECT_EQ(at_server().size(), 4U * 4096U) << "the one that was begun is full";
  ASSERT_TRUE(sync(open));
  EXPECT_EQ(at_server(), pattern(3 * 4096 + 100, 1) + pattern(4096, 2));
}

TEST_F(ShareGatherTest, NothingWaitsForLong) {
  const OpenFile open = new_file();
  ASSERT_TRUE(put(open, 0, "log line\n"));
  stepper_.run();
  EXPECT_EQ(at_server(), "");
  stepper_.advance(std::chrono::seconds(2));
  stepper_.run();
  EXPECT_EQ(at_server(), "log line\n");
}

TEST_F(ShareGatherTest, ReadersAndStatSeeWhatWasAnswered) {
  const OpenFile open = new_file();
  ASSERT_TRUE(put(open, 0, "answered"));
  EXPECT_EQ(open.file->inode()->attributes().attributes.size, 8U) << "as a LOOKUP tells it";
  EXPECT_EQ(open.file->inode()->attributes().fresh_for.count(), 0);
  EXPECT_EQ(read(open, {0, 100}).value(), "answered");
  ASSERT_TRUE(put(open, 8, " too"));
  const auto before = open.file->inode()->attributes().attributes.modified;
  stepper_.advance(std::chrono::milliseconds(500));
  const auto after = stat(open);
  ASSERT_TRUE(after);
  EXPECT_EQ(after->attributes.size, 12U);
  EXPECT_NE(after->attributes.modified, before) << "the stamps of the write";
  EXPECT_EQ(at_server(), "answered too");
}

TEST_F(ShareGatherTest, StampsThatAreSetAreNotOverwritten) {
  const OpenFile open = new_file();
  ASSERT_TRUE(put(open, 0, "copied"));
  AttributeChanges changes;
  changes.modified = Timestamp{1'000'000, 5};
  const auto set = wait<FreshAttributes>([&](auto done) {
    share_->set_attributes(open.file->inode(), changes, &open, caller_, std::move(done));
  });
  ASSERT_TRUE(set);
  ASSERT_TRUE(sync(open));
  const Timestamp expected{1'000'000, 5};
  EXPECT_EQ(stat(open)->attributes.modified, expected);
  EXPECT_EQ(at_server(), "copied");
}

TEST_F(ShareGatherTest, WhatIsAppendedIsNotKeptBack) {
  const OpenFile open = new_file();
  ASSERT_TRUE(put(open, 0, "gathered"));
  ASSERT_EQ(append(open, ", appended")->offset, 8U);
  stepper_.run();
  EXPECT_EQ(at_server(), "gathered, appended");
}

TEST_F(ShareGatherTest, ALateErrorComesOnceWithTheNextCall) {
  const OpenFile open = new_file();
  server_.capacity = 10;
  ASSERT_TRUE(put(open, 0, std::string(100, 'x')));
  EXPECT_EQ(sync(open).error().error_number(), ENOSPC);
  EXPECT_TRUE(sync(open));
  EXPECT_EQ(open.file->inode()->attributes().attributes.size, 0U) << "what the server has";
  EXPECT_EQ(put(open, 0, std::string(100, 'x')).error().error_number(), ENOSPC)
      << "the next is not answered before it is there";
  ASSERT_TRUE(put(open, 0, "small")) << "and this one has room";
  ASSERT_TRUE(put(open, 5, std::string(100, 'x')));
  stepper_.advance(std::chrono::seconds(2));
  stepper_.run();
  EXPECT_EQ(put(open, 5, "more").error().error_number(), ENOSPC) << "of the one before";
  EXPECT_TRUE(sync(open));
  EXPECT_EQ(at_server(), "small");
  EXPECT_EQ(share_->statistics().unsafe_bytes, 0U);
}

TEST_F(ShareGatherTest, AServerThatStandsStillEndsIt) {
  server_.write_size = 1U << 20U;
  const OpenFile open = new_file();
  control_->hold = true;
  const std::string megabyte = pattern(1U << 20U, 1);
  std::uint64_t answered = 0;
  std::vector<std::shared_ptr<std::optional<Result<Written>>>> answers;
  answers.reserve(28);
  for (std::uint64_t i = 0; i < 28; ++i) {
    auto answer = std::make_shared<std::optional<Result<Written>>>();
    share_->write(open, {.offset = i << 20U}, bytes_of_text(megabyte), caller_,
                  [answer](Result<Written> written) { *answer = std::move(written); });
    answered += answer->has_value() ? 1 : 0;
    answers.push_back(std::move(answer));
  }
  EXPECT_GE(answered, 4U);
  EXPECT_LE(answered << 20U, Writer::kMostWaitingBytes + Writer::kMostUnderWayBytes);
  control_->release();
  stepper_.run();
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer->has_value() && (*answer)->has_value());
  }
  ASSERT_TRUE(sync(open));
  EXPECT_EQ(at_server().size(), 28U << 20U);
  EXPECT_EQ(share_->statistics().unsafe_bytes, 0U);
}

TEST_F(ShareGatherTest, WhatAServerLostOfItIsSentAgain) {
  const OpenFile open = new_file();
  ASSERT_TRUE(put(open, 0, std::string(100, 'a')));
  ASSERT_TRUE(put(open, 50, "over it"));  // not a neighbour: the first goes
  stepper_.run();
  server_.restart();
  ASSERT_TRUE(sync(open));
  std::string expected(100, 'a');
  EXPECT_EQ(server_.stable_content(server_.find_name("file").value()),
            expected.replace(50, 7, "over it"));
}

}  // namespace
}  // namespace larder::netfs
