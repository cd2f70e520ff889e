// CHECK: our own bugs end the program, in every build, after saying what was wrong and where.
//
// Not for what a disk, a server or a user did: that is an Error.
#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

namespace larder::internal {

[[noreturn]] void check_failed(const char* file, int line, const char* expression,
                               const std::string& detail);

inline std::string check_detail() {
  return {};
}

template <class... Args>
std::string check_detail(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(format, std::forward<Args>(args)...);
}

}  // namespace larder::internal

// CHECK(condition) or CHECK(condition, "format {}", ids_and_states...).
#define CHECK(condition, ...)                                                          \
  do {                                                                                 \
    if (!(condition)) [[unlikely]] {                                                   \
      ::larder::internal::check_failed(__FILE__, __LINE__, #condition,                 \
                                       ::larder::internal::check_detail(__VA_ARGS__)); \
    }                                                                                  \
  } while (false)
