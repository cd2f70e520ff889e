// Every name of a cache directory (docs/on-disk-format.md has the grammar).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace larder::cachefiles {

inline constexpr std::string_view kCacheDirectory = "cache";
inline constexpr std::string_view kGraveyardDirectory = "graveyard";
inline constexpr std::string_view kMapsDirectory = "maps";
inline constexpr std::string_view kMetaDirectory = "meta";
inline constexpr std::string_view kStateFile = "state";
inline constexpr std::string_view kLockFile = "lock";
inline constexpr std::string_view kFormatFile = "format";
// What the format file holds. Another number means another layout: nothing is read then.
inline constexpr std::string_view kFormatText = "larder cache 1\n";

inline constexpr std::uint32_t kDirectoryMode = 0700;
inline constexpr std::uint32_t kFileMode = 0600;
inline constexpr unsigned kFanOut = 256;

// "I" + key.
[[nodiscard]] std::string volume_directory(std::string_view volume_key);
// "@00" to "@ff".
[[nodiscard]] std::string fan_out_directory(std::uint8_t index);
[[nodiscard]] bool is_fan_out_directory(std::string_view name);
// Begins as a data file's name does.
[[nodiscard]] bool is_data_file(std::string_view name);

// A volume key as it can stand in a directory's name. Over 254 bytes its sixth field (the export)
// is replaced by the SHA-256 of the whole key in hex, or, if that does not do, all behind the first
// field; the key itself is then kept in meta/.
[[nodiscard]] std::string short_volume_key(std::string_view key);

}  // namespace larder::cachefiles
