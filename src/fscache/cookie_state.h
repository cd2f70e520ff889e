// The states of a cookie, the moves between them, and one letter each.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace larder::fscache {

enum class CookieState : std::uint8_t {
  kQuiescent,   // '-' nobody has used it yet, or its cache went away: no object
  kLookingUp,   // 'L' the disk pool looks for the object; users wait for the outcome
  kActive,      // 'A' an object is there: reads are planned on it, writes fill it
  kFailed,      // 'F' no object to be had (no cache, no room, an error): users do without
  kSuperseded,  // 'S' a newer version of the file took over: reads of holders go on, no writes
};

struct CookieStateText {
  CookieState state;
  char letter;
  std::string_view name;
};

inline constexpr std::array<CookieStateText, 5> kCookieStates = {{
    {CookieState::kQuiescent, '-', "quiescent"},
    {CookieState::kLookingUp, 'L', "looking-up"},
    {CookieState::kActive, 'A', "active"},
    {CookieState::kFailed, 'F', "failed"},
    {CookieState::kSuperseded, 'S', "superseded"},
}};

// Whether the state machine may go from one to the other; docs/states.md draws it.
[[nodiscard]] bool may_move(CookieState from, CookieState to);

}  // namespace larder::fscache
