// Share: files that lose their last name while they are open.
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/file.h"
#include "netfs/hidden_name_store.h"
#include "netfs/hidden_names.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/share_context.h"

namespace larder::netfs {

namespace {

// What is removed while open gets such a name, as NFS clients name it: administrators and their
// cleaners know it.
constexpr std::string_view kHiddenPrefix = ".nfs";

}  // namespace

// Before a name goes. A process before us may have seen to it.
void Share::make_way(const Place& place, const Caller& caller, const InodeRef& unless, Fate fate,
                     Done<Hidden> done) {
  const CallNotes earlier = notes_of(caller.journal);
  if (!earlier.hidden_name.empty()) {
    find_hidden(place, caller, unless, fate, std::move(done));
  } else if (earlier.sent && fate == Fate::kReplaced) {
    // Nothing was in the way. What has the name now may be the file that was to get it.
    done(Hidden{nullptr, std::nullopt});
  } else {
    hide_if_open(place, caller, unless, fate, std::move(done));
  }
}

// Whether the file that a process before us was about to hide has its hidden name.
void Share::find_hidden(const Place& place, const Caller& caller, const InodeRef& unless, Fate fate,
                        Done<Hidden> done) {
  const CallNotes earlier = notes_of(caller.journal);
  adapter_.start_lookup(
      place.directory->handle(), earlier.hidden_name, caller.credential,
      [this, place, caller, unless, fate, has_hidden = earlier.has_hidden,
       hidden = Place{place.directory, earlier.hidden_name},
       done = std::move(done)](const Result<LookupReply>& found) mutable {
        if (found) {
          take_hidden(hidden, caller, context_->inodes.find(found->handle), fate, std::move(done));
        } else if (found.error().error_number() != ENOENT) {
          done(fail(found.error()));
        } else if (has_hidden) {
          done(Hidden{nullptr, std::nullopt});  // it was closed since, and is gone
        } else {
          hide_if_open(place, caller, unless, fate, std::move(done));
        }
      });
}

// `inode`: what has the hidden name; null: nobody knows it here.
void Share::take_hidden(const Place& hidden, const Caller& caller, const InodeRef& inode, Fate fate,
                        Done<Hidden> done) {
  const std::shared_ptr<File> file = inode == nullptr ? nullptr : inode->file();
  const bool held = file != nullptr && file->hide(hidden.directory, hidden.name, caller.credential);
  if (!held && fate == Fate::kRemoved) {
    remove_hidden(hidden, caller, inode);
  }
  // Of one that is to be replaced, settle_hidden() will see that nobody holds it.
  done(Hidden{held ? inode : nullptr, hidden.name});
}

// The rename over a hidden file has ended: the file goes with its last close, or has its name back
// before that is told.
void Share::settle_hidden(const Place& place, const Hidden& hidden, const Caller& caller,
                          Result<> renamed, Done<void> done) {
  const Place away{place.directory, hidden.name.value_or("")};
  if (!renamed && !was_answered(renamed.error())) {
    // Its name may be the other file's by now: nothing may take it away again. It keeps the hidden
    // one, for good: nobody removes what was not replaced.
    if (hidden.inode != nullptr && hidden.inode->file() != nullptr) {
      (void)hidden.inode->file()->unhide();
    }
    done(std::move(renamed));
    return;
  }
  if (!renamed) {
    unhide(place, away.name, hidden.inode, caller,
           [renamed = std::move(renamed), done = std::move(done)]() mutable {
             done(std::move(renamed));
           });
    return;
  }
  if (hidden.inode == nullptr) {
    remove_hidden(away, caller, nullptr);
  } else if (context_->hidden_names.contains(away.directory->handle(), away.name)) {
    // Not before: had we died in between, the file would be missed.
    announce_hidden(away, caller);
  }
  done({});
}

// Before a name goes: if somebody here has its file open, the file gets a hidden name.
void Share::hide_if_open(const Place& place, const Caller& caller, const InodeRef& unless,
                         Fate fate, Done<Hidden> done) {
  find_name(
      place.directory, place.name, caller,
      [this, place, caller, unless, fate, done = std::move(done)](Result<InodeRef> found) mutable {
        if (!found) {
          done(fail(found.error()));
          return;
        }
        const InodeRef& inode = *found;
        const std::shared_ptr<File> file = inode == nullptr ? nullptr : inode->file();
        if (context_->hidden_names.contains(place.directory->handle(), place.name)) {
          done(fail(Errc::kRemote, EBUSY, "the file was removed and is still open"));
        } else if (inode == unless || file == nullptr || !file->is_open() ||
                   inode->has_other_names()) {
          done(Hidden{inode, std::nullopt});
        } else {
          hide(place, caller, file, fate, std::move(done));
        }
      });
}

void Share::hide(const Place& place, const Caller& caller, const std::shared_ptr<File>& file,
                 Fate fate, Done<Hidden> done) {
  Asker asker{caller.credential};
  Place hidden{place.directory, notes_of(caller.journal).hidden_name};
  asker.may_be_done = !hidden.name.empty();
  if (hidden.name.empty()) {
    hidden.name = context_->new_hidden_name(kHiddenPrefix, *file->inode());
  }
  if (caller.journal != nullptr) {
    caller.journal->note_hidden_name(hidden.name);
  }
  if (fate == Fate::kRemoved) {
    announce_hidden(hidden, caller);
    (void)ask_as(caller);  // this is the removal
  }
  rename_at_server(
      place, hidden, asker,
      [this, hidden, caller, file, done = std::move(done)](const Result<>& renamed) mutable {
        if (!renamed) {
          if (was_answered(renamed.error())) {
            context_->hidden_names.forget(hidden.directory->handle(), hidden.name);
          }
          done(fail(renamed.error()));
          return;
        }
        context_->counters.hidden_files.add();
        if (caller.journal != nullptr) {
          caller.journal->note_hidden();
        }
        file->inode()->expire();
        if (!file->hide(hidden.directory, hidden.name, caller.credential)) {
          remove_hidden(hidden, caller, file->inode());
        }
        done(Hidden{file->inode(), hidden.name});
      });
}

void Share::announce_hidden(const Place& place, const Caller& caller) {
  context_->hidden_names.announce({place.directory->handle(), place.name, *caller.credential});
}

// Of a file that was closed meanwhile. Best effort.
void Share::remove_hidden(const Place& hidden, const Caller& caller, const InodeRef& inode) {
  remove_at_server(hidden, {caller.credential}, inode,
                   [context = context_, hidden](const Result<>& removed) {
                     if (removed || was_answered(removed.error())) {
                       context->hidden_names.forget(hidden.directory->handle(), hidden.name);
                     }
                   });
}

void Share::keep_hidden_names(std::unique_ptr<HiddenNameStore> store) {
  context_->hidden_names.set_store(std::move(store));
  for (const LeftName& left : context_->hidden_names.adopt_left()) {
    remove_left(context_, left, std::make_shared<const Credential>(left.credential));
  }
}

// As File::remove_hidden: in the name of who removed the file, else in our own.
void Share::remove_left(const std::shared_ptr<ShareContext>& context, const LeftName& left,
                        const CredentialRef& credential) {
  context->adapter.start_remove(
      left.directory, left.name, {credential},
      [context, left, credential](const Result<Change>& change) {
        const int why = change ? 0 : change.error().error_number();
        if (credential->uid != 0 && (why == EACCES || why == EPERM)) {
          remove_left(context, left, std::make_shared<const Credential>());
          return;
        }
        if (change) {
          log_info("removed {}, which a mount before had left behind", left.name);
        } else if (why != ENOENT && why != ESTALE) {
          log_warning("{}, which a mount before had left behind, cannot be removed: {}", left.name,
                      change.error().message());
        }
        if (change || was_answered(change.error())) {
          context->hidden_names.forget(left.directory, left.name);
        }
      });
}

void Share::let_hidden_go() {
  for (const std::shared_ptr<File>& file : context_->hidden_names.files()) {
    file->let_hidden_go();
  }
}

// What was hidden for a rename that failed gets its name back. `inode` is null if nobody holds it.
void Share::unhide(const Place& place, const std::string& hidden, const InodeRef& inode,
                   const Caller& caller, std::move_only_function<void()> done) {
  const std::shared_ptr<File> file = inode == nullptr ? nullptr : inode->file();
  if (inode != nullptr && (file == nullptr || !file->unhide())) {
    done();
    return;
  }
  context_->hidden_names.forget(place.directory->handle(), hidden);
  rename_at_server(
      {place.directory, hidden}, place, {caller.credential},
      [done = std::move(done)](
          const Result<>& /*best effort: the file keeps the hidden name*/) mutable { done(); });
}

// Moves what is hidden in `victim` to its parent, one after the other, and removes it then.
void Share::clear_hidden(const InodeRef& victim, const Place& place, const Caller& caller,
                         Done<void> done) {
  const std::vector<HiddenNames::Name> hidden = context_->hidden_names.in(victim->handle());
  if (hidden.empty()) {
    rmdir_at_server(place, ask_as(caller), std::move(done));
    return;
  }
  const std::shared_ptr<File> file = hidden.front().second.lock();
  if (file == nullptr) {
    done(fail(Errc::kRemote, ENOTEMPTY, "a removed file is about to go"));
    return;
  }
  const Place away{place.directory, context_->new_hidden_name(kHiddenPrefix, *file->inode())};
  const std::string name = hidden.front().first;
  if (caller.journal != nullptr) {
    caller.journal->note_hidden_name(away.name);
  }
  announce_hidden(away, caller);
  rename_at_server({victim, name}, away, {caller.credential},
                   [this, victim, name, place, away, caller, file,
                    done = std::move(done)](const Result<>& moved) mutable {
                     if (moved) {
                       context_->hidden_names.forget(victim->handle(), name);
                     } else if (was_answered(moved.error())) {
                       context_->hidden_names.forget(away.directory->handle(), away.name);
                     }
                     if (!moved) {
                       done(fail(Errc::kRemote, ENOTEMPTY, "a removed file cannot be moved away"));
                       return;
                     }
                     if (!file->hide(away.directory, away.name, caller.credential)) {
                       remove_hidden(away, caller, file->inode());
                     }
                     clear_hidden(victim, place, caller, std::move(done));
                   });
}

}  // namespace larder::netfs
