#include "netfs/direct_read.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"

namespace larder::netfs {

void DirectRead::start(std::shared_ptr<ShareContext> share, InodeRef inode,
                       CredentialRef credential, ByteRange wanted, Sameness sameness,
                       Done<Outcome> done) {
  std::make_shared<DirectRead>(std::move(share), std::move(inode), std::move(credential), wanted,
                               sameness, std::move(done))
      ->begin();
}

DirectRead::DirectRead(std::shared_ptr<ShareContext> share, InodeRef inode,
                       CredentialRef credential, ByteRange wanted, Sameness sameness,
                       Done<Outcome> done)
    : share_(std::move(share)),
      inode_(std::move(inode)),
      credential_(std::move(credential)),
      wanted_(wanted),
      sameness_(sameness),
      done_(std::move(done)) {}

void DirectRead::begin() {
  ++attempts_;
  bool blind = false;
  {
    const MutexLock lock(mutex_);
    seen_.reset();
    mixed_ = false;
    blind = blind_;
  }
  if (blind) {
    ask_attributes(&DirectRead::ask_pieces);
  } else {
    ask_pieces();
  }
}

void DirectRead::ask_pieces() {
  std::size_t count = 0;
  {
    const MutexLock lock(mutex_);
    pieces_.clear();
    for (std::uint64_t at = wanted_.offset; at < wanted_.end(); at += share_->read_size) {
      const ByteRange range{at, std::min<std::uint64_t>(share_->read_size, wanted_.end() - at)};
      pieces_.push_back({range, share_->buffers.allocate(range.length), 0, false});
    }
    pending_ = count = pieces_.size();
  }
  if (count == 0) {
    done_(Outcome{});
    return;
  }
  const auto self = shared_from_this();
  for (std::size_t index = 0; index < count; ++index) {
    ask(index);
  }
}

void DirectRead::ask_attributes(void (DirectRead::*then)()) {
  share_->adapter.start_getattr(
      inode_->handle(), credential_,
      [self = shared_from_this(), then](const Result<Attributes>& attributes) {
        {
          const MutexLock lock(self->mutex_);
          if (attributes) {
            self->note(*attributes);
          } else if (!self->error_) {
            self->error_ = attributes.error();
          }
        }
        (self.get()->*then)();
      });
}

void DirectRead::ask(std::size_t index) {
  ReadOrder order;
  {
    const MutexLock lock(mutex_);
    const Piece& piece = pieces_.at(index);
    order.offset = piece.range.offset + piece.got;
    order.destination = piece.buffer.bytes().subspan(piece.got);
  }
  share_->adapter.start_read(inode_->handle(), order, credential_,
                             [self = shared_from_this(), index](Result<ReadReply> reply) {
                               self->on_reply(index, std::move(reply));
                             });
}

void DirectRead::on_reply(std::size_t index, Result<ReadReply> reply) {
  bool more = false;
  {
    const MutexLock lock(mutex_);
    more = !take(pieces_.at(index), reply);
    if (!more && --pending_ > 0) {
      return;
    }
  }
  if (more) {
    ask(index);
  } else {
    check_again();
  }
}

void DirectRead::check_again() {
  bool needed = false;
  {
    const MutexLock lock(mutex_);
    needed = blind_ && !mixed_ && !error_;
  }
  if (needed) {
    ask_attributes(&DirectRead::finish);
  } else {
    finish();
  }
}

void DirectRead::note(const Attributes& attributes) {
  mixed_ |= seen_ && !same_version(*seen_, attributes);
  seen_ = attributes;
}

bool DirectRead::take(Piece& piece, const Result<ReadReply>& reply) {
  if (!reply) {
    error_ = reply.error();
    return true;
  }
  piece.got += reply->length;
  piece.end = reply->end || reply->length == 0;
  if (const std::optional<Attributes>& attributes = reply->attributes) {
    note(*attributes);
  } else if (!blind_ && pieces_.size() > 1 && sameness_ == Sameness::kOneVersion) {
    blind_ = mixed_ = true;  // for all we know; asked with care from now on
  }
  return piece.end || piece.got == piece.range.length;
}

void DirectRead::finish() {
  Outcome outcome;
  bool again = false;
  std::optional<Error> error;
  {
    const MutexLock lock(mutex_);
    error = error_;
    again = mixed_ && !error_ && attempts_ < kMostAttempts && sameness_ == Sameness::kOneVersion;
    for (const Piece& piece : pieces_) {
      share_->counters.bytes_from_server.add(piece.got);
    }
    for (const Piece& piece : again || error_ ? std::vector<Piece>() : std::move(pieces_)) {
      outcome.slices.push_back({piece.buffer, Bytes(piece.buffer.bytes()).first(piece.got)});
      outcome.length += piece.got;
      if (piece.got < piece.range.length) {
        break;
      }
    }
  }
  if (again) {
    begin();
  } else if (error) {
    done_(fail(std::move(*error)));
  } else {
    done_(std::move(outcome));
  }
}

}  // namespace larder::netfs
