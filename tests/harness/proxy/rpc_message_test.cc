// If these fail calls are counted under a wrong name, or faults strike another file's messages.
#include "rpc_message.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/endian.h"

namespace larder::proxy {
namespace {

std::vector<std::byte> words(std::initializer_list<std::uint32_t> values) {
  std::vector<std::byte> bytes(values.size() * 4);
  std::size_t at = 0;
  for (const std::uint32_t value : values) {
    store_be(bytes.data() + at, value);
    at += 4;
  }
  return bytes;
}

// xid 7, NFSv3, AUTH_SYS of uid 1000 with one group, a handle of four bytes.
std::vector<std::byte> read_call() {
  return words(
      {7, 0, 2, 100003, 3, 6, 1, 24, 0, 0, 1000, 100, 1, 5, 0, 0, 4, 0x61626364, 0, 0, 10});
}

CallHead call_of(const std::vector<std::byte>& message) {
  const std::optional<CallHead> call = parse_call(message);
  EXPECT_TRUE(call.has_value());
  return call.value_or(CallHead{});
}

ReplyHead reply_of(const std::vector<std::byte>& message) {
  const std::optional<ReplyHead> reply = parse_reply(message);
  EXPECT_TRUE(reply.has_value());
  return reply.value_or(ReplyHead{});
}

TEST(RpcMessageTest, UnderstandsACall) {
  const CallHead call = call_of(read_call());
  EXPECT_EQ(call.xid, 7U);
  EXPECT_EQ(call.procedure, Procedure::kRead);
  EXPECT_EQ(call.uid, 1000U);
  EXPECT_EQ(call.handle, "abcd");
}

TEST(RpcMessageTest, MountAndUnknownProgramsHaveTheirOwnNames) {
  EXPECT_EQ(call_of(words({1, 0, 2, 100005, 3, 1, 0, 0, 0, 0})).procedure, Procedure::kMnt);
  EXPECT_EQ(call_of(words({1, 0, 2, 100000, 2, 3, 0, 0, 0, 0})).procedure, Procedure::kOther);
  EXPECT_EQ(call_of(words({1, 0, 2, 100003, 4, 1, 0, 0, 0, 0})).procedure, Procedure::kOther);
  EXPECT_EQ(call_of(words({1, 0, 2, 100003, 3, 99, 0, 0, 0, 0})).procedure, Procedure::kOther);
}

TEST(RpcMessageTest, EveryNameIsFoundAgain) {
  for (std::size_t i = 0; i < kProcedureCount; ++i) {
    const auto procedure = static_cast<Procedure>(i);
    EXPECT_EQ(procedure_named(name_of(procedure)), procedure);
  }
  EXPECT_EQ(procedure_named("read"), std::nullopt);
}

TEST(RpcMessageTest, EveryCutOfACallIsRefusedOrUnderstood) {
  const std::vector<std::byte> call = read_call();
  for (std::size_t length = 0; length < call.size(); ++length) {
    // Up to the credential's end nothing is understood; then only the handle may be missing.
    EXPECT_EQ(parse_call(Bytes(call).first(length)).has_value(), length >= 64) << length;
  }
}

TEST(RpcMessageTest, UnderstandsAReadReplyWithAndWithoutAttributes) {
  std::vector<std::byte> reply = words({7, 1, 0, 0, 0, 0, 0, 0, 4096, 1, 4096});
  EXPECT_EQ(read_reply_count(reply), 4096U);
  const std::vector<std::byte> attributes(84);
  store_be(reply.data() + 28, std::uint32_t{1});
  reply.insert(reply.begin() + 32, attributes.begin(), attributes.end());
  EXPECT_EQ(read_reply_count(reply), 4096U);
  EXPECT_EQ(reply_of(reply).result_at, 24U);
}

TEST(RpcMessageTest, AFailedOrDeniedReadHasNoData) {
  EXPECT_EQ(read_reply_count(words({7, 1, 0, 0, 0, 0, 70, 0})), 0U);
  EXPECT_EQ(read_reply_count(words({7, 1, 1, 1, 1})), 0U);
  EXPECT_FALSE(reply_of(words({7, 1, 1, 1, 1})).is_success);
}

TEST(RpcMessageTest, AnErrorReplyHasTheWordsOfItsProcedure) {
  EXPECT_EQ(make_error_reply(9, Procedure::kGetattr, 70), words({9, 1, 0, 0, 0, 0, 70}));
  EXPECT_EQ(make_error_reply(9, Procedure::kLookup, 2), words({9, 1, 0, 0, 0, 0, 2, 0}));
  EXPECT_EQ(make_error_reply(9, Procedure::kRename, 2), words({9, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0}));
}

TEST(RpcMessageTest, RandomBytesDoNotLeadAstray) {
  const std::vector<std::byte> call = read_call();
  for (unsigned seed = 1; seed <= 2000; ++seed) {
    std::minstd_rand random(seed);
    std::vector<std::byte> bytes = call;
    for (int i = 0; i < 3; ++i) {
      bytes.at(random() % bytes.size()) = static_cast<std::byte>(random() >> 8U);
    }
    static_cast<void>(parse_call(bytes));
    static_cast<void>(read_reply_count(bytes));
  }
}

}  // namespace
}  // namespace larder::proxy
