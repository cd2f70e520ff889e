#include "adapters/localdir/local_reads.h"

#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "adapters/localdir/local_tree.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::localdir {

namespace {

using netfs::DirectoryPosition;
using netfs::FileHandle;
using netfs::FileType;
using netfs::LookupReply;
using netfs::ReaddirReply;
using netfs::ReadlinkReply;
using netfs::ReadReply;
using netfs::StatfsReply;

// Where the name begins in a record of getdents64(2).
constexpr std::size_t kRawNameOffset = offsetof(dirent64, d_name);

// Appends what one getdents64(2) gives; with the attributes of each if `directory` is not null.
Result<> read_piece(LocalTree& tree, const UniqueFd& opened, const FileHandle* directory,
                    ReaddirReply& reply) {
  std::vector<std::byte> buffer(kDirectoryReadSize);
  const auto length = ::syscall(SYS_getdents64, opened.get(), buffer.data(), buffer.size());
  if (length < 0) {
    return remote_failure(errno, "readdir");
  }
  reply.end = length == 0;
  for (std::size_t at = 0; at < static_cast<std::size_t>(length);) {
    dirent64 raw{};
    std::memcpy(&raw, &buffer[at], kRawNameOffset);
    netfs::RemoteEntry entry;
    entry.name = reinterpret_cast<const char*>(&buffer[at + kRawNameOffset]);
    entry.fileid = raw.d_ino;
    entry.cookie = static_cast<std::uint64_t>(raw.d_off);
    at += raw.d_reclen;
    if (entry.name == "." || entry.name == "..") {
      continue;
    }
    // One that disappeared meanwhile, or is a mount point, stays without attributes.
    if (const auto found = directory != nullptr ? tree.look_up(opened, *directory, entry.name)
                                                : Result<OpenedFile>(fail(Errc::kNotFound, ""))) {
      entry.handle = found->found.handle;
      entry.attributes = found->found.attributes;
    }
    reply.entries.push_back(std::move(entry));
  }
  return {};
}

}  // namespace

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

Result<UniqueFd> reopen(const UniqueFd& path, int flags) {
  const std::string name = fmt::format("/proc/self/fd/{}", path.get());
  UniqueFd opened(::open(name.c_str(), O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags));
  if (!opened.valid()) {
    return remote_failure(errno, "open");
  }
  return opened;
}

Result<ReadReply> read_file(LocalTree& tree, const FileHandle& handle, std::uint64_t offset,
                            MutableBytes destination) {
  const OpenedFile file = TRY(tree.find(handle));
  if (file.found.attributes.type != FileType::kRegular) {
    return remote_failure(file.found.attributes.type == FileType::kDirectory ? EISDIR : EINVAL,
                          "read");
  }
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
    return remote_failure(EINVAL, "read");
  }
  const UniqueFd opened = TRY(reopen(file.path, O_RDONLY));
  ReadReply reply;
  while (reply.length < destination.size()) {
    const MutableBytes rest = destination.subspan(reply.length);
    const ssize_t length =
        ::pread(opened.get(), rest.data(), rest.size(), static_cast<off_t>(offset + reply.length));
    if (length < 0 && errno != EINTR) {
      return remote_failure(errno, "read");
    }
    if (length == 0) {
      break;
    }
    reply.length += length > 0 ? static_cast<std::size_t>(length) : 0;
  }
  reply.attributes = TRY(examine(opened)).attributes;
  reply.end = reply.length < destination.size() || offset + reply.length >= reply.attributes->size;
  return reply;
}

Result<LookupReply> look_up(LocalTree& tree, const FileHandle& directory, const std::string& name) {
  const OpenedFile parent = TRY(tree.find(directory));
  if (!is_plain_name(name)) {
    return remote_failure(EINVAL, "lookup");
  }
  const OpenedFile found = TRY(tree.look_up(parent.path, directory, name));
  return LookupReply{found.found.handle, found.found.attributes, parent.found.attributes};
}

Result<ReadlinkReply> read_link(LocalTree& tree, const FileHandle& handle) {
  const OpenedFile link = TRY(tree.find(handle));
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlinkat(link.path.get(), "", target.data(), target.size());
  if (length < 0) {
    return remote_failure(errno == ENOENT ? EINVAL : errno, "readlink");
  }
  return ReadlinkReply{std::string(target.data(), static_cast<std::size_t>(length)),
                       link.found.attributes};
}

Result<StatfsReply> stat_filesystem(LocalTree& tree, const FileHandle& handle) {
  const OpenedFile file = TRY(tree.find(handle));
  struct statvfs status{};
  if (::fstatvfs(file.path.get(), &status) != 0) {
    return remote_failure(errno, "statfs");
  }
  return StatfsReply{status.f_blocks * status.f_frsize, status.f_bfree * status.f_frsize,
                     status.f_bavail * status.f_frsize, status.f_files, status.f_ffree};
}

Result<ReaddirReply> read_directory(LocalTree& tree, const FileHandle& handle,
                                    DirectoryPosition from, bool with_attributes) {
  const OpenedFile directory = TRY(tree.find(handle));
  if (directory.found.attributes.type != FileType::kDirectory) {
    return remote_failure(ENOTDIR, "readdir");
  }
  // A description of its own for each call: it holds the position.
  const UniqueFd opened = TRY(reopen(directory.path, O_RDONLY | O_DIRECTORY));
  if (from.cookie != 0 && ::lseek(opened.get(), static_cast<off_t>(from.cookie), SEEK_SET) < 0) {
    return remote_failure(errno, "readdir");
  }
  ReaddirReply reply;
  reply.directory_attributes = directory.found.attributes;
  // A piece may hold "." and ".." alone: who asked could not tell where it goes on.
  while (reply.entries.empty() && !reply.end) {
    TRY(read_piece(tree, opened, with_attributes ? &handle : nullptr, reply));
  }
  return reply;
}

}  // namespace larder::localdir
