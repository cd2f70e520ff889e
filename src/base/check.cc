#include "base/check.h"

#include <cstdlib>
#include <string>

#include "base/log.h"

namespace larder::internal {

void check_failed(const char* file, int line, const char* expression, const std::string& detail) {
  log_line(LogLevel::kError, fmt::format("bug: {}:{}: CHECK({}) failed{}{}", file, line, expression,
                                         detail.empty() ? "" : ": ", detail));
  std::abort();
}

}  // namespace larder::internal
