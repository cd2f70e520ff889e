#include "adapters/nfs/procedures.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/nfs_status.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::nfs {

namespace {

using netfs::Attributes;
using netfs::FileHandle;

constexpr std::size_t kMostTargetBytes = 4096;
constexpr std::uint32_t kModeBits = 07777;
constexpr std::uint32_t kNanosecondsPerSecond = 1'000'000'000;

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

// The status in front of all results.
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

template <class T>
Result<T> if_sensible(const XdrDecoder& in, std::string_view what, T value) {
  if (!in.ok()) {
    return fail_corrupt(what);
  }
  return value;
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMostNameBytes && !name.contains('/') &&
         !name.contains('\0');
}

// Collects the entries of a page and watches over its cookies.
class PageBuilder {
 public:
  explicit PageBuilder(std::uint64_t from) : from_(from) { page_.last_cookie = from; }

  void add(netfs::RemoteEntry entry, bool good_name) {
    // Cookies are the server's own and need not rise; but one that repeats leads round in a circle.
    leads_on_ = leads_on_ && entry.cookie != from_ && entry.cookie != page_.last_cookie;
    page_.last_cookie = entry.cookie;
    if (!good_name) {
      ++page_.refused_names;
    } else if (entry.name != "." && entry.name != "..") {
      page_.reply.entries.push_back(std::move(entry));
    }
    ++seen_;
  }

  Result<DirectoryPage> finish(XdrDecoder& in, std::string_view what) {
    page_.reply.end = in.boolean();
    if (!in.ok()) {
      return fail_corrupt(what);
    }
    if (!leads_on_ || (seen_ == 0 && !page_.reply.end)) {
      return fail(Errc::kCorrupt, fmt::format("{}: the server's listing goes round in a circle, at "
                                              "cookie {:#x}",
                                              what, page_.last_cookie));
    }
    return std::move(page_);
  }

  netfs::ReaddirReply& reply() { return page_.reply; }

 private:
  const std::uint64_t from_;
  DirectoryPage page_;
  bool leads_on_ = true;
  std::size_t seen_ = 0;
};

Result<DirectoryPage> decode_page(Bytes results, std::uint64_t from, bool plus) {
  const std::string_view what = plus ? "READDIRPLUS" : "READDIR";
  XdrDecoder in(results);
  TRY(take_status(in, what));
  PageBuilder page(from);
  page.reply().directory_attributes = take_optional_attributes(in);
  page.reply().verifier = in.u64();
  while (in.boolean()) {  // each turn reads at least the 24 bytes of an entry, or fails
    netfs::RemoteEntry entry;
    entry.fileid = in.u64();
    const std::string_view name = in.string(in.remaining());
    const bool good_name = is_name(name);
    if (good_name) {
      entry.name = name;
    }
    entry.cookie = in.u64();
    if (plus) {
      entry.attributes = take_optional_attributes(in);
      entry.handle = take_optional_handle(in);
    }
    if (!in.ok()) {
      break;
    }
    page.add(std::move(entry), good_name);
  }
  return page.finish(in, what);
}

}  // namespace

std::vector<std::byte> encode_handle(const FileHandle& handle) {
  return begin_with(handle).take();
}

std::vector<std::byte> encode_lookup(const FileHandle& directory, std::string_view name) {
  XdrEncoder out = begin_with(directory);
  out.put_string(name);
  return out.take();
}

std::vector<std::byte> encode_access(const FileHandle& handle, std::uint32_t wanted) {
  XdrEncoder out = begin_with(handle);
  out.put_u32(wanted);
  return out.take();
}

std::vector<std::byte> encode_read(const FileHandle& handle, std::uint64_t offset,
                                   std::uint32_t length) {
  XdrEncoder out = begin_with(handle);
  out.put_u64(offset);
  out.put_u32(length);
  return out.take();
}

std::vector<std::byte> encode_readdir(const FileHandle& handle, netfs::DirectoryPosition from,
                                      std::uint32_t most_bytes) {
  XdrEncoder out = begin_with(handle);
  out.put_u64(from.cookie);
  out.put_u64(from.verifier);
  out.put_u32(most_bytes);
  return out.take();
}

std::vector<std::byte> encode_readdirplus(const FileHandle& handle, netfs::DirectoryPosition from,
                                          std::uint32_t most_bytes) {
  XdrEncoder out = begin_with(handle);
  out.put_u64(from.cookie);
  out.put_u64(from.verifier);
  out.put_u32(most_bytes);  // dircount: names alone; we only care for the whole
  out.put_u32(most_bytes);
  return out.take();
}

Result<Attributes> decode_getattr(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "GETATTR"));
  const Attributes attributes = take_attributes(in);
  return if_sensible(in, "GETATTR", attributes);
}

Result<netfs::LookupReply> decode_lookup(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "LOOKUP"));
  netfs::LookupReply reply;
  reply.handle = take_handle(in);
  reply.attributes = take_optional_attributes(in);
  reply.directory_attributes = take_optional_attributes(in);
  return if_sensible(in, "LOOKUP", reply);
}

Result<netfs::AccessReply> decode_access(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "ACCESS"));
  netfs::AccessReply reply;
  reply.attributes = take_optional_attributes(in);
  reply.granted = in.u32();
  return if_sensible(in, "ACCESS", reply);
}

Result<netfs::ReadlinkReply> decode_readlink(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "READLINK"));
  netfs::ReadlinkReply reply;
  reply.attributes = take_optional_attributes(in);
  reply.target = in.string(kMostTargetBytes);
  if (reply.target.empty() || reply.target.contains('\0')) {
    in.fail();
  }
  return if_sensible(in, "READLINK", std::move(reply));
}

Result<netfs::ReadReply> decode_read(Bytes results, std::size_t data_length, std::size_t wanted) {
  XdrDecoder in(results);
  TRY(take_status(in, "READ"));
  netfs::ReadReply reply;
  reply.attributes = take_optional_attributes(in);
  const std::uint32_t count = in.u32();
  reply.end = in.boolean();
  const std::uint32_t length = in.u32();
  reply.length = data_length;
  const bool sensible = count == data_length && length == data_length && data_length <= wanted;
  // Nothing, though the file goes on: whoever asks again would do so for ever.
  if (!sensible || (data_length == 0 && wanted > 0 && !reply.end)) {
    in.fail();
  }
  return if_sensible(in, "READ", reply);
}

DataPlace find_read_data(Bytes results) {
  static constexpr std::size_t kAttributesBytes = 84;
  XdrDecoder in(results);
  const std::uint32_t status = in.u32();
  if (!in.ok()) {
    return {};
  }
  if (static_cast<NfsStatus>(status) != NfsStatus::kOk) {
    return {DataPlace::Outcome::kNone};
  }
  const std::uint32_t follows = in.u32();
  if (follows > 1) {
    return {DataPlace::Outcome::kCorrupt};
  }
  static_cast<void>(in.fixed_opaque(follows == 1 ? kAttributesBytes : 0));
  static_cast<void>(in.u32());  // count
  static_cast<void>(in.u32());  // end of file
  const std::uint32_t length = in.u32();
  if (!in.ok()) {
    return {};
  }
  return {DataPlace::Outcome::kFound, in.position(), length};
}

Result<DirectoryPage> decode_readdir(Bytes results, std::uint64_t from) {
  return decode_page(results, from, false);
}

Result<DirectoryPage> decode_readdirplus(Bytes results, std::uint64_t from) {
  return decode_page(results, from, true);
}

Result<netfs::StatfsReply> decode_fsstat(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "FSSTAT"));
  static_cast<void>(take_optional_attributes(in));
  netfs::StatfsReply reply;
  reply.total_bytes = in.u64();
  reply.free_bytes = in.u64();
  reply.available_bytes = in.u64();
  reply.total_files = in.u64();
  reply.free_files = in.u64();
  static_cast<void>(in.u64());  // files free for us
  static_cast<void>(in.u32());  // invariant for seconds
  return if_sensible(in, "FSSTAT", reply);
}

Result<FsinfoReply> decode_fsinfo(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "FSINFO"));
  FsinfoReply reply;
  reply.attributes = take_optional_attributes(in);
  reply.read_max = in.u32();
  reply.read_preferred = in.u32();
  static_cast<void>(in.u32());  // rtmult
  static_cast<void>(in.u64());  // wtmax, wtpref
  static_cast<void>(in.u32());  // wtmult
  reply.readdir_preferred = in.u32();
  reply.most_file_size = in.u64();
  reply.time_delta = take_time(in);
  static_cast<void>(in.u32());  // properties
  if (reply.read_max == 0) {
    in.fail();
  }
  return if_sensible(in, "FSINFO", reply);
}

Result<PathconfReply> decode_pathconf(Bytes results) {
  XdrDecoder in(results);
  TRY(take_status(in, "PATHCONF"));
  static_cast<void>(take_optional_attributes(in));
  PathconfReply reply;
  reply.most_links = in.u32();
  reply.most_name_bytes = in.u32();
  static_cast<void>(in.boolean());  // no_trunc
  static_cast<void>(in.boolean());  // chown_restricted
  reply.case_insensitive = in.boolean();
  static_cast<void>(in.boolean());  // case_preserving
  return if_sensible(in, "PATHCONF", reply);
}

bool asks_to_wait(Bytes results) {
  XdrDecoder in(results);
  return static_cast<NfsStatus>(in.u32()) == NfsStatus::kJukebox && in.ok();
}

}  // namespace larder::nfs
