// File: who has it open, and the time in which it is being written.
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/coherency.h"
#include "netfs/file.h"
#include "netfs/file_open.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/version.h"
#include "netfs/whole_copy.h"
#include "netfs/writer.h"

namespace larder::netfs {

FileOpen::~FileOpen() {
  file_->on_close(*this);
}

FileOpenRef File::open(bool writes) {
  std::uint64_t errors = 0;
  {
    const MutexLock lock(mutex_);
    ++opens_;
    writers_ += writes ? 1 : 0;
    if (writer_ != nullptr) {
      errors = writer_->late_errors().count;
    }
  }
  ++share_->opens;
  auto open = std::make_shared<FileOpen>(shared_from_this(), writes);
  open->errors_seen() = errors;
  return open;
}

void File::on_close(const FileOpen& open) {
  std::optional<HiddenName> hidden;
  std::shared_ptr<Writer> last_writer;
  {
    const MutexLock lock(mutex_);
    if (--opens_ == 0) {
      hidden = std::exchange(hidden_, std::nullopt);
    }
    writers_ -= open.writes() ? 1 : 0;
    if (open.writes() && writers_ == 0) {
      last_writer = writer_;
    }
  }
  --share_->opens;
  if (last_writer != nullptr) {
    // close(2) has asked for it already, but for what a mapping brought afterwards.
    last_writer->commit(nullptr, [self = shared_from_this()] { self->end_writing_if_done(); });
  }
  if (hidden) {
    remove_hidden(*hidden, false);
  }
}

bool File::is_open() {
  const MutexLock lock(mutex_);
  return opens_ > 0;
}

bool File::for_page_cache_only() {
  const MutexLock lock(mutex_);
  return writers_ > 0 || being_written_;
}

PassthroughHoldRef File::hold_for_passthrough(const VersionRef& version, std::uint64_t holder) {
  const MutexLock lock(mutex_);
  if (writers_ > 0 || being_written_ || !version->cookie->complete()) {
    return nullptr;
  }
  return held_->hold(version, holder, shared_from_this());
}

bool File::hold_again(PassthroughHold& hold) {
  const MutexLock lock(mutex_);
  if (writers_ > 0 || being_written_ || hold.all_ != held_) {
    return false;
  }
  held_->set_open(hold, true);
  return true;
}

std::shared_ptr<Writer> File::writer() {
  const MutexLock lock(mutex_);
  return writer_;
}

bool File::is_behind() {
  const std::shared_ptr<Writer> writer = this->writer();
  return writer != nullptr && writer->is_behind();
}

void File::catch_up(std::move_only_function<void()> done) {
  if (const std::shared_ptr<Writer> writer = this->writer()) {
    writer->flush(std::move(done));
  } else {
    done();
  }
}

std::shared_ptr<Writer> File::begin_writing() {
  const auto end_if_done = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->end_writing_if_done();
    }
  };
  std::shared_ptr<Writer> writer;
  {
    const MutexLock lock(mutex_);
    if (writer_ == nullptr) {
      writer_ = std::make_shared<Writer>(share_, inode_, held_, end_if_done);
    }
    writer = writer_;
    if (being_written_) {
      return writer;
    }
    being_written_ = true;
    discarding_ = true;
    if (inode_->watch_for_others()) {
      writer->begin_copy();
    } else {
      writer->give_up_copy();
    }
  }
  const VersionRef made = make_written_version();
  while (true) {
    VersionRef before;
    {
      const MutexLock lock(mutex_);
      before = version_;
    }
    if ((before != nullptr && before->written) || put_version(before, made)) {
      break;
    }
  }
  // Stamps that are younger than the server's clock can tell may come to mean other bytes.
  share_->volume_of(made->attributes.fsid)
      ->discard(made->cookie->description().key,
                [self = shared_from_this()](const Result<>& /*a failed cache says so itself*/) {
                  {
                    const MutexLock lock(self->mutex_);
                    self->discarding_ = false;
                  }
                  self->end_writing_if_done();
                });
  return writer;
}

VersionRef File::make_written_version() {
  auto made = std::make_shared<Version>();
  made->attributes = inode_->attributes().attributes;
  made->racy = true;
  made->written = true;
  made->cookie =
      share_->uncached_cookie({std::string(text_of(inode_->handle().bytes())),
                               made->attributes.size, coherency_of(made->attributes), true});
  return made;
}

void File::end_writing_if_done() {
  VersionRef over;
  std::shared_ptr<const WrittenContent> copy;
  std::optional<Attributes> attributes;
  {
    const MutexLock lock(mutex_);
    if (!being_written_ || writers_ > 0 || discarding_ || !writer_->idle()) {
      return;
    }
    being_written_ = false;
    over = std::exchange(version_, nullptr);
    copy = writer_->take_copy();
    attributes = inode_->unless_others_changed();
  }
  if (copy != nullptr && attributes && attributes->size == copy->bytes().size()) {
    keep_content(std::move(copy), *attributes);
  }
}

// In memory: whoever reads it next need not fetch it. Somebody else's change in the same tick as
// one of ours left the stamps as we know them; as with any version that is too young for its stamps
// it must be seen by who opens the file so long after it.
void File::keep_content(std::shared_ptr<const WrittenContent> content,
                        const Attributes& attributes) {
  const MonotonicTime until = content->since() + share_->server_time.window();
  if (share_->executor.clock().now() < until) {
    static_cast<void>(put_version(nullptr, make_version(attributes, std::move(content), until)));
  }
}

bool File::hide(InodeRef directory, std::string name, CredentialRef credential) {
  const MutexLock lock(mutex_);
  if (opens_ == 0) {
    return false;
  }
  if (hidden_) {
    share_->hidden_names.remove(hidden_->directory->handle(), hidden_->name);
  }
  share_->hidden_names.add(directory->handle(), name, weak_from_this());
  inode_->set_hidden(true);
  hidden_ = HiddenName{std::move(directory), std::move(name), std::move(credential)};
  return true;
}

bool File::unhide() {
  const MutexLock lock(mutex_);
  if (!hidden_) {
    return false;
  }
  share_->hidden_names.remove(hidden_->directory->handle(), hidden_->name);
  hidden_.reset();
  inode_->set_hidden(false);
  return true;
}

void File::let_hidden_go() {
  std::optional<HiddenName> hidden;
  {
    const MutexLock lock(mutex_);
    hidden = std::exchange(hidden_, std::nullopt);
  }
  if (hidden) {
    remove_hidden(*hidden, false);
  }
}

bool File::is_hidden() {
  const MutexLock lock(mutex_);
  return hidden_.has_value();
}

// The user who removed it may have lost the right to the directory meanwhile: then in our own name.
void File::remove_hidden(const HiddenName& hidden, bool as_root) {
  hidden.directory->begin_own_change();
  inode_->begin_unhiding();
  const CredentialRef credential =
      as_root ? std::make_shared<const Credential>() : hidden.credential;
  share_->adapter.start_remove(
      hidden.directory->handle(), hidden.name, {credential},
      [self = shared_from_this(), hidden, as_root](const Result<Change>& change) {
        self->share_->end_change(hidden.directory, change);
        const int why = change ? 0 : change.error().error_number();
        if (!as_root && (why == EACCES || why == EPERM)) {
          self->remove_hidden(hidden, true);
          return;
        }
        if (!change) {
          log_warning("the file {}, renamed because it was removed while open, is left behind: {}",
                      hidden.name, change.error().message());
        }
        if (change || was_answered(change.error())) {
          self->share_->hidden_names.forget(hidden.directory->handle(), hidden.name);
        }
        if (change && self->inode_->attributes().attributes.link_count == 0) {
          self->share_->discard_removed(*self->inode_);
        }
        self->share_->hidden_names.remove(hidden.directory->handle(), hidden.name);
        self->inode_->set_hidden(false);
        self->inode_->expire();
      });
}

}  // namespace larder::netfs
