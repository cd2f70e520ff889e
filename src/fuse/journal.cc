#include "fuse/journal.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <sys/uio.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/mutex.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/changes.h"

namespace larder::fuse {

namespace {

using handover::CallState;
using handover::JournalRecord;

// What was written before counts from this store on: who reads it may be the next process.
template <class T>
void publish(T& field, T value) {
  std::atomic_ref(field).store(value, std::memory_order_release);
}

void set_state(JournalRecord& record, CallState state) {
  publish(record.state, static_cast<std::uint8_t>(state));
}

bool is_in(const JournalRecord& record, CallState state) {
  return record.state == static_cast<std::uint8_t>(state);
}

// As far as a record that nobody checked can be believed.
template <class Container>
auto front_of(const Container& container, std::size_t length) {
  return std::span(container).first(std::min(length, container.size()));
}

// Field by field: at no moment may the slot look as if it never had been used.
void begin_record(JournalRecord& record, std::uint64_t unique, std::uint32_t opcode) {
  publish(record.unique, unique);
  record.opcode = opcode;
  record.nodeid = 0;
  record.fh = 0;
  record.error = 0;
  record.state = static_cast<std::uint8_t>(CallState::kBegun);
  record.flags = 0;
  record.answer_length = 0;
  record.hidden_name_length = 0;
  record.made_length = 0;
}

netfs::CallNotes notes_in(const JournalRecord& record) {
  netfs::CallNotes notes;
  notes.sent = !is_in(record, CallState::kBegun);
  if ((record.flags & handover::kCallHasVerifier) != 0) {
    notes.verifier = record.verifier;
  }
  if ((record.flags & handover::kCallHasOffset) != 0) {
    notes.offset = record.offset;
  }
  if (record.made_length != 0) {
    notes.made = netfs::FileHandle(front_of(record.made, record.made_length));
  }
  const auto name = front_of(record.hidden_name, record.hidden_name_length);
  notes.hidden_name = std::string(name.begin(), name.end());
  notes.has_hidden = (record.flags & handover::kCallHasHidden) != 0;
  return notes;
}

}  // namespace

// ---- Slots.

Journal::Journal(handover::Table<Record> records) : records_(std::move(records)) {
  const MutexLock lock(mutex_);
  while (next_unused_ < records_.capacity() && records_[next_unused_].unique != 0) {
    const Record& record = records_[next_unused_];
    // One number twice: of a kernel that there is no more.
    const bool is_left = record.mount_id != 0 &&
                         left_.try_emplace({record.mount_id, record.unique}, next_unused_).second;
    if (!is_left) {
      publish(records_[next_unused_].mount_id, std::uint32_t{0});
      free_.push_back(next_unused_);
    }
    ++next_unused_;
  }
}

std::shared_ptr<JournaledCall> Journal::begin(std::uint32_t mount_id, std::uint64_t unique,
                                              std::uint32_t opcode) {
  const MutexLock lock(mutex_);
  if (!left_.empty()) {
    if (const auto left = left_.extract({mount_id, unique})) {
      const std::uint32_t slot = left.mapped();
      if (records_[slot].opcode == opcode) {
        return std::make_shared<JournaledCall>(*this, slot);
      }
      publish(records_[slot].mount_id, std::uint32_t{0});
      free_.push_back(slot);
    }
  }
  const std::optional<std::uint32_t> slot = take_slot();
  if (!slot) {
    ++unjournaled_;
    return nullptr;
  }
  begin_record(records_[*slot], unique, opcode);
  publish(records_[*slot].mount_id, mount_id);
  return std::make_shared<JournaledCall>(*this, *slot);
}

std::optional<std::uint32_t> Journal::take_slot() {
  if (!free_.empty()) {
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  if (next_unused_ < records_.capacity()) {
    return next_unused_++;
  }
  return std::nullopt;
}

void Journal::free_slot(std::uint32_t slot) {
  const MutexLock lock(mutex_);
  publish(records_[slot].mount_id, std::uint32_t{0});
  free_.push_back(slot);
}

void Journal::drop_mount(std::uint32_t mount_id) {
  const MutexLock lock(mutex_);
  for (auto left = left_.lower_bound({mount_id, 0});
       left != left_.end() && left->first.first == mount_id; left = left_.erase(left)) {
    publish(records_[left->second].mount_id, std::uint32_t{0});
    free_.push_back(left->second);
  }
}

std::size_t Journal::size() const {
  const MutexLock lock(mutex_);
  return next_unused_ - free_.size();
}

// ---- One call.

JournaledCall::JournaledCall(Journal& journal, std::uint32_t slot)
    : journal_(journal), slot_(slot), record_(&journal.records_[slot]) {
  const Record& record = journal.records_[slot];
  earlier_ = notes_in(record);
  earlier_taken_ = {record.nodeid, record.fh};
  if (is_in(record, CallState::kAnswered)) {
    const auto body = front_of(record.answer, record.answer_length);
    earlier_answer_ = {record.error, {body.begin(), body.end()}};
  }
}

void JournaledCall::note_sent() {
  const MutexLock lock(mutex_);
  if (record_ != nullptr && is_in(*record_, CallState::kBegun)) {
    set_state(*record_, CallState::kSent);
  }
}

void JournaledCall::note_flag(handover::CallFlags flag) {
  publish(record_->flags, static_cast<std::uint8_t>(record_->flags | flag));
}

void JournaledCall::note_verifier(const netfs::CreateVerifier& verifier) {
  const MutexLock lock(mutex_);
  if (record_ != nullptr) {
    record_->verifier = verifier;
    note_flag(handover::kCallHasVerifier);
  }
}

void JournaledCall::note_made(const netfs::FileHandle& handle) {
  const MutexLock lock(mutex_);
  const Bytes bytes = handle.bytes();
  if (record_ != nullptr && record_->made_length == 0) {
    std::ranges::copy(bytes, record_->made.begin());
    publish(record_->made_length, static_cast<std::uint8_t>(bytes.size()));
  }
}

void JournaledCall::note_offset(std::uint64_t offset) {
  const MutexLock lock(mutex_);
  if (record_ != nullptr && is_in(*record_, CallState::kBegun)) {
    record_->offset = offset;
    note_flag(handover::kCallHasOffset);
    set_state(*record_, CallState::kSent);
  }
}

void JournaledCall::note_hidden_name(std::string_view name) {
  const MutexLock lock(mutex_);
  if (record_ != nullptr && name.size() <= record_->hidden_name.size()) {
    publish(record_->hidden_name_length, std::uint8_t{0});
    std::ranges::copy(name, record_->hidden_name.begin());
    publish(record_->hidden_name_length, static_cast<std::uint8_t>(name.size()));
  }
}

void JournaledCall::note_hidden() {
  const MutexLock lock(mutex_);
  if (record_ != nullptr) {
    note_flag(handover::kCallHasHidden);
  }
}

void JournaledCall::note_node(std::uint64_t nodeid) {
  const MutexLock lock(mutex_);
  if (record_ != nullptr) {
    publish(record_->nodeid, nodeid);
  }
}

void JournaledCall::note_handle(std::uint64_t fh) {
  const MutexLock lock(mutex_);
  if (record_ != nullptr) {
    publish(record_->fh, fh);
  }
}

void JournaledCall::note_answer(int error_number, std::span<const iovec> parts) {
  const MutexLock lock(mutex_);
  if (record_ == nullptr || is_in(*record_, CallState::kAnswered)) {
    return;
  }
  std::size_t length = 0;
  for (const iovec& part : parts) {
    const Bytes bytes(static_cast<const std::byte*>(part.iov_base), part.iov_len);
    CHECK(length + bytes.size() <= record_->answer.size(), "the answer to opcode {} is too long",
          record_->opcode);
    std::ranges::copy(bytes, record_->answer.begin() + static_cast<std::ptrdiff_t>(length));
    length += bytes.size();
  }
  record_->error = error_number;
  record_->answer_length = static_cast<std::uint8_t>(length);
  set_state(*record_, CallState::kAnswered);
}

void JournaledCall::end() {
  {
    const MutexLock lock(mutex_);
    if (std::exchange(record_, nullptr) == nullptr) {
      return;
    }
  }
  journal_.free_slot(slot_);
}

}  // namespace larder::fuse
