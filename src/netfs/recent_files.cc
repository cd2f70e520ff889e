#include "netfs/recent_files.h"

#include <chrono>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "netfs/file.h"
#include "netfs/share_context.h"

namespace larder::netfs {

void RecentFiles::add(std::shared_ptr<File> file) {
  std::shared_ptr<File> dropped;
  bool set_timer = false;
  bool first = false;
  {
    const MutexLock lock(mutex_);
    if (closed_) {
      return;
    }
    first = !std::exchange(asked_, true);
    const File* const key = file.get();
    const MonotonicTime until = share_->executor.clock().now() + kTime;
    if (const auto place = places_.find(key); place != places_.end()) {
      place->second->until = until;
      files_.splice(files_.end(), files_, place->second);
    } else {
      places_[key] = files_.insert(files_.end(), {std::move(file), until});
    }
    if (files_.size() > kMost) {
      dropped = take_first();
    }
    set_timer = !std::exchange(timer_set_, true);
  }
  if (first) {
    share_->add_room_giver(weak_from_this());
  }
  if (set_timer) {
    let_go_later(kTime);
  }
}

std::shared_ptr<File> RecentFiles::take_first() {
  std::shared_ptr<File> first = std::move(files_.front().file);
  files_.pop_front();
  places_.erase(first.get());
  return first;
}

std::vector<std::shared_ptr<File>> RecentFiles::take_part() {
  const MutexLock lock(mutex_);
  const std::size_t count = part_to_give(files_.size());
  std::vector<std::shared_ptr<File>> taken;
  taken.reserve(count);
  while (taken.size() < count) {
    taken.push_back(take_first());
  }
  return taken;
}

bool RecentFiles::give_room() {
  const Gate::Pass pass = gate_.enter();
  if (!pass) {
    return false;
  }
  std::vector<std::shared_ptr<File>> taken = take_part();
  bool given = share_->give_front_room();
  for (std::shared_ptr<File>& file : taken) {
    if (file->for_page_cache_only()) {
      add(std::move(file));  // its bytes will be safe soon
    } else if (!file->is_open()) {
      given = true;
      share_->counters.files_let_go.add();
    }
    // Who has it open brings it back with his close.
  }
  return given;
}

void RecentFiles::let_go_later(Duration delay) {
  share_->executor.timers().schedule(delay, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      if (const Gate::Pass pass = self->gate_.enter()) {
        self->let_go_of_old();
      }
    }
  });
}

void RecentFiles::let_go_of_old() {
  std::vector<std::shared_ptr<File>> dropped;
  bool set_timer = false;
  {
    const MutexLock lock(mutex_);
    const MonotonicTime now = share_->executor.clock().now();
    while (!files_.empty() && files_.front().until <= now) {
      dropped.push_back(take_first());
    }
    timer_set_ = set_timer = !files_.empty() && !closed_;
  }
  if (set_timer) {
    let_go_later(std::chrono::seconds(1));
  }
}

void RecentFiles::close() {
  List files;
  gate_.close_and_wait();
  const MutexLock lock(mutex_);
  closed_ = true;
  places_.clear();
  files.swap(files_);
}

}  // namespace larder::netfs
