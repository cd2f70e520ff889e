// MessageStream: a message's first bytes wait until they tell what it is; the rest streams through.
#include "message_stream.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "outbox.h"
#include "record.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

// NFSv3 servers send at most a few MiB at once; a greater record is garbage and is not kept.
constexpr std::size_t kMaximumCollected = std::size_t{32} << 20;
// Fragments of a byte or none would make a head of endless parts.
constexpr std::size_t kMaximumUndecided = 2 * kHeadBytes;

}  // namespace

void MessageStream::feed(Slice received) {
  while (received.length > 0) {
    const RecordScanner::Piece piece = scanner_.next(received.bytes());
    feed_piece(received.take(piece.length), piece);
  }
}

void MessageStream::feed_piece(Slice piece, RecordScanner::Piece kind) {
  if (decided_) {
    dispose(std::move(piece), kind.is_payload);
  } else {
    if (kind.is_payload) {
      const Bytes bytes = piece.bytes().first(std::min(piece.length, kHeadBytes - head_.size()));
      head_.insert(head_.end(), bytes.begin(), bytes.end());
    }
    undecided_.push_back({.slice = std::move(piece), .is_payload = kind.is_payload});
    if (head_.size() == kHeadBytes || kind.ends_record || undecided_.size() > kMaximumUndecided) {
      decide();
    }
  }
  if (kind.ends_record) {
    end_message();
  }
}

void MessageStream::decide() {
  decided_ = true;
  decision_ = handler_.decide(head_);
  for (Part& part : std::exchange(undecided_, {})) {
    dispose(std::move(part.slice), part.is_payload);
  }
}

void MessageStream::dispose(Slice piece, bool is_payload) {
  switch (decision_.disposal) {
    case Disposal::kPass:
      handler_.pass(std::move(piece));
      break;
    case Disposal::kDrop:
      break;
    case Disposal::kCollect:
      if (is_payload && collected_.size() + piece.length <= kMaximumCollected) {
        const Bytes bytes = piece.bytes();
        collected_.insert(collected_.end(), bytes.begin(), bytes.end());
      }
      break;
    case Disposal::kCut: {
      const std::size_t length = std::min(piece.length, decision_.cut_after);
      decision_.cut_after -= length;
      if (length > 0) {
        handler_.pass(piece.take(length));
      }
      if (decision_.cut_after == 0) {
        decision_.disposal = Disposal::kDrop;
        handler_.cut();
      }
      break;
    }
  }
}

void MessageStream::end_message() {
  if (decision_.disposal == Disposal::kCollect) {
    handler_.collected(std::exchange(collected_, {}));
  }
  decided_ = false;
  head_.clear();
  handler_.message_ended();
}

}  // namespace larder::proxy
