#include "netfs/read_request.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fscache/backend.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/direct_read.h"
#include "netfs/file.h"
#include "netfs/read_slice.h"
#include "netfs/share_context.h"

namespace larder::netfs {

void ReadRequest::start(std::shared_ptr<File> file, std::shared_ptr<ShareContext> share,
                        Caller caller, ByteRange wanted, Done<ReadOutcome> done) {
  auto request = std::make_shared<ReadRequest>(std::move(file), std::move(share), std::move(caller),
                                               wanted, std::move(done));
  if (request->caller_.scope != nullptr) {
    request->caller_.scope->set_cancel([weak = std::weak_ptr(request)] {
      if (const auto self = weak.lock()) {
        self->cancel();
      }
    });
  }
  request->begin();
}

ReadRequest::ReadRequest(std::shared_ptr<File> file, std::shared_ptr<ShareContext> share,
                         Caller caller, ByteRange wanted, Done<ReadOutcome> done)
    : file_(std::move(file)),
      share_(std::move(share)),
      caller_(std::move(caller)),
      asked_(wanted),
      done_(std::move(done)) {}

void ReadRequest::begin() {
  ++attempts_;
  version_ = file_->version();
  if (version_->written) {
    read_directly();
    return;
  }
  if (file_->inode()->is_unsure()) {
    begin_when_sure();
    return;
  }
  wanted_ = asked_.intersection({0, version_->size()});
  if (wanted_.empty()) {
    finish_with(ReadOutcome{{}, 0, version_});
    return;
  }
  if (version_->content != nullptr) {
    begin_written();
    return;
  }
  if (version_->small()) {
    begin_small();
    return;
  }
  version_->cookie->use([self = shared_from_this()] { self->issue(); });
}

// The version may be over since a change of ours.
void ReadRequest::begin_when_sure() {
  share_->refresh(file_->inode(), {caller_.credential, nullptr},
                  [self = shared_from_this()](const Result<Attributes>& attributes) {
                    if (!attributes) {
                      self->finish_with(fail(attributes.error()));
                    } else if (self->file_->inode()->is_unsure()) {
                      self->read_directly();
                    } else {
                      self->begin();
                    }
                  });
}

// From what we have just written.
void ReadRequest::begin_written() {
  {
    const MutexLock lock(mutex_);
    pending_ = 1;
  }
  const Buffer buffer = share_->buffers.allocate(wanted_.length);
  const Bytes written = version_->content->bytes().subspan(wanted_.offset, wanted_.length);
  std::memcpy(buffer.bytes().data(), written.data(), written.size());
  share_->counters.bytes_handed_on.add(wanted_.length);
  add_slice(wanted_.offset, buffer, buffer.bytes());
  piece_done({});
}

void ReadRequest::begin_small() {
  {
    const MutexLock lock(mutex_);
    pending_ = 1;
  }
  file_->start_load_small(version_, caller_, [self = shared_from_this()](Result<Buffer> loaded) {
    if (!loaded) {
      self->piece_done(fail(loaded.error()));
      return;
    }
    self->from_server_ = self->file_->take_small_news();
    self->add_slice(self->wanted_.offset, *loaded,
                    Bytes(loaded->bytes()).subspan(self->wanted_.offset, self->wanted_.length));
    self->piece_done({});
  });
}

// Splits what is wanted by its sources and sets every piece going.
void ReadRequest::issue() {
  fetch_unit_ = file_->note_read(version_, wanted_, caller_.credential);
  {
    const MutexLock lock(mutex_);
    pending_ = 1;  // ours, until everything is issued
  }
  std::uint64_t at = wanted_.offset;
  for (const File::Piece& piece : file_->take_landed(version_, wanted_)) {
    issue_gap(ByteRange::between(at, piece.range.offset));
    share_->counters.bytes_handed_on.add(piece.range.length);
    add_piece(piece);
    at = piece.range.end();
  }
  issue_gap(ByteRange::between(at, wanted_.end()));
  file_->pump_prefetch();
  piece_done({});
}

// A part of it that is not in memory.
void ReadRequest::issue_gap(ByteRange gap) {
  std::uint64_t at = gap.offset;
  while (at < gap.end()) {
    const fscache::ReadPlan plan = version_->cookie->plan_read(ByteRange::between(at, gap.end()));
    CHECK(!plan.range.empty());
    if (plan.source == fscache::Source::kCache) {
      issue_cache(plan.range);
    } else {
      issue_server(plan.range);
    }
    at = plan.range.end();
  }
}

void ReadRequest::issue_cache(ByteRange range) {
  {
    const MutexLock lock(mutex_);
    ++pending_;
  }
  const Buffer buffer = share_->buffers.allocate(range.length);
  version_->cookie->start_read(range.offset, buffer, buffer.bytes(),
                               [self = shared_from_this(), range, buffer](const Result<>& result) {
                                 if (!result) {
                                   // The cache had it and could not give it: the server can.
                                   self->share_->counters.cache_read_errors.add();
                                   self->issue_server(range);
                                 } else {
                                   self->share_->counters.bytes_from_cache.add(range.length);
                                   self->add_slice(range.offset, buffer, buffer.bytes());
                                 }
                                 self->piece_done({});
                               });
}

void ReadRequest::issue_server(ByteRange range) {
  const std::vector<File::Piece> pieces =
      file_->fetch(version_, range, fetch_unit_, caller_.credential);
  {
    const MutexLock lock(mutex_);
    from_server_ = true;
    pending_ += static_cast<unsigned>(pieces.size());
    if (pieces.empty()) {
      error_ = Error(Errc::kChanged, "the file changed on the server meanwhile");
    }
  }
  for (const File::Piece& piece : pieces) {
    wait_for(piece);
  }
}

void ReadRequest::wait_for(const File::Piece& piece) {
  const std::uint64_t id =
      file_->wait_for(piece, [self = shared_from_this(), piece](Result<Buffer> fetched) {
        if (!fetched) {
          self->piece_done(fail(fetched.error()));
          return;
        }
        self->add_piece(piece);
        self->piece_done({});
      });
  bool cancelled = false;
  {
    const MutexLock lock(mutex_);
    cancelled = cancelled_;
    if (!cancelled) {
      waiting_.push_back({piece, id});
    }
  }
  if (cancelled) {
    file_->leave(piece, id);
  }
}

void ReadRequest::add_piece(const File::Piece& piece) {
  const Buffer& buffer = piece.fetch->buffer;
  add_slice(piece.range.offset, buffer,
            Bytes(buffer.bytes()).subspan(piece.range.offset - piece.origin, piece.range.length));
}

void ReadRequest::add_slice(std::uint64_t offset, Buffer owner, Bytes bytes) {
  const MutexLock lock(mutex_);
  slices_.emplace(offset, ReadSlice{std::move(owner), bytes});
}

void ReadRequest::piece_done(Result<> result) {
  {
    const MutexLock lock(mutex_);
    if (!result && !error_) {
      error_ = std::move(result.error());
    }
    if (--pending_ > 0) {
      return;
    }
  }
  finish();
}

void ReadRequest::finish() {
  Result<ReadOutcome> outcome = collect();
  if (outcome) {
    (from_server_ ? share_->counters.misses : share_->counters.hits).add();
    finish_with(std::move(outcome));
    return;
  }
  if (outcome.error().code() != Errc::kChanged || caller_cancelled()) {
    finish_with(std::move(outcome));
    return;
  }
  share_->counters.read_restarts.add();
  if (attempts_ < kMostAttempts) {
    begin_after_check();
  } else {
    read_directly();
  }
}

// What the attempt brought, or its first error; nothing of it is left.
Result<ReadOutcome> ReadRequest::collect() {
  ReadOutcome outcome;
  outcome.version = version_;
  const MutexLock lock(mutex_);
  waiting_.clear();
  const auto slices = std::exchange(slices_, {});
  if (std::optional<Error> error = std::exchange(error_, std::nullopt)) {
    return fail(std::move(*error));
  }
  for (const auto& [offset, slice] : slices) {
    CHECK(offset == wanted_.offset + outcome.length, "a read has a hole at {}", offset);
    outcome.length += slice.bytes.size();
    outcome.slices.push_back(slice);
  }
  CHECK(outcome.length == wanted_.length);
  return outcome;
}

// Another attempt needs news of the file: what changed may have shown in its data only.
void ReadRequest::begin_after_check() {
  if (file_->version() != version_) {
    begin();
    return;
  }
  share_->refresh(file_->inode(), {caller_.credential, nullptr},
                  [self = shared_from_this()](const Result<Attributes>& attributes) {
                    if (!attributes) {
                      self->finish_with(fail(attributes.error()));
                    } else {
                      self->begin();
                    }
                  });
}

// The file is being written here, or changes under every attempt: serve what the server has, and
// let nobody keep it, but for the kernel what our own writes keep right.
void ReadRequest::read_directly() {
  if (file_->is_behind()) {
    file_->catch_up([self = shared_from_this()] { self->read_at_server(); });
  } else {
    read_at_server();
  }
}

void ReadRequest::read_at_server() {
  DirectRead::start(
      share_, file_->inode(), caller_.credential, asked_,
      version_->written ? DirectRead::Sameness::kAnyVersions : DirectRead::Sameness::kOneVersion,
      [self = shared_from_this()](Result<DirectRead::Outcome> read) {
        if (!read) {
          self->finish_with(fail(read.error()));
          return;
        }
        self->share_->counters.misses.add();
        self->finish_with(ReadOutcome{std::move(read->slices), read->length, nullptr});
      });
}

void ReadRequest::finish_with(Result<ReadOutcome> outcome) {
  Done<ReadOutcome> done;
  {
    const MutexLock lock(mutex_);
    done = std::exchange(done_, nullptr);
  }
  if (done) {
    done(std::move(outcome));
  }
}

bool ReadRequest::caller_cancelled() const {
  return caller_.scope != nullptr && caller_.scope->cancelled();
}

void ReadRequest::cancel() {
  std::vector<Waiting> waiting;
  {
    const MutexLock lock(mutex_);
    cancelled_ = true;
    waiting.swap(waiting_);
  }
  finish_with(fail(Errc::kCancelled, "interrupted"));
  for (const Waiting& one : waiting) {
    file_->leave(one.piece, one.id);
  }
}

}  // namespace larder::netfs
