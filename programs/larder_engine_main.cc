// larder-engine: started by the keeper, never by hand.
#include <cstdlib>
#include <utility>

#include <signal.h>

#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/engine.h"
#include "handover/engine_end.h"
#include "handover/messages.h"

namespace {

larder::Result<> run() {
  // A server or a client that hangs up is an error of a write, not the end of every mount.
  static_cast<void>(::signal(SIGPIPE, SIG_IGN));
  auto keeper = TRY(
      larder::handover::EngineEnd::adopt(larder::UniqueFd(larder::handover::kChannelDescriptor)));
  larder::engine::Engine engine(std::move(keeper));
  TRY(engine.run());
  // What still hangs on a disk or a server must not keep the process: everything that had to be
  // durable is.
  std::_Exit(EXIT_SUCCESS);
}

}  // namespace

int main() {
  larder::set_log_name("engine");
  const larder::Result<> result = run();
  larder::log_error("{}", result.error().message());
  return EXIT_FAILURE;
}
