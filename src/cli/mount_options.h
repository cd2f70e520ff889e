// The words behind -o, of the command line and of fstab.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "handover/mount_spec.h"

namespace larder::cli {

struct OptionWords {
  handover::MountOptions options;
  std::optional<std::string> cache;              // cache=DIR; "none" for none
  std::optional<std::uint64_t> cache_size;       // cachesize=SIZE, bytes
  std::optional<std::string> runtime_directory;  // runtime_dir=DIR
};

// As the value of cachesize= and --cache-size, which `name` is. Errors are sentences.
[[nodiscard]] Result<std::uint64_t> parse_cache_size(std::string_view name, std::string_view text);

// `text` is separated by commas. What only concerns mount(8), fstab and systemd is ignored; names
// that nobody here knows are left for the adapter. Errors are sentences.
[[nodiscard]] Result<OptionWords> parse_option_words(std::string_view text);

}  // namespace larder::cli
