#include "netfs/directory_stream.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/coherency.h"
#include "netfs/hidden_names.h"
#include "netfs/inode.h"
#include "netfs/name_cache.h"

namespace larder::netfs {

namespace {

// A directory that is changed all the time would otherwise be begun anew for ever.
constexpr unsigned kMostRestarts = 8;

}  // namespace

void DirectoryStream::load(std::size_t index, const Caller& caller,
                           std::move_only_function<void(Result<>)> done) {
  bool ask_now = false;
  std::uint64_t id = 0;
  const CallScope::Ticket ticket = caller.scope == nullptr ? 0 : caller.scope->begin_wait();
  {
    const MutexLock lock(mutex_);
    if (index >= entries_.size() && !end_) {
      id = ++last_waiter_;
      waiters_.push_back({id, index, caller, std::move(done)});
      ask_now = !std::exchange(asking_, true);
      done = nullptr;
    }
  }
  if (done) {
    done({});
    return;
  }
  if (ask_now) {
    ask(caller);
  }
  if (caller.scope != nullptr) {
    caller.scope->set_cancel(ticket, [weak = weak_from_this(), id] {
      if (const auto self = weak.lock()) {
        self->give_up(id);
      }
    });
  }
}

void DirectoryStream::give_up(std::uint64_t waiter_id) {
  std::move_only_function<void(Result<>)> done;
  std::optional<CallId> unwanted;
  {
    const MutexLock lock(mutex_);
    const auto found = std::ranges::find(waiters_, waiter_id, &Waiter::id);
    if (found == waiters_.end()) {
      return;  // it was answered
    }
    done = std::move(found->done);
    waiters_.erase(found);
    if (waiters_.empty() && asking_) {
      unwanted_ = true;
      unwanted = call_;
    }
  }
  if (unwanted) {
    share_->adapter.cancel(*unwanted);
  }
  done(fail(Errc::kCancelled, "interrupted"));
}

void DirectoryStream::visit(std::size_t index,
                            const std::function<bool(std::size_t, const ListedEntry&)>& visit) {
  const MutexLock lock(mutex_);
  while (index < entries_.size() && visit(index, entries_[index])) {
    ++index;
  }
}

std::uint64_t DirectoryStream::verifier() {
  const MutexLock lock(mutex_);
  return position_.verifier;
}

void DirectoryStream::rewind() {
  const MutexLock lock(mutex_);
  entries_.clear();
  given_.clear();
  position_ = {};
  end_ = false;
  restarts_ = 0;
  ++round_;
}

void DirectoryStream::ask(const Caller& caller) {
  DirectoryPosition from;
  bool with_attributes = false;
  Question asked{caller, 0, 0, share_->inodes.begin_check(), inode_->attributes().attributes};
  {
    const MutexLock lock(mutex_);
    from = position_;
    with_attributes = with_attributes_;
    asked.number = ++question_;
    asked.round = round_;
    call_.reset();
    unwanted_ = waiters_.empty();
  }
  const std::uint64_t number = asked.number;
  const CallId call = share_->adapter.start_readdir(
      inode_->handle(), from, with_attributes, caller.credential,
      [self = shared_from_this(), asked = std::move(asked)](Result<ReaddirReply> reply) {
        self->on_reply(asked, std::move(reply));
      });
  bool unwanted = false;
  {
    const MutexLock lock(mutex_);
    if (asking_ && question_ == number) {
      call_ = call;
      unwanted = unwanted_;
    }
  }
  if (unwanted) {
    share_->adapter.cancel(call);
  }
}

// For the LOOKUPs that follow a listing. What names are worth is told by the directory's version:
// they are its names if it was the same before and after they were read.
void DirectoryStream::remember(const Question& asked, const ReaddirReply& reply) {
  if (!reply.directory_attributes) {
    return;
  }
  share_->apply(*inode_, *reply.directory_attributes, asked.ticket);
  if (!same_version(*reply.directory_attributes, asked.directory)) {
    return;
  }
  const MonotonicTime now = share_->executor.clock().now();
  std::vector<std::pair<std::string, ListedName>> names;
  names.reserve(reply.entries.size());
  Timestamp newest = reply.directory_attributes->changed;
  for (const RemoteEntry& entry : reply.entries) {
    if (entry.handle && entry.attributes) {
      newest = std::max(newest, entry.attributes->changed);
      names.emplace_back(entry.name,
                         ListedName{*entry.handle, {*entry.attributes, now, asked.ticket}});
    }
  }
  share_->server_time.observe(newest, now);
  share_->names->add(inode_->handle(), *asked.caller.credential, asked.directory, std::move(names));
}

void DirectoryStream::on_reply(const Question& asked, Result<ReaddirReply> reply) {
  if (reply) {
    remember(asked, *reply);
  }
  Result<> result;
  std::optional<Caller> ask_again_for;
  {
    const MutexLock lock(mutex_);
    const bool we_cancelled = !reply && reply.error().code() == Errc::kCancelled && unwanted_;
    // Rewound: it is about a listing that is gone; or for nobody who waits now.
    const bool for_nobody = asked.round != round_ || we_cancelled;
    // Names need the right to read, attributes the right to search too.
    const bool names_only = !for_nobody && !reply && reply.error().error_number() == EACCES &&
                            std::exchange(with_attributes_, false);
    bool ask_again = for_nobody || names_only;
    if (reply && !ask_again) {
      result = take(std::move(*reply));
    } else if (!ask_again && reply.error().code() == Errc::kStale &&
               reply.error().error_number() == EAGAIN && restarts_ < kMostRestarts) {
      // The server does not know the position any more: from the start, without what was given.
      ++restarts_;
      position_ = {};
      for (const ListedEntry& entry : entries_) {
        given_.insert(entry.name);
      }
      ask_again = true;
    } else if (!ask_again) {
      result = fail(reply.error());
    }
    if (ask_again && !waiters_.empty()) {
      ask_again_for = waiters_.front().caller;
    }
    asking_ = ask_again_for.has_value();
  }
  if (ask_again_for) {
    ask(*ask_again_for);
  } else {
    answer(std::move(result));
  }
}

Result<> DirectoryStream::take(ReaddirReply reply) {
  if (reply.entries.empty() && !reply.end) {
    return fail(Errc::kCorrupt, EIO, "the server lists nothing and says that there is more");
  }
  const std::vector<HiddenNames::Name> hidden = share_->hidden_names.in(inode_->handle());
  for (RemoteEntry& entry : reply.entries) {
    position_.cookie = entry.cookie;
    if (!given_.empty() && given_.contains(entry.name)) {
      continue;
    }
    if (!hidden.empty() && std::ranges::any_of(hidden, [&entry](const HiddenNames::Name& name) {
          return name.first == entry.name;
        })) {
      continue;
    }
    entries_.push_back({std::move(entry.name), entry.fileid,
                        entry.attributes ? std::optional(entry.attributes->type) : std::nullopt});
  }
  position_.verifier = reply.verifier;
  end_ = reply.end;
  return {};
}

void DirectoryStream::answer(Result<> result) {
  std::vector<Waiter> waiters;
  {
    const MutexLock lock(mutex_);
    waiters.swap(waiters_);
  }
  for (Waiter& waiter : waiters) {
    if (result) {
      load(waiter.index, waiter.caller, std::move(waiter.done));  // its entry may still be far
    } else {
      waiter.done(result);
    }
  }
}

}  // namespace larder::netfs
