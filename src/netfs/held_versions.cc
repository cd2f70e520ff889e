#include "netfs/held_versions.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fscache/cookie.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"
#include "netfs/file.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

namespace {

// Of a put that was not wanted: nothing went wrong.
constexpr Errc kNobodyReads = Errc::kCancelled;

}  // namespace

HeldVersions::HeldVersions(std::shared_ptr<ShareContext> share, InodeRef inode)
    : share_(std::move(share)), inode_(std::move(inode)) {}

HeldVersions::~HeldVersions() = default;

std::unique_ptr<PassthroughHold> HeldVersions::hold(const VersionRef& version, std::uint64_t holder,
                                                    std::shared_ptr<File> file) {
  const auto same = [&version](const HeldRef& held) {
    return held->version->cookie == version->cookie;
  };
  const MutexLock lock(mutex_);
  HeldRef held;
  const auto found = std::ranges::find_if(held_, same);
  if (found != held_.end()) {
    held = *found;
  } else {
    held = std::make_shared<Held>();
    held->version = version;
    held->content = version->attributes;
    // Whatever changes the inode's attributes tells us afterwards.
    held->in_step = same_version(version->attributes, inode_->attributes().attributes);
    in_step_ += held->in_step ? 1 : 0;
    held_.push_back(held);
  }
  auto hold = std::make_unique<PassthroughHold>(std::move(file), shared_from_this(), held, holder);
  held->holders.push_back(hold.get());
  return hold;
}

void HeldVersions::set_open(PassthroughHold& hold, bool open) {
  const MutexLock lock(mutex_);
  hold.open_ = open;
}

void HeldVersions::let_go(PassthroughHold& hold) {
  const MutexLock lock(mutex_);
  std::erase(hold.held_->holders, &hold);
  if (hold.held_->holders.empty()) {
    drop_out(*hold.held_);
    std::erase(held_, hold.held_);
  }
}

void HeldVersions::drop_out(Held& held) {
  if (std::exchange(held.in_step, false)) {
    --in_step_;
  }
}

void HeldVersions::fall_behind() {
  if (!any_in_step()) {
    return;
  }
  const MutexLock lock(mutex_);
  for (const HeldRef& held : held_) {
    drop_out(*held);
  }
}

void HeldVersions::write(std::uint64_t offset, std::shared_ptr<const void> owner, Bytes bytes,
                         std::move_only_function<void()> done) {
  share_->counters.bytes_shared.add(bytes.size());
  put(
      [offset, owner = std::move(owner), bytes](fscache::Cookie& cookie,
                                                fscache::Cookie::Outcome outcome) {
        cookie.start_overwrite(offset, owner, bytes, std::move(outcome));
      },
      [end = offset + bytes.size()](std::uint64_t size) { return std::max(size, end); },
      std::move(done));
}

void HeldVersions::resize(std::uint64_t size, std::move_only_function<void()> done) {
  put([size](fscache::Cookie& cookie,
             fscache::Cookie::Outcome outcome) { cookie.start_resize(size, std::move(outcome)); },
      [size](std::uint64_t) { return size; }, std::move(done));
}

void HeldVersions::put(const Put& put, const NewSize& new_size,
                       std::move_only_function<void()> done) {
  // Changes of ours that do not fit into one chain: somebody may have come between.
  const bool sure = inode_->own_changes_fit();
  const Attributes now = inode_->attributes().attributes;
  std::vector<HeldRef> in_step;
  {
    const MutexLock lock(mutex_);
    for (const HeldRef& held : held_) {
      // Where the server does not tell what was before, its size may.
      if (!sure || new_size(held->content.size) != now.size) {
        drop_out(*held);
      } else if (held->in_step) {
        in_step.push_back(held);
      }
    }
  }
  if (in_step.empty()) {
    done();
    return;
  }

  struct Puts {
    std::atomic<std::size_t> left;
    std::move_only_function<void()> done;
  };

  const auto puts = std::make_shared<Puts>(in_step.size(), std::move(done));
  for (const HeldRef& held : in_step) {
    put_to(held, put, [self = shared_from_this(), held, now, puts](const Result<>& result) {
      self->finish_put(held, now, result);
      if (--puts->left == 0) {
        puts->done();
      }
    });
  }
}

void HeldVersions::put_to(const HeldRef& held, const Put& put, fscache::Cookie::Outcome done) {
  bool open = false;
  {
    const MutexLock lock(mutex_);
    open = std::ranges::any_of(held->holders, &PassthroughHold::open_);
  }
  const std::shared_ptr<fscache::Cookie> cookie = held->version->cookie;
  if (open) {
    put(*cookie, std::move(done));
    return;
  }
  cookie->start_look_for_readers([cookie, put, done = std::move(done)](bool found) mutable {
    if (found) {
      put(*cookie, std::move(done));
    } else {
      done(fail(kNobodyReads, "nobody reads it"));
    }
  });
}

void HeldVersions::finish_put(const HeldRef& held, const Attributes& content,
                              const Result<>& result) {
  std::vector<std::uint64_t> holders;
  {
    const MutexLock lock(mutex_);
    if (result) {
      held->content = content;
      for (const PassthroughHold* const hold : held->holders) {
        holders.push_back(hold->holder_);
      }
    } else {
      drop_out(*held);
    }
  }
  if (!result && result.error().code() != kNobodyReads) {
    share_->counters.holders_left_behind.add();
    log_warning(
        "what is written to file {} is not seen any more by who has had it open in passthrough "
        "since before: {}",
        inode_->attributes().attributes.fileid, result.error().message());
  }
  for (const std::uint64_t holder : holders) {
    share_->tell_attributes_changed(holder);
  }
}

Attributes HeldVersions::shown(const Held& held, const Attributes& now) const {
  Attributes shown = now;
  const MutexLock lock(mutex_);
  // In step but of another size: a change is on its way to the backing file.
  if (!held.in_step || held.content.size != now.size) {
    shown.size = held.content.size;  // but for what does not belong to the bytes
    shown.used = held.content.used;
    shown.modified = held.content.modified;
  }
  return shown;
}

PassthroughHold::PassthroughHold(std::shared_ptr<File> file, std::shared_ptr<HeldVersions> all,
                                 HeldVersions::HeldRef held, std::uint64_t holder)
    : file_(std::move(file)), all_(std::move(all)), held_(std::move(held)), holder_(holder) {}

PassthroughHold::~PassthroughHold() {
  all_->let_go(*this);
}

void PassthroughHold::note_closed() {
  all_->set_open(*this, false);
}

void PassthroughHold::look_for_readers(std::move_only_function<void(bool)> done) const {
  held_->version->cookie->start_look_for_readers(std::move(done));
}

Attributes PassthroughHold::shown(const Attributes& now) const {
  return all_->shown(*held_, now);
}

}  // namespace larder::netfs
