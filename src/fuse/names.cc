// Names and attributes: LOOKUP, GETATTR, READLINK, STATFS.
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/error.h"
#include "base/result.h"
#include "fuse/entry_name.h"
#include "fuse/filesystem.h"
#include "fuse/node_open.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "handover/records.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/share.h"

namespace larder::fuse {

namespace {

constexpr std::uint32_t kBlockSize = 512;            // the unit of st_blocks
constexpr std::uint32_t kPreferredIo = 1024 * 1024;  // st_blksize

struct Lifetime {
  std::uint64_t seconds;
  std::uint32_t nanoseconds;
};

Lifetime lifetime_of(std::chrono::milliseconds time) {
  return {static_cast<std::uint64_t>(time.count() / 1000),
          static_cast<std::uint32_t>(time.count() % 1000 * 1'000'000)};
}

std::uint32_t type_bits(netfs::FileType type) {
  switch (type) {
    case netfs::FileType::kRegular:
      return S_IFREG;
    case netfs::FileType::kDirectory:
      return S_IFDIR;
    case netfs::FileType::kBlockDevice:
      return S_IFBLK;
    case netfs::FileType::kCharacterDevice:
      return S_IFCHR;
    case netfs::FileType::kSymlink:
      return S_IFLNK;
    case netfs::FileType::kSocket:
      return S_IFSOCK;
    case netfs::FileType::kFifo:
      return S_IFIFO;
  }
  return S_IFREG;
}

}  // namespace

// Submounts of a share count their files anew: their numbers are moved out of the way of the
// root's.
std::uint64_t Filesystem::inode_number(std::uint64_t fsid, std::uint64_t fileid) const {
  const std::uint64_t root_fsid = share_.info().root_attributes.fsid;
  if (fsid == root_fsid) {
    return fileid;
  }
  constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15;  // odd: no two fsids give the same
  return fileid ^ ((fsid ^ root_fsid) * kMix);
}

fuse_attr Filesystem::attr_of(const netfs::Attributes& attributes) const {
  fuse_attr attr{};
  attr.ino = inode_number(attributes.fsid, attributes.fileid);
  attr.size = attributes.size;
  attr.blocks = (attributes.used + kBlockSize - 1) / kBlockSize;
  attr.atime = static_cast<std::uint64_t>(attributes.accessed.seconds);
  attr.mtime = static_cast<std::uint64_t>(attributes.modified.seconds);
  attr.ctime = static_cast<std::uint64_t>(attributes.changed.seconds);
  attr.atimensec = attributes.accessed.nanoseconds;
  attr.mtimensec = attributes.modified.nanoseconds;
  attr.ctimensec = attributes.changed.nanoseconds;
  attr.mode = type_bits(attributes.type) | (attributes.mode & 07777U);
  attr.nlink = attributes.link_count;
  attr.uid = attributes.uid;
  attr.gid = attributes.gid;
  attr.rdev =
      static_cast<std::uint32_t>(::makedev(attributes.device_major, attributes.device_minor));
  attr.blksize = kPreferredIo;
  return attr;
}

void Filesystem::lookup(const RequestRef& request) {
  const netfs::InodeRef directory = inode_of(*request);
  const std::string name(request->name());
  if (const int refused = directory == nullptr ? ESTALE : name_error(name); refused != 0) {
    request->reply_error(refused);
    return;
  }
  const netfs::Caller caller = caller_of(*request);
  share_.lookup(directory, name, caller,
                [this, request, directory](Result<netfs::LookupOutcome> outcome) {
                  if (outcome) {
                    reply_entry(*request, *outcome);
                  } else if (outcome.error().error_number() == ENOENT) {
                    reply_no_entry(*request, directory);
                  } else {
                    request->reply_error(outcome.error());
                  }
                });
}

fuse_entry_out Filesystem::entry_out_of(NodeId node, const netfs::LookupOutcome& outcome) const {
  const netfs::FreshAttributes fresh = outcome.inode->attributes();
  const Lifetime attributes_life = lifetime_of(fresh.fresh_for);
  const Lifetime name_life = lifetime_of(outcome.name_fresh_for);
  fuse_entry_out out{};
  out.nodeid = node;
  out.entry_valid = name_life.seconds;
  out.entry_valid_nsec = name_life.nanoseconds;
  out.attr_valid = attributes_life.seconds;
  out.attr_valid_nsec = attributes_life.nanoseconds;
  out.attr = attr_of(fresh.attributes);
  return out;
}

void Filesystem::reply_entry(Request& request, const netfs::LookupOutcome& outcome) {
  const Result<NodeId> node = nodes_.reference(mount_id_, outcome.inode);
  if (!node) {
    request.reply_error(node.error());
    return;
  }
  if (request.journal() != nullptr) {
    request.journal()->note_node(*node);
  }
  if (!request.reply(entry_out_of(*node, outcome))) {
    give_back(nodes_.forget(*node, 1));  // the kernel never saw this reference
  }
  ask_to_forget_some();
}

// Each node costs memory for as long as the kernel knows it, and of its own accord it forgets only
// when it is short of memory itself.
void Filesystem::ask_to_forget_some() {
  if (!prunes_) {
    return;
  }
  std::vector<NodeId> surplus = nodes_.take_surplus(mount_id_);
  std::erase(surplus, root_);  // the kernel knows it by another number
  if (!surplus.empty()) {
    session_->ask_to_forget(std::move(surplus));
  }
}

void Filesystem::reply_no_entry(Request& request, const netfs::InodeRef& directory) {
  const Lifetime life = lifetime_of(share_.negative_fresh_for(*directory));
  fuse_entry_out out{};  // node 0: there is no such name, and that may be remembered
  out.entry_valid = life.seconds;
  out.entry_valid_nsec = life.nanoseconds;
  request.reply(out);
}

void Filesystem::getattr(const RequestRef& request) {
  const netfs::InodeRef inode = inode_of(*request);
  if (inode == nullptr) {
    request->reply_error(ESTALE);
    return;
  }
  const netfs::Caller caller = caller_of(*request);
  share_.getattr(inode, caller, [this, request](Result<netfs::FreshAttributes> fresh) {
    if (fresh) {
      reply_attributes(*request, *fresh);
    } else {
      request->reply_error(fresh.error());
    }
  });
}

bool Filesystem::is_held(std::uint64_t nodeid) {
  bool held = false;
  if (nodeid != FUSE_ROOT_ID) {
    nodes_.with_node(nodeid, [&held](handover::NodeRecord&, NodeOpen& open) {
      held = open.mode == OpenMode::kPassthrough && open.handles > 0;
    });
  }
  return held;
}

// A node whose holders read a backing file shows what that holds.
void Filesystem::reply_attributes(Request& request, const netfs::FreshAttributes& fresh) {
  netfs::Attributes shown = fresh.attributes;
  if (request.nodeid() != FUSE_ROOT_ID) {
    nodes_.with_node(request.nodeid(), [&shown](handover::NodeRecord&, NodeOpen& open) {
      shown = open.handles == 0 || open.hold == nullptr ? shown : open.hold->shown(shown);
    });
  }
  const Lifetime life = lifetime_of(fresh.fresh_for);
  fuse_attr_out out{};
  out.attr_valid = life.seconds;
  out.attr_valid_nsec = life.nanoseconds;
  out.attr = attr_of(shown);
  request.reply(out);
}

void Filesystem::readlink(const RequestRef& request) {
  const netfs::InodeRef inode = inode_of(*request);
  if (inode == nullptr) {
    request->reply_error(ESTALE);
    return;
  }
  const netfs::Caller caller = caller_of(*request);
  share_.readlink(inode, caller, [request](Result<std::string> target) {
    if (!target) {
      request->reply_error(target.error());
      return;
    }
    if (target->size() > kMostTargetBytes) {
      request->reply_error(ENAMETOOLONG);
      return;
    }
    const iovec part{target->data(), target->size()};
    request->reply_parts({&part, 1});
  });
}

void Filesystem::statfs(const RequestRef& request) {
  const netfs::Caller caller = caller_of(*request);
  share_.statfs(caller, [request](const Result<netfs::StatfsReply>& reply) {
    if (!reply) {
      request->reply_error(reply.error());
      return;
    }
    constexpr std::uint64_t kUnit = 4096;
    fuse_statfs_out out{};
    out.st.bsize = kUnit;
    out.st.frsize = kUnit;
    out.st.blocks = reply->total_bytes / kUnit;
    out.st.bfree = reply->free_bytes / kUnit;
    out.st.bavail = reply->available_bytes / kUnit;
    out.st.files = reply->total_files;
    out.st.ffree = reply->free_files;
    out.st.namelen = kMostNameBytes;
    request->reply(out);
  });
}

}  // namespace larder::fuse
