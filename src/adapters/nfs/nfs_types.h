// What the results of NFSv3's procedures are made of (RFC 1813, 2.5 and 2.6).
#pragma once

#include <cstddef>
#include <expected>
#include <optional>
#include <string_view>

#include "adapters/nfs/xdr.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"

namespace larder::nfs {

inline constexpr std::size_t kMostNameBytes = 255;
inline constexpr std::size_t kMostTargetBytes = 4096;

// Arguments that begin with a handle, as all do.
[[nodiscard]] XdrEncoder begin_with(const netfs::FileHandle& handle);

// What makes no sense makes the decoder fail.
[[nodiscard]] netfs::FileHandle take_handle(XdrDecoder& in);
[[nodiscard]] std::optional<netfs::FileHandle> take_optional_handle(XdrDecoder& in);
[[nodiscard]] netfs::Timestamp take_time(XdrDecoder& in);
[[nodiscard]] netfs::Attributes take_attributes(XdrDecoder& in);
[[nodiscard]] std::optional<netfs::Attributes> take_optional_attributes(XdrDecoder& in);

// The status in front of all results of `what`: its error unless it is OK.
[[nodiscard]] Result<> take_status(XdrDecoder& in, std::string_view what);

[[nodiscard]] std::unexpected<Error> fail_corrupt(std::string_view what);

// `value`, which was read from `in`, unless that has failed.
template <class T>
[[nodiscard]] Result<T> if_sensible(const XdrDecoder& in, std::string_view what, T value) {
  if (!in.ok()) {
    return fail_corrupt(what);
  }
  return value;
}

}  // namespace larder::nfs
