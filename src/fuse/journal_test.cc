#include "fuse/journal.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/unique_fd.h"
#include "fuse/protocol.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::fuse {
namespace {

using handover::CallState;
using handover::JournalRecord;
using handover::Table;
using handover::TableMemory;

constexpr std::uint32_t kSlots = 4;
constexpr handover::TableShape kJournalShape{handover::TableKind::kJournal, "test-journal",
                                             sizeof(JournalRecord), kSlots};
constexpr std::uint32_t kMount = 3;

// Two journals over one memory, one after the other.
class JournalTest : public ::testing::Test {
 protected:
  JournalTest() : memory_(std::move(*TableMemory::create(kJournalShape))), records_(map()) {
    restart();
  }

  Table<JournalRecord> map() {
    return Table<JournalRecord>(std::move(*TableMemory::map(memory_, kJournalShape)));
  }

  // The next engine.
  void restart() { journal_ = std::make_unique<Journal>(map()); }

  std::shared_ptr<JournaledCall> begin(std::uint64_t unique, std::uint32_t opcode = FUSE_MKDIR) {
    return journal_->begin(kMount, unique, opcode);
  }

  static void answer(JournaledCall& call, int error_number, const std::string& body) {
    // In two parts, as replies come.
    const std::array<iovec, 2> parts{{{const_cast<char*>(body.data()), 2},
                                      {const_cast<char*>(body.data()) + 2, body.size() - 2}}};
    call.note_answer(error_number, parts);
  }

  const UniqueFd memory_;
  const Table<JournalRecord> records_;  // as the next engine finds it
  std::unique_ptr<Journal> journal_;
};

TEST_F(JournalTest, ACallHasItsSlotFromItsBeginToItsEnd) {
  const auto call = begin(10);
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(records_[0].mount_id, kMount);
  EXPECT_EQ(records_[0].unique, 10U);
  EXPECT_EQ(records_[0].opcode, std::uint32_t{FUSE_MKDIR});
  EXPECT_EQ(records_[0].state, static_cast<std::uint8_t>(CallState::kBegun));
  EXPECT_FALSE(call->earlier().sent);
  EXPECT_EQ(call->earlier_answer(), std::nullopt);
  EXPECT_EQ(journal_->size(), 1U);
  call->end();
  EXPECT_EQ(records_[0].mount_id, 0U);
  EXPECT_EQ(journal_->size(), 0U);
  call->end();
  EXPECT_EQ(journal_->size(), 0U) << "ended twice";
}

TEST_F(JournalTest, TheNextEngineFindsWhatWasNoted) {
  {
    const auto call = begin(10, FUSE_CREATE);
    call->note_verifier(netfs::CreateVerifier{std::byte{1}, std::byte{2}});
    call->note_sent();
    call->note_made(netfs::FileHandle(bytes_of("handle")));
    call->note_node(0x700000010);
    call->note_handle(0x900000001);
  }
  {
    const auto call = begin(12, FUSE_UNLINK);
    call->note_hidden_name(".nfs0001");
    call->note_hidden();
  }
  begin(14, FUSE_WRITE)->note_offset(0);
  restart();
  EXPECT_EQ(journal_->size(), 3U);
  const auto create = begin(10, FUSE_CREATE);
  EXPECT_TRUE(create->earlier().sent);
  EXPECT_EQ(create->earlier().verifier, (netfs::CreateVerifier{std::byte{1}, std::byte{2}}));
  EXPECT_EQ(create->earlier().made, netfs::FileHandle(bytes_of("handle")));
  EXPECT_EQ(create->earlier().offset, std::nullopt);
  EXPECT_EQ(create->earlier().hidden_name, "");
  EXPECT_EQ(create->earlier_taken().nodeid, 0x700000010U);
  EXPECT_EQ(create->earlier_taken().fh, 0x900000001U);
  EXPECT_EQ(create->earlier_answer(), std::nullopt);
  const auto unlink = begin(12, FUSE_UNLINK);
  EXPECT_FALSE(unlink->earlier().sent);
  EXPECT_EQ(unlink->earlier().hidden_name, ".nfs0001");
  EXPECT_TRUE(unlink->earlier().has_hidden);
  EXPECT_EQ(unlink->earlier().made, std::nullopt);
  const auto append = begin(14, FUSE_WRITE);
  EXPECT_TRUE(append->earlier().sent);
  EXPECT_EQ(append->earlier().offset, 0U);
  EXPECT_EQ(journal_->size(), 3U) << "their own slots";
}

TEST_F(JournalTest, WhatTheServerWasAskedForStays) {
  const auto call = begin(10, FUSE_UNLINK);
  call->note_hidden_name(".nfs00001");
  call->note_hidden_name(".nfs0002");
  call->note_made(netfs::FileHandle(bytes_of("first")));
  call->note_made(netfs::FileHandle(bytes_of("second")));
  call->note_offset(5);
  call->note_offset(9);
  restart();
  const auto again = begin(10, FUSE_UNLINK);
  EXPECT_EQ(again->earlier().hidden_name, ".nfs0002") << "the first file was moved by then";
  EXPECT_EQ(again->earlier().made, netfs::FileHandle(bytes_of("first")));
  EXPECT_EQ(again->earlier().offset, 5U);
}

TEST_F(JournalTest, AnAnswerIsKeptAsItWasGivenFirst) {
  const auto call = begin(10);
  answer(*call, 0, "a body");
  answer(*call, EIO, "another");
  restart();
  const auto again = begin(10);
  ASSERT_TRUE(again->earlier_answer());
  EXPECT_EQ(again->earlier_answer()->error_number, 0);
  EXPECT_EQ(text_of(again->earlier_answer()->body), "a body");
  again->note_sent();
  answer(*again, EIO, "another");
  restart();
  EXPECT_EQ(text_of(begin(10)->earlier_answer()->body), "a body") << "died again";
}

TEST_F(JournalTest, NotesOfACallThatHasEndedGoNowhere) {
  const auto call = begin(10);
  call->end();
  const auto next = begin(12);
  EXPECT_EQ(records_[0].unique, 12U) << "the same slot";
  call->note_sent();
  call->note_verifier({});
  call->note_made(netfs::FileHandle(bytes_of("handle")));
  call->note_offset(7);
  call->note_hidden_name(".nfs");
  call->note_hidden();
  call->note_node(5);
  call->note_handle(6);
  answer(*call, EIO, "late");
  call->end();
  EXPECT_EQ(records_[0].state, static_cast<std::uint8_t>(CallState::kBegun));
  EXPECT_EQ(records_[0].flags, 0U);
  EXPECT_EQ(records_[0].made_length + records_[0].hidden_name_length, 0);
  EXPECT_EQ(records_[0].nodeid + records_[0].fh, 0U);
  EXPECT_EQ(journal_->size(), 1U);
}

TEST_F(JournalTest, ASlotThatIsTakenAgainHasNothingOfTheCallBefore) {
  const auto call = begin(10, FUSE_CREATE);
  call->note_verifier({std::byte{1}});
  call->note_made(netfs::FileHandle(bytes_of("handle")));
  call->note_hidden_name(".nfs");
  call->note_node(5);
  call->note_handle(6);
  answer(*call, EEXIST, "body");
  call->end();
  (void)begin(12, FUSE_CREATE);
  restart();
  const auto again = begin(12, FUSE_CREATE);
  EXPECT_FALSE(again->earlier().sent);
  EXPECT_EQ(again->earlier().verifier, std::nullopt);
  EXPECT_EQ(again->earlier().made, std::nullopt);
  EXPECT_EQ(again->earlier().hidden_name, "");
  EXPECT_EQ(again->earlier_taken().nodeid + again->earlier_taken().fh, 0U);
  EXPECT_EQ(again->earlier_answer(), std::nullopt);
}

TEST_F(JournalTest, ALeftSlotIsOfItsMountItsNumberAndItsOpcodeOnly) {
  begin(10)->note_sent();
  restart();
  EXPECT_FALSE(journal_->begin(kMount + 1, 10, FUSE_MKDIR)->earlier().sent);
  EXPECT_FALSE(begin(12)->earlier().sent);
  EXPECT_EQ(journal_->size(), 3U);
  EXPECT_FALSE(begin(10, FUSE_RMDIR)->earlier().sent) << "of a kernel that there is no more";
  EXPECT_FALSE(begin(10)->earlier().sent);
}

TEST_F(JournalTest, WhatNobodyCameForGoesWithItsMount) {
  begin(10)->note_sent();
  begin(12)->note_sent();
  (void)journal_->begin(kMount + 1, 10, FUSE_MKDIR);
  restart();
  const auto live = begin(12);
  journal_->drop_mount(kMount);
  EXPECT_EQ(journal_->size(), 2U);
  EXPECT_EQ(records_[0].mount_id, 0U);
  EXPECT_EQ(records_[1].mount_id, kMount) << "whose request has come";
  EXPECT_EQ(records_[2].mount_id, kMount + 1);
}

TEST_F(JournalTest, AFullTableIsDoneWithoutAndCounted) {
  std::array<std::shared_ptr<JournaledCall>, kSlots> calls;
  std::uint64_t unique = 0;
  for (auto& call : calls) {
    call = begin(unique += 2);
    ASSERT_NE(call, nullptr);
  }
  EXPECT_EQ(begin(100), nullptr);
  EXPECT_EQ(journal_->unjournaled(), 1U);
  calls[2]->end();
  EXPECT_NE(begin(102), nullptr);
  EXPECT_EQ(journal_->unjournaled(), 1U);
  restart();
  EXPECT_EQ(begin(104), nullptr) << "left from before";
}

TEST_F(JournalTest, AFreeSlotInTheMiddleHidesNoneBehindIt) {
  const auto first = begin(10);
  begin(12)->note_sent();
  first->end();
  restart();
  EXPECT_EQ(journal_->size(), 1U);
  EXPECT_TRUE(begin(12)->earlier().sent);
}

}  // namespace
}  // namespace larder::fuse
