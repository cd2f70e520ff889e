// Faults: rules in the order in which they were given.
#include "faults.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "direction.h"
#include "rpc_message.h"

namespace larder::proxy {

std::optional<FaultRule> Faults::strike(Direction direction, Procedure procedure,
                                        std::string_view handle) {
  const auto rule = std::ranges::find_if(rules_, [&](const FaultRule& candidate) {
    return candidate.direction == direction &&
           (!candidate.procedure || *candidate.procedure == procedure) &&
           (candidate.handle.empty() || candidate.handle == handle);
  });
  if (rule == rules_.end()) {
    return std::nullopt;
  }
  FaultRule struck = *rule;
  if (rule->remaining != FaultRule::kForever) {
    --rule->remaining;
  }
  if (rule->remaining == 0) {
    rules_.erase(rule);
  }
  return struck;
}

void Faults::end(Fault fault, std::optional<Procedure> procedure) {
  std::erase_if(rules_, [&](const FaultRule& rule) {
    return rule.fault == fault && (!procedure || rule.procedure == procedure);
  });
}

}  // namespace larder::proxy
