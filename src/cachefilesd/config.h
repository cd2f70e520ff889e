// Config: what a configuration file says: the original's (cachefilesd.conf(5)), and some more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cachefilesd/limits.h"

namespace larder::cachefilesd {

// After a round in which all that was left was in use or pinned: so much must come out of use
// before there is another.
struct ResumeThresholds {
  std::optional<std::uint64_t> blocks;     // of 512 bytes; nullopt: they do not count
  std::optional<std::uint64_t> files = 1;  // nullopt: they do not count

  friend bool operator==(const ResumeThresholds&, const ResumeThresholds&) = default;
};

struct Config {
  std::string directory;                        // absolute
  std::optional<std::string> tag;               // nullopt: the other end's default
  std::optional<std::string> security_context;  // nullopt: none
  std::uint64_t debug_mask = 0;
  Limits limits;
  std::optional<std::uint64_t> size_bytes;  // 0, nullopt: the other end's default
  bool culls = true;
  ResumeThresholds resume;
  // At most one of both; none: whichever is there.
  std::optional<std::string> runtime_directory;
  std::optional<std::string> device;
  // Sentences about what was said and changes nothing.
  std::vector<std::string> notes;
};

// Lines of a word and its argument, up to the end of the line: nothing is quoted, spaces at the end
// count. Spaces in front, empty lines and those that begin with # are skipped. `name` is the
// file's, for the sentences. kInvalid: a line for each thing that is wrong, with file, line, what
// to do. Pure.
[[nodiscard]] Result<Config> parse_config(std::string_view text, std::string_view name);

// Reads it first. kNotFound and other errors of the file, as sentences.
[[nodiscard]] Result<Config> read_config(const std::string& path);

}  // namespace larder::cachefilesd
