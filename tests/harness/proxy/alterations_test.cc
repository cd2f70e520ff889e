// If these fail the proxy damages replies that it should only alter, and tests blame the product.
#include "alterations.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/endian.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

// Builds replies word by word.
class ReplyBuilder {
 public:
  ReplyBuilder() { words({7, 1, 0, 0, 0, 0, 0}); }

  ReplyBuilder& words(std::initializer_list<std::uint32_t> values) {
    for (const std::uint32_t value : values) {
      bytes_.resize(bytes_.size() + 4);
      store_be(bytes_.data() + bytes_.size() - 4, value);
    }
    return *this;
  }

  // A fattr3: size 1000, fsid 5, times 10.5, 20.6, 30.7 (seconds.nanoseconds).
  ReplyBuilder& attributes(std::uint32_t fileid, std::uint32_t size = 1000,
                           std::uint32_t mtime = 20) {
    return words(
        {1, 0644, 1, 0, 0, 0, size, 0, 4096, 0, 0, 0, 5, 0, fileid, 10, 5, mtime, 6, 30, 7});
  }

  [[nodiscard]] std::vector<std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// A directory with two entries, one of them without attributes.
std::vector<std::byte> listing(bool with_attributes) {
  ReplyBuilder reply;
  reply.words({with_attributes ? 1U : 0U});
  if (with_attributes) {
    reply.attributes(1);
  }
  reply.words({0, 0});                          // verifier
  reply.words({1, 0, 2, 3, 0x61626300, 0, 1});  // fileid 2, "abc", cookie 1
  reply.words({with_attributes ? 1U : 0U});
  if (with_attributes) {
    reply.attributes(2);
  }
  reply.words({1, 4, 0xabcdef01});  // handle
  reply.words({1, 0, 3, 1, 0x64000000, 0, 2, 0, 0});
  return reply.words({0, 1}).bytes();
}

TEST(AlterationsTest, NothingIsConcernedAtFirst) {
  const Alterations alterations;
  for (std::size_t i = 0; i < kProcedureCount; ++i) {
    EXPECT_FALSE(alterations.concern(static_cast<Procedure>(i)));
  }
}

TEST(AlterationsTest, StrippedListingsKeepEverythingElse) {
  Alterations alterations;
  alterations.strip_attributes({});
  EXPECT_EQ(alterations.rewrite(Procedure::kReaddirplus, listing(true)), listing(false));
  EXPECT_EQ(alterations.rewrite(Procedure::kReaddirplus, listing(false)), listing(false));
}

TEST(AlterationsTest, OnlyTheNamedProceduresAreStripped) {
  Alterations alterations;
  alterations.strip_attributes({Procedure::kRead});
  EXPECT_EQ(alterations.rewrite(Procedure::kReaddirplus, listing(true)), listing(true));
  const auto read = ReplyBuilder().words({1}).attributes(2).words({4, 1, 4, 0x61626364}).bytes();
  EXPECT_EQ(alterations.rewrite(Procedure::kRead, read),
            ReplyBuilder().words({0, 4, 1, 4, 0x61626364}).bytes());
}

TEST(AlterationsTest, TimesAreShiftedAndRounded) {
  Alterations alterations;
  alterations.shift_times(-5);
  alterations.round_times_to_seconds(true);
  const auto altered =
      alterations.rewrite(Procedure::kGetattr, ReplyBuilder().attributes(2).bytes());
  EXPECT_EQ(altered,
            ReplyBuilder()
                .words({1, 0644, 1, 0, 0, 0, 1000, 0, 4096, 0, 0, 0, 5, 0, 2, 5, 0, 15, 0, 25, 0})
                .bytes());
}

TEST(AlterationsTest, FrozenFilesKeepTheirFirstSizeAndTimes) {
  Alterations alterations;
  alterations.freeze(2);
  const auto first = ReplyBuilder().attributes(2).bytes();
  EXPECT_EQ(alterations.rewrite(Procedure::kGetattr, first), first);
  EXPECT_EQ(alterations.rewrite(Procedure::kGetattr, ReplyBuilder().attributes(2, 7, 99).bytes()),
            first);
  const auto other = ReplyBuilder().attributes(3, 7, 99).bytes();
  EXPECT_EQ(alterations.rewrite(Procedure::kGetattr, other), other);
  alterations.thaw();
  EXPECT_FALSE(alterations.concern(Procedure::kGetattr));
}

TEST(AlterationsTest, AWriteUnderAFreezeDoesNotTellTheSizeBefore) {
  Alterations alterations;
  alterations.freeze(2);
  const auto write =
      ReplyBuilder().words({1, 0, 1000, 20, 6, 30, 7, 1}).attributes(2).words({8, 2, 1, 1}).bytes();
  EXPECT_EQ(alterations.rewrite(Procedure::kWrite, write),
            ReplyBuilder().words({0, 1}).attributes(2).words({8, 2, 1, 1}).bytes());
}

TEST(AlterationsTest, LookupAltersBothAttributes) {
  Alterations alterations;
  alterations.change_fsid(2, 4711);
  const auto lookup =
      ReplyBuilder().words({4, 0xabcdef01, 1}).attributes(2).words({1}).attributes(1).bytes();
  auto expected = lookup;
  store_be(expected.data() + 28 + 12 + 44, std::uint64_t{4711});
  EXPECT_EQ(alterations.rewrite(Procedure::kLookup, lookup), expected);
}

TEST(AlterationsTest, AttributesBeforeAChangeAreThoseThatWereShownLast) {
  Alterations alterations;
  alterations.complete_wcc(true);
  const auto written = [](std::initializer_list<std::uint32_t> before, std::uint32_t time) {
    ReplyBuilder reply;
    reply.words(before);
    // As attributes(), with a change time of its own.
    reply.words({1, 1, 0644, 1, 0, 0, 0, 1000, 0, 4096, 0, 0, 0, 5, 0, 2, 10, 5, 20, 6, time, 7});
    return reply.words({4, 2}).bytes();
  };
  EXPECT_EQ(alterations.rewrite(Procedure::kWrite, written({0}, 30)), written({0}, 30))
      << "nobody has seen it before";
  EXPECT_EQ(alterations.rewrite(Procedure::kWrite, written({0}, 31)),
            written({1, 0, 1000, 20, 6, 30, 7}, 31));
  EXPECT_EQ(alterations.rewrite(Procedure::kWrite, written({0}, 29)), written({0}, 29))
      << "it was overtaken by the one before";
  const auto told = written({1, 0, 9, 9, 9, 9, 9}, 22);
  EXPECT_EQ(alterations.rewrite(Procedure::kWrite, told), told) << "the server knows best";
}

TEST(AlterationsTest, EveryCutOfAReplyComesBackUnharmed) {
  Alterations alterations;
  alterations.shift_times(1);
  const auto whole = listing(true);
  for (std::size_t length = 0; length < whole.size() - 4; ++length) {
    const Bytes cut = Bytes(whole).first(length);
    const auto altered = alterations.rewrite(Procedure::kReaddirplus, cut);
    EXPECT_TRUE(std::ranges::equal(altered, cut)) << length;
  }
}

}  // namespace
}  // namespace larder::proxy
