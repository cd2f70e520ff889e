#include "engine/free_pages.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace larder::engine {

FreePages::FreePages(std::uint32_t count) {
  add({0, count});
}

PageRun FreePages::take(std::uint32_t wanted) {
  if (by_count_.empty()) {
    return {};
  }
  auto found = by_count_.lower_bound({wanted, 0});
  if (found == by_count_.end()) {
    --found;
  }
  return take_at(found->second, wanted);
}

PageRun FreePages::take_at(std::uint32_t first, std::uint32_t most) {
  auto found = runs_.upper_bound(first);
  if (found == runs_.begin()) {
    return {first, 0};
  }
  --found;
  const PageRun run{found->first, found->second};
  if (run.end() <= first) {
    return {first, 0};
  }
  const PageRun taken{first, std::min(most, run.end() - first)};
  remove(run);
  add({run.first, first - run.first});
  add({taken.end(), run.end() - taken.end()});
  return taken;
}

void FreePages::give(PageRun run) {
  if (run.count == 0) {
    return;
  }
  const auto after = runs_.lower_bound(run.first);
  CHECK(after == runs_.end() || run.end() <= after->first, "pages {} to {} are free already",
        run.first, run.end());
  PageRun joined = run;
  if (after != runs_.begin()) {
    const auto before = std::prev(after);
    const PageRun neighbour{before->first, before->second};
    CHECK(neighbour.end() <= run.first, "page {} is free already", run.first);
    if (neighbour.end() == run.first) {
      joined = {neighbour.first, neighbour.count + run.count};
    }
  }
  if (after != runs_.end() && after->first == run.end()) {
    joined.count += after->second;
    remove({after->first, after->second});
  }
  if (joined.first != run.first) {
    remove({joined.first, run.first - joined.first});
  }
  add(joined);
}

void FreePages::add(PageRun run) {
  if (run.count != 0) {
    runs_.emplace(run.first, run.count);
    by_count_.emplace(run.count, run.first);
    count_ += run.count;
  }
}

void FreePages::remove(PageRun run) {
  runs_.erase(run.first);
  by_count_.erase({run.count, run.first});
  count_ -= run.count;
}

}  // namespace larder::engine
