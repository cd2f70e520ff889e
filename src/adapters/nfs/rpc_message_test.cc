#include "adapters/nfs/rpc_message.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/rpc_test_server.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "netfs/attributes.h"

namespace larder::nfs {
namespace {

TEST(RpcMessageTest, ACallCarriesWhoAsks) {
  const netfs::Credential credential{1000, 100, {5, 6}};
  XdrEncoder arguments;
  arguments.put_u32(42);
  const auto call = encode_call(77, kProgram, 3, &credential, arguments.take());
  const std::vector<SeenCall> seen = parse_calls(call);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].xid, 77U);
  EXPECT_EQ(seen[0].program, 100003U);
  EXPECT_EQ(seen[0].procedure, 3U);
  EXPECT_EQ(seen[0].uid, 1000U);
  EXPECT_EQ(seen[0].groups, (std::vector<std::uint32_t>{5, 6}));
  EXPECT_EQ(seen[0].arguments.size(), 4U);
}

// With 17 groups on the wire a server refuses the whole call.
TEST(RpcMessageTest, SixteenGroupsTravelInTheirOrderWithoutRepetitions) {
  netfs::Credential credential{1, 7, {}};
  for (std::uint32_t group = 0; group < 30; ++group) {
    credential.groups.push_back(group);
    credential.groups.push_back(group);
  }
  const std::vector<std::uint32_t> groups = groups_on_the_wire(credential);
  ASSERT_EQ(groups.size(), 16U);
  EXPECT_EQ(groups.front(), 0U);
  EXPECT_EQ(groups[7], 8U) << "the primary group needs no place among the others";
  EXPECT_EQ(groups.back(), 16U);
}

std::vector<std::byte> reply(std::initializer_list<std::uint32_t> words) {
  XdrEncoder out;
  for (const std::uint32_t word : words) {
    out.put_u32(word);
  }
  return out.take();
}

TEST(RpcMessageTest, EveryPrefixOfAReplyHeadIsIncomplete) {
  const auto bytes = accepted_reply(1, {});
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const Bytes prefix = Bytes(bytes).first(length);
    EXPECT_EQ(parse_reply_head(prefix, false, kProgram).verdict, ReplyHead::Verdict::kIncomplete);
    const ReplyHead whole = parse_reply_head(prefix, true, kProgram);
    EXPECT_EQ(whole.verdict, ReplyHead::Verdict::kRefused);
    EXPECT_EQ(whole.error->code(), Errc::kCorrupt);
  }
  const ReplyHead head = parse_reply_head(bytes, false, kProgram);
  EXPECT_EQ(head.verdict, ReplyHead::Verdict::kAccepted);
  EXPECT_EQ(head.results_at, bytes.size());
}

struct RefusalCase {
  std::vector<std::byte> bytes;
  Errc code;
  const char* says;
};

TEST(RpcMessageTest, RefusalsBecomeSentences) {
  const RefusalCase cases[] = {
      {reply({1, 1, 0, 0, 0, 1}), Errc::kNotSupported, "has no NFS service"},
      {reply({1, 1, 0, 0, 0, 2, 4, 4}), Errc::kNotSupported, "version 3"},
      {reply({1, 1, 0, 0, 0, 3}), Errc::kNotSupported, "lacks this procedure"},
      {reply({1, 1, 0, 0, 0, 4}), Errc::kRemote, "could not read"},
      {reply({1, 1, 0, 0, 0, 5}), Errc::kRemote, "SYSTEM_ERR"},
      {reply({1, 1, 0, 0, 0, 99}), Errc::kCorrupt, "status 99"},
      {reply({1, 1, 1, 0, 3, 3}), Errc::kNotSupported, "version 2 of RPC"},
      {reply({1, 1, 1, 1, 5}), Errc::kPermission, "sec=sys"},
      {reply({1, 1, 1, 1, 1}), Errc::kPermission, "resvport"},
      {reply({1, 1, 1, 9}), Errc::kCorrupt, "reason 9"},
      {reply({1, 1, 7}), Errc::kCorrupt, "no RPC reply"},
      {reply({1, 1, 0, 0, 401}), Errc::kCorrupt, "no RPC reply"},
  };
  for (const RefusalCase& each : cases) {
    const ReplyHead head = parse_reply_head(each.bytes, true, kProgram);
    ASSERT_EQ(head.verdict, ReplyHead::Verdict::kRefused) << each.says;
    EXPECT_EQ(head.error->code(), each.code) << each.says;
    EXPECT_TRUE(head.error->context().contains(each.says)) << head.error->context();
  }
}

}  // namespace
}  // namespace larder::nfs
