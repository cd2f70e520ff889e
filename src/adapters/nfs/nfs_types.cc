#include "adapters/nfs/nfs_types.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "adapters/nfs/nfs_status.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"

namespace larder::nfs {

namespace {

using netfs::Attributes;
using netfs::FileHandle;

constexpr std::uint32_t kModeBits = 07777;
constexpr std::uint32_t kNanosecondsPerSecond = 1'000'000'000;

}  // namespace

XdrEncoder begin_with(const FileHandle& handle) {
  static constexpr std::size_t kUsualBytes = 128;
  XdrEncoder out(kUsualBytes);
  out.put_opaque(handle.bytes());
  return out;
}

FileHandle take_handle(XdrDecoder& in) {
  const Bytes bytes = in.opaque(FileHandle::kMostBytes);
  if (bytes.empty()) {
    in.fail();
    return {};
  }
  return FileHandle(bytes);
}

std::optional<FileHandle> take_optional_handle(XdrDecoder& in) {
  if (!in.boolean()) {
    return std::nullopt;
  }
  return take_handle(in);
}

netfs::Timestamp take_time(XdrDecoder& in) {
  netfs::Timestamp time;
  time.seconds = in.u32();
  // A file with a strange stamp is still a file.
  time.nanoseconds = std::min(in.u32(), kNanosecondsPerSecond - 1);
  return time;
}

Attributes take_attributes(XdrDecoder& in) {
  Attributes attributes;
  const std::uint32_t type = in.u32();
  if (type < std::to_underlying(netfs::FileType::kRegular) ||
      type > std::to_underlying(netfs::FileType::kFifo)) {
    in.fail();
    return attributes;
  }
  attributes.type = static_cast<netfs::FileType>(type);
  attributes.mode = in.u32() & kModeBits;
  attributes.link_count = in.u32();
  attributes.uid = in.u32();
  attributes.gid = in.u32();
  attributes.size = in.u64();
  attributes.used = in.u64();
  attributes.device_major = in.u32();
  attributes.device_minor = in.u32();
  attributes.fsid = in.u64();
  attributes.fileid = in.u64();
  attributes.accessed = take_time(in);
  attributes.modified = take_time(in);
  attributes.changed = take_time(in);
  return attributes;
}

std::optional<Attributes> take_optional_attributes(XdrDecoder& in) {
  if (!in.boolean()) {
    return std::nullopt;
  }
  return take_attributes(in);
}

std::unexpected<Error> fail_corrupt(std::string_view what) {
  return fail(Errc::kCorrupt, fmt::format("{}: the server's answer makes no sense", what));
}

Result<> take_status(XdrDecoder& in, std::string_view what) {
  const auto status = static_cast<NfsStatus>(in.u32());
  if (!in.ok()) {
    return fail_corrupt(what);
  }
  if (status != NfsStatus::kOk) {
    return fail(error_of_status(status, what));
  }
  return {};
}

}  // namespace larder::nfs
