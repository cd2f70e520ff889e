#include "cachefiles/layout.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nettle/sha2.h>

namespace larder::cachefiles {
namespace {

constexpr std::size_t kMostKeyBytes = 254;
constexpr int kExportField = 5;  // larder,1,<adapter>,<host>,<port>,<export>,<fsid>

std::string sha256_hex(std::string_view text) {
  sha256_ctx context{};
  sha256_init(&context);
  sha256_update(&context, text.size(), reinterpret_cast<const std::uint8_t*>(text.data()));
  std::array<std::uint8_t, SHA256_DIGEST_SIZE> digest{};
  sha256_digest(&context, digest.size(), digest.data());
  std::string hex;
  for (const std::uint8_t byte : digest) {
    hex += fmt::format("{:02x}", byte);
  }
  return hex;
}

bool is_hex_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

}  // namespace

std::string volume_directory(std::string_view volume_key) {
  return "I" + std::string(volume_key);
}

std::string fan_out_directory(std::uint8_t index) {
  return fmt::format("@{:02x}", index);
}

bool is_fan_out_directory(std::string_view name) {
  return name.size() == 3 && name[0] == '@' && is_hex_digit(name[1]) && is_hex_digit(name[2]);
}

bool is_data_file(std::string_view name) {
  return name.size() >= 2 && std::string_view("DEST").find(name[0]) != std::string_view::npos;
}

std::string short_volume_key(std::string_view key) {
  if (key.size() <= kMostKeyBytes) {
    return std::string(key);
  }
  const std::string digest = sha256_hex(key);
  std::size_t begin = 0;
  for (int field = 0; field < kExportField && begin != std::string_view::npos; ++field) {
    const std::size_t comma = key.find(',', begin);
    begin = comma == std::string_view::npos ? comma : comma + 1;
  }
  if (begin != std::string_view::npos) {
    const std::size_t end = key.rfind(',');
    const std::string_view tail =
        end >= begin && end != std::string_view::npos ? key.substr(end) : std::string_view();
    std::string shorter = std::string(key.substr(0, begin)) + digest + std::string(tail);
    if (shorter.size() <= kMostKeyBytes) {
      return shorter;
    }
  }
  return fmt::format("larder,1,{}", digest);
}

}  // namespace larder::cachefiles
