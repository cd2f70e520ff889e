// For tests: the server's half of RPC, over a FakePeer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "adapters/nfs/rpc_message.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/endian.h"

namespace larder::nfs {

inline constexpr RpcProgram kProgram{100003, 3, "NFS"};

// What a test fills a destination with, to see what of it was written.
inline constexpr std::byte kUntouched{0xee};

struct SeenCall {
  std::uint32_t xid = 0;
  std::uint32_t program = 0;
  std::uint32_t procedure = 0;
  std::uint32_t uid = 0;
  std::vector<std::uint32_t> groups;
  std::vector<std::byte> arguments;
};

// The calls in what a client has sent; it sends one fragment a record.
inline std::vector<SeenCall> parse_calls(Bytes sent) {
  std::vector<SeenCall> calls;
  while (sent.size() >= kMarkBytes) {
    const std::size_t length = load_be<std::uint32_t>(sent.data()) & ~kLastFragment;
    XdrDecoder in(sent.subspan(kMarkBytes, length));
    SeenCall call;
    call.xid = in.u32();
    static_cast<void>(in.u64());  // call, RPC version
    call.program = in.u32();
    static_cast<void>(in.u32());
    call.procedure = in.u32();
    const std::uint32_t flavour = in.u32();
    XdrDecoder credential(in.opaque(400));
    if (flavour == 1) {
      static_cast<void>(credential.u32());
      static_cast<void>(credential.string(255));
      call.uid = credential.u32();
      static_cast<void>(credential.u32());
      for (std::uint32_t n = credential.u32(); n > 0; --n) {
        call.groups.push_back(credential.u32());
      }
    }
    static_cast<void>(in.u32());
    static_cast<void>(in.opaque(400));
    const Bytes rest = in.fixed_opaque(in.remaining());
    call.arguments.assign(rest.begin(), rest.end());
    calls.push_back(std::move(call));
    sent = sent.subspan(kMarkBytes + length);
  }
  return calls;
}

// An accepted reply, without a mark.
inline std::vector<std::byte> accepted_reply(std::uint32_t xid, Bytes results,
                                             std::uint32_t accept_stat = 0) {
  XdrEncoder out;
  out.put_u32(xid);
  out.put_u32(1);
  out.put_u32(0);
  out.put_u64(0);  // verifier
  out.put_u32(accept_stat);
  std::vector<std::byte> bytes = out.take();
  bytes.insert(bytes.end(), results.begin(), results.end());
  return bytes;
}

// The results of a READ without attributes; `claimed` is the length of the data, if it is to lie.
inline std::vector<std::byte> read_results(Bytes data, std::optional<std::uint32_t> claimed = {}) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_bool(false);
  out.put_u32(static_cast<std::uint32_t>(data.size()));
  out.put_bool(true);
  out.put_u32(claimed.value_or(static_cast<std::uint32_t>(data.size())));
  out.put_fixed_opaque(data);
  return out.take();
}

// As a record of fragments of at most `fragment` bytes.
inline std::vector<std::byte> as_record(Bytes reply, std::size_t fragment = SIZE_MAX) {
  std::vector<std::byte> out;
  do {
    const Bytes first = reply.first(std::min(fragment, reply.size()));
    reply = reply.subspan(first.size());
    std::byte mark[kMarkBytes];
    store_be(mark, static_cast<std::uint32_t>(first.size()) | (reply.empty() ? kLastFragment : 0));
    out.insert(out.end(), mark, mark + kMarkBytes);
    out.insert(out.end(), first.begin(), first.end());
  } while (!reply.empty());
  return out;
}

}  // namespace larder::nfs
