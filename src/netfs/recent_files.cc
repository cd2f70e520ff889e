#include "netfs/recent_files.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/linger_list.h"
#include "base/mutex.h"
#include "netfs/file.h"
#include "netfs/share_context.h"

namespace larder::netfs {

void RecentFiles::add(const std::shared_ptr<File>& file) {
  std::optional<std::shared_ptr<File>> dropped;
  bool set_timer = false;
  bool first = false;
  {
    const MutexLock lock(mutex_);
    if (closed_) {
      return;
    }
    first = !std::exchange(asked_, true);
    files_.add(file, share_->executor.clock().now() + kTime);
    if (files_.size() > kMost) {
      dropped = files_.take_first();
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

std::vector<std::shared_ptr<File>> RecentFiles::take_part() {
  const MutexLock lock(mutex_);
  return files_.take_part();
}

bool RecentFiles::give_room() {
  const Gate::Pass pass = gate_.enter();
  if (!pass) {
    return false;
  }
  const std::vector<std::shared_ptr<File>> taken = take_part();
  bool given = share_->give_front_room();
  for (const std::shared_ptr<File>& file : taken) {
    if (file->for_page_cache_only()) {
      add(file);  // its bytes will be safe soon
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
  std::optional<Duration> again;
  {
    const MutexLock lock(mutex_);
    const MonotonicTime now = share_->executor.clock().now();
    dropped = files_.take_over(now);
    again = files_.next_look(now);
    timer_set_ = again.has_value();
  }
  if (again) {
    let_go_later(*again);
  }
}

void RecentFiles::close() {
  LingerList<std::shared_ptr<File>> files;
  gate_.close_and_wait();
  const MutexLock lock(mutex_);
  closed_ = true;
  std::swap(files, files_);
}

}  // namespace larder::netfs
