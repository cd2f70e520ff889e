#include "cachefilesd/readahead.h"

#include <chrono>
#include <cstddef>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "cachefilesd/listing.h"
#include "culling/candidate.h"

namespace larder::cachefilesd {
namespace {

constexpr std::size_t kAskEvery = 256;              // objects, between two questions
constexpr std::chrono::milliseconds kAskAfter{50};  // waiting, between two questions

}  // namespace

Readahead::~Readahead() {
  {
    const MutexLock lock(mutex_);
    ends_ = true;
    queue_.clear();
    in_work_.reset();
  }
  changed_.notify_all();
}

void Readahead::expect(std::vector<ExpectedDirectory> directories) {
  {
    const MutexLock lock(mutex_);
    queue_.assign(std::make_move_iterator(directories.begin()),
                  std::make_move_iterator(directories.end()));
    in_work_.reset();
    listed_.clear();
    if (queue_.empty()) {
      return;
    }
  }
  if (!thread_.joinable()) {
    thread_ = Thread("readahead", [this] { work(); });
  }
  changed_.notify_all();
}

std::optional<Result<Listing>> Readahead::take(std::size_t number,
                                               const std::function<bool()>& keep_going) {
  do {
    const MutexLock lock(mutex_);
    if (in_work_ == number) {
      (void)changed_.wait_until(mutex_, std::chrono::steady_clock::now() + kAskAfter);
    }
    if (in_work_ != number) {
      return find_locked(number);
    }
  } while (keep_going());
  return std::nullopt;
}

std::optional<Result<Listing>> Readahead::find_locked(std::size_t number) {
  std::erase_if(queue_, [number](const auto& waiting) { return waiting.number == number; });
  const auto found = listed_.extract(number);
  return found.empty() ? std::nullopt : std::optional(std::move(found.mapped()));
}

void Readahead::work() {
  while (const std::optional<ExpectedDirectory> directory = next()) {
    keep(directory->number, list(*directory));
  }
}

std::optional<ExpectedDirectory> Readahead::next() {
  const MutexLock lock(mutex_);
  while (queue_.empty() && !ends_) {
    changed_.wait(mutex_);
  }
  if (ends_) {
    return std::nullopt;
  }
  ExpectedDirectory directory = std::move(queue_.front());
  queue_.pop_front();
  in_work_ = directory.number;
  return directory;
}

void Readahead::keep(std::size_t number, Result<Listing> listing) {
  {
    const MutexLock lock(mutex_);
    if (in_work_ != number) {
      return;
    }
    in_work_.reset();
    listed_.insert_or_assign(number, std::move(listing));
  }
  changed_.notify_all();
}

Result<Listing> Readahead::list(const ExpectedDirectory& directory) {
  Listing listing;
  const auto opened = TRY(open_fan_out(cache_, directory.volume, directory.fan_out));
  if (opened == nullptr) {
    return listing;
  }
  TRY(list_objects(
      *opened,
      [&](culling::Candidate&& object) {
        listing.objects.push_back(std::move(object));
        return listing.objects.size() % kAskEvery != 0 || is_wanted();
      },
      listing.unexpected));
  return listing;
}

bool Readahead::is_wanted() {
  const MutexLock lock(mutex_);
  return in_work_.has_value();
}

}  // namespace larder::cachefilesd
