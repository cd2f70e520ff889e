#include "cachefiles/write_back.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// Each holds a descriptor.
constexpr std::size_t kMostWaiting = 256;
constexpr std::size_t kMostDone = 65536;
// In one step: culling waits for it.
constexpr std::uint64_t kStepBytes = std::uint64_t{32} << 20U;

// Of what was to be written, not of our asking.
bool lost_data(const Error& error) {
  const int number = error.error_number();
  return number == EIO || number == ENOSPC || number == EDQUOT;
}

}  // namespace

template <class Which>
std::vector<WriteBack::Waiting> WriteBack::take_off(Which which) {
  std::vector<Waiting> taken;
  std::deque<Waiting> left;
  for (Waiting& one : waiting_) {
    if (which(one)) {
      taken.push_back(std::move(one));
    } else {
      left.push_back(std::move(one));
    }
  }
  waiting_.swap(left);
  return taken;
}

bool WriteBack::add(const Wanted& wanted, std::shared_ptr<os::File> file) {
  if (wanted.nonce == 0 || epochs_.durable(wanted.newest)) {
    return false;
  }
  const MutexLock lock(mutex_);
  if (!supported_ || waiting_.size() >= kMostWaiting || done_.size() >= kMostDone) {
    return false;
  }
  waiting_.push_back({wanted, std::move(file), ++last_ticket_, 0});
  return true;
}

bool WriteBack::done(std::uint64_t nonce) const {
  const MutexLock lock(mutex_);
  return done_.contains(nonce);
}

void WriteBack::forget(std::uint64_t nonce) {
  std::vector<Waiting> closed;
  const MutexLock lock(mutex_);
  closed = take_off([nonce](const Waiting& one) { return one.wanted.nonce == nonce; });
  done_.erase(nonce);
}

void WriteBack::known_by(std::uint64_t old_nonce, std::uint64_t nonce) {
  const MutexLock lock(mutex_);
  for (Waiting& one : waiting_) {
    one.wanted.nonce = one.wanted.nonce == old_nonce ? nonce : one.wanted.nonce;
  }
  if (const auto done = done_.find(old_nonce); done != done_.end()) {
    const Stamp newest = done->second;
    done_.erase(done);
    done_[nonce] = newest;
  }
}

void WriteBack::let_go(std::uint64_t inode) {
  std::vector<Waiting> closed;
  const MutexLock lock(mutex_);
  closed = take_off([inode](const Waiting& one) { return one.wanted.inode == inode; });
}

bool WriteBack::anything() const {
  const MutexLock lock(mutex_);
  return !waiting_.empty();
}

// What an epoch has made durable needs nobody to remember it.
void WriteBack::drop_durable() {
  const std::uint32_t durable = epochs_.durable_epoch();
  std::vector<Waiting> closed;
  const MutexLock lock(mutex_);
  closed = take_off([durable](const Waiting& one) { return one.wanted.newest.epoch <= durable; });
  std::erase_if(done_, [durable](const auto& one) { return one.second.epoch <= durable; });
}

Result<> WriteBack::step() {
  drop_durable();
  for (std::uint64_t left = kStepBytes; left > 0;) {
    Waiting next;
    {
      const MutexLock lock(mutex_);
      if (waiting_.empty()) {
        break;
      }
      next = waiting_.front();
    }
    const std::uint64_t length = std::min(left, next.wanted.size - next.written);
    const Result<> written = next.file->write_back(next.written, length);
    left -= length;
    if (!written && lost_data(written.error())) {
      return written;
    }
    std::vector<Waiting> closed;
    const MutexLock lock(mutex_);
    if (!written) {
      log_info("the cache: complete files wait for their epoch ({})", written.error().message());
      supported_ = false;
      closed = take_off([](const Waiting&) { return true; });
      break;
    }
    // It may have been forgotten meanwhile.
    if (waiting_.empty() || waiting_.front().ticket != next.ticket) {
      continue;
    }
    waiting_.front().written += length;
    if (waiting_.front().written >= next.wanted.size) {
      done_[waiting_.front().wanted.nonce] = next.wanted.newest;
      waiting_.pop_front();  // `next` holds the file
    }
  }
  return {};
}

}  // namespace larder::cachefiles
