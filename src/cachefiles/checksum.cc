#include "cachefiles/checksum.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>

#include <isa-l/crc.h>

#include "base/bytes.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint32_t kReversedPolynomial = 0x82F63B78;

// A linear map of 32-bit vectors over GF(2): column i is the image of bit i.
using Matrix = std::array<std::uint32_t, 32>;

std::uint32_t apply(const Matrix& matrix, std::uint32_t vector) {
  std::uint32_t image = 0;
  for (std::size_t bit = 0; vector != 0; vector >>= 1U, ++bit) {
    if ((vector & 1U) != 0) {
      image ^= matrix[bit];
    }
  }
  return image;
}

Matrix squared(const Matrix& matrix) {
  Matrix result{};
  for (std::size_t bit = 0; bit < result.size(); ++bit) {
    result[bit] = apply(matrix, matrix[bit]);
  }
  return result;
}

// What one zero byte does to a checksum's register.
Matrix one_zero_byte() {
  Matrix one_bit{};
  one_bit[0] = kReversedPolynomial;
  for (std::size_t bit = 1; bit < one_bit.size(); ++bit) {
    one_bit[bit] = 1U << (bit - 1);
  }
  return squared(squared(squared(one_bit)));
}

// powers[i]: what 2^i zero bytes do.
const std::array<Matrix, 64>& powers_of_zeros() {
  static const std::array<Matrix, 64> powers = [] {
    std::array<Matrix, 64> made{};
    made[0] = one_zero_byte();
    for (std::size_t i = 1; i < made.size(); ++i) {
      made[i] = squared(made[i - 1]);
    }
    return made;
  }();
  return powers;
}

}  // namespace

std::uint32_t crc32c(Bytes bytes, std::uint32_t before) {
  std::uint32_t state = ~before;
  while (!bytes.empty()) {
    const std::size_t length = std::min<std::size_t>(bytes.size(), INT_MAX);
    // The library's signature lacks a const.
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(length), state);
    bytes = bytes.subspan(length);
  }
  return ~state;
}

std::uint32_t crc32c_combine(std::uint32_t first, std::uint32_t second,
                             std::uint64_t second_bytes) {
  for (std::size_t i = 0; second_bytes != 0; second_bytes >>= 1U, ++i) {
    if ((second_bytes & 1U) != 0) {
      first = apply(powers_of_zeros()[i], first);
    }
  }
  return first ^ second;
}

}  // namespace larder::cachefiles
