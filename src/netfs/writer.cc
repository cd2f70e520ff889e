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
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"

namespace larder::netfs {

Writer::Writer(std::shared_ptr<ShareContext> share, InodeRef inode, std::function<void()> on_idle)
    : share_(std::move(share)), inode_(std::move(inode)), on_idle_(std::move(on_idle)) {}

void Writer::write(const WritePlace& place, OwnedBytes bytes, CredentialRef credential,
                   Done<Written> done) {
  if (bytes.bytes.empty()) {
    done(Written{place.offset, 0});
    return;
  }
  const std::uint64_t size = inode_->attributes().attributes.size;
  HeldWrite write{place, std::move(bytes), std::move(credential), std::move(done)};
  {
    const MutexLock lock(mutex_);
    told_idle_ = false;
    if (!holds_.empty()) {
      held_writes_.push_back(std::move(write));
      return;
    }
    accept(std::move(write), size);
  }
  go_on();
}

// Chooses the place and cuts the bytes to pieces. `size` is the file's as far as answers have come.
void Writer::accept(HeldWrite write, std::uint64_t size) {
  const Bytes bytes = write.bytes.bytes;
  const std::uint64_t begin =
      write.place.append ? std::max(size, accepted_end_) : write.place.offset;
  auto call = std::make_shared<Call>();
  call->written = {begin, bytes.size()};
  call->done = std::move(write.done);
  ++last_sequence_;
  for (std::size_t at = 0; at < bytes.size(); at += share_->write_size) {
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
  accepted_end_ = std::max(accepted_end_, begin + bytes.size());
}

void Writer::commit(CredentialRef credential, std::move_only_function<void()> done) {
  {
    const MutexLock lock(mutex_);
    commit_credential_ = std::move(credential);
    waiters_.push_back({last_sequence_, std::move(done)});
  }
  go_on();
}

void Writer::hold(CredentialRef credential, std::move_only_function<void(Release)> alone) {
  {
    const MutexLock lock(mutex_);
    commit_credential_ = std::move(credential);
    holds_.push_back({std::move(alone), false});
    told_idle_ = false;
  }
  go_on();
}

LateErrors Writer::late_errors() const {
  const MutexLock lock(mutex_);
  return late_errors_;
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
  if (work.idle) {
    on_idle_();
  }
}

Writer::Work Writer::next() {
  Work work;
  choose_pieces(work);
  choose_commit(work);
  answer_waiters(work);
  if (!holds_.empty() && !holds_.front().running && !committing_ &&
      !has_pieces_before(last_sequence_)) {
    holds_.front().running = true;
    work.answers.push_back(
        [self = shared_from_this(), alone = std::move(holds_.front().alone)]() mutable {
          alone([self](std::optional<std::uint64_t> size) { self->release(size); });
        });
  }
  if (idle_now() && !told_idle_) {
    told_idle_ = true;
    accepted_end_ = 0;
    work.idle = true;
  }
  return work;
}

// What waits, unless it overlaps what was accepted before it and is not answered.
void Writer::choose_pieces(Work& work) {
  for (auto piece = waiting_.begin(); piece != waiting_.end();) {
    const auto chosen = piece++;
    const auto blocks = [&chosen](const Piece& other) {
      return other.range().overlaps(chosen->range());
    };
    if (std::any_of(under_way_.begin(), under_way_.end(), blocks) ||
        std::any_of(waiting_.begin(), chosen, blocks)) {
      continue;
    }
    under_way_.splice(under_way_.end(), waiting_, chosen);
    work.send.push_back(chosen);
  }
}

void Writer::choose_commit(Work& work) {
  if (committing_ || unstable_.empty()) {
    return;
  }
  std::uint64_t wanted = holds_.empty() ? 0 : last_sequence_;
  for (const Waiter& waiter : waiters_) {
    wanted = std::max(wanted, waiter.sequence);
  }
  const bool asked = unstable_.front().sequence <= wanted;
  // One commit for all that is on its way, rather than one for each piece.
  const auto awaited = [wanted](const Piece& piece) { return piece.sequence <= wanted; };
  const bool more_comes = std::any_of(under_way_.begin(), under_way_.end(), awaited) ||
                          std::any_of(waiting_.begin(), waiting_.end(), awaited);
  if ((asked && !more_comes) || unstable_bytes_ > kMostUnstableBytes) {
    committing_ = true;
    work.commit = true;
    work.commit_credential =
        commit_credential_ != nullptr ? commit_credential_ : unstable_.front().credential;
    for (Piece& piece : unstable_) {
      piece.committing = true;
    }
  }
}

void Writer::answer_waiters(Work& work) {
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    if (has_pieces_before(waiter->sequence)) {
      ++waiter;
    } else {
      work.answers.push_back(std::move(waiter->done));
      waiter = waiters_.erase(waiter);
    }
  }
}

bool Writer::has_pieces_before(std::uint64_t sequence) const {
  const auto before = [sequence](const Piece& piece) { return piece.sequence <= sequence; };
  return std::any_of(waiting_.begin(), waiting_.end(), before) ||
         std::any_of(under_way_.begin(), under_way_.end(), before) ||
         std::any_of(unstable_.begin(), unstable_.end(), before);
}

void Writer::send(Pieces::iterator piece) {
  inode_->begin_own_change();
  share_->counters.bytes_written.add(piece->bytes.bytes.size());
  share_->adapter.start_write(inode_->handle(), {piece->offset, piece->bytes.bytes},
                              piece->credential,
                              [self = shared_from_this(), piece](Result<WriteReply> reply) {
                                self->on_written(piece, std::move(reply));
                              });
}

void Writer::on_written(Pieces::iterator piece, Result<WriteReply> reply) {
  share_->end_change(inode_, reply ? Result<Change>(reply->file) : fail(reply.error()));
  Work answered;
  {
    const MutexLock lock(mutex_);
    take_answer(piece, reply, answered);
  }
  for (auto& answer : answered.answers) {
    answer();
  }
  go_on();
}

void Writer::take_answer(Pieces::iterator piece, const Result<WriteReply>& reply, Work& work) {
  const std::shared_ptr<Call> call = piece->call;
  if (!reply) {
    under_way_.erase(piece);
    finish_piece(call, reply.error(), work);
    return;
  }
  CHECK(reply->length > 0 && reply->length <= piece->bytes.bytes.size());
  if (reply->length < piece->bytes.bytes.size()) {
    // The rest goes by itself; the call waits for both.
    Piece rest = *piece;
    rest.offset += reply->length;
    rest.bytes.bytes = rest.bytes.bytes.subspan(reply->length);
    piece->bytes.bytes = piece->bytes.bytes.first(reply->length);
    if (call != nullptr) {
      ++call->pieces;
    }
    insert_in_order(waiting_, std::move(rest));
  }
  piece->call = nullptr;
  piece->verifier = reply->verifier;
  piece->committing = false;
  if (std::exchange(piece->again, false)) {
    move_in_order(waiting_, under_way_, piece);
  } else if (reply->stability == Stability::kFileSync && unstable_.empty()) {
    under_way_.erase(piece);
  } else {
    // Also what is on the disk already, while something older is not: sent again, that would
    // overwrite it.
    unstable_bytes_ += piece->bytes.bytes.size();
    move_in_order(unstable_, under_way_, piece);
  }
  finish_piece(call, std::nullopt, work);
}

void Writer::finish_piece(const std::shared_ptr<Call>& call, const std::optional<Error>& error,
                          Work& work) {
  if (call == nullptr) {
    if (error) {
      ++late_errors_.count;
      late_errors_.last = error;
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

void Writer::insert_in_order(Pieces& list, Piece piece) {
  const auto later = [&piece](const Piece& other) {
    return other.sequence > piece.sequence ||
           (other.sequence == piece.sequence && other.offset > piece.offset);
  };
  list.insert(std::find_if(list.begin(), list.end(), later), std::move(piece));
}

void Writer::move_in_order(Pieces& to, Pieces& from, Pieces::iterator piece) {
  // Mostly it is the last.
  auto place = to.end();
  while (place != to.begin() && std::prev(place)->sequence > piece->sequence) {
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
  share_->end_change(inode_, reply ? Result<Change>(reply->file) : fail(reply.error()));
  {
    const MutexLock lock(mutex_);
    take_commit(reply);
  }
  go_on();
}

void Writer::take_commit(const Result<CommitReply>& reply) {
  committing_ = false;
  const auto lost = [&reply](const Piece& piece) {
    return piece.committing && piece.verifier != reply->verifier;
  };
  if (reply && std::any_of(unstable_.begin(), unstable_.end(), lost)) {
    share_->counters.writes_sent_again.add();
    send_again();
    return;
  }
  if (!reply) {
    ++late_errors_.count;
    late_errors_.last = reply.error();
  }
  // What was part of it is safe now, or lost.
  unstable_.remove_if([this](const Piece& piece) REQUIRES(mutex_) {
    unstable_bytes_ -= piece.committing ? piece.bytes.bytes.size() : 0;
    return piece.committing;
  });
}

// The server has started anew and forgot what was not on its disk. Everything goes again, in order:
// also what is safe, where it may lie upon what is not.
void Writer::send_again() {
  unstable_bytes_ = 0;
  while (!unstable_.empty()) {
    move_in_order(waiting_, unstable_, unstable_.begin());
  }
  for (Piece& piece : under_way_) {
    piece.again = true;
  }
}

void Writer::release(std::optional<std::uint64_t> size) {
  std::vector<HeldWrite> held;
  {
    const MutexLock lock(mutex_);
    CHECK(!holds_.empty() && holds_.front().running);
    holds_.pop_front();
    if (size) {
      accepted_end_ = *size;
    }
    held.swap(held_writes_);
  }
  for (HeldWrite& one : held) {
    write(one.place, std::move(one.bytes), std::move(one.credential), std::move(one.done));
  }
  go_on();
}

}  // namespace larder::netfs
