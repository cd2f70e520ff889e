// Share: making, removing and renaming.
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/answer.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/credential.h"
#include "netfs/hidden_names.h"
#include "netfs/inode.h"
#include "netfs/share.h"

namespace larder::netfs {

namespace {

// That it loses this name leaves it without one, as far as is known.
bool has_only_one_name(const InodeRef& inode) {
  return inode != nullptr && inode->attributes().attributes.link_count <= 1;
}

// A change that goes by a name tells nothing of the file.
void expire_known(const InodeRef& inode) {
  if (inode != nullptr) {
    inode->expire();
  }
}

}  // namespace

void Share::create(const InodeRef& directory, std::string_view name, const CreateIntent& intent,
                   const Caller& asking, Done<Created> done) {
  const Caller caller = unheard(caller_for(*directory, asking));
  done = interruptible(asking, std::move(done));
  create_at_server(
      {directory, std::string(name)}, intent, caller,
      [this, intent, caller, done = std::move(done)](Result<LookupOutcome> made) mutable {
        if (!made) {
          done(fail(made.error()));
          return;
        }
        if (caller.journal != nullptr) {
          caller.journal->note_made(made->inode->handle());
        }
        open_created(std::move(*made), intent, caller, std::move(done));
      });
}

void Share::create_at_server(const Place& place, const CreateIntent& intent, const Caller& caller,
                             Done<LookupOutcome> done) {
  const CallNotes earlier = notes_of(caller.journal);
  if (earlier.made) {
    // Its verifier may be gone from its stamps: another CREATE would not know it.
    on_lookup_reply(place, caller, context_->inodes.begin_check(),
                    LookupReply{*earlier.made, std::nullopt, std::nullopt}, std::move(done));
    return;
  }
  CreateOrder order;
  if (intent.exclusive) {
    order.mode = CreateMode::kExclusive;
    order.verifier = earlier.verifier ? *earlier.verifier : context_->new_verifier();
    if (caller.journal != nullptr) {
      caller.journal->note_verifier(order.verifier);
    }
  } else {
    order.attributes.mode = intent.mode;
  }
  const CheckTicket ticket = begin_change(place.directory);
  adapter_.start_create(place.directory->handle(), place.name, order, ask_as(caller),
                        [this, place, caller, ticket,
                         done = std::move(done)](const Result<CreateReply>& reply) mutable {
                          finish_make(place.directory, place.name, caller, ticket, reply,
                                      std::move(done));
                        });
}

void Share::open_created(LookupOutcome made, const CreateIntent& intent, const Caller& caller,
                         Done<Created> done) {
  const InodeRef inode = made.inode;
  OpenIntent with = intent.open;
  // It was there, unseen, only if it has bytes: a size in CREATE would cost suid and sgid.
  with.truncate = with.truncate && inode->attributes().attributes.size > 0;
  // By us, or by a process before us, which may not have lived to take suid away.
  const bool truncated =
      with.truncate || (intent.open.truncate && notes_of(caller.journal).made.has_value());
  auto opened = [made = std::move(made), truncated,
                 done = std::move(done)](Result<OpenFile> open) mutable {
    if (!open) {
      done(fail(open.error()));
    } else {
      done(Created{std::move(made), std::move(*open), truncated});
    }
  };
  if (inode->type() != FileType::kRegular) {
    opened(fail(Errc::kRemote, EEXIST, "the name is not a regular file's"));
    return;
  }
  if (intent.exclusive) {
    // The verifier lies in the stamps: they are set as the mode is.
    AttributeChanges changes;
    changes.mode = intent.mode;
    changes.accessed = changes.modified = ServerNow{};
    set_at_server(
        inode, changes, caller.credential,
        [this, inode, with, caller, opened = std::move(opened)](const Result<>& set) mutable {
          if (!set) {
            opened(fail(set.error()));
          } else {
            finish_open(inode, with, caller, std::move(opened));
          }
        });
    return;
  }
  // Its owner may use what he has just made, whatever its mode; a file that was there is opened as
  // any other.
  if (inode->attributes().attributes.uid == caller.credential->uid) {
    finish_open(inode, with, caller, std::move(opened));
  } else {
    this->open(inode, with, caller, std::move(opened));
  }
}

void Share::make(const InodeRef& directory, std::string_view name, const MakeOrder& order,
                 const Caller& asking, Done<LookupOutcome> done) {
  const Caller caller = unheard(caller_for(*directory, asking));
  done = interruptible(asking, std::move(done));
  const CheckTicket ticket = begin_change(directory);
  adapter_.start_make(directory->handle(), name, order, ask_as(caller),
                      [this, directory, name = std::string(name), caller, ticket,
                       done = std::move(done)](const Result<CreateReply>& reply) mutable {
                        finish_make(directory, name, caller, ticket, reply, std::move(done));
                      });
}

void Share::symlink(const InodeRef& directory, std::string_view name, std::string_view target,
                    const Caller& asking, Done<LookupOutcome> done) {
  const Caller caller = unheard(caller_for(*directory, asking));
  done = interruptible(asking, std::move(done));
  const CheckTicket ticket = begin_change(directory);
  adapter_.start_symlink(directory->handle(), name, target, {}, ask_as(caller),
                         [this, directory, name = std::string(name), caller, ticket,
                          done = std::move(done)](const Result<CreateReply>& reply) mutable {
                           finish_make(directory, name, caller, ticket, reply, std::move(done));
                         });
}

CheckTicket Share::begin_change(const InodeRef& directory) {
  directory->begin_own_change();
  return context_->inodes.begin_check();
}

void Share::finish_make(const InodeRef& directory, const std::string& name, const Caller& caller,
                        CheckTicket ticket, const Result<CreateReply>& reply,
                        Done<LookupOutcome> done) {
  context_->end_change(directory, reply ? Result<Change>(reply->directory) : fail(reply.error()));
  if (!reply) {
    done(fail(reply.error()));
    return;
  }
  const CreateReply& made = *reply;
  if (made.handle && made.attributes) {
    finish_lookup(directory, name, *made.handle, *made.attributes, ticket, std::move(done));
  } else {
    // NFSv3 lets a server leave them out.
    lookup_at_server(directory, name, {caller.credential, nullptr}, std::move(done));
  }
}

void Share::link(const InodeRef& inode, const InodeRef& directory, std::string_view name,
                 const Caller& asking, Done<LookupOutcome> done) {
  const Caller caller = unheard(caller_for(*directory, asking));
  done = interruptible(asking, std::move(done));
  const CheckTicket ticket = begin_change(directory);
  adapter_.start_link(
      inode->handle(), directory->handle(), name, ask_as(caller),
      [this, inode, directory, name = std::string(name), caller, ticket,
       done = std::move(done)](Result<LinkReply> reply) mutable {
        context_->end_change(directory,
                             reply ? Result<Change>(reply->directory) : fail(reply.error()));
        if (!reply) {
          done(fail(reply.error()));
        } else if (reply->attributes) {
          finish_lookup(directory, name, inode->handle(), *reply->attributes, ticket,
                        std::move(done));
        } else {
          lookup_at_server(directory, name, {caller.credential, nullptr}, std::move(done));
        }
      });
}

void Share::remove(const InodeRef& directory, std::string_view name, const Caller& asking,
                   Done<void> done) {
  const Caller caller = unheard(caller_for(*directory, asking));
  done = interruptible(asking, std::move(done));
  const Place place{directory, std::string(name)};
  make_way(place, caller, nullptr, Fate::kRemoved,
           [this, place, caller, done = std::move(done)](Result<Hidden> hidden) mutable {
             if (!hidden || hidden->name) {
               done(hidden ? Result<>() : fail(hidden.error()));
               return;
             }
             remove_at_server(place, ask_as(caller), hidden->inode, std::move(done));
           });
}

void Share::remove_at_server(const Place& place, const Asker& asker, const InodeRef& victim,
                             Done<void> done) {
  place.directory->begin_own_change();
  context_->known_names.forget(place.directory->handle(), place.name);
  adapter_.start_remove(place.directory->handle(), place.name, asker,
                        [context = context_, directory = place.directory, victim,
                         done = std::move(done)](const Result<Change>& change) mutable {
                          context->end_change(directory, change);
                          if (change && has_only_one_name(victim)) {
                            context->discard_removed(*victim);
                          }
                          expire_known(victim);
                          done(change ? Result<>() : fail(change.error()));
                        });
}

void Share::remove_directory(const InodeRef& directory, std::string_view name, const Caller& asking,
                             Done<void> done) {
  const Caller caller = unheard(caller_for(*directory, asking));
  done = interruptible(asking, std::move(done));
  const Place place{directory, std::string(name)};
  const std::string moving = notes_of(caller.journal).hidden_name;
  if (moving.empty()) {
    remove_directory_at(place, caller, std::move(done));
    return;
  }
  // A process before us was moving a hidden file out of it.
  adapter_.start_lookup(directory->handle(), moving, caller.credential,
                        [this, place, moving, caller,
                         done = std::move(done)](const Result<LookupReply>& found) mutable {
                          if (found) {
                            take_hidden({place.directory, moving}, caller,
                                        context_->inodes.find(found->handle), Fate::kRemoved,
                                        [](const Result<Hidden>&) {});
                          }
                          remove_directory_at(place, caller, std::move(done));
                        });
}

void Share::remove_directory_at(const Place& place, const Caller& caller, Done<void> done) {
  rmdir_at_server(
      place, ask_as(caller),
      [this, place, caller, done = std::move(done)](Result<> removed) mutable {
        const auto known = context_->known_names.find(place.directory->handle(), place.name);
        const InodeRef victim = known ? context_->inodes.find(*known) : nullptr;
        if (removed || victim == nullptr || context_->hidden_names.in(victim->handle()).empty()) {
          context_->known_names.forget(place.directory->handle(), place.name);
          done(std::move(removed));
          return;
        }
        // To whoever lists it the directory is empty.
        clear_hidden(victim, place, caller, std::move(done));
      });
}

void Share::rmdir_at_server(const Place& place, const Asker& asker, Done<void> done) {
  place.directory->begin_own_change();
  adapter_.start_rmdir(place.directory->handle(), place.name, asker,
                       [context = context_, directory = place.directory,
                        done = std::move(done)](const Result<Change>& change) mutable {
                         context->end_change(directory, change);
                         done(change ? Result<>() : fail(change.error()));
                       });
}

void Share::rename(const InodeRef& from_directory, std::string_view from,
                   const InodeRef& to_directory, std::string_view to, const Caller& asking,
                   Done<void> done) {
  const Caller caller = unheard(caller_for(*from_directory, asking));
  done = interruptible(asking, std::move(done));
  find_name(from_directory, std::string(from), caller,
            [this, from_directory, from = std::string(from), to_directory, to = std::string(to),
             caller, done = std::move(done)](Result<InodeRef> moved) mutable {
              if (!moved) {
                done(fail(moved.error()));
                return;
              }
              rename_found({from_directory, from}, {to_directory, to}, *moved, caller,
                           std::move(done));
            });
}

// `moved`: the file that gets the new name; null if nobody knows it here.
void Share::rename_found(const Place& from, const Place& to, const InodeRef& moved,
                         const Caller& caller, Done<void> done) {
  make_way(to, caller, moved, Fate::kReplaced,
           [this, from, to, moved, caller, done = std::move(done)](Result<Hidden> hidden) mutable {
             if (!hidden) {
               done(fail(hidden.error()));
               return;
             }
             rename_at_server(from, to, ask_as(caller),
                              [this, moved, to, hidden = *hidden, caller,
                               done = std::move(done)](Result<> renamed) mutable {
                                if (renamed && !hidden.name && hidden.inode != moved &&
                                    has_only_one_name(hidden.inode)) {
                                  context_->discard_removed(*hidden.inode);
                                }
                                expire_known(moved);
                                expire_known(hidden.inode);
                                if (hidden.name) {
                                  settle_hidden(to, hidden, caller, std::move(renamed),
                                                std::move(done));
                                } else {
                                  done(std::move(renamed));
                                }
                              });
           });
}

void Share::rename_at_server(const Place& from, const Place& to, const Asker& asker,
                             Done<void> done) {
  const bool two = from.directory != to.directory;
  from.directory->begin_own_change();
  if (two) {
    to.directory->begin_own_change();
  }
  const auto file = context_->known_names.find(from.directory->handle(), from.name);
  adapter_.start_rename(from.directory->handle(), from.name, to.directory->handle(), to.name, asker,
                        [context = context_, from, to, two, file,
                         done = std::move(done)](const Result<RenameReply>& reply) mutable {
                          context->end_change(from.directory, reply ? Result<Change>(reply->from)
                                                                    : fail(reply.error()));
                          if (two) {
                            context->end_change(to.directory, reply ? Result<Change>(reply->to)
                                                                    : fail(reply.error()));
                          }
                          context->known_names.forget(from.directory->handle(), from.name);
                          context->known_names.forget(to.directory->handle(), to.name);
                          if (reply && file) {
                            context->known_names.note(to.directory->handle(), to.name, *file);
                          }
                          done(reply ? Result<>() : fail(reply.error()));
                        });
}

// Which inode a name is; null: none that anybody here knows. Not asked for while nothing is open.
void Share::find_name(const InodeRef& directory, const std::string& name, const Caller& caller,
                      Done<InodeRef> done) {
  if (const auto known = context_->known_names.find(directory->handle(), name)) {
    done(context_->inodes.find(*known));
    return;
  }
  if (context_->opens == 0) {
    done(InodeRef());
    return;
  }
  adapter_.start_lookup(
      directory->handle(), name, caller.credential,
      [this, directory, name, done = std::move(done)](const Result<LookupReply>& reply) mutable {
        if (reply) {
          context_->known_names.note(directory->handle(), name, reply->handle);
          done(context_->inodes.find(reply->handle));
        } else if (reply.error().error_number() == ENOENT) {
          done(InodeRef());
        } else {
          done(fail(reply.error()));
        }
      });
}

}  // namespace larder::netfs
