#include "adapters/nfs/reply_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_message.h"
#include "adapters/nfs/rpc_test_server.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"

namespace larder::nfs {
namespace {

// Knows calls and remembers how they ended.
class Calls final : public ReplySink {
 public:
  struct Call {
    std::vector<std::byte> destination;
    bool ended = false;
    std::optional<Error> error;
    std::string results;
    std::size_t data_length = 0;
  };

  Call& add(std::uint32_t xid, std::size_t destination_bytes) {
    Call& call = calls_[xid];
    call.destination.assign(destination_bytes, kUntouched);
    return call;
  }

  std::optional<Target> begin_reply(std::uint32_t xid) override {
    const auto found = calls_.find(xid);
    if (found == calls_.end() || found->second.ended) {
      ++unknown_;
      return std::nullopt;
    }
    current_ = &found->second;
    const bool data = !current_->destination.empty();
    return Target{current_->destination, data ? &find_read_data : nullptr};
  }

  void end_reply(Result<RpcReply> reply) override {
    ASSERT_NE(current_, nullptr);
    Call& call = *std::exchange(current_, nullptr);
    ASSERT_FALSE(call.ended);
    call.ended = true;
    if (!reply) {
      call.error = reply.error();
      return;
    }
    call.results = text_of(reply->results);
    call.data_length = reply->data_length;
  }

  [[nodiscard]] bool expects_data() const override { return true; }

  int unknown_ = 0;

 private:
  std::map<std::uint32_t, Call> calls_;
  Call* current_ = nullptr;
};

Result<> feed(ReplyReader& reader, Bytes bytes, std::size_t piece) {
  while (!bytes.empty()) {
    const MutableBytes buffer = reader.next_buffer();
    const std::size_t length = std::min({piece, bytes.size(), buffer.size()});
    std::memcpy(buffer.data(), bytes.data(), length);
    bytes = bytes.subspan(length);
    TRY(reader.received(length));
  }
  return {};
}

std::vector<std::byte> data_of(std::size_t length) {
  std::vector<std::byte> data(length);
  for (std::size_t i = 0; i < length; ++i) {
    data[i] = static_cast<std::byte>(i * 7 + 1);
  }
  return data;
}

std::vector<std::byte> read_reply(std::uint32_t xid, Bytes data) {
  return accepted_reply(xid, read_results(data));
}

void append(std::vector<std::byte>& to, Bytes bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void check_cut(Bytes data, std::size_t fragment, std::size_t piece) {
  SCOPED_TRACE(fmt::format("fragments of {}, pieces of {}", fragment, piece));
  Calls calls;
  ReplyReader reader(kProgram, calls);
  const Calls::Call& read = calls.add(1, 64);
  const Calls::Call& meta = calls.add(2, 0);
  const Calls::Call& again = calls.add(3, 40);
  std::vector<std::byte> stream = as_record(read_reply(1, data), fragment);
  append(stream, as_record(accepted_reply(2, bytes_of("metadata")), fragment));
  append(stream, as_record(read_reply(3, data), fragment));
  ASSERT_TRUE(feed(reader, stream, piece));
  for (const Calls::Call* each : {&read, &again}) {
    ASSERT_TRUE(each->ended && !each->error);
    ASSERT_EQ(each->data_length, data.size());
    ASSERT_TRUE(std::ranges::equal(Bytes(each->destination).first(data.size()), data));
    ASSERT_TRUE(std::ranges::all_of(Bytes(each->destination).subspan(data.size()),
                                    [](std::byte b) { return b == kUntouched; }));
  }
  ASSERT_EQ(meta.results, "metadata");
}

// The network cuts where it likes: any receive size and any fragment size must give the same.
TEST(ReplyReaderTest, PutsTogetherRepliesCutAtEveryByte) {
  const auto data = data_of(37);
  for (std::size_t fragment = 1; fragment < 110 && !HasFatalFailure(); ++fragment) {
    for (std::size_t piece = 1; piece < 120 && !HasFatalFailure(); piece += 3) {
      check_cut(data, fragment, piece);
    }
  }
}

// With one split at every byte of the stream, so that each boundary meets each state once.
TEST(ReplyReaderTest, OneSplitAnywhereChangesNothing) {
  const auto data = data_of(9000);
  std::vector<std::byte> stream = as_record(read_reply(1, data), 4000);
  append(stream, as_record(accepted_reply(2, bytes_of("metadata"))));
  for (std::size_t split = 1; split < stream.size(); ++split) {
    Calls calls;
    ReplyReader reader(kProgram, calls);
    const Calls::Call& read = calls.add(1, 9000);
    const Calls::Call& meta = calls.add(2, 0);
    ASSERT_TRUE(feed(reader, Bytes(stream).first(split), SIZE_MAX));
    ASSERT_TRUE(feed(reader, Bytes(stream).subspan(split), SIZE_MAX));
    ASSERT_TRUE(read.ended && !read.error && std::ranges::equal(read.destination, data)) << split;
    ASSERT_EQ(meta.results, "metadata") << split;
  }
}

// More data than was asked for would overrun the destination; not a byte of it may be written.
TEST(ReplyReaderTest, DataLongerThanTheDestinationIsRefusedBeforeItIsWritten) {
  Calls calls;
  ReplyReader reader(kProgram, calls);
  const Calls::Call& read = calls.add(1, 8);
  const Calls::Call& meta = calls.add(2, 0);
  std::vector<std::byte> stream = as_record(read_reply(1, data_of(9)), 50);
  append(stream, as_record(accepted_reply(2, bytes_of("next"))));
  ASSERT_TRUE(feed(reader, stream, 5));
  ASSERT_TRUE(read.error);
  EXPECT_EQ(read.error->code(), Errc::kCorrupt);
  EXPECT_TRUE(std::ranges::all_of(read.destination, [](std::byte b) { return b == kUntouched; }));
  EXPECT_EQ(meta.results, "next") << "the record's rest is skipped, the connection goes on";
}

TEST(ReplyReaderTest, ARecordThatEndsWithinItsDataIsCorrupt) {
  Calls calls;
  ReplyReader reader(kProgram, calls);
  const Calls::Call& read = calls.add(1, 64);
  const Calls::Call& meta = calls.add(2, 0);
  std::vector<std::byte> stream = as_record(accepted_reply(1, read_results(data_of(8), 40)));
  append(stream, as_record(accepted_reply(2, bytes_of("next"))));
  ASSERT_TRUE(feed(reader, stream, SIZE_MAX));
  ASSERT_TRUE(read.error);
  EXPECT_EQ(read.error->code(), Errc::kCorrupt);
  EXPECT_EQ(meta.results, "next");
}

TEST(ReplyReaderTest, EveryRecordCutShortEndsItsCallAndNothingElse) {
  const std::vector<std::byte> whole = read_reply(1, data_of(8));
  for (std::size_t length = kReplyPrefixBytes; length < whole.size(); ++length) {
    Calls calls;
    ReplyReader reader(kProgram, calls);
    const Calls::Call& read = calls.add(1, 64);
    ASSERT_TRUE(feed(reader, as_record(Bytes(whole).first(length)), SIZE_MAX));
    ASSERT_TRUE(read.ended && read.error) << length;
    ASSERT_EQ(read.error->code(), Errc::kCorrupt);
  }
}

TEST(ReplyReaderTest, UnknownXidsAndRepeatedRepliesAreSkipped) {
  Calls calls;
  ReplyReader reader(kProgram, calls);
  const Calls::Call& read = calls.add(1, 16);
  const Calls::Call& meta = calls.add(2, 0);
  std::vector<std::byte> stream = as_record(read_reply(9, data_of(16)), 30);
  append(stream, as_record(read_reply(1, data_of(16))));
  std::vector<std::byte> other = data_of(16);
  std::ranges::fill(other, std::byte{0x55});
  append(stream, as_record(read_reply(1, other)));
  append(stream, as_record(accepted_reply(2, bytes_of("next"))));
  ASSERT_TRUE(feed(reader, stream, 11));
  EXPECT_EQ(calls.unknown_, 2);
  EXPECT_TRUE(std::ranges::equal(read.destination, data_of(16)));
  EXPECT_EQ(meta.results, "next");
}

TEST(ReplyReaderTest, CallsFromTheServerAreSkipped) {
  Calls calls;
  ReplyReader reader(kProgram, calls);
  const Calls::Call& meta = calls.add(1, 0);
  std::vector<std::byte> stream = encode_call(1, kProgram, 0, nullptr, {});
  append(stream, as_record(accepted_reply(1, bytes_of("mine"))));
  ASSERT_TRUE(feed(reader, stream, SIZE_MAX));
  EXPECT_EQ(meta.results, "mine");
}

TEST(ReplyReaderTest, AnErrorInsteadOfDataIsTheWholeReply) {
  Calls calls;
  ReplyReader reader(kProgram, calls);
  const Calls::Call& read = calls.add(1, 16);
  XdrEncoder out;
  out.put_u32(70);
  out.put_bool(false);
  ASSERT_TRUE(feed(reader, as_record(accepted_reply(1, out.take())), 3));
  ASSERT_TRUE(read.ended && !read.error);
  EXPECT_EQ(read.data_length, 0U);
  EXPECT_EQ(read.results.size(), 8U);
}

// Without these a server could make us keep gigabytes, or spin.
TEST(ReplyReaderTest, HostileLengthsBreakTheStream) {
  const std::uint32_t huge = kLastFragment | 0x7fffffff;
  Calls calls;
  {
    ReplyReader reader(kProgram, calls);
    std::byte mark[4];
    store_be(mark, huge);
    EXPECT_FALSE(feed(reader, mark, SIZE_MAX));
  }
  {
    ReplyReader reader(kProgram, calls);
    std::vector<std::byte> many;
    const std::vector<std::byte> filler(256U << 10);
    for (int i = 0; i < 6; ++i) {  // each may pass, their sum may not
      std::byte mark[4];
      store_be(mark, static_cast<std::uint32_t>(filler.size()));
      append(many, mark);
      append(many, filler);
    }
    EXPECT_FALSE(feed(reader, many, SIZE_MAX));
  }
  {
    ReplyReader reader(kProgram, calls);
    const std::vector<std::byte> empty_fragments(4 * 100);
    EXPECT_FALSE(feed(reader, empty_fragments, SIZE_MAX));
  }
  {
    ReplyReader reader(kProgram, calls);
    EXPECT_FALSE(feed(reader, as_record(bytes_of("short")), SIZE_MAX));
  }
}

// abandon() at every byte: nothing is written to the destination after it.
TEST(ReplyReaderTest, AnAbandonedReplyWritesNoMore) {
  const auto data = data_of(100);
  std::vector<std::byte> stream = as_record(read_reply(1, data), 33);
  const std::size_t first_record = stream.size();
  append(stream, as_record(accepted_reply(2, bytes_of("next"))));
  for (std::size_t at = 13; at < first_record; ++at) {  // behind the xid's arrival
    Calls calls;
    ReplyReader reader(kProgram, calls);
    Calls::Call& read = calls.add(1, 100);
    const Calls::Call& meta = calls.add(2, 0);
    ASSERT_TRUE(feed(reader, Bytes(stream).first(at), SIZE_MAX));
    reader.abandon();
    std::ranges::fill(read.destination, kUntouched);
    ASSERT_TRUE(feed(reader, Bytes(stream).subspan(at), 7));
    ASSERT_TRUE(std::ranges::all_of(read.destination, [](std::byte b) { return b == kUntouched; }))
        << at;
    ASSERT_FALSE(read.ended);
    ASSERT_EQ(meta.results, "next");
  }
}

}  // namespace
}  // namespace larder::nfs
