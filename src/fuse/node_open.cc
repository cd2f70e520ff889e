#include "fuse/node_open.h"

#include <string_view>

namespace larder::fuse {

std::string_view name_of(OpenWhy why) {
  switch (why) {
    case OpenWhy::kLatched:
      return "latched";
    case OpenWhy::kSmall:
      return "small";
    case OpenWhy::kComplete:
      return "complete";
    case OpenWhy::kIncomplete:
      return "incomplete";
    case OpenWhy::kTurnedOff:
      return "turned-off";
    case OpenWhy::kUnwritten:
      return "unwritten";
    case OpenWhy::kRefused:
      return "refused";
    case OpenWhy::kWritten:
      return "written";
  }
  return "?";
}

}  // namespace larder::fuse
