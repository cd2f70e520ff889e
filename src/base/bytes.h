// Spans of bytes, and the casts between them and text.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace larder {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

[[nodiscard]] inline Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

[[nodiscard]] inline std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The object representation of a trivially copyable struct, as it goes to the kernel or a socket.
template <class T>
[[nodiscard]] Bytes bytes_of_object(const T& object) {
  return std::as_bytes(std::span(&object, 1));
}

template <class T>
[[nodiscard]] MutableBytes writable_bytes_of_object(T& object) {
  return std::as_writable_bytes(std::span(&object, 1));
}

}  // namespace larder
