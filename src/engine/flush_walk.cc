#include "engine/flush_walk.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/directory_stream.h"
#include "netfs/inode.h"
#include "netfs/share.h"

namespace larder::engine {

namespace {

// Entries whose names are copied out of a listing at a time.
constexpr std::size_t kBatch = 256;

std::vector<std::string> components_of(const std::string& path) {
  std::vector<std::string> names;
  std::size_t at = 0;
  while (at < path.size()) {
    const std::size_t slash = std::min(path.find('/', at), path.size());
    if (slash > at) {
      names.push_back(path.substr(at, slash - at));
    }
    at = slash + 1;
  }
  return names;
}

}  // namespace

void FlushWalk::start(netfs::Share& share, const std::string& path,
                      std::move_only_function<void(Result<std::uint64_t>)> done) {
  auto walk = std::make_shared<FlushWalk>(share, std::move(done));
  walk->resolve(share.root(), components_of(path), 0);
}

FlushWalk::FlushWalk(netfs::Share& share, std::move_only_function<void(Result<std::uint64_t>)> done)
    : share_(share),
      done_(std::move(done)),
      caller_{std::make_shared<const netfs::Credential>(), nullptr} {}

void FlushWalk::resolve(const netfs::InodeRef& at, std::vector<std::string> names,
                        std::size_t next) {
  if (next == names.size()) {
    to_visit_.push_back(at);
    this->next();
    return;
  }
  const std::string name = names[next];
  share_.lookup(at, name, caller_,
                [self = shared_from_this(), names = std::move(names),
                 next](Result<netfs::LookupOutcome> outcome) mutable {
                  if (!outcome) {
                    self->done_(fail(outcome.error().within(names[next])));
                    return;
                  }
                  self->resolve(outcome->inode, std::move(names), next + 1);
                });
}

void FlushWalk::next() {
  if (to_visit_.empty()) {
    done_(files_);
    return;
  }
  const netfs::InodeRef inode = std::move(to_visit_.back());
  to_visit_.pop_back();
  if (!inode->is_directory()) {
    flush_file(inode);
    return;
  }
  share_.open_directory(
      inode, caller_,
      [self = shared_from_this()](Result<std::shared_ptr<netfs::DirectoryStream>> stream) {
        if (!stream) {
          self->done_(fail(stream.error()));
          return;
        }
        self->list(*stream, 0);
      });
}

void FlushWalk::flush_file(const netfs::InodeRef& inode) {
  share_.flush(inode, [self = shared_from_this()](const Result<>& result) {
    if (!result) {
      self->done_(fail(result.error()));
      return;
    }
    ++self->files_;
    self->next();
  });
}

void FlushWalk::list(const std::shared_ptr<netfs::DirectoryStream>& stream, std::size_t index) {
  stream->load(index, caller_, [self = shared_from_this(), stream, index](const Result<>& result) {
    if (!result) {
      self->done_(fail(result.error()));
      return;
    }
    std::vector<std::string> names;
    stream->visit(index, [&names](std::size_t, const netfs::ListedEntry& entry) {
      names.push_back(entry.name);
      return names.size() < kBatch;
    });
    if (names.empty()) {
      self->next();
      return;
    }
    self->look_up(stream, index, std::move(names), 0);
  });
}

void FlushWalk::look_up(const std::shared_ptr<netfs::DirectoryStream>& stream, std::size_t index,
                        std::vector<std::string> names, std::size_t next) {
  if (next == names.size()) {
    list(stream, index + names.size());
    return;
  }
  const std::string name = names[next];
  share_.lookup(stream->inode(), name, caller_,
                [self = shared_from_this(), stream, index, names = std::move(names),
                 next](const Result<netfs::LookupOutcome>& outcome) mutable {
                  // A name that went away meanwhile has nothing to flush.
                  if (outcome) {
                    self->to_visit_.push_back(outcome->inode);
                  }
                  self->look_up(stream, index, std::move(names), next + 1);
                });
}

}  // namespace larder::engine
