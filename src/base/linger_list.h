// LingerList: things kept for a while after their last use, each once.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace larder {

// In the order of their last use. A use renews a thing's place and time: so what is used again and
// again is here once, and the first of the list are those unused longest.
// T: hashable, cheap to copy. `until` may not fall from one add() to the next.
// Threads: the owner's lock.
template <class T>
class LingerList {
 public:
  void add(const T& thing, MonotonicTime until) {
    if (const auto place = places_.find(thing); place != places_.end()) {
      place->second->until = until;
      order_.splice(order_.end(), order_, place->second);
    } else {
      places_.emplace(thing, order_.insert(order_.end(), {thing, until}));
    }
  }

  [[nodiscard]] std::size_t size() const { return order_.size(); }

  // In how long to take_over() again; nullopt: there is nothing.
  [[nodiscard]] std::optional<Duration> next_look(MonotonicTime now) const {
    constexpr Duration kLeast = std::chrono::milliseconds(500);  // one look for many
    return order_.empty() ? std::nullopt
                          : std::optional(std::max(order_.front().until - now, kLeast));
  }

  // The one unused longest; nullopt: none.
  [[nodiscard]] std::optional<T> take_first() {
    return order_.empty() ? std::nullopt : std::optional(remove_first());
  }

  [[nodiscard]] std::vector<T> take_over(MonotonicTime now) {
    std::vector<T> over;
    while (!order_.empty() && order_.front().until <= now) {
      over.push_back(remove_first());
    }
    return over;
  }

  // How many of so many go each time that room is asked for: a few, so that what is used again
  // stays if that is enough.
  [[nodiscard]] static constexpr std::size_t part_of(std::size_t count) {
    constexpr std::size_t kPart = 8;
    constexpr std::size_t kLeast = 8;
    return std::min(count, std::max(kLeast, count / kPart));
  }

  // Room is asked for: part_of() them, those unused longest.
  [[nodiscard]] std::vector<T> take_part() {
    std::vector<T> part;
    for (std::size_t left = part_of(order_.size()); left > 0; --left) {
      part.push_back(remove_first());
    }
    return part;
  }

 private:
  struct Place {
    T thing;
    MonotonicTime until;
  };

  using Order = std::list<Place>;

  // Requires: there is one.
  T remove_first() {
    T first = std::move(order_.front().thing);
    order_.pop_front();
    places_.erase(first);
    return first;
  }

  Order order_;
  std::unordered_map<T, typename Order::iterator> places_;
};

}  // namespace larder
