// nfsstat3 (RFC 1813, 2.6) and what it means here.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace larder::nfs {

enum class NfsStatus : std::uint32_t {
  kOk = 0,
  kPermission = 1,
  kNoEntry = 2,
  kIo = 5,
  kNoDevice = 6,
  kAccess = 13,
  kExists = 17,
  kCrossDevice = 18,
  kNoSuchDevice = 19,
  kNotDirectory = 20,
  kIsDirectory = 21,
  kInvalid = 22,
  kFileTooBig = 27,
  kNoSpace = 28,
  kReadOnly = 30,
  kTooManyLinks = 31,
  kNameTooLong = 63,
  kNotEmpty = 66,
  kQuota = 69,
  kStale = 70,
  kRemote = 71,
  kBadHandle = 10001,
  kNotSync = 10002,
  kBadCookie = 10003,
  kNotSupported = 10004,
  kTooSmall = 10005,
  kServerFault = 10006,
  kBadType = 10007,
  kJukebox = 10008,
};

// The error of a status that is not kOk; `what` names the call. Codes: kNotFound for NOENT, kStale
// with ESTALE for a handle that the server does not know, kStale with EAGAIN for BAD_COOKIE (begin
// the listing again), kNotSupported for NOTSUPP, kRemote with the status's errno for the others.
[[nodiscard]] Error error_of_status(NfsStatus status, std::string_view what);

}  // namespace larder::nfs
