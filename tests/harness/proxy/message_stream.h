// MessageStream: cuts one direction of a connection into RPC messages and asks what to do with
// each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "outbox.h"
#include "record.h"

namespace larder::proxy {

enum class Disposal : std::uint8_t {
  kPass,     // goes on as it came
  kDrop,     // vanishes
  kCollect,  // is handed over whole
  kCut,      // goes on for some bytes, then the connection ends
};

// What the stream asks and tells.
class MessageHandler {
 public:
  struct Decision {
    Disposal disposal = Disposal::kPass;
    std::size_t cut_after = 0;  // bytes of the message that still pass, marks included
  };

  MessageHandler() = default;
  MessageHandler(const MessageHandler&) = delete;
  MessageHandler& operator=(const MessageHandler&) = delete;
  virtual ~MessageHandler() = default;

  // `head` is the message's beginning without marks, kHeadBytes or the whole message.
  virtual Decision decide(Bytes head) = 0;
  virtual void pass(Slice slice) = 0;
  // A collected message, without marks.
  virtual void collected(std::vector<std::byte> message) = 0;
  virtual void cut() = 0;
  // Between two messages: others may be pushed in here.
  virtual void message_ended() = 0;
};

// Threads: one. Life: `handler` outlives it.
class MessageStream {
 public:
  explicit MessageStream(MessageHandler& handler) : handler_(handler) {}

  void feed(Slice received);

  // Part of a message has been passed on and the rest has not: nothing may be pushed in between.
  [[nodiscard]] bool is_within_passed_message() const {
    return decided_ && decision_.disposal == Disposal::kPass;
  }

 private:
  void feed_piece(Slice piece, RecordScanner::Piece kind);
  void decide();
  void dispose(Slice piece, bool is_payload);
  void end_message();

  struct Part {
    Slice slice;
    bool is_payload;
  };

  MessageHandler& handler_;
  RecordScanner scanner_;
  bool decided_ = false;
  MessageHandler::Decision decision_;
  std::vector<std::byte> head_;
  std::vector<Part> undecided_;  // parts of the message from before the decision
  std::vector<std::byte> collected_;
};

}  // namespace larder::proxy
