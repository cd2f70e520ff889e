#include "netfs/share.h"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "netfs/adapter.h"
#include "netfs/answer.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/credential.h"
#include "netfs/directory_stream.h"
#include "netfs/file.h"
#include "netfs/file_open.h"
#include "netfs/inode.h"
#include "netfs/name_cache.h"
#include "netfs/read_request.h"
#include "netfs/recent_files.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

void Share::start_mount(std::unique_ptr<Adapter> adapter, Executor& executor,
                        std::shared_ptr<fscache::Cache> cache, const ShareOptions& options,
                        std::move_only_function<void(Result<std::unique_ptr<Share>>)> done,
                        RetireAdapter retire) {
  // The adapter must outlive its call: whoever answers hands it on.
  auto kept = std::make_shared<std::unique_ptr<Adapter>>(std::move(adapter));
  (*kept)->start_connect([kept, &executor, cache = std::move(cache), options,
                          done = std::move(done),
                          retire = std::move(retire)](Result<ShareInfo> info) mutable {
    if (!info) {
      retire(std::move(*kept));
      done(fail(info.error()));
      return;
    }
    done(std::unique_ptr<Share>(
        new Share(std::move(*kept), executor, std::move(cache), options, *info)));
  });
}

Share::Share(std::unique_ptr<Adapter> adapter, Executor& executor,
             std::shared_ptr<fscache::Cache> cache, const ShareOptions& options,
             const ShareInfo& info)
    : executor_(executor),
      options_(options),
      info_(info),
      access_cache_(executor.clock()),
      context_(std::make_shared<ShareContext>(std::move(adapter), executor, std::move(cache),
                                              options.times, info_)),
      adapter_(context_->adapter),
      locks_(executor.timers()),
      recent_(std::make_shared<RecentFiles>(context_)) {
  root_ = context_->inodes.find_or_make(info_.root, info_.root_attributes, 0);
  context_->server_time.observe(info_.root_attributes.changed, executor_.clock().now());
}

Share::~Share() = default;

void Share::lookup(const InodeRef& directory, std::string_view name, const Caller& asking,
                   Done<LookupOutcome> done) {
  const Caller caller = caller_for(*directory, asking);
  if (const InodeRef listed = find_listed(*directory, name, asking, caller)) {
    context_->counters.listed_lookups.add();
    context_->known_names.note(directory->handle(), name, listed->handle());
    done(LookupOutcome{listed, directory->attributes().fresh_for});
    return;
  }
  lookup_at_server(directory, std::string(name), caller, std::move(done));
}

void Share::lookup_at_server(const InodeRef& directory, const std::string& name,
                             const Caller& caller, Done<LookupOutcome> done) {
  const CheckTicket ticket = context_->inodes.begin_check();
  CallWait wait(caller, adapter_);
  wait.on(adapter_.start_lookup(directory->handle(), name, caller.credential,
                                [this, place = Place{directory, name}, caller, ticket,
                                 done = std::move(done)](Result<LookupReply> reply) mutable {
                                  on_lookup_reply(place, caller, ticket, std::move(reply),
                                                  std::move(done));
                                }));
}

// What a listing just said of the name, if the caller made it and may search the directory.
InodeRef Share::find_listed(const Inode& directory, std::string_view name, const Caller& asking,
                            const Caller& caller) {
  const FreshAttributes known = directory.attributes();
  if (known.fresh_for.count() == 0 ||
      !access_cache_.may_search(directory.handle(), *caller.credential)) {
    return nullptr;
  }
  const std::optional<ListedName> listed =
      context_->names->take(directory.handle(), *asking.credential, known.attributes, name);
  return listed ? context_->inodes.find_or_confirm(listed->handle, listed->said) : nullptr;
}

void Share::on_lookup_reply(const Place& place, const Caller& caller, CheckTicket ticket,
                            Result<LookupReply> reply, Done<LookupOutcome> done) {
  const InodeRef& directory = place.directory;
  if (!reply) {
    if (reply.error().code() == Errc::kStale) {
      directory->expire();
    }
    done(fail(reply.error()));
    return;
  }
  access_cache_.note_search(directory->handle(), *caller.credential);
  const LookupReply& found = *reply;
  if (found.directory_attributes) {
    context_->apply(*directory, *found.directory_attributes, ticket);
  }
  if (found.attributes) {
    finish_lookup(directory, place.name, found.handle, *found.attributes, ticket, std::move(done));
    return;
  }
  CallWait wait(caller, adapter_);
  wait.on(adapter_.start_getattr(found.handle, caller.credential,
                                 [this, place, handle = found.handle, ticket,
                                  done = std::move(done)](Result<Attributes> attributes) mutable {
                                   if (!attributes) {
                                     done(fail(attributes.error()));
                                     return;
                                   }
                                   finish_lookup(place.directory, place.name, handle, *attributes,
                                                 ticket, std::move(done));
                                 }));
}

void Share::finish_lookup(const InodeRef& directory, const std::string& name,
                          const FileHandle& handle, const Attributes& attributes,
                          CheckTicket ticket, Done<LookupOutcome> done) {
  context_->known_names.note(directory->handle(), name, handle);
  const InodeRef inode = context_->inodes.find_or_make(handle, attributes, ticket);
  context_->apply(*inode, attributes, ticket);
  done(LookupOutcome{inode, directory->attributes().fresh_for});
}

std::chrono::milliseconds Share::negative_fresh_for(const Inode& directory) const {
  return directory.attributes().fresh_for;
}

void Share::getattr(const InodeRef& inode, const Caller& caller, Done<FreshAttributes> done) {
  const FreshAttributes known = inode->attributes();
  if (known.fresh_for.count() > 0) {
    done(known);
    return;
  }
  const std::shared_ptr<File> file = inode->file();
  if (file == nullptr || !file->is_behind()) {
    getattr_at_server(inode, caller, std::move(done));
    return;
  }
  // First the bytes: they bring the stamps.
  file->catch_up([this, inode, caller = unheard(caller),
                  done = interruptible(caller, std::move(done))]() mutable {
    getattr_at_server(inode, caller, std::move(done));
  });
}

void Share::getattr_at_server(const InodeRef& inode, const Caller& caller,
                              Done<FreshAttributes> done) {
  if (inode->server_fresh_for().count() > 0) {
    done(inode->attributes());
    return;
  }
  context_->refresh(inode, caller,
                    [inode, done = std::move(done)](const Result<Attributes>& attributes) mutable {
                      if (!attributes) {
                        done(fail(attributes.error()));
                        return;
                      }
                      done(inode->attributes_after(*attributes));
                    });
}

void Share::readlink(const InodeRef& inode, const Caller& asking, Done<std::string> done) {
  const Caller caller = caller_for(*inode, asking);
  const CheckTicket ticket = context_->inodes.begin_check();
  CallWait wait(caller, adapter_);
  wait.on(adapter_.start_readlink(
      inode->handle(), caller.credential,
      [this, inode, ticket, done = std::move(done)](Result<ReadlinkReply> reply) mutable {
        if (!reply) {
          done(fail(reply.error()));
          return;
        }
        if (reply->attributes) {
          context_->apply(*inode, *reply->attributes, ticket);
        }
        done(std::move(reply->target));
      }));
}

void Share::statfs(const Caller& caller, Done<StatfsReply> done) {
  CallWait wait(caller, adapter_);
  wait.on(adapter_.start_statfs(root_->handle(), caller.credential, std::move(done)));
}

void Share::open_directory(const InodeRef& inode, const Caller& asking,
                           Done<std::shared_ptr<DirectoryStream>> done) {
  const Caller caller = caller_for(*inode, asking);
  check_access(inode, {kAccessRead, 0}, caller, !options_.no_close_to_open,
               [this, inode, done = std::move(done)](Result<> result) mutable {
                 if (!result) {
                   done(fail(result.error()));
                   return;
                 }
                 done(std::make_shared<DirectoryStream>(context_, inode));
               });
}

// Asks whether the caller has what is needed, and for news of the inode in the same call.
void Share::check_access(const InodeRef& inode, NeededAccess needed, const Caller& caller,
                         bool revalidate, std::move_only_function<void(Result<>)> done) {
  if (!revalidate && inode->attributes().fresh_for.count() > 0) {
    const auto granted = access_cache_.find(inode->handle(), *caller.credential);
    if (granted && needed.granted_by(*granted)) {
      done({});
      return;
    }
  }
  // Every bit that an open can want: the answer serves the next opens too.
  constexpr std::uint32_t kAsked =
      kAccessRead | kAccessLookup | kAccessExecute | kAccessModify | kAccessExtend;
  const CheckTicket ticket = context_->inodes.begin_check();
  CallWait wait(caller, adapter_);
  wait.on(adapter_.start_access(inode->handle(), kAsked, caller.credential,
                                [this, inode, needed, caller, ticket,
                                 done = std::move(done)](Result<AccessReply> reply) mutable {
                                  on_access_reply(inode, needed, caller, ticket, std::move(reply),
                                                  std::move(done));
                                }));
}

void Share::on_access_reply(const InodeRef& inode, NeededAccess needed, const Caller& caller,
                            CheckTicket ticket, Result<AccessReply> reply,
                            std::move_only_function<void(Result<>)> done) {
  if (!reply) {
    done(fail(reply.error()));
    return;
  }
  access_cache_.store(inode->handle(), *caller.credential, reply->granted);
  if (!needed.granted_by(reply->granted)) {
    done(fail(Errc::kRemote, EACCES, "the server does not allow it"));
    return;
  }
  if (const std::optional<Attributes>& attributes = reply->attributes; attributes) {
    context_->apply(*inode, *attributes, ticket);
    done({});
    return;
  }
  context_->refresh(inode, caller,
                    [done = std::move(done)](const Result<Attributes>& attributes) mutable {
                      done(attributes ? Result<>() : fail(attributes.error()));
                    });
}

Share::NeededAccess Share::needed_for(const OpenIntent& intent) {
  NeededAccess needed;
  if (intent.read) {
    // Whoever may execute a program reads it; the server lets him (RFC 1813, ACCESS).
    needed.one_of = intent.execute ? kAccessRead | kAccessExecute : kAccessRead;
  }
  if (intent.write || intent.truncate) {
    needed.and_one_of = kAccessModify | kAccessExtend;
  }
  return needed;
}

void Share::open(const InodeRef& inode, OpenIntent intent, const Caller& asking,
                 Done<OpenFile> done) {
  const Caller caller = caller_for(*inode, asking);
  check_access(inode, needed_for(intent), caller, !options_.no_close_to_open,
               [this, inode, intent, caller, done = std::move(done)](Result<> result) mutable {
                 if (!result) {
                   done(fail(result.error()));
                   return;
                 }
                 if (!inode->is_unsure()) {
                   finish_open(inode, intent, caller, std::move(done));
                   return;
                 }
                 // The answer crossed a change of ours.
                 context_->refresh(inode, caller,
                                   [this, inode, intent, caller, done = std::move(done)](
                                       const Result<Attributes>& attributes) mutable {
                                     if (!attributes) {
                                       done(fail(attributes.error()));
                                     } else {
                                       finish_open(inode, intent, caller, std::move(done));
                                     }
                                   });
               });
}

std::shared_ptr<File> Share::file_of(const InodeRef& inode) {
  const std::shared_ptr<File> file = inode->file();
  return file != nullptr ? file : inode->set_file(std::make_shared<File>(context_, inode));
}

void Share::finish_open(const InodeRef& inode, const OpenIntent& intent, const Caller& caller,
                        Done<OpenFile> done) {
  if (inode->attributes().attributes.link_count == 0 && !inode->is_hidden()) {
    done(fail(Errc::kStale, "the file was removed on the server"));
    return;
  }
  std::shared_ptr<File> file = file_of(inode);
  FileOpenRef opened = file->open(intent.write);
  if (!intent.truncate) {
    const VersionRef version = file->version_at_open();
    done(OpenFile{std::move(file), version, caller.credential, std::move(opened)});
    return;
  }
  AttributeChanges changes;
  changes.size = 0;
  const auto answer = Answer<OpenFile>::for_scope(caller.scope, std::move(done));
  set_size(file, changes, caller.credential,
           [file, credential = caller.credential, opened = std::move(opened),
            answer](const Result<>& truncated) mutable {
             if (!truncated) {
               answer->give(fail(truncated.error()));
               return;
             }
             answer->give(OpenFile{file, file->version_at_open(), credential, std::move(opened)});
           });
}

void Share::prepare(const OpenFile& open, const Caller& caller, Done<VersionRef> done) {
  // The download of a small file is shared by all who wait for it: an interrupt ends the wait of
  // this caller only.
  const auto answer = Answer<VersionRef>::for_scope(caller.scope, std::move(done));
  const Caller uncancelled{caller.credential, nullptr};
  open.file->start_prepare(open.version, uncancelled,
                           [file = open.file, answer](Result<VersionRef> prepared) {
                             if (!prepared && prepared.error().code() == Errc::kChanged) {
                               // Reads will find the newer version by themselves.
                               answer->give(file->version());
                               return;
                             }
                             answer->give(std::move(prepared));
                           });
}

void Share::read(const OpenFile& open, ByteRange range, const std::shared_ptr<CallScope>& scope,
                 Done<ReadOutcome> done) {
  ReadRequest::start(open.file, context_, Caller{open.credential, scope}, range, std::move(done));
}

void Share::closed(const std::shared_ptr<File>& file) {
  file->on_last_close();
  recent_->add(file);
}

void Share::flush(const InodeRef& inode, std::move_only_function<void(Result<>)> done) {
  if (inode->type() != FileType::kRegular) {
    done({});
    return;
  }
  context_->volume_of(inode->attributes().attributes.fsid)
      ->discard(std::string(text_of(inode->handle().bytes())),
                [context = context_, inode, done = std::move(done)](Result<> result) mutable {
                  if (const std::shared_ptr<File> file = inode->file()) {
                    file->begin_anew();
                  }
                  context->tell_changed(*inode);  // its pages are as good as what was discarded
                  done(std::move(result));
                });
}

ShareStatistics Share::statistics() const {
  ShareStatistics statistics;
  statistics.known_inodes = context_->inodes.size();
  statistics.files_behind = context_->files_behind.load();
  statistics.unsafe_bytes = context_->unsafe_bytes.load();
  statistics.hidden_names = context_->hidden_names.size();
  statistics.held_bytes = context_->held_bytes.load();
#define NETFS_COUNTER(name, text) statistics.name = context_->counters.name.value();
#include "netfs/stats.def"
#undef NETFS_COUNTER
  return statistics;
}

void Share::shut_down() {
  locks_.shut_down();
  adapter_.shut_down();
  recent_->close();
}

}  // namespace larder::netfs
