// Result<T>: a value or an Error. The only file that names the library behind it.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include "base/error.h"

namespace larder {

template <class T = void>
using Result = std::expected<T, Error>;

// `return fail(Errc::kStale, "...")` from any function that returns a Result.
[[nodiscard]] inline std::unexpected<Error> fail(Errc code, std::string context) {
  return std::unexpected(Error(code, std::move(context)));
}

// With the errno that a user of the mount is to see.
[[nodiscard]] inline std::unexpected<Error> fail(Errc code, int error_number, std::string context) {
  return std::unexpected(Error(code, error_number, std::move(context)));
}

[[nodiscard]] inline std::unexpected<Error> fail(Error error) {
  return std::unexpected(std::move(error));
}

// For the line after a failed system call; `error_number` is its errno.
[[nodiscard]] inline std::unexpected<Error> fail_errno(int error_number, std::string context) {
  return std::unexpected(Error::from_errno(error_number, std::move(context)));
}

namespace internal {

template <class T>
T take_value(Result<T>& result) {
  return std::move(*result);
}

inline void take_value(Result<void>& /*result*/) {}

}  // namespace internal

}  // namespace larder

// The value of `expression`, or returns its error to our caller. It stands alone: after `=` or
// `return`, as a statement or a condition, or as the only argument of a call. Among the members of
// a braced list, or beside other arguments, those already built would never be destroyed when it
// returns: a shared_ptr among them keeps its object for ever (tools/check_try.py looks for it).
#define TRY(expression)                                             \
  __extension__({                                                   \
    auto larder_try_result = (expression);                          \
    if (!larder_try_result.has_value()) {                           \
      return std::unexpected(std::move(larder_try_result).error()); \
    }                                                               \
    ::larder::internal::take_value(larder_try_result);              \
  })
