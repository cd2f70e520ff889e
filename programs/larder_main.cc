// larder: the command line, and the keeper that it becomes by `larder serve`.
#include <functional>
#include <utility>

#include "base/log.h"
#include "cli/keeper_start.h"
#include "cli/run.h"
#include "keeper/keeper.h"

int main(int argc, char** argv) {
  return larder::cli::run(
      argc, argv, [](const larder::cli::ServeOptions& options, std::function<void()> started) {
        larder::LogLevel level = larder::log_level();
        if (larder::parse_log_level(options.log_level, level)) {
          larder::set_log_level(level);
        }
        return larder::keeper::run_keeper({.runtime_directory = options.runtime_directory,
                                           .engine_program = options.engine_program,
                                           .log_level = options.log_level,
                                           .cache = options.cache,
                                           .cache_size = options.cache_size,
                                           .daemons = options.daemons,
                                           .on_started = std::move(started)});
      });
}
