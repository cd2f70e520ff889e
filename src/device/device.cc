#include "device/device.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "device/holder.h"

namespace larder::device {
namespace {

// How long after a close its release may take to arrive.
constexpr std::chrono::seconds kReleasePatience{2};
// Between two looks at who was sent a signal and waits on: nobody tells of the second signal.
constexpr std::chrono::milliseconds kBetweenLooks{100};

void answer_error(Done& done, int error_number) {
  done(fail_errno(error_number, "open"));
}

}  // namespace

void Device::end() {
  for (WaitingOpen& open : std::exchange(waiting_, {})) {
    answer_error(open.done, EINTR);
  }
  holder_.reset();
  open_failed_ = false;
}

void Device::open(Ticket ticket, const Caller& caller, Done done) {
  if (caller.uid != 0) {
    return answer_error(done, EPERM);
  }
  if (holder_ == nullptr) {
    begin(ticket, std::move(done));
    return settle();
  }
  const bool dying = closed_at_ && clock_.now() < *closed_at_ + kReleasePatience;
  if (!dying) {
    return answer_error(done, EBUSY);
  }
  waiting_.push_back({ticket, std::move(done), *closed_at_ + kReleasePatience});
}

void Device::begin(Ticket ticket, Done done) {
  holder_ = std::make_unique<Holder>(surroundings_);
  opening_ = ticket;
  closed_at_.reset();
  holder_->open(ticket, [this, done = std::move(done)](Result<std::string> result) mutable {
    opening_.reset();
    open_failed_ = !result;
    done(std::move(result));
  });
}

void Device::settle() {
  while (std::exchange(open_failed_, false) || holder_ == nullptr) {
    holder_.reset();
    if (waiting_.empty()) {
      return;
    }
    WaitingOpen next = std::move(waiting_.front());
    waiting_.pop_front();
    begin(next.ticket, std::move(next.done));
  }
}

void Device::write(Ticket ticket, const Caller& caller, std::string text, Done done) {
  if (holder_ == nullptr) {
    return answer_error(done, EIO);
  }
  holder_->write(ticket, caller.pid, std::move(text), std::move(done));
}

void Device::read(Ticket ticket, std::size_t most_bytes, Done done) {
  if (holder_ == nullptr) {
    return answer_error(done, EIO);
  }
  holder_->read(ticket, most_bytes, std::move(done));
}

void Device::note_closed() {
  closed_at_ = clock_.now();
}

void Device::release() {
  holder_.reset();
  settle();
}

void Device::interrupt(Ticket ticket, std::uint32_t pid) {
  if (surroundings_.is_ending(pid)) {
    return cancel(ticket);
  }
  signalled_.push_back({ticket, pid});
  look_again_ = clock_.now() + kBetweenLooks;
}

void Device::cancel(Ticket ticket) {
  const auto open = std::ranges::find(waiting_, ticket, &WaitingOpen::ticket);
  if (open != waiting_.end()) {
    Done done = std::move(open->done);
    waiting_.erase(open);
    return answer_error(done, EINTR);
  }
  if (holder_ != nullptr) {
    holder_->cancel(ticket);
    settle();
  }
}

bool Device::waits(Ticket ticket) const {
  return (holder_ != nullptr && holder_->waits(ticket)) ||
         std::ranges::find(waiting_, ticket, &WaitingOpen::ticket) != waiting_.end();
}

unsigned Device::events() const {
  return holder_ == nullptr ? 0 : holder_->events();
}

int Device::descriptor() const {
  return holder_ == nullptr ? -1 : holder_->descriptor();
}

void Device::on_readable() {
  if (holder_ != nullptr) {
    holder_->on_readable();
    settle();
  }
}

std::optional<MonotonicTime> Device::deadline() const {
  std::optional<MonotonicTime> first;
  if (!waiting_.empty()) {
    first = std::ranges::min_element(waiting_, {}, &WaitingOpen::until)->until;
  }
  if (!signalled_.empty() && (!first || look_again_ < *first)) {
    first = look_again_;
  }
  return first;
}

void Device::on_time() {
  const MonotonicTime now = clock_.now();
  for (auto open = waiting_.begin(); open != waiting_.end();) {
    if (open->until > now) {
      ++open;
      continue;
    }
    answer_error(open->done, EBUSY);
    open = waiting_.erase(open);
  }
  if (now < look_again_) {
    return;
  }
  look_again_ = now + kBetweenLooks;
  std::erase_if(signalled_, [this](const Signalled& one) { return !waits(one.ticket); });
  for (const Signalled& one : std::exchange(signalled_, {})) {
    interrupt(one.ticket, one.pid);
  }
}

}  // namespace larder::device
