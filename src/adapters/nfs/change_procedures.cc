#include "adapters/nfs/change_procedures.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "adapters/nfs/nfs_types.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::nfs {

namespace {

using netfs::AttributeChanges;
using netfs::Change;
using netfs::FileHandle;

enum class TimeHow : std::uint32_t { kDoNotChange = 0, kToServerTime = 1, kToClientTime = 2 };

void put_optional_u32(XdrEncoder& out, const std::optional<std::uint32_t>& value) {
  out.put_bool(value.has_value());
  if (value) {
    out.put_u32(*value);
  }
}

void put_stamp(XdrEncoder& out, const std::optional<netfs::StampChange>& change) {
  if (!change) {
    out.put_u32(std::to_underlying(TimeHow::kDoNotChange));
    return;
  }
  const auto* const time = std::get_if<netfs::Timestamp>(&*change);
  if (time == nullptr) {
    out.put_u32(std::to_underlying(TimeHow::kToServerTime));
    return;
  }
  static constexpr std::int64_t kMostSeconds = std::numeric_limits<std::uint32_t>::max();
  out.put_u32(std::to_underlying(TimeHow::kToClientTime));
  const bool fits = time->seconds >= 0 && time->seconds <= kMostSeconds;
  out.put_u32(static_cast<std::uint32_t>(std::clamp<std::int64_t>(time->seconds, 0, kMostSeconds)));
  out.put_u32(fits ? time->nanoseconds : 0);
}

void put_changes(XdrEncoder& out, const AttributeChanges& changes) {
  put_optional_u32(out, changes.mode);
  put_optional_u32(out, changes.uid);
  put_optional_u32(out, changes.gid);
  out.put_bool(changes.size.has_value());
  if (changes.size) {
    out.put_u64(*changes.size);
  }
  put_stamp(out, changes.accessed);
  put_stamp(out, changes.modified);
}

XdrEncoder begin_with_name(const FileHandle& directory, std::string_view name) {
  XdrEncoder out = begin_with(directory);
  out.put_string(name);
  return out;
}

std::optional<netfs::BeforeChange> take_before(XdrDecoder& in) {
  if (!in.boolean()) {
    return std::nullopt;
  }
  netfs::BeforeChange before;
  before.size = in.u64();
  before.modified = take_time(in);
  before.changed = take_time(in);
  return before;
}

Change take_change(XdrDecoder& in) {
  Change change;
  change.before = take_before(in);
  change.after = take_optional_attributes(in);
  return change;
}

netfs::WriteVerifier take_verifier(XdrDecoder& in) {
  netfs::WriteVerifier verifier{};
  const Bytes bytes = in.fixed_opaque(verifier.size());
  std::ranges::copy(bytes, verifier.begin());  // fewer only after it has failed
  return verifier;
}

}  // namespace

std::vector<std::byte> encode_setattr(const FileHandle& handle, const AttributeChanges& changes) {
  XdrEncoder out = begin_with(handle);
  put_changes(out, changes);
  out.put_bool(false);  // no guard
  return out.take();
}

std::vector<std::byte> encode_create(const FileHandle& directory, std::string_view name,
                                     const netfs::CreateOrder& order) {
  XdrEncoder out = begin_with_name(directory, name);
  out.put_u32(std::to_underlying(order.mode));
  if (order.mode == netfs::CreateMode::kExclusive) {
    out.put_fixed_opaque(order.verifier);
  } else {
    put_changes(out, order.attributes);
  }
  return out.take();
}

std::vector<std::byte> encode_mkdir(const FileHandle& directory, std::string_view name,
                                    const AttributeChanges& attributes) {
  XdrEncoder out = begin_with_name(directory, name);
  put_changes(out, attributes);
  return out.take();
}

std::vector<std::byte> encode_mknod(const FileHandle& directory, std::string_view name,
                                    const netfs::MakeOrder& order) {
  using netfs::FileType;
  const bool device =
      order.type == FileType::kBlockDevice || order.type == FileType::kCharacterDevice;
  CHECK(device || order.type == FileType::kFifo || order.type == FileType::kSocket);
  XdrEncoder out = begin_with_name(directory, name);
  out.put_u32(std::to_underlying(order.type));
  put_changes(out, order.attributes);
  if (device) {
    out.put_u32(order.device_major);
    out.put_u32(order.device_minor);
  }
  return out.take();
}

std::vector<std::byte> encode_symlink(const FileHandle& directory, std::string_view name,
                                      std::string_view target, const AttributeChanges& attributes) {
  XdrEncoder out = begin_with_name(directory, name);
  put_changes(out, attributes);
  out.put_string(target);
  return out.take();
}

std::vector<std::byte> encode_remove(const FileHandle& directory, std::string_view name) {
  return begin_with_name(directory, name).take();
}

std::vector<std::byte> encode_rename(const FileHandle& from_directory, std::string_view from,
                                     const FileHandle& to_directory, std::string_view to) {
  XdrEncoder out = begin_with_name(from_directory, from);
  out.put_opaque(to_directory.bytes());
  out.put_string(to);
  return out.take();
}

std::vector<std::byte> encode_link(const FileHandle& file, const FileHandle& directory,
                                   std::string_view name) {
  XdrEncoder out = begin_with(file);
  out.put_opaque(directory.bytes());
  out.put_string(name);
  return out.take();
}

std::vector<std::byte> encode_write(const FileHandle& handle, std::uint64_t offset,
                                    netfs::Stability stability, std::uint32_t length) {
  XdrEncoder out = begin_with(handle);
  out.put_u64(offset);
  out.put_u32(length);
  out.put_u32(std::to_underlying(stability));
  out.put_u32(length);  // of the opaque
  return out.take();
}

std::vector<std::byte> encode_commit(const FileHandle& handle) {
  XdrEncoder out = begin_with(handle);
  out.put_u64(0);
  out.put_u32(0);  // to the end
  return out.take();
}

Result<Change> decode_change(Bytes results, std::string_view what) {
  XdrDecoder in(results);
  TRY(take_status(in, what));
  const Change change = take_change(in);
  return if_sensible(in, what, change);
}

Result<netfs::CreateReply> decode_create(Bytes results, std::string_view what) {
  XdrDecoder in(results);
  TRY(take_status(in, what));
  netfs::CreateReply reply;
  reply.handle = take_optional_handle(in);
  reply.attributes = take_optional_attributes(in);
  reply.directory = take_change(in);
  return if_sensible(in, what, reply);
}

Result<netfs::RenameReply> decode_rename(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "RENAME"));
  netfs::RenameReply reply;
  reply.from = take_change(in);
  reply.to = take_change(in);
  return if_sensible(in, "RENAME", reply);
}

Result<netfs::LinkReply> decode_link(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "LINK"));
  netfs::LinkReply reply;
  reply.attributes = take_optional_attributes(in);
  reply.directory = take_change(in);
  return if_sensible(in, "LINK", reply);
}

Result<netfs::WriteReply> decode_write(Bytes results, std::size_t sent) {
  XdrDecoder in(results);
  TRY(take_status(in, "WRITE"));
  netfs::WriteReply reply;
  reply.file = take_change(in);
  reply.length = in.u32();
  const std::uint32_t stability = in.u32();
  reply.verifier = take_verifier(in);
  // Nothing, and no error: whoever asks again would do so for ever.
  if (reply.length == 0 || reply.length > sent ||
      stability > std::to_underlying(netfs::Stability::kFileSync)) {
    in.fail();
  } else {
    reply.stability = static_cast<netfs::Stability>(stability);
  }
  return if_sensible(in, "WRITE", reply);
}

Result<netfs::CommitReply> decode_commit(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "COMMIT"));
  netfs::CommitReply reply;
  reply.file = take_change(in);
  reply.verifier = take_verifier(in);
  return if_sensible(in, "COMMIT", reply);
}

}  // namespace larder::nfs
