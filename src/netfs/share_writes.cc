// Share: writing, truncating, making safe.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/answer.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/file.h"
#include "netfs/file_open.h"
#include "netfs/held_versions.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/writer.h"

namespace larder::netfs {

namespace {

constexpr std::uint32_t kSetUid = 04000;
constexpr std::uint32_t kSetGid = 02000;
constexpr std::uint32_t kGroupExecutes = 010;

// The mode without what must go when somebody without the right changes the file; sgid without the
// group's x means something else (mandatory locks).
std::uint32_t without_privileges(std::uint32_t mode) {
  const bool group = (mode & kGroupExecutes) != 0;
  return mode & ~(kSetUid | (group ? kSetGid : 0));
}

// A repetition goes where the call went before: the end may be behind its own bytes now.
WritePlace append_place(WritePlace place, const CallJournalRef& journal) {
  const std::optional<std::uint64_t> before = notes_of(journal).offset;
  if (before) {
    place.append = false;
    place.offset = *before;
    place.through = true;
  } else {
    place.journal = journal;
  }
  return place;
}

}  // namespace

void Share::write(const OpenFile& open, const WritePlace& place, OwnedBytes bytes,
                  const Caller& caller, Done<Written> done) {
  const InodeRef inode = open.file->inode();
  if (const std::optional<Error> late = take_late_error(open)) {
    done(fail(*late));
    return;
  }
  auto answer = Answer<Written>::for_scope(caller.scope, std::move(done));
  WritePlace at = place;
  at.through |= options_.writes_through;
  // The kernel says so of every write by somebody without the right, whatever the mode is.
  if (at.clear_privileges) {
    const std::uint32_t mode = inode->attributes().attributes.mode;
    at.clear_privileges = without_privileges(mode) != mode;
  }
  if (place.append) {
    at = append_place(at, caller.journal);
  }
  auto send = [this, open, place = at, bytes = std::move(bytes),
               answer](std::optional<std::uint64_t> told_end) mutable {
    place.told_end = told_end;
    open.file->begin_writing()->write(place, std::move(bytes), open.credential,
                                      [this, open, place, answer](Result<Written> written) {
                                        if (written && place.clear_privileges) {
                                          clear_privileges(open, *written, answer);
                                        } else {
                                          answer->give(std::move(written));
                                        }
                                      });
  };
  const bool put = open.file->held().any_in_step() && !context_->writes_tell;
  if (!put && (!at.append || inode->server_fresh_for().count() > 0)) {
    send(std::nullopt);
    return;
  }
  // Where the end is, others may have moved.
  ask_first(open.file, open.credential,
            [inode, send = std::move(send), answer,
             append = at.append](const Result<Attributes>& asked) mutable {
              if (asked && append && inode->is_unsure()) {
                send(asked->size);
              } else if (asked || !append) {
                send(std::nullopt);
              } else {
                answer->give(fail(asked.error()));
              }
            });
}

// Others may have changed the file since the server was asked last: what readers hold of it is not
// to get a change of ours on top of what they have not got, where the server's answer to that would
// not tell.
void Share::ask_first(const std::shared_ptr<File>& file, const CredentialRef& credential,
                      Done<Attributes> done) {
  context_->refresh(file->inode(), {credential, nullptr},
                    [file, done = std::move(done)](Result<Attributes> attributes) mutable {
                      if (!attributes) {
                        file->held().fall_behind();
                      }
                      done(std::move(attributes));
                    });
}

// Servers do it by themselves for a credential without the right; most of them. Of the others only
// the owner may do it; the bytes are written in any case.
void Share::clear_privileges(const OpenFile& open, const Written& written,
                             const std::shared_ptr<Answer<Written>>& answer) {
  const std::uint32_t mode = open.file->inode()->attributes().attributes.mode;
  if (without_privileges(mode) == mode) {
    answer->give(written);
    return;
  }
  AttributeChanges changes;
  changes.mode = without_privileges(mode);
  set_at_server(open.file->inode(), changes, open.credential,
                [answer, written](const Result<>& cleared) {
                  if (!cleared) {
                    log_warning("a file that was written to keeps its suid or sgid bit: {}",
                                cleared.error().message());
                  }
                  answer->give(written);
                });
}

void Share::sync(const OpenFile& open, const Caller& caller, Done<void> done) {
  const std::shared_ptr<Writer> writer = open.file->writer();
  if (writer == nullptr) {
    done({});
    return;
  }
  const auto answer = Answer<void>::for_scope(caller.scope, std::move(done));
  writer->commit(open.credential, [open, answer] {
    if (const std::optional<Error> late = take_late_error(open)) {
      answer->give(fail(*late));
    } else {
      answer->give({});
    }
  });
}

// What this open file was not told of yet: some of what was written before did not reach the
// server.
std::optional<Error> Share::take_late_error(const OpenFile& open) {
  const std::shared_ptr<Writer> writer = open.file->writer();
  if (writer == nullptr) {
    return std::nullopt;
  }
  const LateErrors late = writer->late_errors();
  const std::uint64_t seen = open.opened->errors_seen().exchange(late.count);
  return late.count > seen ? late.last : std::nullopt;
}

void Share::set_attributes(const InodeRef& inode, const AttributeChanges& changes,
                           const OpenFile* open, const Caller& caller, Done<FreshAttributes> done) {
  const CredentialRef credential = open != nullptr ? open->credential : caller.credential;
  const auto answer = Answer<FreshAttributes>::for_scope(caller.scope, std::move(done));
  auto finish = [inode, answer](const Result<>& set) {
    if (set) {
      answer->give(inode->attributes());
    } else {
      answer->give(fail(set.error()));
    }
  };
  if (changes.size && inode->type() == FileType::kRegular) {
    set_size(file_of(inode), changes, credential, std::move(finish));
  } else {
    // A WRITE that came behind it, or came again because the server had lost it, would stamp the
    // file anew, or want the rights of before.
    auto set = [this, inode, changes, credential, finish = std::move(finish)]() mutable {
      set_at_server(inode, changes, credential, std::move(finish));
    };
    const std::shared_ptr<File> file = inode->file();
    if (const std::shared_ptr<Writer> writer = file == nullptr ? nullptr : file->writer()) {
      writer->commit(nullptr, std::move(set));
    } else {
      set();
    }
  }
}

void Share::set_size(const std::shared_ptr<File>& file, const AttributeChanges& changes,
                     const CredentialRef& credential, Done<void> done) {
  file->begin_writing()->hold(credential, [this, file, changes, credential, done = std::move(done)](
                                              Writer::Release release) mutable {
    cut_alone(file, Cut{changes, credential, std::move(release), std::move(done)});
  });
}

// Nothing else of ours is on its way to the file.
void Share::cut_alone(const std::shared_ptr<File>& file, Cut cut) {
  if (!file->held().any_in_step()) {
    cut_at_server(file, std::move(cut));
    return;
  }
  const CredentialRef credential = cut.credential;
  ask_first(file, credential,
            [this, file, cut = std::move(cut)](const Result<Attributes>& /*asked*/) mutable {
              cut_at_server(file, std::move(cut));
            });
}

void Share::cut_at_server(const std::shared_ptr<File>& file, Cut cut) {
  const AttributeChanges changes = cut.changes;
  const CredentialRef credential = cut.credential;
  if (changes.size == 0) {
    file->writer()->give_up_copy();
    file->inode()->watch_for_others();
  }
  set_at_server(file->inode(), changes, credential,
                [file, cut = std::move(cut)](Result<> set) mutable {
                  if (!set) {
                    cut.release(std::nullopt);
                    cut.done(std::move(set));
                    return;
                  }
                  const std::uint64_t size = cut.changes.size.value_or(0);
                  file->held().resize(size, [size, cut = std::move(cut)]() mutable {
                    cut.release(size);
                    cut.done({});
                  });
                });
}

void Share::set_at_server(const InodeRef& inode, const AttributeChanges& changes,
                          const CredentialRef& credential, Done<void> done) {
  inode->begin_own_change();
  adapter_.start_setattr(
      inode->handle(), changes, credential,
      [context = context_, inode, done = std::move(done)](const Result<Change>& change) mutable {
        context->end_change(inode, change);
        done(change ? Result<>() : fail(change.error()));
      });
}

bool Share::is_for_page_cache_only(const OpenFile& open) {
  return open.file->for_page_cache_only();
}

PassthroughHoldRef Share::hold_for_passthrough(const OpenFile& open, std::uint64_t holder) {
  return open.file->hold_for_passthrough(open.version, holder);
}

}  // namespace larder::netfs
