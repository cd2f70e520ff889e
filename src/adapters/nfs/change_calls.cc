#include "adapters/nfs/change_calls.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/nfs/change_procedures.h"
#include "adapters/nfs/nfs_types.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_call.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::nfs {

namespace {

using netfs::Change;
using netfs::CreateReply;
using netfs::Done;
using netfs::FileHandle;
using netfs::FileType;
using netfs::LinkReply;
using netfs::LookupReply;
using netfs::RenameReply;

// How often more, and how much later each time, we look at a name that is not as it should be.
constexpr unsigned kMostMoreLooks = 3;
constexpr std::chrono::milliseconds kPauseBeforeLook{20};

Duration pause_before(unsigned looks) {
  return looks == 0 ? Duration::zero() : kPauseBeforeLook * (1U << (looks - 1));
}

bool too_long(std::string_view name) {
  return name.size() > kMostNameBytes;
}

Error name_too_long() {
  return {Errc::kRemote, ENAMETOOLONG, "a name is too long for NFS"};
}

// What an operation ends with when its confirmation failed: whoever cancelled it, or has a
// deadline, is told so; for the others the doubt remains with the server's first word.
const Error& verdict(const Error& error, const Error& of_confirmation) {
  const Errc code = of_confirmation.code();
  return code == Errc::kCancelled || code == Errc::kTimedOut ? of_confirmation : error;
}

// A directory after a change that we did not see happen.
Change seen_after(const LookupReply& found) {
  return {std::nullopt, found.directory_attributes};
}

}  // namespace

template <class T>
void ChangeCalls::start(Caller caller, Procedure procedure, std::vector<std::byte> arguments,
                        Decode<T> decode, Done<T> done) {
  RpcRequest request;
  request.procedure = std::to_underlying(procedure);
  request.credential = std::move(caller.credential);
  request.arguments = std::move(arguments);
  request.done = [decode, done = std::move(done)](Result<RpcReply> reply) mutable {
    done(reply ? decode(reply->results) : fail(std::move(reply).error()));
  };
  carrier_.submit(caller.id, std::move(request));
}

template <class T>
void ChangeCalls::start_once_only(Caller caller, OnceOnly<T> call, Done<T> done) {
  const auto operation = std::make_shared<Operation<T>>(std::move(caller), std::move(done));
  {
    const MutexLock lock(mutex_);
    operations_.emplace(operation->caller.id, operation);
  }
  send(operation, call.procedure, std::move(call.arguments),
       [this, operation, decode = call.decode, echo = call.echo,
        confirm = std::move(call.confirm)](Result<RpcReply> reply) mutable {
         const bool repeated = reply && (reply->repeated || operation->caller.may_be_done);
         Result<T> result = reply ? decode(reply->results) : fail(std::move(reply).error());
         if (repeated && !result && result.error().error_number() == echo) {
           confirm(operation, std::move(result).error());
         } else {
           end(operation, std::move(result));
         }
       });
}

template <class T>
void ChangeCalls::end(const OperationRef<T>& operation, Result<T> result) {
  {
    const MutexLock lock(mutex_);
    operations_.erase(operation->caller.id);
  }
  operation->done(std::move(result));
}

void ChangeCalls::send(const OperationBaseRef& operation, Procedure procedure,
                       std::vector<std::byte> arguments, Done<RpcReply> done, Duration pause) {
  const netfs::CallId id = operation->caller.id;
  RpcRequest request;
  request.procedure = std::to_underlying(procedure);
  request.credential = operation->caller.credential;
  request.arguments = std::move(arguments);
  request.pause = pause;
  request.done = std::move(done);
  carrier_.submit(id, std::move(request));
  // A cancel() that came between two calls found none to end.
  if (operation->cancelled) {
    carrier_.give_up(id);
  }
}

void ChangeCalls::cancel(netfs::CallId id) {
  const MutexLock lock(mutex_);
  const auto found = operations_.find(id);
  if (found != operations_.end()) {
    found->second->cancelled = true;
  }
}

void ChangeCalls::look_up(const OperationBaseRef& operation, const FileHandle& directory,
                          std::string_view name, Duration pause, Done<LookupReply> done) {
  send(
      operation, Procedure::kLookup, encode_lookup(directory, name),
      [done = std::move(done)](Result<RpcReply> reply) mutable {
        done(reply ? decode_lookup(reply->results) : fail(std::move(reply).error()));
      },
      pause);
}

void ChangeCalls::look_for(const OperationBaseRef& operation, const FileHandle& directory,
                           std::string_view name, Done<LookupReply> done, unsigned looks) {
  look_up(operation, directory, name, pause_before(looks),
          [this, operation, directory, name = std::string(name), looks,
           done = std::move(done)](Result<LookupReply> found) mutable {
            if (!found && found.error().code() == Errc::kNotFound && looks < kMostMoreLooks) {
              look_for(operation, directory, name, std::move(done), looks + 1);
            } else {
              done(std::move(found));
            }
          });
}

void ChangeCalls::examine(const OperationBaseRef& operation, const FileHandle& directory,
                          std::string_view name, Done<LookupReply> done) {
  look_for(operation, directory, name,
           [this, operation, done = std::move(done)](Result<LookupReply> found) mutable {
             if (!found || found->attributes) {
               done(std::move(found));
               return;
             }
             send(operation, Procedure::kGetattr, encode_handle(found->handle),
                  [found = *found, done = std::move(done)](Result<RpcReply> reply) mutable {
                    Result<netfs::Attributes> attributes =
                        reply ? decode_getattr(reply->results) : fail(std::move(reply).error());
                    if (!attributes) {
                      done(fail(std::move(attributes).error()));
                      return;
                    }
                    found.attributes = *attributes;
                    done(found);
                  });
           });
}

void ChangeCalls::setattr(Caller caller, const FileHandle& handle,
                          const netfs::AttributeChanges& changes, Done<Change> done) {
  start<Change>(
      std::move(caller), Procedure::kSetattr, encode_setattr(handle, changes),
      [](Bytes results) { return decode_change(results, "SETATTR"); }, std::move(done));
}

void ChangeCalls::create(Caller caller, const FileHandle& directory, std::string_view name,
                         const netfs::CreateOrder& order, Done<CreateReply> done) {
  if (too_long(name)) {
    done(fail(name_too_long()));
    return;
  }
  std::vector<std::byte> arguments = encode_create(directory, name, order);
  Made made{.directory = directory, .name = std::string(name), .type = FileType::kRegular};
  switch (order.mode) {
    case netfs::CreateMode::kGuarded:
      start_making(std::move(caller), Procedure::kCreate, std::move(arguments), std::move(made),
                   EEXIST, std::move(done));
      break;
    case netfs::CreateMode::kUnchecked:
      made.owner = caller.credential->uid;
      made.mode = order.attributes.mode;
      start_making(std::move(caller), Procedure::kCreate, std::move(arguments), std::move(made),
                   EACCES, std::move(done));
      break;
    case netfs::CreateMode::kExclusive:
      start<CreateReply>(
          std::move(caller), Procedure::kCreate, std::move(arguments),
          [](Bytes results) { return decode_create(results, "CREATE"); }, std::move(done));
      break;
  }
}

void ChangeCalls::make(Caller caller, const FileHandle& directory, std::string_view name,
                       const netfs::MakeOrder& order, Done<CreateReply> done) {
  if (order.type == FileType::kRegular || order.type == FileType::kSymlink) {
    done(fail(Errc::kInvalid, "files and symlinks have calls of their own"));
    return;
  }
  if (too_long(name)) {
    done(fail(name_too_long()));
    return;
  }
  const bool directory_wanted = order.type == FileType::kDirectory;
  start_making(std::move(caller), directory_wanted ? Procedure::kMkdir : Procedure::kMknod,
               directory_wanted ? encode_mkdir(directory, name, order.attributes)
                                : encode_mknod(directory, name, order),
               {.directory = directory, .name = std::string(name), .type = order.type}, EEXIST,
               std::move(done));
}

void ChangeCalls::symlink(Caller caller, const FileHandle& directory, std::string_view name,
                          std::string_view target, const netfs::AttributeChanges& attributes,
                          Done<CreateReply> done) {
  if (too_long(name) || target.size() > kMostTargetBytes) {
    done(fail(name_too_long()));
    return;
  }
  start_making(std::move(caller), Procedure::kSymlink,
               encode_symlink(directory, name, target, attributes),
               {.directory = directory,
                .name = std::string(name),
                .type = FileType::kSymlink,
                .target = std::string(target)},
               EEXIST, std::move(done));
}

void ChangeCalls::start_making(Caller caller, Procedure procedure, std::vector<std::byte> arguments,
                               Made made, int echo, Done<CreateReply> done) {
  OnceOnly<CreateReply> call;
  call.procedure = procedure;
  call.arguments = std::move(arguments);
  call.decode = [](Bytes results) { return decode_create(results, "making something new"); };
  call.echo = echo;
  call.confirm = [this, made = std::move(made)](const OperationRef<CreateReply>& operation,
                                                Error error) mutable {
    confirm_made(operation, std::move(made), std::move(error));
  };
  start_once_only(std::move(caller), std::move(call), std::move(done));
}

bool ChangeCalls::is_as_made(const netfs::Attributes& found, const Made& made) {
  // Our file, which nobody has written to yet, is empty.
  return found.type == made.type && (made.type != FileType::kRegular || found.size == 0) &&
         found.uid == made.owner.value_or(found.uid) &&
         found.mode == made.mode.value_or(found.mode);
}

void ChangeCalls::confirm_made(const OperationRef<CreateReply>& operation, Made made, Error error) {
  const FileHandle directory = made.directory;
  const std::string name = made.name;
  examine(operation, directory, name,
          [this, operation, made = std::move(made),
           error = std::move(error)](Result<LookupReply> found) mutable {
            if (!found) {
              end<CreateReply>(operation, fail(verdict(error, found.error())));
              return;
            }
            const bool fits = is_as_made(*found->attributes, made);
            const CreateReply reply{found->handle, found->attributes, seen_after(*found)};
            if (!fits) {
              end<CreateReply>(operation, fail(std::move(error)));
            } else if (made.type == FileType::kSymlink) {
              confirm_target(operation, made.target, reply, std::move(error));
            } else {
              end<CreateReply>(operation, reply);
            }
          });
}

void ChangeCalls::confirm_target(const OperationRef<CreateReply>& operation,
                                 const std::string& target, const CreateReply& found, Error error) {
  send(operation, Procedure::kReadlink, encode_handle(found.handle.value_or(FileHandle())),
       [this, operation, target, found, error = std::move(error)](Result<RpcReply> reply) mutable {
         const Result<netfs::ReadlinkReply> link =
             reply ? decode_readlink(reply->results) : fail(std::move(reply).error());
         if (link && link->target == target) {
           end<CreateReply>(operation, found);
         } else {
           end<CreateReply>(operation, fail(link ? error : verdict(error, link.error())));
         }
       });
}

void ChangeCalls::remove(Caller caller, Procedure procedure, const FileHandle& directory,
                         std::string_view name, Done<Change> done) {
  if (too_long(name)) {
    done(fail(name_too_long()));
    return;
  }
  OnceOnly<Change> call;
  call.procedure = procedure;
  call.arguments = encode_remove(directory, name);
  call.decode = procedure == Procedure::kRmdir
                    ? [](Bytes results) { return decode_change(results, "RMDIR"); }
                    : [](Bytes results) { return decode_change(results, "REMOVE"); };
  call.echo = ENOENT;
  // Whoever removed it, it was gone then; a name that is there now was made since. A look would not
  // tell more: it can meet what the server remembers of names while the first call still runs.
  call.confirm = [this](const OperationRef<Change>& operation, const Error&) {
    end<Change>(operation, Change{});
  };
  start_once_only(std::move(caller), std::move(call), std::move(done));
}

void ChangeCalls::rename(Caller caller, const FileHandle& from_directory, std::string_view from,
                         const FileHandle& to_directory, std::string_view to,
                         Done<RenameReply> done) {
  if (too_long(from) || too_long(to)) {
    done(fail(name_too_long()));
    return;
  }
  OnceOnly<RenameReply> call;
  call.procedure = Procedure::kRename;
  call.arguments = encode_rename(from_directory, from, to_directory, to);
  call.decode = &decode_rename;
  call.echo = ENOENT;
  call.confirm = [this, from_directory, from = std::string(from), to_directory,
                  to = std::string(to)](const OperationRef<RenameReply>& operation, Error error) {
    look_for(operation, to_directory, to,
             [this, operation, from_directory, from,
              error = std::move(error)](const Result<LookupReply>& target) mutable {
               if (target) {
                 confirm_left(operation, from_directory, from, *target, std::move(error));
               } else {
                 end<RenameReply>(operation, fail(verdict(error, target.error())));
               }
             });
  };
  start_once_only(std::move(caller), std::move(call), std::move(done));
}

void ChangeCalls::confirm_left(const OperationRef<RenameReply>& operation,
                               const FileHandle& directory, std::string_view name,
                               const LookupReply& target, Error error, unsigned looks) {
  look_up(operation, directory, name, pause_before(looks),
          [this, operation, directory, name = std::string(name), target, error = std::move(error),
           looks](const Result<LookupReply>& source) mutable {
            const bool left = !source && source.error().code() == Errc::kNotFound;
            // One file by both names: they were its links, and RENAME leaves them as they are; or
            // the server remembers the old one still.
            if (left || (source && source->handle == target.handle)) {
              end<RenameReply>(operation, RenameReply{{}, seen_after(target)});
            } else if (source && looks < kMostMoreLooks) {
              confirm_left(operation, directory, name, target, std::move(error), looks + 1);
            } else {
              end<RenameReply>(operation, fail(source ? error : verdict(error, source.error())));
            }
          });
}

void ChangeCalls::link(Caller caller, const FileHandle& file, const FileHandle& directory,
                       std::string_view name, Done<LinkReply> done) {
  if (too_long(name)) {
    done(fail(name_too_long()));
    return;
  }
  OnceOnly<LinkReply> call;
  call.procedure = Procedure::kLink;
  call.arguments = encode_link(file, directory, name);
  call.decode = &decode_link;
  call.echo = EEXIST;
  call.confirm = [this, file, directory, name = std::string(name)](
                     const OperationRef<LinkReply>& operation, Error error) {
    look_for(operation, directory, name,
             [this, operation, file,
              error = std::move(error)](const Result<LookupReply>& found) mutable {
               if (found && found->handle == file) {
                 end<LinkReply>(operation, LinkReply{found->attributes, seen_after(*found)});
               } else {
                 end<LinkReply>(operation, fail(found ? error : verdict(error, found.error())));
               }
             });
  };
  start_once_only(std::move(caller), std::move(call), std::move(done));
}

void ChangeCalls::write(Caller caller, const FileHandle& handle, const netfs::WriteOrder& order,
                        std::size_t write_size, Done<netfs::WriteReply> done) {
  static constexpr std::size_t kReplyBytes = 256;
  const Bytes body = order.source.first(std::min(order.source.size(), write_size));
  if (body.empty()) {
    done(fail(Errc::kInvalid, "WRITE of no bytes"));
    return;
  }
  RpcRequest request;
  request.procedure = std::to_underlying(Procedure::kWrite);
  request.credential = std::move(caller.credential);
  request.arguments =
      encode_write(handle, order.offset, order.stability, static_cast<std::uint32_t>(body.size()));
  request.body = body;
  request.call_class = CallClass::kRead;
  request.expected_bytes = body.size() + kReplyBytes;
  request.done = [sent = body.size(), done = std::move(done)](Result<RpcReply> reply) mutable {
    done(reply ? decode_write(reply->results, sent) : fail(std::move(reply).error()));
  };
  carrier_.submit(caller.id, std::move(request));
}

void ChangeCalls::commit(Caller caller, const FileHandle& handle, Done<netfs::CommitReply> done) {
  start<netfs::CommitReply>(std::move(caller), Procedure::kCommit, encode_commit(handle),
                            &decode_commit, std::move(done));
}

}  // namespace larder::nfs
