#include "cachefiles/key.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"

namespace larder::cachefiles {
namespace {

constexpr std::string_view kDigits =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
constexpr std::uint32_t kGoldenRatio = 0x61C88647;

std::uint32_t byte_at(std::string_view text, std::size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
}

// The four bytes at `at` as a word; past the end they are zero.
std::uint32_t word_at(std::string_view key, std::size_t at, bool big_endian) {
  const std::uint32_t little = byte_at(key, at) | (byte_at(key, at + 1) << 8U) |
                               (byte_at(key, at + 2) << 16U) | (byte_at(key, at + 3) << 24U);
  return big_endian ? std::byteswap(little) : little;
}

bool is_printable(std::string_view key) {
  return std::ranges::all_of(key, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte >= 33 && byte <= 46) || (byte >= 48 && byte <= 127);
  });
}

std::string cook_words(std::string_view key, bool big_endian) {
  std::string name;
  char separator = big_endian ? 'S' : 'T';
  for (std::size_t at = 0; at < key.size(); at += 4) {
    name.push_back(std::exchange(separator, ','));
    const std::uint32_t word = word_at(key, at, big_endian);
    if (word != 0) {
      fmt::format_to(std::back_inserter(name), "{:x}", word);
    }
  }
  return name;
}

std::string cook_base64(std::string_view key) {
  const std::size_t groups = (key.size() + 2) / 3;
  std::string name{'E', static_cast<char>('0' + (groups * 3 - key.size()))};
  for (std::size_t at = 0; at < key.size(); at += 3) {
    std::uint32_t bits =
        byte_at(key, at) | (byte_at(key, at + 1) << 8U) | (byte_at(key, at + 2) << 16U);
    for (int digit = 0; digit < 4; ++digit, bits >>= 6U) {
      name.push_back(kDigits[bits & 63U]);
    }
  }
  return name;
}

std::optional<std::string> uncook_words(std::string_view words, bool big_endian) {
  std::string key;
  for (;;) {
    const std::size_t end = std::min(words.find(','), words.size());
    std::uint32_t word = 0;
    if (end > 0) {
      const std::string digits(words.substr(0, end));
      const char* const last = std::next(digits.c_str(), static_cast<std::ptrdiff_t>(end));
      const auto [stop, error] = std::from_chars(digits.c_str(), last, word, 16);
      if (error != std::errc() || stop != last) {
        return std::nullopt;
      }
    }
    word = big_endian ? std::byteswap(word) : word;
    for (int i = 0; i < 4; ++i, word >>= 8U) {
      key.push_back(static_cast<char>(word & 0xFFU));
    }
    if (end == words.size()) {
      return key;
    }
    words.remove_prefix(end + 1);
  }
}

std::optional<std::string> uncook_base64(std::string_view text) {
  if (text.size() < 5 || text.size() % 4 != 1 || text[0] < '0' || text[0] > '2') {
    return std::nullopt;
  }
  const auto pad = static_cast<std::size_t>(text[0] - '0');
  text.remove_prefix(1);
  std::string key;
  for (; !text.empty(); text.remove_prefix(4)) {
    std::uint32_t bits = 0;
    for (unsigned digit = 0; digit < 4; ++digit) {
      const std::size_t value = kDigits.find(text[digit]);
      if (value == std::string_view::npos) {
        return std::nullopt;
      }
      bits |= static_cast<std::uint32_t>(value) << (6U * digit);
    }
    for (int i = 0; i < 3; ++i, bits >>= 8U) {
      key.push_back(static_cast<char>(bits & 0xFFU));
    }
  }
  key.resize(key.size() - pad);
  return key;
}

std::optional<std::string> uncook_any(char kind, std::string_view rest) {
  switch (kind) {
    case 'D':
      return std::string(rest);
    case 'E':
      return uncook_base64(rest);
    case 'S':
      return uncook_words(rest, true);
    case 'T':
      return uncook_words(rest, false);
    default:
      return std::nullopt;
  }
}

std::uint32_t hash_word(std::uint32_t word) {
  return word * kGoldenRatio;
}

}  // namespace

std::string cook_key(std::string_view key) {
  CHECK(!key.empty() && key.size() <= 128, "a key of {} bytes", key.size());
  if (is_printable(key)) {
    return "D" + std::string(key);
  }
  std::string big = cook_words(key, true);
  std::string little = cook_words(key, false);
  std::string base64 = cook_base64(key);
  std::string& shorter = big.size() <= little.size() ? big : little;
  return std::move(shorter.size() < base64.size() ? shorter : base64);
}

std::optional<std::string> uncook_key(std::string_view name) {
  if (name.size() < 2 && name != "S") {
    return std::nullopt;
  }
  std::optional<std::string> key = uncook_any(name.front(), name.substr(1));
  // Only the one spelling that cook_key gives is a name.
  if (!key || key->empty() || key->size() > 128 || cook_key(*key) != name) {
    return std::nullopt;
  }
  return key;
}

std::uint32_t fscache_hash(std::uint32_t salt, std::string_view words) {
  std::uint32_t x = 0;
  std::uint32_t y = salt;
  for (std::size_t at = 0; at < words.size(); at += 4) {
    x ^= word_at(words, at, false);
    y ^= x;
    x = std::rotl(x, 7);
    x += y;
    y = std::rotl(y, 20);
    y *= 9;
  }
  return hash_word(y ^ hash_word(x));
}

std::uint32_t hash_of_volume(std::string_view volume_key) {
  CHECK(volume_key.size() <= 254);
  std::string counted(1, static_cast<char>(volume_key.size()));
  counted += volume_key;
  counted.push_back('\0');
  return fscache_hash(0, counted);
}

std::uint32_t hash_of_key(std::uint32_t volume_hash, std::string_view key) {
  return fscache_hash(volume_hash, key);
}

}  // namespace larder::cachefiles
