#include "exact_lru.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trace.h"

namespace larder::cull_sim {
namespace {

// A ring of objects in the order of their last use, with a place beyond the last object as its
// head.
class Order {
 public:
  explicit Order(std::size_t objects)
      : places_(objects + 1), head_(static_cast<std::uint32_t>(objects)) {
    places_[head_] = {head_, head_, true};
  }

  [[nodiscard]] bool has(std::uint32_t object) const { return places_[object].linked; }

  [[nodiscard]] std::uint32_t oldest() const { return places_[head_].after; }

  void remove(std::uint32_t object) {
    const Place& place = places_[object];
    places_[place.before].after = place.after;
    places_[place.after].before = place.before;
    places_[object].linked = false;
  }

  void add_newest(std::uint32_t object) {
    const std::uint32_t last = places_[head_].before;
    places_[object] = {last, head_, true};
    places_[last].after = object;
    places_[head_].before = object;
  }

 private:
  struct Place {
    std::uint32_t before = 0;
    std::uint32_t after = 0;
    bool linked = false;
  };

  std::vector<Place> places_;
  const std::uint32_t head_;
};

}  // namespace

Hits run_exact_lru(const Trace& trace, double cull_part) {
  Order order(trace.bytes.size());
  Hits hits;
  const std::uint64_t run = run_bytes(trace, cull_part);
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < trace.requests.size(); ++i) {
    const std::uint32_t object = trace.requests[i];
    const bool hit = order.has(object);
    if (hit) {
      order.remove(object);
    } else {
      used += trace.bytes[object];
    }
    order.add_newest(object);
    if (i >= trace.counted_from) {
      hits.count(hit, trace.bytes[object]);
    }
    if (used <= trace.limit_bytes) {
      continue;
    }
    while (used > run) {
      const std::uint32_t oldest = order.oldest();
      used -= trace.bytes[oldest];
      order.remove(oldest);
    }
  }
  return hits;
}

}  // namespace larder::cull_sim
