// The way to a share's root: the portmapper (RFC 1833), and MOUNT version 3 (RFC 1813, appendix I).
//
// UMNT is not sent: it only tidies a list that the server keeps for people (rmtab), and a mount
// that ends must not wait for a network.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/result.h"
#include "netfs/attributes.h"

namespace larder::nfs {

inline constexpr RpcProgram kPortmapProgram{100000, 2, "portmapper"};
inline constexpr RpcProgram kMountProgram{100005, 3, "mount service"};
inline constexpr std::uint16_t kPortmapPort = 111;
inline constexpr std::uint16_t kUsualNfsPort = 2049;

inline constexpr std::uint32_t kPortmapGetport = 3;
inline constexpr std::uint32_t kMountMnt = 1;

// Asks for the TCP port of a program.
[[nodiscard]] std::vector<std::byte> encode_getport(const RpcProgram& program);
// The port; nothing when the program is not registered.
[[nodiscard]] Result<std::optional<std::uint16_t>> decode_getport(Bytes results);

[[nodiscard]] std::vector<std::byte> encode_mnt(std::string_view path);
// The share's root. Errors: a sentence with host, export, reason and what to do.
[[nodiscard]] Result<netfs::FileHandle> decode_mnt(Bytes results, std::string_view host,
                                                   std::string_view path);

}  // namespace larder::nfs
