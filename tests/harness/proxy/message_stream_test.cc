// If these fail a fault strikes the wrong message, or bytes of a message that was let through
// change.
#include "message_stream.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "outbox.h"
#include "record.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

// Decides by the message's first letter.
class Recorder : public MessageHandler {
 public:
  Decision decide(Bytes head) override {
    heads.emplace_back(text_of(head));
    switch (head.empty() ? 'p' : text_of(head).front()) {
      case 'd':
        return {.disposal = Disposal::kDrop};
      case 'c':
        return {.disposal = Disposal::kCollect};
      case 'x':
        return {.disposal = Disposal::kCut, .cut_after = 6};
      default:
        return {};
    }
  }

  void pass(Slice slice) override { passed += text_of(slice.bytes()); }

  void collected(std::vector<std::byte> message) override { whole.emplace_back(text_of(message)); }

  void cut() override { is_cut = true; }

  void message_ended() override { ++ended; }

  std::vector<std::string> heads;
  std::string passed;
  std::vector<std::string> whole;
  bool is_cut = false;
  int ended = 0;
};

std::string framed(std::string_view payload, std::size_t fragment_bytes = 0) {
  return std::string(text_of(frame_record(bytes_of(payload), fragment_bytes)));
}

void feed(MessageStream& stream, std::string_view bytes, std::size_t piece_bytes) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, piece_bytes);
    stream.feed(copy_to_slice(bytes_of(piece)));
    bytes.remove_prefix(piece.size());
  }
}

TEST(MessageStreamTest, PassesDropsAndCollectsByMessage) {
  const std::string large(10'000, 'p');
  const std::string collected = "c" + std::string(3000, '.');
  const std::string bytes = framed("pass") + framed("drop") + framed(collected, 100) +
                            framed(large, 1234) + framed("d" + large) + framed("") + framed("p");
  for (const std::size_t piece_bytes : {1UZ, 2UZ, 5UZ, 1000UZ, bytes.size()}) {
    Recorder recorder;
    MessageStream stream(recorder);
    feed(stream, bytes, piece_bytes);
    EXPECT_EQ(recorder.passed, framed("pass") + framed(large, 1234) + framed("") + framed("p"));
    EXPECT_EQ(recorder.whole, std::vector{collected});
    EXPECT_EQ(recorder.ended, 7);
  }
}

TEST(MessageStreamTest, AHeadIsTheBeginningOrTheWholeMessage) {
  Recorder recorder;
  MessageStream stream(recorder);
  const std::string large(5000, 'p');
  feed(stream, framed("p1") + framed(large), 700);
  EXPECT_EQ(recorder.heads, (std::vector<std::string>{"p1", large.substr(0, kHeadBytes)}));
}

TEST(MessageStreamTest, NothingPassesBeforeTheDecision) {
  Recorder recorder;
  MessageStream stream(recorder);
  const std::string bytes = framed("p" + std::string(2000, 'x'));
  feed(stream, bytes.substr(0, 500), 500);
  EXPECT_EQ(recorder.passed, "");
  EXPECT_FALSE(stream.is_within_passed_message());
  feed(stream, bytes.substr(500, 1000), 1000);
  EXPECT_TRUE(stream.is_within_passed_message());
  feed(stream, bytes.substr(1500), 1000);
  EXPECT_FALSE(stream.is_within_passed_message());
  EXPECT_EQ(recorder.passed, bytes);
}

TEST(MessageStreamTest, ACutMessageEndsAfterItsBytes) {
  for (const std::size_t piece_bytes : {1UZ, 3UZ, 100UZ}) {
    Recorder recorder;
    MessageStream stream(recorder);
    feed(stream, framed("xyz12345"), piece_bytes);
    EXPECT_EQ(recorder.passed, framed("xyz12345").substr(0, 6));
    EXPECT_TRUE(recorder.is_cut);
  }
}

TEST(MessageStreamTest, EndlessEmptyFragmentsAreNotKept) {
  Recorder recorder;
  MessageStream stream(recorder);
  feed(stream, std::string(1 << 20, '\0'), 1 << 16);
  EXPECT_EQ(recorder.passed.size(), 1U << 20) << "undecided messages go on after some fragments";
}

}  // namespace
}  // namespace larder::proxy
