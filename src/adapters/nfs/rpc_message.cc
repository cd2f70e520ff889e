#include "adapters/nfs/rpc_message.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "base/error.h"
#include "netfs/attributes.h"

namespace larder::nfs {

namespace {

constexpr std::uint32_t kMessageCall = 0;
constexpr std::uint32_t kMessageReply = 1;
constexpr std::uint32_t kRpcVersion = 2;

enum ReplyStat : std::uint32_t { kMessageAccepted = 0, kMessageDenied = 1 };

enum AcceptStat : std::uint32_t {
  kSuccess = 0,
  kProgramUnavailable = 1,
  kProgramMismatch = 2,
  kProcedureUnavailable = 3,
  kGarbageArguments = 4,
  kSystemError = 5,
};

enum RejectStat : std::uint32_t { kRpcMismatch = 0, kAuthError = 1 };

Error accept_error(std::uint32_t stat, const RpcProgram& program) {
  switch (stat) {
    case kProgramUnavailable:
      return {Errc::kNotSupported, fmt::format("the server has no {} service (RPC program {}) at "
                                               "this port; check the port",
                                               program.name, program.number)};
    case kProgramMismatch:
      return {Errc::kNotSupported,
              fmt::format("the server does not speak version {} of {}; enable it at the server",
                          program.version, program.name)};
    case kProcedureUnavailable:
      return {Errc::kNotSupported,
              fmt::format("the server's {} lacks this procedure", program.name)};
    case kGarbageArguments:
      return {Errc::kRemote, EIO,
              fmt::format("the server's {} could not read our call", program.name)};
    case kSystemError:
      return {Errc::kRemote, EIO,
              fmt::format("the server's {} failed inside (RPC SYSTEM_ERR)", program.name)};
    default:
      return {Errc::kCorrupt, fmt::format("the server's {} answered with status {}, which RPC does "
                                          "not have",
                                          program.name, stat)};
  }
}

Error auth_error(std::uint32_t stat, const RpcProgram& program) {
  static constexpr std::uint32_t kTooWeak = 5;
  if (stat == kTooWeak) {
    return {Errc::kPermission,
            fmt::format("the server's {} wants stronger authentication than AUTH_SYS (Kerberos?), "
                        "which is all that we speak; export the share with sec=sys",
                        program.name)};
  }
  return {
      Errc::kPermission,
      fmt::format("the server's {} refused our AUTH_SYS credential (RPC auth status {}); it may "
                  "want a source port below 1024 (option resvport) or another client address",
                  program.name, stat)};
}

Error denied_error(XdrDecoder& in, const RpcProgram& program) {
  const std::uint32_t stat = in.u32();
  if (stat == kRpcMismatch) {
    return {Errc::kNotSupported, "the server does not speak version 2 of RPC"};
  }
  if (stat == kAuthError) {
    return auth_error(in.u32(), program);
  }
  return {Errc::kCorrupt, fmt::format("the server denied a call for reason {}, which RPC does not "
                                      "have",
                                      stat)};
}

void put_credential(XdrEncoder& out, const netfs::Credential* credential) {
  if (credential == nullptr) {
    out.put_u32(kAuthNone);
    out.put_u32(0);
    return;
  }
  const std::vector<std::uint32_t> groups = groups_on_the_wire(*credential);
  out.put_u32(kAuthSys);
  // stamp, empty machine name, uid, gid, number of groups, groups
  out.put_u32(static_cast<std::uint32_t>(sizeof(std::uint32_t) * (5 + groups.size())));
  out.put_u32(0);
  out.put_string("");
  out.put_u32(credential->uid);
  out.put_u32(credential->gid);
  out.put_u32(static_cast<std::uint32_t>(groups.size()));
  for (const std::uint32_t group : groups) {
    out.put_u32(group);
  }
}

}  // namespace

std::vector<std::uint32_t> groups_on_the_wire(const netfs::Credential& credential) {
  std::vector<std::uint32_t> groups;
  for (const std::uint32_t group : credential.groups) {
    if (groups.size() == kMostAuthSysGroups) {
      break;
    }
    if (group != credential.gid && std::ranges::find(groups, group) == groups.end()) {
      groups.push_back(group);
    }
  }
  return groups;
}

std::vector<std::byte> encode_call(std::uint32_t xid, const RpcProgram& program,
                                   std::uint32_t procedure, const netfs::Credential* credential,
                                   Bytes arguments, std::size_t body_bytes) {
  static constexpr std::size_t kMostHeadBytes = 132;  // with 16 groups
  XdrEncoder out(kMostHeadBytes + arguments.size());
  out.put_u32(0);  // the mark, below
  out.put_u32(xid);
  out.put_u32(kMessageCall);
  out.put_u32(kRpcVersion);
  out.put_u32(program.number);
  out.put_u32(program.version);
  out.put_u32(procedure);
  put_credential(out, credential);
  out.put_u32(kAuthNone);  // our verifier
  out.put_u32(0);
  CHECK(arguments.size() % 4 == 0 && body_bytes % 4 == 0);
  out.put_fixed_opaque(arguments);
  const std::size_t record = out.size() - kMarkBytes + body_bytes;
  CHECK(record < kLastFragment);
  out.set_u32(0, kLastFragment | static_cast<std::uint32_t>(record));
  return out.take();
}

void set_call_xid(std::span<std::byte> call, std::uint32_t xid) {
  CHECK(call.size() >= kMarkBytes + sizeof xid);
  store_be(call.data() + kMarkBytes, xid);
}

ReplyPrefix parse_reply_prefix(Bytes record) {
  XdrDecoder in(record);
  ReplyPrefix prefix;
  prefix.xid = in.u32();
  prefix.is_reply = in.u32() == kMessageReply;
  return prefix;
}

ReplyHead parse_reply_head(Bytes record, bool complete, const RpcProgram& program) {
  XdrDecoder in(record);
  std::optional<Error> error;
  static_cast<void>(in.u32());  // xid
  static_cast<void>(in.u32());  // message type
  const std::uint32_t reply_stat = in.u32();
  bool sensible = true;
  if (reply_stat == kMessageAccepted) {
    static_cast<void>(in.u32());  // the verifier's flavour
    const std::uint32_t verifier_bytes = in.u32();
    sensible = verifier_bytes <= kMostVerifierBytes;
    static_cast<void>(in.fixed_opaque(sensible ? verifier_bytes : 0));
    const std::uint32_t accept_stat = in.u32();
    if (accept_stat != kSuccess) {
      error = accept_error(accept_stat, program);
    }
  } else if (reply_stat == kMessageDenied) {
    error = denied_error(in, program);
  } else {
    sensible = false;
  }
  if (in.ok() && sensible) {
    if (error) {
      return {ReplyHead::Verdict::kRefused, 0, std::move(error)};
    }
    return {ReplyHead::Verdict::kAccepted, in.position(), {}};
  }
  if (sensible && !complete) {
    return {};
  }
  return {ReplyHead::Verdict::kRefused, 0,
          Error(Errc::kCorrupt,
                fmt::format("the reply of the server's {} is no RPC reply", program.name))};
}

}  // namespace larder::nfs
