#include "adapters/nfs/nfs_status.h"

#include <cerrno>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace larder::nfs {

namespace {

struct StatusText {
  NfsStatus status;
  Errc code;
  int error_number;
  std::string_view name;
};

// EIO stands for what no local filesystem could say.
constexpr StatusText kStatuses[] = {
    {NfsStatus::kPermission, Errc::kRemote, EPERM, "NFS3ERR_PERM"},
    {NfsStatus::kNoEntry, Errc::kNotFound, ENOENT, "NFS3ERR_NOENT"},
    {NfsStatus::kIo, Errc::kRemote, EIO, "NFS3ERR_IO"},
    {NfsStatus::kNoDevice, Errc::kRemote, ENXIO, "NFS3ERR_NXIO"},
    {NfsStatus::kAccess, Errc::kRemote, EACCES, "NFS3ERR_ACCES"},
    {NfsStatus::kExists, Errc::kRemote, EEXIST, "NFS3ERR_EXIST"},
    {NfsStatus::kCrossDevice, Errc::kRemote, EXDEV, "NFS3ERR_XDEV"},
    {NfsStatus::kNoSuchDevice, Errc::kRemote, ENODEV, "NFS3ERR_NODEV"},
    {NfsStatus::kNotDirectory, Errc::kRemote, ENOTDIR, "NFS3ERR_NOTDIR"},
    {NfsStatus::kIsDirectory, Errc::kRemote, EISDIR, "NFS3ERR_ISDIR"},
    {NfsStatus::kInvalid, Errc::kRemote, EINVAL, "NFS3ERR_INVAL"},
    {NfsStatus::kFileTooBig, Errc::kRemote, EFBIG, "NFS3ERR_FBIG"},
    {NfsStatus::kNoSpace, Errc::kRemote, ENOSPC, "NFS3ERR_NOSPC"},
    {NfsStatus::kReadOnly, Errc::kRemote, EROFS, "NFS3ERR_ROFS"},
    {NfsStatus::kTooManyLinks, Errc::kRemote, EMLINK, "NFS3ERR_MLINK"},
    {NfsStatus::kNameTooLong, Errc::kRemote, ENAMETOOLONG, "NFS3ERR_NAMETOOLONG"},
    {NfsStatus::kNotEmpty, Errc::kRemote, ENOTEMPTY, "NFS3ERR_NOTEMPTY"},
    {NfsStatus::kQuota, Errc::kRemote, EDQUOT, "NFS3ERR_DQUOT"},
    {NfsStatus::kStale, Errc::kStale, ESTALE, "NFS3ERR_STALE"},
    {NfsStatus::kRemote, Errc::kRemote, EREMOTE, "NFS3ERR_REMOTE"},
    {NfsStatus::kBadHandle, Errc::kStale, ESTALE, "NFS3ERR_BADHANDLE"},
    {NfsStatus::kNotSync, Errc::kRemote, EIO, "NFS3ERR_NOT_SYNC"},
    {NfsStatus::kBadCookie, Errc::kStale, EAGAIN, "NFS3ERR_BAD_COOKIE"},
    {NfsStatus::kNotSupported, Errc::kNotSupported, EOPNOTSUPP, "NFS3ERR_NOTSUPP"},
    {NfsStatus::kTooSmall, Errc::kRemote, EIO, "NFS3ERR_TOOSMALL"},
    {NfsStatus::kServerFault, Errc::kRemote, EIO, "NFS3ERR_SERVERFAULT"},
    {NfsStatus::kBadType, Errc::kRemote, EIO, "NFS3ERR_BADTYPE"},
    {NfsStatus::kJukebox, Errc::kRemote, EAGAIN, "NFS3ERR_JUKEBOX"},
};

}  // namespace

Error error_of_status(NfsStatus status, std::string_view what) {
  for (const StatusText& entry : kStatuses) {
    if (entry.status == status) {
      return {entry.code, entry.error_number,
              fmt::format("{}: the server answered {}", what, entry.name)};
    }
  }
  return {Errc::kRemote, EIO,
          fmt::format("{}: the server answered with status {}", what, std::to_underlying(status))};
}

}  // namespace larder::nfs
