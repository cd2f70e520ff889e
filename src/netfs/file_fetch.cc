// File: downloads, from who wants one to its last byte.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"
#include "netfs/fetch.h"
#include "netfs/file.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

Error File::changed_meanwhile() {
  return {Errc::kChanged, "the file changed on the server meanwhile"};
}

File::FetchMap::iterator File::first_overlap(ByteRange range) {
  auto at = fetches_.upper_bound(range.offset);
  if (at != fetches_.begin()) {
    const auto before = std::prev(at);
    if (before->second->range.overlaps(range)) {
      return before;
    }
  }
  return at != fetches_.end() && at->second->range.overlaps(range) ? at : fetches_.end();
}

std::shared_ptr<Fetch> File::make_fetch(const VersionRef& version, ByteRange range, bool prefetch,
                                        const CredentialRef& credential) {
  auto fetch = std::make_shared<Fetch>();
  fetch->version = version;
  fetch->range = range;
  fetch->buffer = share_->buffers.allocate(range.length);
  fetch->credential = credential;
  fetch->prefetch = prefetch;
  fetches_.emplace(range.offset, fetch);
  return fetch;
}

std::vector<File::Piece> File::fetch(const VersionRef& version, ByteRange wanted,
                                     std::uint64_t unit, const CredentialRef& credential) {
  std::vector<Piece> pieces;
  std::vector<std::shared_ptr<Fetch>> begun;
  {
    const MutexLock lock(mutex_);
    if (version_ != version) {
      return {};
    }
    unit = std::min<std::uint64_t>(unit, std::bit_floor(share_->read_size));
    std::uint64_t at = wanted.offset;
    while (at < wanted.end()) {
      auto overlap = first_overlap({at, 1});
      if (overlap == fetches_.end()) {
        // Whole units, but not over downloads that are under way on either side.
        ByteRange range = ByteRange{at, 1}.rounded_out(unit);
        range = range.intersection({0, version->size()});
        const auto next = fetches_.lower_bound(at);
        const std::uint64_t stop =
            next == fetches_.end() ? range.end() : std::min(range.end(), next->first);
        const std::uint64_t start =
            next == fetches_.begin() ? range.offset
                                     : std::max(range.offset, std::prev(next)->second->range.end());
        begun.push_back(make_fetch(version, ByteRange::between(start, stop), false, credential));
        overlap = fetches_.find(start);
      }
      const std::shared_ptr<Fetch>& fetch = overlap->second;
      const ByteRange part = fetch->range.intersection(ByteRange::between(at, wanted.end()));
      pieces.push_back({part, fetch->range.offset, fetch});
      at = part.end();
    }
  }
  for (const auto& fetch : begun) {
    issue(fetch);
  }
  return pieces;
}

std::vector<File::Piece> File::take_landed(const VersionRef& version, ByteRange wanted) {
  std::vector<Piece> pieces;
  const MutexLock lock(mutex_);
  if (version_ != version) {
    return pieces;
  }
  for (auto at = first_overlap(wanted); at != fetches_.end() && at->first < wanted.end(); ++at) {
    const std::shared_ptr<Fetch>& fetch = at->second;
    if (fetch->landed) {
      pieces.push_back({fetch->range.intersection(wanted), fetch->range.offset, fetch});
    }
  }
  for (const Piece& piece : pieces) {
    serve(piece);
  }
  return pieces;
}

// What was read to its end is not asked for again soon.
void File::serve(const Piece& piece) {
  Fetch& fetch = *piece.fetch;
  fetch.served += piece.range.length;
  if (fetch.kept && fetch.served >= fetch.range.length) {
    drop_landed(piece.fetch);
  }
}

std::uint64_t File::wait_for(const Piece& piece, FetchDone done) {
  Fetch& fetch = *piece.fetch;
  bool landed = false;
  {
    const MutexLock lock(mutex_);
    serve(piece);
    if (!fetch.landed && !fetch.gone) {
      fetch.waiters.emplace(++fetch.last_waiter, std::move(done));
      return fetch.last_waiter;
    }
    landed = fetch.landed;
  }
  if (landed) {
    done(fetch.buffer);
  } else {
    done(fail(changed_meanwhile()));
  }
  return 0;
}

void File::leave(const Piece& piece, std::uint64_t waiter) {
  CallId to_cancel = 0;
  FetchDone dropped;
  {
    const MutexLock lock(mutex_);
    Fetch& fetch = *piece.fetch;
    const auto found = fetch.waiters.find(waiter);
    if (found == fetch.waiters.end()) {
      return;
    }
    dropped = std::move(found->second);
    fetch.waiters.erase(found);
    if (fetch.waiters.empty() && !fetch.prefetch && !fetch.landed) {
      to_cancel = fetch.call;
    }
  }
  if (to_cancel != 0) {
    share_->adapter.cancel(to_cancel);
  }
}

// Asks the server for what the download still lacks.
void File::issue(const std::shared_ptr<Fetch>& fetch) {
  fetch->ticket = share_->inodes.begin_check();
  const std::uint64_t offset = fetch->range.offset + fetch->received;
  MutableBytes rest = fetch->buffer.bytes().subspan(fetch->received);
  rest = rest.first(std::min<std::size_t>(rest.size(), share_->read_size));
  const CallId call = share_->adapter.start_read(
      inode_->handle(), {offset, rest, fetch->prefetch}, fetch->credential,
      [self = shared_from_this(), fetch](Result<ReadReply> reply) {
        self->on_read_reply(fetch, std::move(reply));
      });
  const MutexLock lock(mutex_);
  fetch->call = call;
}

void File::on_read_reply(const std::shared_ptr<Fetch>& fetch, Result<ReadReply> reply) {
  if (!reply) {
    abandon(fetch, reply.error());
    return;
  }
  const std::optional<Attributes>& attributes = reply->attributes;
  fetch->received += reply->length;
  share_->counters.bytes_from_server.add(reply->length);
  if (fetch->prefetch) {
    share_->counters.bytes_prefetched.add(reply->length);
  }
  const bool all = fetch->received >= fetch->range.length;
  if (attributes) {
    share_->apply(*inode_, *attributes, fetch->ticket);
    if (!same_version(*attributes, fetch->version->attributes)) {
      abandon(fetch, changed_meanwhile());
      return;
    }
  }
  if (!all && (reply->length == 0 || reply->end)) {
    // The file ends before the version does: whatever the stamps say, it is another one.
    inode_->expire();
    abandon(fetch, changed_meanwhile());
    return;
  }
  if (!all) {
    issue(fetch);
  } else if (!attributes) {
    verify_by_getattr(fetch);
  } else {
    land(fetch);
  }
}

// For servers whose READ replies carry no attributes: what they say right behind it will do, since
// a version is only left, never come back to.
void File::verify_by_getattr(const std::shared_ptr<Fetch>& fetch) {
  share_->refresh(inode_, {fetch->credential, nullptr},
                  [self = shared_from_this(), fetch](const Result<Attributes>& attributes) {
                    if (!attributes) {
                      self->abandon(fetch, attributes.error());
                    } else if (same_version(*attributes, fetch->version->attributes)) {
                      self->land(fetch);
                    } else {
                      self->abandon(fetch, changed_meanwhile());
                    }
                  });
}

void File::abandon(const std::shared_ptr<Fetch>& fetch, const Error& error) {
  std::vector<FetchDone> waiters;
  {
    const MutexLock lock(mutex_);
    if (!fetch->gone) {
      fetch->gone = true;
      fetches_.erase(fetch->range.offset);
    }
    for (auto& [id, waiter] : fetch->waiters) {
      waiters.push_back(std::move(waiter));
    }
    fetch->waiters.clear();
    end_prefetch(*fetch);
    if (fetch->prefetch) {
      prefetch_ = {};  // a server in trouble is not to be asked for more than is needed
    }
  }
  for (auto& waiter : waiters) {
    waiter(fail(error));
  }
}

}  // namespace larder::netfs
