// Options: the command line, which is the original's, and some more.
#pragma once

#include <optional>
#include <string>

namespace larder::cachefilesd {

inline constexpr const char* kDefaultConfig = "/etc/cachefilesd.conf";
inline constexpr const char* kDefaultPidFile = "/run/cachefilesd.pid";

struct Options {
  int debug = 0;                             // -d, how often
  bool no_syslog = false;                    // -s
  bool foreground = false;                   // -n
  bool never_culls = false;                  // -N
  bool shows_version = false;                // -v
  bool with_parent = false;                  // ends when who started it does
  std::string pid_file;                      // -p; "": the default, in the background only
  std::string config_path = kDefaultConfig;  // -f
  // More than what the configuration says. "": not given.
  std::string runtime_directory;
  std::string device;
};

// nullopt: there is nothing to do but to end with `exit_code`; it was said why.
[[nodiscard]] std::optional<Options> parse_options(int argc, char** argv, int& exit_code);

}  // namespace larder::cachefilesd
