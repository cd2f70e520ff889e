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
  std::optional<std::string> runtime_directory;  // runtime_dir=DIR
};

// `text` is separated by commas. What only concerns mount(8), fstab and systemd is ignored; names
// that nobody here knows are left for the adapter. Errors are sentences.
[[nodiscard]] Result<OptionWords> parse_option_words(std::string_view text);

}  // namespace larder::cli
