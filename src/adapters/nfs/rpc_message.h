// ONC RPC version 2 (RFC 5531): the head of a call with its credential, the head of a reply with
// its verdict, and the marks that cut a TCP stream into records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "netfs/attributes.h"

namespace larder::nfs {

// A fragment's mark: the highest bit says "the record's last", the others are its length.
inline constexpr std::size_t kMarkBytes = 4;
inline constexpr std::uint32_t kLastFragment = 0x80000000;

// No reply that we ask for is longer: the largest READ or READDIRPLUS, and its head. A record that
// claims more is refused before a byte of it is kept.
inline constexpr std::size_t kMostRecordBytes = (1U << 20) + (64U << 10);

// Flavours of credentials.
inline constexpr std::uint32_t kAuthNone = 0;
inline constexpr std::uint32_t kAuthSys = 1;

inline constexpr std::size_t kMostAuthSysGroups = 16;
inline constexpr std::size_t kMostVerifierBytes = 400;

// A remote program, and what people call it.
struct RpcProgram {
  std::uint32_t number = 0;
  std::uint32_t version = 0;
  const char* name = "";
};

// The supplementary groups that fit into AUTH_SYS: the first 16 of the credential's in its own
// order, so whoever made it puts those first that matter; without the primary group and
// repetitions, which would only take room.
[[nodiscard]] std::vector<std::uint32_t> groups_on_the_wire(const netfs::Credential& credential);

// A whole call as it goes into the stream: mark, head, credential, arguments. A null credential is
// AUTH_NONE. `body_bytes` of arguments, padding included, are sent behind it.
[[nodiscard]] std::vector<std::byte> encode_call(std::uint32_t xid, const RpcProgram& program,
                                                 std::uint32_t procedure,
                                                 const netfs::Credential* credential,
                                                 Bytes arguments, std::size_t body_bytes = 0);

// Gives an encoded call another xid.
void set_call_xid(std::span<std::byte> call, std::uint32_t xid);

struct ReplyHead {
  enum class Verdict : std::uint8_t {
    kIncomplete,  // more bytes are needed to tell
    kAccepted,    // results begin at results_at
    kRefused,     // error says why
  };

  Verdict verdict = Verdict::kIncomplete;
  std::size_t results_at = 0;
  std::optional<Error> error;

  // Of kRefused.
  [[nodiscard]] Error refusal() const {
    return error.value_or(Error(Errc::kCorrupt, "a refusal without a reason"));
  }
};

// Reads the head of a reply from the record's first bytes (xid included). `complete` says that the
// record has no more: then what is missing makes it kRefused with kCorrupt.
[[nodiscard]] ReplyHead parse_reply_head(Bytes record, bool complete, const RpcProgram& program);

// The first eight bytes of a record.
inline constexpr std::size_t kReplyPrefixBytes = 8;

struct ReplyPrefix {
  std::uint32_t xid = 0;
  bool is_reply = false;  // else a call, which a server has no business to make here
};

// Needs kReplyPrefixBytes bytes.
[[nodiscard]] ReplyPrefix parse_reply_prefix(Bytes record);

}  // namespace larder::nfs
