#include "base/error.h"

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/core.h>

namespace larder {

namespace {

struct CodeText {
  Errc code;
  int error_number;  // what a user of the mount sees when nothing finer is known
  std::string_view name;
};

constexpr CodeText kCodes[] = {
    {Errc::kNotFound, ENOENT, "not-found"},
    {Errc::kExists, EEXIST, "exists"},
    {Errc::kStale, ESTALE, "stale"},
    {Errc::kChanged, EAGAIN, "changed"},
    {Errc::kNoSpace, ENOSPC, "no-space"},
    {Errc::kBusy, EBUSY, "busy"},
    {Errc::kIo, EIO, "io"},
    {Errc::kCacheDead, EIO, "cache-dead"},
    {Errc::kCorrupt, EIO, "corrupt"},
    {Errc::kInvalid, EINVAL, "invalid"},
    {Errc::kUnsuitable, EMEDIUMTYPE, "unsuitable"},
    {Errc::kNotSupported, EOPNOTSUPP, "not-supported"},
    {Errc::kTimedOut, ETIMEDOUT, "timed-out"},
    {Errc::kRemote, EIO, "remote"},
    {Errc::kCancelled, EINTR, "cancelled"},
    {Errc::kPermission, EACCES, "permission"},
};

const CodeText& text_of(Errc code) {
  for (const CodeText& entry : kCodes) {
    if (entry.code == code) {
      return entry;
    }
  }
  std::unreachable();
}

Errc code_of(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENODATA:
      return Errc::kNotFound;
    case EEXIST:
    case ENOTEMPTY:
      return Errc::kExists;
    case ESTALE:
      return Errc::kStale;
    case ENOSPC:
    case EDQUOT:
      return Errc::kNoSpace;
    case EBUSY:
    case EAGAIN:
    case ETXTBSY:
      return Errc::kBusy;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
      return Errc::kInvalid;
    case EMEDIUMTYPE:  // no filesystem says so: the code survives a way on which only errnos travel
      return Errc::kUnsuitable;
    case EOPNOTSUPP:
    case ENOSYS:
      return Errc::kNotSupported;
    case ETIMEDOUT:
      return Errc::kTimedOut;
    case EINTR:
    case ECANCELED:
      return Errc::kCancelled;
    case EACCES:
    case EPERM:
    case EROFS:
      return Errc::kPermission;
    default:
      return Errc::kIo;
  }
}

}  // namespace

std::string_view name_of(Errc code) {
  return text_of(code).name;
}

Error::Error(Errc code, std::string context) : Error(code, 0, std::move(context)) {}

Error::Error(Errc code, int error_number, std::string context)
    : code_(code),
      error_number_(error_number != 0 ? error_number : text_of(code).error_number),
      from_errno_(error_number != 0),
      context_(std::move(context)) {}

Error Error::from_errno(int error_number, std::string context) {
  return {code_of(error_number), error_number, std::move(context)};
}

std::string Error::message() const {
  return from_errno_
             ? fmt::format("{}: {}", context_, std::generic_category().message(error_number_))
             : context_;
}

Error Error::within(std::string_view where) const {
  return {code_, from_errno_ ? error_number_ : 0, fmt::format("{}: {}", where, context_)};
}

}  // namespace larder
