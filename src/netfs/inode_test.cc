// A table of inodes must give one inode a handle, for as long as anybody holds it, and be empty
// when nobody holds any.
#include "netfs/inode.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "testing/manual_clock.h"

namespace larder::netfs {
namespace {

FileHandle handle_numbered(std::uint64_t number) {
  return FileHandle(bytes_of(fmt::format("handle of file {}", number)));
}

Attributes attributes_of(std::uint64_t number, FileType type = FileType::kRegular) {
  Attributes attributes;
  attributes.type = type;
  attributes.fileid = number;
  return attributes;
}

class InodeTableTest : public ::testing::Test {
 protected:
  InodeRef make(std::uint64_t number, FileType type = FileType::kRegular) {
    return table_.find_or_make(handle_numbered(number), attributes_of(number, type),
                               table_.begin_check());
  }

  larder::testing::ManualClock clock_;
  InodeTable table_{clock_, {}};
};

TEST_F(InodeTableTest, FindsEachOfManyAndForgetsThemWithTheirLastOwner) {
  constexpr std::uint64_t kMany = 50'000;
  std::vector<InodeRef> known;
  known.reserve(kMany);
  for (std::uint64_t i = 0; i < kMany; ++i) {
    known.push_back(make(i));
  }
  EXPECT_EQ(table_.size(), kMany);
  for (std::uint64_t i = 0; i < kMany; ++i) {
    ASSERT_EQ(table_.find(handle_numbered(i)), known.at(i)) << i;
    ASSERT_EQ(make(i), known.at(i)) << i;
    ASSERT_EQ(known.at(i)->attributes().attributes.fileid, i);
  }
  EXPECT_EQ(table_.find(handle_numbered(kMany)), nullptr);
  for (std::uint64_t i = 0; i < kMany; i += 2) {
    known.at(i) = nullptr;
  }
  EXPECT_EQ(table_.size(), kMany / 2);
  for (std::uint64_t i = 0; i < kMany; ++i) {
    ASSERT_EQ(table_.find(handle_numbered(i)), known.at(i)) << i;
  }
  known.clear();
  EXPECT_EQ(table_.size(), 0U);
  EXPECT_EQ(make(7)->handle(), handle_numbered(7));
}

TEST_F(InodeTableTest, AHandleThatBecameAnotherTypeOfFileGetsANewInode) {
  InodeRef file = make(1);
  const InodeRef directory = make(1, FileType::kDirectory);
  EXPECT_NE(file, directory);
  EXPECT_EQ(table_.size(), 1U);
  file = nullptr;  // goes without taking the other's place away
  EXPECT_EQ(table_.find(handle_numbered(1)), directory);
  EXPECT_EQ(table_.size(), 1U);
}

TEST_F(InodeTableTest, ANewTypeOfAFileThatOnlyTheTableHeldIsNoTrouble) {
  static_cast<void>(make(1));
  EXPECT_TRUE(make(1, FileType::kDirectory)->is_directory());
  EXPECT_EQ(table_.size(), 0U);
}

// A REMOVE tells nothing of the file: what was asked before it may count the name that is gone.
TEST_F(InodeTableTest, WhatWasAskedBeforeItExpiredDoesNotMakeItFresh) {
  const InodeRef inode = make(1);
  const Attributes before = attributes_of(1);
  const CheckTicket asked = table_.begin_check();
  clock_.advance(std::chrono::milliseconds(10));
  const EarlierAttributes listed{before, clock_.now(), table_.begin_check()};
  inode->expire();
  EXPECT_EQ(inode->update(before, asked), AttributeNews::kSame);
  EXPECT_EQ(inode->attributes().fresh_for.count(), 0);
  EXPECT_TRUE(inode->confirm(listed));
  EXPECT_EQ(inode->attributes().fresh_for.count(), 0);
  EXPECT_EQ(inode->update(before, table_.begin_check()), AttributeNews::kSame);
  EXPECT_GT(inode->attributes().fresh_for.count(), 0);
}

TEST_F(InodeTableTest, AnotherVersionIsNewsThoughItExpiredSinceItWasAsked) {
  const InodeRef inode = make(1);
  Attributes changed = attributes_of(1);
  changed.size = 7;
  const CheckTicket asked = table_.begin_check();
  inode->expire();
  EXPECT_EQ(inode->update(changed, asked), AttributeNews::kChanged);
  EXPECT_EQ(inode->attributes().attributes.size, 7U);
}

TEST_F(InodeTableTest, AHiddenNameIsNotCounted) {
  Attributes two_names = attributes_of(1);
  two_names.link_count = 2;
  const InodeRef inode = table_.find_or_make(handle_numbered(1), two_names, table_.begin_check());
  inode->set_hidden(true);
  EXPECT_EQ(inode->attributes().attributes.link_count, 1U);
  inode->begin_unhiding();
  EXPECT_EQ(inode->attributes().attributes.link_count, 1U) << "the answer is not there yet";
  Attributes one_name = two_names;
  one_name.link_count = 1;
  one_name.changed.seconds += 1;
  EXPECT_EQ(inode->update(one_name, table_.begin_check()), AttributeNews::kChanged);
  EXPECT_EQ(inode->attributes().attributes.link_count, 1U) << "it went, though nobody said so";
  EXPECT_FALSE(inode->is_hidden());
}

// A WRITE and a chmod behind it, whose answer comes first.
TEST_F(InodeTableTest, AnAnsweredChangeIsSeenThoughOneBeforeItIsNot) {
  const InodeRef inode = make(1);
  const Attributes before = inode->attributes().attributes;
  Attributes written = before;
  written.size = 5;
  written.changed.seconds += 1;
  Attributes mode_set = written;
  mode_set.mode = 0640;
  mode_set.changed.seconds += 1;
  const auto stamps_of = [](const Attributes& attributes) {
    return BeforeChange{attributes.size, attributes.modified, attributes.changed};
  };
  inode->begin_own_change();
  inode->begin_own_change();
  const Change second{stamps_of(written), mode_set};
  EXPECT_EQ(inode->end_own_change(&second), AttributeNews::kOwn);
  EXPECT_EQ(inode->attributes().attributes, mode_set);
  EXPECT_EQ(inode->attributes().fresh_for.count(), 0) << "what else happened, nobody knows";
  EXPECT_EQ(inode->server_fresh_for().count(), 0);
  const Change first{stamps_of(before), written};
  EXPECT_EQ(inode->end_own_change(&first), AttributeNews::kOwn);
  EXPECT_EQ(inode->attributes().attributes, mode_set);
  EXPECT_GT(inode->attributes().fresh_for.count(), 0);
}

// A server that sends no attributes with its answers to our changes.
TEST_F(InodeTableTest, AfterAChangeOfUnknownOutcomeOnlyALaterQuestionTells) {
  const InodeRef inode = make(1);
  Attributes other = inode->attributes().attributes;
  other.size = 5;
  const CheckTicket before = table_.begin_check();
  inode->begin_own_change();
  const Change silent;
  EXPECT_EQ(inode->end_own_change(&silent), AttributeNews::kChanged);
  EXPECT_TRUE(inode->is_unsure());
  EXPECT_EQ(inode->update(other, before), AttributeNews::kLate);
  EXPECT_EQ(inode->update(attributes_of(1), before), AttributeNews::kSame);
  EXPECT_TRUE(inode->is_unsure()) << "asked before our change had ended";
  EXPECT_EQ(inode->attributes().fresh_for.count(), 0);
  EXPECT_EQ(inode->update(other, table_.begin_check()), AttributeNews::kChanged);
  EXPECT_FALSE(inode->is_unsure());
}

TEST_F(InodeTableTest, WhatIsToldAmongOwnChangesMayBeSomebodyElses) {
  const auto stamps_of = [](const Attributes& attributes) {
    return BeforeChange{attributes.size, attributes.modified, attributes.changed};
  };
  for (const bool later : {false, true}) {
    const InodeRef inode = make(later ? 1 : 2);
    const Attributes known = inode->attributes().attributes;
    Attributes ours = known;
    ours.changed.seconds += 2;
    ours.size = 5;
    Attributes told = known;
    told.changed.seconds += later ? 3 : 1;
    told.size = 7;
    inode->begin_own_change();
    EXPECT_EQ(inode->update(told, table_.begin_check()), AttributeNews::kLate);
    EXPECT_EQ(inode->attributes_after(told).attributes.size, 7U);
    const Change change{stamps_of(known), ours};
    EXPECT_EQ(inode->end_own_change(&change), AttributeNews::kOwn);
    EXPECT_EQ(inode->is_unsure(), later) << "an older one was on the way to ours";
    EXPECT_EQ(inode->attributes().fresh_for.count() > 0, !later);
    EXPECT_EQ(inode->attributes().attributes.size, 5U);
  }
}

TEST_F(InodeTableTest, ThreadsThatMakeAndDropTheSameFilesAgree) {
  constexpr std::uint64_t kFiles = 50;
  const auto make_and_drop = [this](unsigned seed) {
    std::mt19937 random(seed);
    std::vector<InodeRef> held(kFiles);
    for (int i = 0; i < 20'000; ++i) {
      const std::uint64_t number = random() % kFiles;
      if (held.at(number) != nullptr) {
        held.at(number) = nullptr;
        continue;
      }
      const bool is_directory = random() % 100 == 0;
      held.at(number) = make(number, is_directory ? FileType::kDirectory : FileType::kRegular);
      ASSERT_EQ(held.at(number)->handle(), handle_numbered(number));
    }
  };
  {
    std::vector<Thread> threads;
    for (unsigned seed = 1; seed <= 4; ++seed) {
      threads.emplace_back("maker", [&make_and_drop, seed] { make_and_drop(seed); });
    }
  }
  EXPECT_EQ(table_.size(), 0U);
}

}  // namespace
}  // namespace larder::netfs
