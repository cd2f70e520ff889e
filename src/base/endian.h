// Big-endian loads and stores: labels, map logs and XDR are big-endian whatever the host is.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>

namespace larder {

template <std::unsigned_integral T>
[[nodiscard]] T load_be(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::little && sizeof(T) > 1) {
    value = std::byteswap(value);
  }
  return value;
}

template <std::unsigned_integral T>
void store_be(std::byte* to, T value) {
  if constexpr (std::endian::native == std::endian::little && sizeof(T) > 1) {
    value = std::byteswap(value);
  }
  std::memcpy(to, &value, sizeof value);
}

}  // namespace larder
