#include "fscache/cookie_state.h"

namespace larder::fscache {

bool may_move(CookieState from, CookieState to) {
  switch (from) {
    case CookieState::kQuiescent:
      return to == CookieState::kLookingUp || to == CookieState::kSuperseded;
    case CookieState::kLookingUp:
      return to == CookieState::kActive || to == CookieState::kFailed ||
             to == CookieState::kSuperseded;
    case CookieState::kActive:
      return to == CookieState::kSuperseded;
    case CookieState::kFailed:
      return to == CookieState::kQuiescent || to == CookieState::kSuperseded;
    case CookieState::kSuperseded:
      return false;
  }
  return false;
}

}  // namespace larder::fscache
