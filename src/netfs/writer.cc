#include "netfs/writer.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"
#include "netfs/whole_copy.h"
#include "netfs/write_store.h"

namespace larder::netfs {

namespace {

template <class Pieces>
std::uint64_t bytes_of_all(const Pieces& pieces) {
  std::uint64_t bytes = 0;
  for (const auto& piece : pieces) {
    bytes += piece.bytes.bytes.size();
  }
  return bytes;
}

}  // namespace

Writer::Writer(std::shared_ptr<ShareContext> share, InodeRef inode,
               std::shared_ptr<HeldVersions> held, std::function<void()> on_idle)
    : share_(std::move(share)),
      inode_(std::move(inode)),
      held_(std::move(held)),
      on_idle_(std::move(on_idle)),
      copy_(share_->copied_bytes, share_->executor.clock()) {}

void Writer::write(const WritePlace& place, OwnedBytes bytes, CredentialRef credential,
                   Done<Written> done) {
  if (bytes.bytes.empty()) {
    done(Written{place.offset, 0});
    return;
  }
  const bool size_is_sure = inode_->server_fresh_for().count() > 0;
  const std::uint64_t size = place.told_end.value_or(inode_->attributes().attributes.size);
  HeldWrite write{place, std::move(bytes), std::move(credential), std::move(done)};
  {
    const MutexLock lock(mutex_);
    if (idle_now() && !inode_->is_unsure()) {
      accepted_end_ = 0;
    }
    told_idle_ = false;
    if (!holds_.empty()) {
      held_writes_.push_back(std::move(write));
      return;
    }
    if (write.place.of_mapping && size_is_sure) {
      cut_off(write, std::max(size, accepted_end_));
    }
    if (write.bytes.bytes.empty()) {
      early_answers_.push_back(
          [place, done = std::move(write.done)]() mutable { done(Written{place.offset, 0}); });
    } else {
      accept(std::move(write), size);
    }
  }
  go_on();
}

// Chooses the place. `size` is the file's as far as answers have come.
void Writer::accept(HeldWrite write, std::uint64_t size) {
  const std::uint64_t begin =
      write.place.append ? std::max(size, accepted_end_) : write.place.offset;
  if (write.place.append && write.place.journal != nullptr) {
    write.place.journal->note_offset(begin);
  }
  ++last_sequence_;
  accepted_end_ = std::max(accepted_end_, begin + write.bytes.bytes.size());
  copy_.write(begin, write.bytes.bytes);
  const std::size_t length = write.bytes.bytes.size();
  const std::size_t gathered = may_gather(write) ? gather(write, begin) : 0;
  if (gathered == length) {
    share_->counters.writes_gathered.add();
    early_answers_.push_back([written = Written{begin, length},
                              done = std::move(write.done)]() mutable { done(written); });
  } else {
    end_growth();
    cut(std::move(write), begin, gathered);
  }
}

// Not what is appended: later, the end may be somebody else's bytes. Nor what somebody is to see
// whose reads we do not answer.
bool Writer::may_gather(const HeldWrite& write) const {
  const std::uint64_t length = write.bytes.bytes.size();
  const WritePlace& place = write.place;
  return !place.through && !place.append && !place.clear_privileges && !cautious_ &&
         !held_->any_in_step() && waiting_.size() < kMostWaiting &&
         bytes_of_all(waiting_) + length <= kMostWaitingBytes;
}

// Puts the bytes behind those that wait, if they are their neighbours; pieces end where WRITEs of
// the whole file from its start would. Says for how many of them the store had room.
std::size_t Writer::gather(const HeldWrite& write, std::uint64_t begin) {
  Bytes rest = write.bytes.bytes;
  for (std::uint64_t at = begin; !rest.empty();) {
    const bool joins = may_join(write, at);
    if (!joins && !begin_piece(write, at)) {
      break;
    }
    Piece& last = waiting_.back();
    const std::uint64_t room = share_->write_size - at % share_->write_size;
    const std::size_t wanted = std::min<std::size_t>(room, rest.size());
    const std::size_t taken = last.space->append(rest.first(wanted));
    last.bytes.bytes = last.space->bytes();
    at += taken;
    rest = rest.subspan(taken);
    if (taken < wanted) {
      end_growth();
    }
    if (taken == 0 && !joins) {
      waiting_.pop_back();
      break;
    }
  }
  const std::size_t gathered = write.bytes.bytes.size() - rest.size();
  share_->unsafe_bytes += gathered;
  return gathered;
}

bool Writer::may_join(const HeldWrite& write, std::uint64_t at) const {
  return at % share_->write_size != 0 && !waiting_.empty() && waiting_.back().growing &&
         waiting_.back().range().end() == at && *waiting_.back().credential == *write.credential;
}

// False: the store has no room.
bool Writer::begin_piece(const HeldWrite& write, std::uint64_t at) {
  end_growth();
  const Attributes known = inode_->attributes().attributes;
  std::unique_ptr<WriteSpace> space = share_->write_store->reserve(
      {inode_->handle(), known.fsid, known.fileid, at, write.credential},
      share_->write_size - at % share_->write_size);
  if (space == nullptr) {
    return false;
  }
  Piece piece;
  piece.sequence = last_sequence_;
  piece.offset = at;
  piece.credential = write.credential;
  piece.space = std::move(space);
  piece.growing = true;
  waiting_.push_back(std::move(piece));
  return true;
}

// What is accepted behind a piece is newer than all of it, also when it is sent again.
void Writer::end_growth() {
  if (!waiting_.empty() && std::exchange(waiting_.back().growing, false)) {
    waiting_.back().space->close();
  }
}

// Pieces that refer to the bytes where they are, for a write that waits; those before `from` are
// taken care of.
void Writer::cut(HeldWrite write, std::uint64_t begin, std::size_t from) {
  const Bytes bytes = write.bytes.bytes;
  auto call = std::make_shared<Call>();
  call->written = {begin, bytes.size()};
  call->done = std::move(write.done);
  for (std::size_t at = from; at < bytes.size(); at += share_->write_size) {
    Piece piece;
    piece.sequence = last_sequence_;
    piece.offset = begin + at;
    piece.bytes = {write.bytes.owner,
                   bytes.subspan(at, std::min<std::size_t>(share_->write_size, bytes.size() - at))};
    piece.credential = write.credential;
    piece.call = call;
    ++call->pieces;
    waiting_.push_back(std::move(piece));
  }
}

void Writer::commit(CredentialRef credential, std::move_only_function<void()> done) {
  {
    const MutexLock lock(mutex_);
    commit_credential_ = std::move(credential);
    wanted_sequence_ = last_sequence_;
    waiters_.push_back({last_sequence_, true, std::move(done)});
  }
  go_on();
}

void Writer::flush(std::move_only_function<void()> done) {
  {
    const MutexLock lock(mutex_);
    wanted_sequence_ = last_sequence_;
    waiters_.push_back({last_sequence_, false, std::move(done)});
  }
  go_on();
}

void Writer::hold(CredentialRef credential, std::move_only_function<void(Release)> alone) {
  {
    const MutexLock lock(mutex_);
    commit_credential_ = std::move(credential);
    wanted_sequence_ = last_sequence_;
    holds_.push_back({std::move(alone), false});
    told_idle_ = false;
  }
  go_on();
}

void Writer::begin_copy() {
  const MutexLock lock(mutex_);
  copy_.begin();
}

void Writer::give_up_copy() {
  const MutexLock lock(mutex_);
  copy_.give_up();
}

std::shared_ptr<const WrittenContent> Writer::take_copy() {
  const MutexLock lock(mutex_);
  return idle_now() ? copy_.take() : nullptr;
}

LateErrors Writer::late_errors() const {
  const MutexLock lock(mutex_);
  return late_errors_;
}

bool Writer::is_behind() const {
  const MutexLock lock(mutex_);
  return is_behind_now();
}

bool Writer::is_behind_now() const {
  const auto answered = [](const Piece& piece) { return piece.call == nullptr; };
  return std::any_of(waiting_.begin(), waiting_.end(), answered) ||
         std::any_of(under_way_.begin(), under_way_.end(), answered);
}

bool Writer::idle() const {
  const MutexLock lock(mutex_);
  return idle_now();
}

bool Writer::idle_now() const {
  return waiting_.empty() && under_way_.empty() && unstable_.empty() && holds_.empty() &&
         !committing_;
}

// Does what can be done now. Called after every event; what it starts may be answered, and come
// back here, before it returns.
void Writer::go_on() {
  const auto self = shared_from_this();
  Work work;
  {
    const MutexLock lock(mutex_);
    work = next();
  }
  for (const Pieces::iterator piece : work.send) {
    send(piece);
  }
  if (work.commit) {
    start_commit(work.commit_credential);
  }
  for (auto& answer : work.answers) {
    answer();
  }
  if (work.set_timer) {
    wait_for_more();
  }
  if (work.idle) {
    on_idle_();
  }
}

void Writer::wait_for_more() {
  share_->executor.timers().schedule(kLongestGathering, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      {
        const MutexLock lock(self->mutex_);
        self->timer_set_ = false;
        self->wanted_sequence_ = self->last_sequence_;
      }
      self->go_on();
    }
  });
}

Writer::Work Writer::next() {
  Work work;
  choose_pieces(work);
  choose_commit(work);
  work.answers.swap(early_answers_);
  answer_waiters(work);
  if (!holds_.empty() && !holds_.front().running && !committing_ &&
      !has_pieces_before(last_sequence_)) {
    holds_.front().running = true;
    work.answers.push_back(
        [self = shared_from_this(), alone = std::move(holds_.front().alone)]() mutable {
          alone([self](std::optional<std::uint64_t> size) { self->release(size); });
        });
  }
  tell_inode();
  if (!timer_set_ && !waiting_.empty() && !is_ripe(std::prev(waiting_.end()))) {
    timer_set_ = work.set_timer = true;
  }
  if (idle_now() && !told_idle_) {
    told_idle_ = true;
    work.idle = true;
  }
  return work;
}

// Before the answers: whoever has one may look at the file.
void Writer::tell_inode() {
  const std::uint64_t end = is_behind_now() ? accepted_end_ : 0;
  const std::uint64_t told = std::exchange(told_end_, end);
  if (end == told) {
    return;
  }
  inode_->set_answered_end(end);
  if (told == 0) {
    ++share_->files_behind;
  } else if (end == 0) {
    --share_->files_behind;
  }
}

// Nothing more will be put behind it, or nobody may wait for that.
bool Writer::is_ripe(Pieces::const_iterator piece) const {
  return !piece->growing || piece->sequence <= wanted_sequence_ ||
         piece->range().end() % share_->write_size == 0 || std::next(piece) != waiting_.end();
}

// What waits and is ripe, unless it overlaps what was accepted before it and is not answered.
void Writer::choose_pieces(Work& work) {
  const bool one_call = held_->any_in_step();
  if (one_call && (committing_ || commit_is_due(work))) {
    return;
  }
  const std::size_t most = one_call ? 1 : kMostUnderWay;
  std::uint64_t bytes = bytes_of_all(under_way_);
  for (auto piece = waiting_.begin();
       piece != waiting_.end() && bytes < kMostUnderWayBytes && under_way_.size() < most;) {
    const auto chosen = piece++;
    const auto blocks = [&chosen](const Piece& other) {
      return other.range().overlaps(chosen->range());
    };
    if (!is_ripe(chosen) || std::any_of(under_way_.begin(), under_way_.end(), blocks) ||
        std::any_of(waiting_.begin(), chosen, blocks)) {
      continue;
    }
    if (covers_stored(*chosen)) {
      work.commit_first = true;
      continue;
    }
    bytes += chosen->bytes.bytes.size();
    if (std::exchange(chosen->growing, false)) {
      chosen->space->close();
    }
    under_way_.splice(under_way_.end(), waiting_, chosen);
    work.send.push_back(chosen);
  }
  // A whole small file: one call instead of two.
  if (work.send.size() == 1 && under_way_.size() == 1 && waiting_.empty() && unstable_.empty() &&
      !committing_) {
    under_way_.front().stable = under_way_.front().sequence <= awaited_on_disk();
  }
}

// Bytes that nobody keeps for a next process would go over some that it would send again.
bool Writer::covers_stored(const Piece& piece) const {
  return piece.space == nullptr &&
         std::any_of(unstable_.begin(), unstable_.end(), [&piece](const Piece& other) {
           return other.space != nullptr && other.range().overlaps(piece.range());
         });
}

std::uint64_t Writer::awaited_on_disk() const {
  std::uint64_t wanted = holds_.empty() ? 0 : last_sequence_;
  for (const Waiter& waiter : waiters_) {
    wanted = std::max(wanted, waiter.safe ? waiter.sequence : 0);
  }
  return wanted;
}

bool Writer::commit_is_due(const Work& work) const {
  if (committing_ || unstable_.empty()) {
    return false;
  }
  const std::uint64_t wanted = awaited_on_disk();
  const bool asked = unstable_.front().sequence <= wanted;
  // One commit for all that is on its way, rather than one for each piece.
  const auto awaited = [wanted](const Piece& piece) { return piece.sequence <= wanted; };
  const bool more_comes = std::any_of(under_way_.begin(), under_way_.end(), awaited) ||
                          std::any_of(waiting_.begin(), waiting_.end(), awaited);
  return (asked && !more_comes) || work.commit_first || unstable_bytes_ > kMostUnstableBytes ||
         unstable_.size() > kMostUnstable;
}

void Writer::choose_commit(Work& work) {
  if (!commit_is_due(work) || (held_->any_in_step() && !under_way_.empty())) {
    return;
  }
  committing_ = true;
  work.commit = true;
  work.commit_credential =
      commit_credential_ != nullptr ? commit_credential_ : unstable_.front().credential;
  for (Piece& piece : unstable_) {
    piece.committing = true;
  }
}

void Writer::answer_waiters(Work& work) {
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    if (waiter->safe ? has_pieces_before(waiter->sequence)
                     : has_unanswered_before(waiter->sequence)) {
      ++waiter;
    } else {
      work.answers.push_back(std::move(waiter->done));
      waiter = waiters_.erase(waiter);
    }
  }
}

bool Writer::has_unanswered_before(std::uint64_t sequence) const {
  const auto before = [sequence](const Piece& piece) { return piece.sequence <= sequence; };
  return std::any_of(waiting_.begin(), waiting_.end(), before) ||
         std::any_of(under_way_.begin(), under_way_.end(), before);
}

bool Writer::has_pieces_before(std::uint64_t sequence) const {
  return has_unanswered_before(sequence) ||
         (!unstable_.empty() && unstable_.front().sequence <= sequence);
}

void Writer::send(Pieces::iterator piece) {
  inode_->begin_own_change();
  const Bytes rest = piece->bytes.bytes.subspan(piece->answered);
  share_->counters.bytes_written.add(rest.size());
  const Stability stability = piece->stable ? Stability::kFileSync : Stability::kUnstable;
  share_->adapter.start_write(inode_->handle(), {piece->offset + piece->answered, rest, stability},
                              piece->credential,
                              [self = shared_from_this(), piece](Result<WriteReply> reply) {
                                self->on_written(piece, std::move(reply));
                              });
}

void Writer::on_written(Pieces::iterator piece, Result<WriteReply> reply) {
  share_->end_change(inode_, reply ? Result<Change>(reply->file) : fail(reply.error()));
  if (reply) {
    share_->writes_tell = reply->file.before.has_value();
  }
  // What was gathered was accepted while nothing was in step.
  if (!reply || piece->confirmed || piece->space != nullptr || !held_->any_in_step()) {
    finish_written(piece, reply);
    return;
  }
  const Bytes sent = piece->bytes.bytes.subspan(piece->answered);
  CHECK(reply->length > 0 && reply->length <= sent.size());
  const Bytes confirmed = sent.first(reply->length);
  held_->write(piece->offset + piece->answered, piece->bytes.owner, confirmed,
               [self = shared_from_this(), piece, reply = std::move(reply)] {
                 self->finish_written(piece, reply);
               });
}

void Writer::finish_written(Pieces::iterator piece, const Result<WriteReply>& reply) {
  Work answered;
  {
    const MutexLock lock(mutex_);
    take_answer(piece, reply, answered);
  }
  answered.gone.clear();
  for (auto& answer : answered.answers) {
    answer();
  }
  go_on();
  if (answered.lost) {
    tell_lost(answered.first_error);
  }
}

void Writer::take_answer(Pieces::iterator piece, const Result<WriteReply>& reply, Work& work) {
  const std::shared_ptr<Call> call = piece->call;
  if (!reply) {
    copy_.give_up();
    drop(under_way_, piece, work.gone);
    finish_piece(call, reply.error(), work);
    return;
  }
  CHECK(reply->length > 0 && reply->length <= piece->bytes.bytes.size() - piece->answered);
  if (call != nullptr) {
    cautious_ = false;
  }
  // The server may have started anew between the parts of one piece.
  const bool lost = std::exchange(piece->again, false) ||
                    (piece->answered != 0 && piece->verifier != reply->verifier);
  piece->answered += reply->length;
  piece->all_on_disk &= reply->stability == Stability::kFileSync;
  piece->verifier = reply->verifier;
  piece->stable = false;
  piece->committing = false;
  if (lost || piece->answered < piece->bytes.bytes.size()) {
    if (lost) {
      begin_anew(*piece);
    }
    move_in_order(waiting_, under_way_, piece);
    return;
  }
  piece->call = nullptr;
  piece->confirmed = true;
  if (piece->all_on_disk && unstable_.empty()) {
    drop(under_way_, piece, work.gone);
  } else {
    // Also what is on the disk already, while something older is not: sent again, that would
    // overwrite it.
    unstable_bytes_ += piece->bytes.bytes.size();
    if (piece->space != nullptr) {
      piece->space->note_at_server(piece->verifier);
    }
    move_in_order(unstable_, under_way_, piece);
  }
  finish_piece(call, std::nullopt, work);
}

// All of it is to be sent.
void Writer::begin_anew(Piece& piece) {
  piece.answered = 0;
  piece.all_on_disk = true;
  if (piece.space != nullptr) {
    piece.space->note_lost();
  }
}

void Writer::finish_piece(const std::shared_ptr<Call>& call, const std::optional<Error>& error,
                          Work& work) {
  if (call == nullptr) {
    if (error) {
      ++late_errors_.count;
      late_errors_.last = error;
      work.lost = true;
      work.first_error = std::exchange(cautious_, true) ? std::nullopt : error;
      held_->fall_behind();  // it had been confirmed
      if (!has_unanswered_before(last_sequence_)) {
        accepted_end_ = 0;  // the file ends where the server says
      }
    }
    return;
  }
  if (error && !call->error) {
    call->error = error;
  }
  if (--call->pieces > 0) {
    return;
  }
  work.answers.push_back([call] {
    if (call->error) {
      call->done(fail(*call->error));
    } else {
      call->done(call->written);
    }
  });
}

// What the kernel's pages show is not the file.
void Writer::tell_lost(const std::optional<Error>& first) {
  if (first && first->code() != Errc::kCancelled && first->error_number() != ESTALE) {
    // Also for a file that nobody has open any more.
    log_warning("what was written to file {} did not reach the server: {}",
                inode_->attributes().attributes.fileid, first->message());
  }
  inode_->expire();
  share_->tell_changed(*inode_);
}

// It is safe, or lost.
void Writer::drop(Pieces& from, Pieces::iterator piece, Pieces& gone) {
  if (piece->space != nullptr) {
    share_->unsafe_bytes -= piece->bytes.bytes.size();
  }
  gone.splice(gone.end(), from, piece);
}

void Writer::move_in_order(Pieces& to, Pieces& from, Pieces::iterator piece) {
  const auto is_later = [&piece](const Piece& other) {
    return other.sequence > piece->sequence ||
           (other.sequence == piece->sequence && other.offset > piece->offset);
  };
  // Mostly it is the last.
  auto place = to.end();
  while (place != to.begin() && is_later(*std::prev(place))) {
    --place;
  }
  to.splice(place, from, piece);
}

void Writer::start_commit(const CredentialRef& credential) {
  inode_->begin_own_change();
  share_->adapter.start_commit(inode_->handle(), credential,
                               [self = shared_from_this()](Result<CommitReply> reply) {
                                 self->on_committed(std::move(reply));
                               });
}

void Writer::on_committed(Result<CommitReply> reply) {
  if (reply && held_->any_in_step() && !reply->file.before) {
    if (const std::optional<Attributes>& after = reply->file.after) {
      // Nothing else of ours is on its way, and it changes nothing: another's change would show.
      reply->file.before = BeforeChange{after->size, after->modified, after->changed};
    }
  }
  share_->end_change(inode_, reply ? Result<Change>(reply->file) : fail(reply.error()));
  bool lost = false;
  bool first = false;
  Pieces gone;
  {
    const MutexLock lock(mutex_);
    first = !cautious_;
    lost = take_commit(reply, gone);
  }
  gone.clear();
  go_on();
  if (lost) {
    tell_lost(first ? std::optional(reply.error()) : std::nullopt);
  }
}

bool Writer::take_commit(const Result<CommitReply>& reply, Pieces& gone) {
  committing_ = false;
  const auto lost = [&reply](const Piece& piece) {
    return piece.committing && piece.verifier != reply->verifier;
  };
  if (reply && std::any_of(unstable_.begin(), unstable_.end(), lost)) {
    share_->counters.writes_sent_again.add();
    send_again();
    return false;
  }
  if (!reply) {
    copy_.give_up();
    ++late_errors_.count;
    late_errors_.last = reply.error();
    cautious_ = true;
    held_->fall_behind();
  }
  // What was part of it is safe now, or lost.
  for (auto piece = unstable_.begin(); piece != unstable_.end();) {
    const auto covered = piece++;
    if (covered->committing) {
      unstable_bytes_ -= covered->bytes.bytes.size();
      drop(unstable_, covered, gone);
    }
  }
  return !reply.has_value();
}

// The server has started anew and forgot what was not on its disk. Everything goes again, in order:
// also what is safe, where it may lie upon what is not.
void Writer::send_again() {
  unstable_bytes_ = 0;
  while (!unstable_.empty()) {
    move_in_order(waiting_, unstable_, unstable_.begin());
  }
  for (Piece& piece : waiting_) {
    begin_anew(piece);
  }
  for (Piece& piece : under_way_) {
    piece.again = true;
  }
}

// The kernel drops the pages that a truncation cuts off, but may have sent them before it did.
void Writer::cut_off(HeldWrite& write, std::uint64_t size) {
  const std::uint64_t room = size - std::min(size, write.place.offset);
  write.bytes.bytes =
      write.bytes.bytes.first(std::min<std::size_t>(room, write.bytes.bytes.size()));
}

void Writer::release(std::optional<std::uint64_t> size) {
  std::vector<HeldWrite> held;
  {
    const MutexLock lock(mutex_);
    CHECK(!holds_.empty() && holds_.front().running);
    holds_.pop_front();
    if (size) {
      accepted_end_ = *size;
      if (*size == 0) {
        copy_.begin();
      } else {
        copy_.set_size(*size);
      }
    }
    held.swap(held_writes_);
  }
  for (HeldWrite& one : held) {
    if (size && one.place.of_mapping) {
      cut_off(one, *size);
    }
    write(one.place, std::move(one.bytes), std::move(one.credential), std::move(one.done));
  }
  go_on();
}

}  // namespace larder::netfs
