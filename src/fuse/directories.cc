// Listings: OPENDIR, READDIR, RELEASEDIR.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/uio.h>

#include "base/result.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/node_open.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/directory_stream.h"
#include "netfs/inode.h"
#include "netfs/share.h"

namespace larder::fuse {

namespace {

// The first two entries of every listing are ours: "." and "..".
constexpr std::size_t kOwnEntries = 2;

// The d_type of readdir(3): the type bits of the mode, shifted (IFTODT of dirent.h).
std::uint32_t dirent_type(std::optional<netfs::FileType> type) {
  if (!type) {
    return 0;  // DT_UNKNOWN
  }
  switch (*type) {
    case netfs::FileType::kRegular:
      return S_IFREG >> 12U;
    case netfs::FileType::kDirectory:
      return S_IFDIR >> 12U;
    case netfs::FileType::kBlockDevice:
      return S_IFBLK >> 12U;
    case netfs::FileType::kCharacterDevice:
      return S_IFCHR >> 12U;
    case netfs::FileType::kSymlink:
      return S_IFLNK >> 12U;
    case netfs::FileType::kSocket:
      return S_IFSOCK >> 12U;
    case netfs::FileType::kFifo:
      return S_IFIFO >> 12U;
  }
  return 0;
}

// The body of a READDIR reply, filled until an entry does not fit.
class DirentBuffer {
 public:
  explicit DirentBuffer(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  // `offset`: where the listing goes on behind this entry. False: no room.
  bool add(std::uint64_t ino, std::uint64_t offset, std::uint32_t type, std::string_view name) {
    const std::size_t length = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size());
    if (bytes_.size() + length > most_bytes_) {
      return false;
    }
    const std::size_t at = bytes_.size();
    bytes_.resize(at + length);
    fuse_dirent dirent{};
    dirent.ino = ino;
    dirent.off = offset;
    dirent.namelen = static_cast<std::uint32_t>(name.size());
    dirent.type = type;
    std::memcpy(bytes_.data() + at, &dirent, FUSE_NAME_OFFSET);
    std::memcpy(bytes_.data() + at + FUSE_NAME_OFFSET, name.data(), name.size());
    return true;
  }

  [[nodiscard]] iovec part() { return {bytes_.data(), bytes_.size()}; }

 private:
  const std::size_t most_bytes_;
  std::vector<std::byte> bytes_;
};

}  // namespace

void Filesystem::opendir(const RequestRef& request) {
  const auto* const in = request->argument<fuse_open_in>();
  const netfs::InodeRef inode = inode_of(*request);
  if (in == nullptr || inode == nullptr) {
    request->reply_error(in == nullptr ? EINVAL : ESTALE);
    return;
  }
  const netfs::Caller caller = caller_of(*request);
  share_.open_directory(inode, caller,
                        [this, request, caller, open_flags = in->flags](
                            Result<std::shared_ptr<netfs::DirectoryStream>> stream) {
                          if (!stream) {
                            request->reply_error(stream.error());
                            return;
                          }
                          netfs::OpenFile open;
                          open.credential = caller.credential;
                          const Result<std::uint64_t> fh = handles_.add(
                              {mount_id_, request->nodeid(), open_flags, OpenMode::kClosed,
                               std::move(open), std::move(*stream)});
                          if (!fh) {
                            request->reply_error(fh.error());
                            return;
                          }
                          OpenOut out{};
                          out.fh = *fh;
                          if (!request->reply(out)) {
                            remove_handle(*request, out.fh);
                          }
                        });
}

void Filesystem::readdir(const RequestRef& request) {
  const auto* const in = request->argument<fuse_read_in>();
  const HandleRef directory = in == nullptr ? nullptr : handle(*request, in->fh);
  if (directory == nullptr || directory->directory == nullptr) {
    request->reply_error(EBADF);
    return;
  }
  if (in->offset == 0) {
    directory->directory->rewind();
  }
  const std::size_t index = in->offset > kOwnEntries ? in->offset - kOwnEntries : 0;
  const netfs::Caller caller{directory->open.credential, request->scope()};
  directory->directory->load(index, caller, [this, request, directory](const Result<>& result) {
    if (!result) {
      request->reply_error(result.error());
      return;
    }
    fill_directory(request, directory);
  });
}

void Filesystem::fill_directory(const RequestRef& request, const HandleRef& handle) {
  const auto* const in = request->argument<fuse_read_in>();
  netfs::DirectoryStream& stream = *handle->directory;
  const netfs::Attributes own = stream.inode()->attributes().attributes;
  DirentBuffer buffer(std::min(in->size, kMostIoBytes));
  std::uint64_t offset = in->offset;
  bool room = true;
  for (; offset < kOwnEntries && room; ++offset) {
    room = buffer.add(inode_number(own.fsid, own.fileid), offset + 1, S_IFDIR >> 12U,
                      offset == 0 ? "." : "..");
  }
  if (room) {
    stream.visit(offset - kOwnEntries, [&](std::size_t index, const netfs::ListedEntry& entry) {
      return buffer.add(inode_number(own.fsid, entry.fileid), index + kOwnEntries + 1,
                        dirent_type(entry.type), entry.name);
    });
  }
  nodes_.note_listing(request->nodeid() == FUSE_ROOT_ID ? root_ : request->nodeid(),
                      stream.verifier());
  const iovec part = buffer.part();
  request->reply_parts({&part, 1});
}

void Filesystem::releasedir(const RequestRef& request) {
  const auto* const in = request->argument<fuse_release_in>();
  if (in == nullptr || remove_handle(*request, in->fh) == nullptr) {
    request->reply_error(EBADF);
    return;
  }
  request->reply_empty();
}

}  // namespace larder::fuse
