#include "adapters/nfs/mount.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/rpc_message.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"

namespace larder::nfs {

namespace {

constexpr std::uint32_t kTcp = 6;

// mountstat3
constexpr std::uint32_t kMountOk = 0;
constexpr std::uint32_t kMountPermission = 1;
constexpr std::uint32_t kMountNoEntry = 2;
constexpr std::uint32_t kMountAccess = 13;
constexpr std::uint32_t kMountNotDirectory = 20;
constexpr std::uint32_t kMountNameTooLong = 63;

Error mount_error(std::uint32_t status, std::string_view host, std::string_view path) {
  switch (status) {
    case kMountPermission:
    case kMountAccess:
      return {Errc::kRemote, EACCES,
              fmt::format("{} refuses to export {} to this host; check the server's exports (with "
                          "`showmount -e {}`), and whether it wants source ports below 1024",
                          host, path, host)};
    case kMountNoEntry:
      return {Errc::kNotFound, fmt::format("{} has no export {}; `showmount -e {}` lists what it "
                                           "has",
                                           host, path, host)};
    case kMountNotDirectory:
      return {Errc::kRemote, ENOTDIR,
              fmt::format("{} on {} is not a directory; name the export itself", path, host)};
    case kMountNameTooLong:
      return {Errc::kRemote, ENAMETOOLONG,
              fmt::format("the export {} is too long for {}; check the path", path, host)};
    default:
      return {Errc::kRemote, EIO,
              fmt::format("{} failed to export {} (MOUNT status {}); see the server's log", host,
                          path, status)};
  }
}

// The flavours of authentication that the server takes for this share.
bool takes_auth_sys(XdrDecoder& in) {
  const std::uint32_t count = in.u32();
  bool takes = count == 0;  // it did not say
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    const std::uint32_t flavour = in.u32();
    takes = takes || flavour == kAuthSys || flavour == kAuthNone;
  }
  return takes;
}

}  // namespace

std::vector<std::byte> encode_getport(const RpcProgram& program) {
  XdrEncoder out;
  out.put_u32(program.number);
  out.put_u32(program.version);
  out.put_u32(kTcp);
  out.put_u32(0);
  return out.take();
}

Result<std::optional<std::uint16_t>> decode_getport(Bytes results) {
  XdrDecoder in(results);
  const std::uint32_t port = in.u32();
  if (!in.ok() || port > UINT16_MAX) {
    return fail(Errc::kCorrupt, "the portmapper's answer makes no sense");
  }
  if (port == 0) {
    return std::optional<std::uint16_t>();
  }
  return std::optional(static_cast<std::uint16_t>(port));
}

std::vector<std::byte> encode_mnt(std::string_view path) {
  XdrEncoder out;
  out.put_string(path);
  return out.take();
}

Result<netfs::FileHandle> decode_mnt(Bytes results, std::string_view host, std::string_view path) {
  XdrDecoder in(results);
  const std::uint32_t status = in.u32();
  if (in.ok() && status != kMountOk) {
    return fail(mount_error(status, host, path));
  }
  const Bytes handle = in.opaque(netfs::FileHandle::kMostBytes);
  const bool ours = takes_auth_sys(in);
  if (!in.ok() || handle.empty()) {
    return fail(Errc::kCorrupt,
                fmt::format("the mount service of {} answered for {} with what makes no sense; is "
                            "the port right?",
                            host, path));
  }
  if (!ours) {
    return fail(Error(Errc::kRemote, EACCES,
                      fmt::format("{} exports {} with Kerberos only, which we do not speak; export "
                                  "it with sec=sys",
                                  host, path)));
  }
  return netfs::FileHandle(handle);
}

}  // namespace larder::nfs
