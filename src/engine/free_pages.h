// FreePages: which pages of a memory are free, as runs as long as possible.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace larder::engine {

struct PageRun {
  std::uint32_t first = 0;
  std::uint32_t count = 0;

  [[nodiscard]] std::uint32_t end() const { return first + count; }
};

// Each operation takes a time that grows with the logarithm of the number of runs.
// Threads: external synchronisation.
class FreePages {
 public:
  // All of them are free.
  explicit FreePages(std::uint32_t count);

  // `wanted` pages out of the shortest run that has as many; else the longest run there is; of no
  // pages if none is free.
  [[nodiscard]] PageRun take(std::uint32_t wanted);
  // The pages from `first` on, as many as are free, `most` at most.
  [[nodiscard]] PageRun take_at(std::uint32_t first, std::uint32_t most);
  // Requires: they were taken.
  void give(PageRun run);

  [[nodiscard]] std::uint32_t count() const { return count_; }

  // First pages, with how many there are.
  [[nodiscard]] const std::map<std::uint32_t, std::uint32_t>& runs() const { return runs_; }

 private:
  void add(PageRun run);
  void remove(PageRun run);

  std::map<std::uint32_t, std::uint32_t> runs_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> by_count_;  // count, first
  std::uint32_t count_ = 0;
};

}  // namespace larder::engine
