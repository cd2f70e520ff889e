// Keys and their names on disk, as the kernel's cachefiles makes them (docs/on-disk-format.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace larder::cachefiles {

// The name of the data file of an object: D, E, S or T and the cooked key. `key`: 1 to 128 bytes,
// any. Two keys that differ only in zero bytes at the end, up to a multiple of four, may have the
// same name: what is kept says whose it is.
[[nodiscard]] std::string cook_key(std::string_view key);

// The key of a name; with zeros at the end, up to a multiple of four, for S and T. nullopt: no name
// that cook_key makes.
[[nodiscard]] std::optional<std::string> uncook_key(std::string_view name);

// The kernel's hash whose low bits choose the directory. `words` is padded with zeros to a multiple
// of four bytes.
[[nodiscard]] std::uint32_t fscache_hash(std::uint32_t salt, std::string_view words);

// `volume_key`: at most 254 bytes.
[[nodiscard]] std::uint32_t hash_of_volume(std::string_view volume_key);
[[nodiscard]] std::uint32_t hash_of_key(std::uint32_t volume_hash, std::string_view key);

}  // namespace larder::cachefiles
