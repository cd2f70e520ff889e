// Amounts of bytes as people write them: "20G".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace larder {

// A whole number greater than 0, alone or with one of K, M, G, T behind it (powers of 1024, also in
// lower case). kInvalid for anything else and what 64 bits do not
// hold.
[[nodiscard]] Result<std::uint64_t> parse_byte_count(std::string_view text);

// In the largest unit without a remainder: "20G", "1000 bytes".
[[nodiscard]] std::string byte_count_text(std::uint64_t bytes);

}  // namespace larder
