#include "netfs/file.h"

#include <memory>
#include <string>
#include <utility>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fscache/backend.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/coherency.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"
#include "netfs/version.h"
#include "netfs/whole_copy.h"

namespace larder::netfs {

namespace {

fscache::ObjectDescription description_of(const Inode& inode, const Attributes& attributes,
                                          bool racy) {
  return {std::string(text_of(inode.handle().bytes())), attributes.size, coherency_of(attributes),
          racy};
}

}  // namespace

File::File(std::shared_ptr<ShareContext> share, InodeRef inode)
    : share_(std::move(share)),
      inode_(std::move(inode)),
      held_(std::make_shared<HeldVersions>(share_, inode_)) {}

File::~File() {
  inode_->clear_file(*this);
  for (const auto& [offset, fetch] : fetches_) {
    let_go(*fetch);
  }
}

VersionRef File::version() {
  while (true) {
    const Attributes attributes = inode_->attributes().attributes;
    VersionRef before;
    {
      const MutexLock lock(mutex_);
      before = version_;
    }
    if (before != nullptr && (before->written || same_version(before->attributes, attributes))) {
      return before;
    }
    if (VersionRef made = replace_version(before, attributes)) {
      return made;
    }
  }
}

VersionRef File::version_at_open() {
  VersionRef version = this->version();
  if (is_to_be_renewed(*version)) {
    if (VersionRef settled = replace_version(version, version->attributes)) {
      return settled;
    }
    return this->version();
  }
  return version;
}

bool File::is_to_be_renewed(const Version& version) const {
  const MonotonicTime now = share_->executor.clock().now();
  return version.racy && !version.written &&
         ((version.content != nullptr && now >= version.content_until) ||
          share_->server_time.is_settled(version.attributes, now));
}

// Puts a new version in the place of `before`; null when somebody else was faster.
VersionRef File::replace_version(const VersionRef& before, const Attributes& attributes) {
  // Outside of the lock: superseding an older cookie wakes those who wait for it.
  const VersionRef made = make_version(attributes);
  return put_version(before, made) ? made : nullptr;
}

VersionRef File::make_version(const Attributes& attributes,
                              std::shared_ptr<const WrittenContent> content,
                              MonotonicTime content_until) {
  auto made = std::make_shared<Version>();
  made->attributes = attributes;
  made->content = std::move(content);
  made->content_until = content_until;
  made->racy = !share_->server_time.is_settled(attributes, share_->executor.clock().now());
  made->cookie = share_->volume_of(attributes.fsid)
                     ->acquire_cookie(description_of(*inode_, attributes, made->racy));
  if (made->racy) {
    share_->counters.racy_versions.add();
  }
  return made;
}

bool File::put_version(const VersionRef& before, const VersionRef& made) {
  FetchMap old_fetches;
  Buffer old_small;
  {
    const MutexLock lock(mutex_);
    if (version_ != before) {
      return false;
    }
    version_ = made;
    old_fetches.swap(fetches_);
    for (const auto& [offset, fetch] : old_fetches) {
      fetch->gone = true;
      let_go(*fetch);
    }
    landed_bytes_ = 0;
    prefetch_ = {};
    completing_ = false;
    std::swap(old_small, small_);
  }
  for (const auto& [offset, fetch] : old_fetches) {
    abandon(fetch, changed_meanwhile());
  }
  return true;
}

void File::start_prepare(const VersionRef& version, const Caller& caller, Done<VersionRef> done) {
  if (version->written || version->content != nullptr) {
    done(version);
    return;
  }
  version->cookie->use(
      [self = shared_from_this(), version, caller, done = std::move(done)]() mutable {
        if (version->cookie->racy() && !version->racy) {
          self->renew_racy(version, caller, std::move(done));
          return;
        }
        version->cookie->note_use();
        if (!version->small() || version->size() == 0 ||
            version->cookie->plan_read({0, version->size()}).source == fscache::Source::kCache) {
          self->confirm_complete_at_open(version, caller.credential);
          done(version);
          return;
        }
        self->start_load_small(version, caller,
                               [version, done = std::move(done)](Result<Buffer> loaded) mutable {
                                 if (!loaded) {
                                   done(fail(loaded.error()));
                                 } else {
                                   done(version);
                                 }
                               });
      });
}

// What is in the cache was fetched when the version was too young to be trusted, and now it is not.
void File::renew_racy(const VersionRef& version, const Caller& caller, Done<VersionRef> done) {
  share_->volume_of(version->attributes.fsid)
      ->discard(version->cookie->description().key,
                [self = shared_from_this(), version, caller,
                 done = std::move(done)](const Result<>& /*best effort*/) mutable {
                  VersionRef renewed = self->replace_version(version, version->attributes);
                  if (renewed == nullptr) {
                    renewed = self->version();
                  }
                  renewed->cookie->use([self, renewed, caller, done = std::move(done)]() mutable {
                    done(renewed);  // its reads fetch what is missing
                  });
                });
}

bool File::begin_reply(const VersionRef& version) {
  const MutexLock lock(mutex_);
  if (version_ != version) {
    return false;
  }
  ++replies_;
  return true;
}

void File::end_reply() {
  bool tell = false;
  {
    const MutexLock lock(mutex_);
    --replies_;
    if (replies_ == 0) {
      tell = std::exchange(change_to_tell_, false);
    }
  }
  if (tell) {
    share_->tell_changed(*inode_);
  }
}

void File::on_changed(AttributeNews news) {
  if (news == AttributeNews::kChanged) {
    held_->fall_behind();
  }
  // Whoever begins a reply from now on finds the old version gone.
  const VersionRef now = version();
  if (now->written) {
    static_cast<void>(put_version(now, make_written_version()));
    writer()->give_up_copy();  // it could not be used any more
  }
  bool tell = false;
  {
    const MutexLock lock(mutex_);
    change_to_tell_ = true;
    if (replies_ == 0) {
      tell = std::exchange(change_to_tell_, false);
    }
  }
  if (tell) {
    share_->tell_changed(*inode_);
  }
}

void File::begin_anew() {
  const VersionRef version = this->version();
  if (!version->written) {
    static_cast<void>(replace_version(version, version->attributes));
  }
}

void File::on_last_close() {
  Buffer dropped;
  {
    const MutexLock lock(mutex_);
    std::swap(dropped, small_);
    holding_ = false;
    drop_held(true);
  }
  pump_prefetch();  // which held memory may have stopped
}

}  // namespace larder::netfs
