// File: small versions, which are loaded and kept whole.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fscache/backend.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/file.h"
#include "netfs/readahead.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

namespace {

// Puts the pieces of a small version together; the server reads in pieces smaller than it.
class Gathering {
 public:
  Gathering(Buffer whole, std::size_t pieces) : whole_(std::move(whole)), pending_(pieces) {}

  // True: this was the last piece.
  bool add(const File::Piece& piece, const Result<Buffer>& fetched) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (fetched) {
      const Bytes bytes = fetched->bytes();
      std::ranges::copy(bytes.subspan(piece.range.offset - piece.origin, piece.range.length),
                        whole_.bytes().subspan(piece.range.offset).begin());
    } else {
      error_ = fetched.error();
    }
    return --pending_ == 0;
  }

  [[nodiscard]] Result<Buffer> result() const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return error_ ? Result<Buffer>(fail(*error_)) : whole_;
  }

 private:
  const Buffer whole_;
  mutable Mutex mutex_{LockRank::kStats};
  std::size_t pending_ GUARDED_BY(mutex_);
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

}  // namespace

void File::start_load_small(const VersionRef& version, const Caller& caller, Done<Buffer> done) {
  Buffer loaded;
  Done<Buffer> answer;
  {
    const MutexLock lock(mutex_);
    if (version_ == version && small_) {
      loaded = small_;
      answer = std::move(done);
    } else {
      auto& waiters = small_waiters_[version];
      waiters.push_back(std::move(done));
      if (waiters.size() > 1) {
        return;  // somebody loads it already
      }
    }
  }
  if (answer) {
    answer(std::move(loaded));
    return;
  }
  version->cookie->use([self = shared_from_this(), version, caller] {
    const ByteRange whole{0, version->size()};
    if (version->cookie->plan_read(whole).source != fscache::Source::kCache) {
      self->fetch_small(version, caller.credential);
      return;
    }
    const Buffer buffer = self->share_->buffers.allocate(whole.length);
    version->cookie->start_read(0, buffer, buffer.bytes(),
                                [self, version, caller, buffer](const Result<>& result) {
                                  if (!result) {
                                    self->share_->counters.cache_read_errors.add();
                                    self->fetch_small(version, caller.credential);
                                    return;
                                  }
                                  self->share_->counters.bytes_from_cache.add(buffer.size());
                                  self->finish_small(version, buffer);
                                });
  });
}

void File::fetch_small(const VersionRef& version, const CredentialRef& credential) {
  {
    const MutexLock lock(mutex_);
    small_is_news_ = true;
  }
  const std::vector<Piece> pieces =
      fetch(version, {0, version->size()}, Readahead::kRandomUnit, credential);
  if (pieces.size() != 1) {
    // The version changed, or the server reads in pieces smaller than a small file.
    fetch_small_in_pieces(version, pieces);
    return;
  }
  wait_for(pieces.front(), [self = shared_from_this(), version](Result<Buffer> fetched) {
    self->finish_small(version, std::move(fetched));
  });
}

void File::fetch_small_in_pieces(const VersionRef& version, const std::vector<Piece>& pieces) {
  if (pieces.empty()) {
    finish_small(version, fail(changed_meanwhile()));
    return;
  }
  auto gathering =
      std::make_shared<Gathering>(share_->buffers.allocate(version->size()), pieces.size());
  for (const Piece& piece : pieces) {
    wait_for(piece,
             [self = shared_from_this(), version, piece, gathering](const Result<Buffer>& fetched) {
               if (!gathering->add(piece, fetched)) {
                 return;
               }
               const Result<Buffer> whole = gathering->result();
               if (whole) {
                 // The pieces were too small for the cache one by one: it is kept whole.
                 self->keep_small(version, *whole);
               }
               self->finish_small(version, whole);
             });
  }
}

void File::keep_small(const VersionRef& version, const Buffer& whole) {
  version->cookie->start_write(0, whole, whole.bytes(),
                               [self = shared_from_this()](const Result<>& result) {
                                 if (!result) {
                                   self->share_->counters.cache_write_drops.add();
                                 }
                               });
}

bool File::take_small_news() {
  const MutexLock lock(mutex_);
  return std::exchange(small_is_news_, false);
}

void File::finish_small(const VersionRef& version, Result<Buffer> loaded) {
  std::vector<Done<Buffer>> waiters;
  {
    const MutexLock lock(mutex_);
    const auto found = small_waiters_.find(version);
    if (found != small_waiters_.end()) {
      waiters = std::move(found->second);
      small_waiters_.erase(found);
    }
    if (loaded && version_ == version) {
      small_ = *loaded;
    }
  }
  for (auto& waiter : waiters) {
    waiter(loaded);
  }
}

}  // namespace larder::netfs
