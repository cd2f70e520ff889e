#include "cachefilesd/options.h"

#include <optional>
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <fmt/format.h>

namespace larder::cachefilesd {
namespace {

constexpr int kExitNotUnderstood = 2;

std::string not_understood(const CLI::App* /*app*/, const CLI::Error& error) {
  return fmt::format("cachefilesd: {}: see `cachefilesd --help`\n", error.what());
}

}  // namespace

std::optional<Options> parse_options(int argc, char** argv, int& exit_code) {
  Options options;
  CLI::App app("Brings a cache online, culls it, and removes what is dead", "cachefilesd");
  app.failure_message(not_understood);
  app.add_flag("-d", options.debug, "tell more, also on stderr");
  app.add_flag("-s", options.no_syslog, "log to stderr instead of syslog");
  app.add_flag("-n", options.foreground, "stay in the foreground");
  app.add_flag("-N", options.never_culls, "never cull");
  app.add_flag("--with-parent", options.with_parent, "end when the process that started it ends")
      ->needs("-n");
  app.add_option("-p", options.pid_file, "write the process's id to this file")
      ->type_name("PIDFILE");
  app.add_option("-f", options.config_path, "read this configuration")
      ->type_name("FILE")
      ->capture_default_str();
  app.add_flag("-v,--version", options.shows_version, "print the version and end");
  CLI::Option* const runtime =
      app.add_option("--runtime-dir", options.runtime_directory,
                     "the cache is kept by the engine with its sockets in this directory")
          ->type_name("DIR");
  app.add_option("--device", options.device, "the cache is kept by the kernel behind this device")
      ->type_name("PATH")
      ->excludes(runtime);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // CLI11's way to say that it did not understand
    exit_code = app.exit(error) == 0 ? 0 : kExitNotUnderstood;
    return std::nullopt;
  }
  return options;
}

}  // namespace larder::cachefilesd
