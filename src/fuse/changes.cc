// Changes of names and attributes: CREATE, MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME,
// SETATTR.
#include "netfs/changes.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "fuse/entry_name.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/share.h"

namespace larder::fuse {

namespace {

constexpr std::uint32_t kPermissionBits = 07777;
constexpr std::uint32_t kNanosecondsOfASecond = 1'000'000'000;

std::optional<netfs::FileType> type_of(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFCHR:
      return netfs::FileType::kCharacterDevice;
    case S_IFBLK:
      return netfs::FileType::kBlockDevice;
    case S_IFIFO:
      return netfs::FileType::kFifo;
    case S_IFSOCK:
      return netfs::FileType::kSocket;
    default:
      return std::nullopt;
  }
}

netfs::StampChange stamp_of(bool now, std::uint64_t seconds, std::uint32_t nanoseconds) {
  if (now) {
    return netfs::ServerNow{};
  }
  return netfs::Timestamp{static_cast<std::int64_t>(seconds), nanoseconds};
}

// Nothing: a time that is none.
std::optional<netfs::AttributeChanges> changes_of(const fuse_setattr_in& in) {
  const auto has = [&in](std::uint32_t bit) { return (in.valid & bit) != 0; };
  netfs::AttributeChanges changes;
  if (has(FATTR_MODE)) {
    changes.mode = in.mode & kPermissionBits;
  }
  if (has(FATTR_UID)) {
    changes.uid = in.uid;
  }
  if (has(FATTR_GID)) {
    changes.gid = in.gid;
  }
  if (has(FATTR_SIZE)) {
    changes.size = in.size;
  }
  if (has(FATTR_ATIME)) {
    changes.accessed = stamp_of(has(FATTR_ATIME_NOW), in.atime, in.atimensec);
  }
  if (has(FATTR_MTIME)) {
    changes.modified = stamp_of(has(FATTR_MTIME_NOW), in.mtime, in.mtimensec);
  }
  const bool sound = std::max(changes.accessed ? in.atimensec : 0,
                              changes.modified ? in.mtimensec : 0) < kNanosecondsOfASecond;
  return sound ? std::optional(changes) : std::nullopt;
}

bool is_empty(const netfs::AttributeChanges& changes) {
  return !changes.mode && !changes.uid && !changes.gid && !changes.size && !changes.accessed &&
         !changes.modified;
}

// The mode without suid, and without sgid where it means a program; nothing: it has neither.
std::optional<std::uint32_t> unprivileged(const netfs::Attributes& attributes) {
  if (attributes.type != netfs::FileType::kRegular) {
    return std::nullopt;
  }
  std::uint32_t mode = attributes.mode & ~std::uint32_t{S_ISUID};
  if ((mode & S_IXGRP) != 0) {
    mode &= ~std::uint32_t{S_ISGID};
  }
  return mode == attributes.mode ? std::nullopt : std::optional(mode);
}

}  // namespace

netfs::Done<netfs::LookupOutcome> Filesystem::entry_replier(const RequestRef& request) {
  return [this, request](Result<netfs::LookupOutcome> outcome) {
    if (outcome) {
      reply_entry(*request, *outcome);
    } else {
      request->reply_error(outcome.error());
    }
  };
}

// The directory of a change, and the first name behind `skip` bytes; answered if they are no good.
netfs::InodeRef Filesystem::directory_of(const RequestRef& request, std::size_t skip) const {
  netfs::InodeRef directory = inode_of(*request);
  int refused = name_error(request->name(skip));
  if (request->body().size() < skip) {
    refused = EINVAL;
  } else if (directory == nullptr) {
    refused = ESTALE;
  }
  if (refused != 0) {
    request->reply_error(refused);
    return nullptr;
  }
  return directory;
}

void Filesystem::create(const RequestRef& request) {
  const netfs::InodeRef directory = directory_of(request, sizeof(fuse_create_in));
  if (directory == nullptr) {
    return;
  }
  const auto& in = *request->argument<fuse_create_in>();
  const netfs::CreateIntent intent{.mode = in.mode & kPermissionBits,
                                   .exclusive = (in.flags & O_EXCL) != 0,
                                   .open = open_intent_of(in.flags)};
  const netfs::Caller caller = caller_of(*request);
  share_.create(directory, request->name(sizeof in), intent, caller,
                [this, request, caller](Result<netfs::Created> created) {
                  if (created) {
                    open_created(request, caller, std::move(*created));
                  } else {
                    request->reply_error(created.error());
                  }
                });
}

void Filesystem::open_created(const RequestRef& request, const netfs::Caller& caller,
                              netfs::Created created) {
  const Result<NodeId> node = nodes_.reference(mount_id_, created.entry.inode);
  if (!node) {
    request->reply_error(node.error());
    return;
  }
  if (request->journal() != nullptr) {
    request->journal()->note_node(*node);
  }
  const netfs::InodeRef inode = created.entry.inode;
  const auto& in = *request->argument<fuse_create_in>();
  const bool cut = created.truncated && (in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
  start_open(std::make_shared<Opening>(Opening{request, *node, inode, std::move(created.open),
                                               caller, std::move(created.entry)}),
             cut);
}

void Filesystem::mknod(const RequestRef& request) {
  const netfs::InodeRef directory = directory_of(request, sizeof(fuse_mknod_in));
  if (directory == nullptr) {
    return;
  }
  const auto& in = *request->argument<fuse_mknod_in>();
  const std::string_view name = request->name(sizeof in);
  const std::uint32_t type_bits = in.mode & S_IFMT;
  if (type_bits == S_IFREG || type_bits == 0) {
    make_regular(request, directory, in.mode & kPermissionBits);
    return;
  }
  const std::optional<netfs::FileType> type = type_of(in.mode);
  if (!type) {
    request->reply_error(EINVAL);
    return;
  }
  netfs::MakeOrder order{.type = *type,
                         .attributes = {},
                         .device_major = ::major(in.rdev),
                         .device_minor = ::minor(in.rdev)};
  order.attributes.mode = in.mode & kPermissionBits;
  share_.make(directory, name, order, caller_of(*request), entry_replier(request));
}

// Created, and closed again at once.
void Filesystem::make_regular(const RequestRef& request, const netfs::InodeRef& directory,
                              std::uint32_t mode) {
  netfs::CreateIntent intent{.mode = mode, .exclusive = true, .open = {}};
  intent.open.read = false;
  share_.create(directory, request->name(sizeof(fuse_mknod_in)), intent, caller_of(*request),
                [this, request](Result<netfs::Created> created) {
                  if (created) {
                    const std::shared_ptr<netfs::File> file = created->open.file;
                    created->open = {};
                    share_.closed(file);
                    reply_entry(*request, created->entry);
                  } else {
                    request->reply_error(created.error());
                  }
                });
}

void Filesystem::mkdir(const RequestRef& request) {
  const netfs::InodeRef directory = directory_of(request, sizeof(fuse_mkdir_in));
  if (directory == nullptr) {
    return;
  }
  const auto& in = *request->argument<fuse_mkdir_in>();
  netfs::MakeOrder order{.type = netfs::FileType::kDirectory, .attributes = {}};
  order.attributes.mode = in.mode & kPermissionBits;
  share_.make(directory, request->name(sizeof in), order, caller_of(*request),
              entry_replier(request));
}

void Filesystem::symlink(const RequestRef& request) {
  const netfs::InodeRef directory = directory_of(request, 0);
  if (directory == nullptr) {
    return;
  }
  const std::string_view name = request->name();
  const std::string_view target = request->name(name.size() + 1);
  if (target.empty() || target.size() > kMostTargetBytes) {
    request->reply_error(target.empty() ? EINVAL : ENAMETOOLONG);
    return;
  }
  share_.symlink(directory, name, target, caller_of(*request), entry_replier(request));
}

void Filesystem::link(const RequestRef& request) {
  const netfs::InodeRef directory = directory_of(request, sizeof(fuse_link_in));
  if (directory == nullptr) {
    return;
  }
  const auto& in = *request->argument<fuse_link_in>();
  const netfs::InodeRef inode = inode_of(in.oldnodeid);
  if (inode == nullptr) {
    request->reply_error(ESTALE);
    return;
  }
  share_.link(inode, directory, request->name(sizeof in), caller_of(*request),
              entry_replier(request));
}

void Filesystem::unlink(const RequestRef& request) {
  if (const netfs::InodeRef directory = directory_of(request, 0)) {
    share_.remove(directory, request->name(), caller_of(*request), empty_replier(request));
  }
}

void Filesystem::rmdir(const RequestRef& request) {
  if (const netfs::InodeRef directory = directory_of(request, 0)) {
    share_.remove_directory(directory, request->name(), caller_of(*request),
                            empty_replier(request));
  }
}

netfs::Done<void> Filesystem::empty_replier(const RequestRef& request) {
  return [request](const Result<>& result) {
    if (result) {
      request->reply_empty();
    } else {
      request->reply_error(result.error());
    }
  };
}

void Filesystem::rename(const RequestRef& request) {
  const auto* const in = request->argument<fuse_rename_in>();
  rename_to(request, in == nullptr ? 0 : in->newdir, sizeof(fuse_rename_in));
}

void Filesystem::rename2(const RequestRef& request) {
  const auto* const in = request->argument<fuse_rename2_in>();
  if (in != nullptr && in->flags != 0) {
    request->reply_error(EINVAL);  // a server has no such call, and to look first would be a race
    return;
  }
  rename_to(request, in == nullptr ? 0 : in->newdir, sizeof(fuse_rename2_in));
}

void Filesystem::rename_to(const RequestRef& request, std::uint64_t to_node, std::size_t names_at) {
  const netfs::InodeRef from_directory = directory_of(request, names_at);
  if (from_directory == nullptr) {
    return;
  }
  const netfs::InodeRef to_directory = inode_of(to_node);
  const std::string_view from = request->name(names_at);
  const std::string_view to = request->name(names_at + from.size() + 1);
  const int refused = to_directory == nullptr ? ESTALE : name_error(to);
  if (refused != 0) {
    request->reply_error(refused);
    return;
  }
  share_.rename(from_directory, from, to_directory, to, caller_of(*request),
                empty_replier(request));
}

void Filesystem::setattr(const RequestRef& request) {
  const auto* const in = request->argument<fuse_setattr_in>();
  const netfs::InodeRef inode = inode_of(*request);
  if (in == nullptr || inode == nullptr) {
    request->reply_error(in == nullptr ? EINVAL : ESTALE);
    return;
  }
  const std::optional<netfs::AttributeChanges> changes = changes_of(*in);
  if (!changes) {
    request->reply_error(EINVAL);
    return;
  }
  if (is_empty(*changes)) {
    getattr(request);
    return;
  }
  HandleRef open;
  if ((in->valid & FATTR_FH) != 0) {
    open = handle(*request, in->fh);
    if (open == nullptr || open->open.file == nullptr) {
      request->reply_error(EBADF);
      return;
    }
  }
  if (changes->size && is_held(request->nodeid())) {
    // Who has the node open may be left with his version. The kernel looks the name up again; by a
    // descriptor, of which there is none that can write, it would be refused.
    nodes_.retire(request->nodeid());
    request->reply_error(ESTALE);
    return;
  }
  start_setattr(request, inode, *changes, open);
}

void Filesystem::start_setattr(const RequestRef& request, const netfs::InodeRef& inode,
                               const netfs::AttributeChanges& changes, const HandleRef& open) {
  const bool kill =
      (request->argument<fuse_setattr_in>()->valid & FATTR_KILL_SUIDGID) != 0 && !changes.mode;
  const netfs::Caller caller = caller_of(*request);
  share_.set_attributes(
      inode, changes, open == nullptr ? nullptr : &open->open, caller,
      [this, request, inode, open, caller, kill](Result<netfs::FreshAttributes> fresh) {
        if (!fresh) {
          request->reply_error(fresh.error());
        } else if (!kill) {
          reply_attributes(*request, *fresh);
        } else {
          clear_privileges(
              inode, open == nullptr ? nullptr : &open->open, caller,
              [this, request, inode] { reply_attributes(*request, inode->attributes()); });
        }
      });
}

// Some servers take them off by themselves when somebody cuts a file. Of the others, only the owner
// may do it.
void Filesystem::clear_privileges(const netfs::InodeRef& inode, const netfs::OpenFile* open,
                                  const netfs::Caller& caller,
                                  std::move_only_function<void()> done) {
  const std::optional<std::uint32_t> mode = unprivileged(inode->attributes().attributes);
  if (!mode) {
    done();
    return;
  }
  netfs::AttributeChanges changes;
  changes.mode = mode;
  share_.set_attributes(
      inode, changes, open, caller,
      [done = std::move(done)](const Result<netfs::FreshAttributes>& cleared) mutable {
        if (!cleared) {
          log_warning("a file that was cut off keeps its suid or sgid bit: {}",
                      cleared.error().message());
        }
        done();
      });
}

}  // namespace larder::fuse
