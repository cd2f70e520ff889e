#include "adapters/localdir/local_changes.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <limits>
#include <optional>
#include <string>
#include <variant>

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "adapters/localdir/local_reads.h"
#include "adapters/localdir/local_tree.h"
#include "adapters/localdir/rights.h"
#include "base/bytes.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::localdir {

namespace {

using netfs::AttributeChanges;
using netfs::Attributes;
using netfs::BeforeChange;
using netfs::Change;
using netfs::CreateMode;
using netfs::CreateReply;
using netfs::Credential;
using netfs::FileHandle;
using netfs::FileType;
using netfs::Stability;

constexpr std::uint32_t kOwnerOnly = 0600;  // until a file has its owner
constexpr std::uint32_t kModeBits = 07777;

Result<> check(int why, const char* what) {
  if (why != 0) {
    return remote_failure(why, what);
  }
  return {};
}

Result<> check_call(int result, const char* what) {
  return check(result != 0 ? errno : 0, what);
}

std::string name_of_descriptor(const UniqueFd& descriptor) {
  return fmt::format("/proc/self/fd/{}", descriptor.get());
}

BeforeChange before(const Attributes& attributes) {
  return {attributes.size, attributes.modified, attributes.changed};
}

Change change_of(const OpenedFile& file) {
  Change change;
  change.before = before(file.found.attributes);
  if (const Result<FoundFile> after = examine(file.path)) {
    change.after = after->attributes;
  }
  return change;
}

timespec to_timespec(const std::optional<netfs::StampChange>& change) {
  timespec time{};
  if (!change) {
    time.tv_nsec = UTIME_OMIT;
  } else if (const auto* const stamp = std::get_if<netfs::Timestamp>(&*change)) {
    time.tv_sec = stamp->seconds;
    time.tv_nsec = static_cast<long>(stamp->nanoseconds);
  } else {
    time.tv_nsec = UTIME_NOW;
  }
  return time;
}

Result<> set_stamps(const UniqueFd& file, const AttributeChanges& changes) {
  if (!changes.accessed && !changes.modified) {
    return {};
  }
  const std::array<timespec, 2> times{to_timespec(changes.accessed), to_timespec(changes.modified)};
  return check_call(::utimensat(file.get(), "", times.data(), AT_EMPTY_PATH), "utimensat");
}

Result<> set_size(const UniqueFd& file, std::uint64_t size) {
  if (size > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
    return remote_failure(EFBIG, "truncate");
  }
  return check_call(::truncate(name_of_descriptor(file).c_str(), static_cast<off_t>(size)),
                    "truncate");
}

Result<> set_mode(const UniqueFd& file, std::uint32_t mode) {
  return check_call(::chmod(name_of_descriptor(file).c_str(), mode & kModeBits), "chmod");
}

// In this order: what is set later is not undone by what was set before.
Result<> carry_out(const UniqueFd& file, const AttributeChanges& changes) {
  if (changes.size) {
    TRY(set_size(file, *changes.size));
  }
  if (changes.uid || changes.gid) {
    static constexpr std::uint32_t kKeep = 0xffffffff;
    TRY(check_call(::fchownat(file.get(), "", changes.uid.value_or(kKeep),
                              changes.gid.value_or(kKeep), AT_EMPTY_PATH),
                   "chown"));
  }
  if (changes.mode) {
    TRY(set_mode(file, *changes.mode));
  }
  return set_stamps(file, changes);
}

// Who writes to a program must not thereby become its owner.
Result<> drop_privileges_of(const UniqueFd& file, const Attributes& attributes,
                            const Credential& credential) {
  std::uint32_t mode = attributes.mode & ~std::uint32_t{S_ISUID};
  if ((mode & S_IXGRP) != 0) {
    mode &= ~std::uint32_t{S_ISGID};
  }
  if (credential.uid == 0 || mode == attributes.mode || attributes.type != FileType::kRegular) {
    return {};
  }
  return set_mode(file, mode);
}

struct Parent {
  OpenedFile directory;
  std::uint32_t gid = 0;        // of what is made in it
  std::uint32_t mode_bits = 0;  // more for directories in it
};

// The directory that a new name goes into.
Result<Parent> open_parent(LocalTree& tree, const NamedPlace& place, const Credential& credential) {
  Parent parent;
  parent.directory = TRY(tree.find(place.directory));
  const Attributes& attributes = parent.directory.found.attributes;
  TRY(check(is_plain_name(place.name) ? 0 : EINVAL, "the name"));
  TRY(check(why_not_add(attributes, credential), "the directory"));
  const bool gives_group = (attributes.mode & S_ISGID) != 0;
  parent.gid = gives_group ? attributes.gid : credential.gid;
  parent.mode_bits = gives_group ? S_ISGID : 0;
  return parent;
}

// Gives what was just made to its owner. Nothing that others may have put under its name meanwhile
// may be given away: the caller has made sure that it is ours.
Result<> adopt(const UniqueFd& file, const Parent& parent, AttributeChanges attributes,
               const Credential& credential) {
  const FoundFile found = TRY(examine(file));
  const bool is_mine = found.attributes.uid == credential.uid && found.attributes.gid == parent.gid;
  const bool given =
      is_mine || ::fchownat(file.get(), "", credential.uid, parent.gid, AT_EMPTY_PATH) == 0;
  if (found.attributes.type == FileType::kDirectory) {
    attributes.mode = attributes.mode.value_or(0777) | parent.mode_bits;
  }
  if (!given && attributes.mode) {  // else others would run it with our rights
    *attributes.mode &= ~std::uint32_t{S_ISUID | S_ISGID};
  }
  if (attributes.mode && credential.uid != 0 && !is_member(credential, parent.gid) &&
      found.attributes.type != FileType::kDirectory) {
    *attributes.mode &= ~std::uint32_t{S_ISGID};
  }
  if (found.attributes.type == FileType::kSymlink) {
    attributes.mode.reset();  // it has none
  }
  attributes.uid.reset();
  attributes.gid.reset();
  return carry_out(file, attributes);
}

Result<CreateReply> reply_for(const UniqueFd& file, const Parent& parent) {
  const FoundFile found = TRY(examine(file));
  return CreateReply{found.handle, found.attributes, change_of(parent.directory)};
}

// Whether an answer is what a call is told that was carried out before.
template <class T>
bool is_echo(const Result<T>& result, int echo, const netfs::Asker& asker) {
  return asker.may_be_done && !result && result.error().error_number() == echo;
}

// What is there may have been made by us, for the caller. What has not become his, because we died
// before it could, is left to whoever owns it now: it may be somebody else's as well.
bool is_as_made(const Attributes& there, FileType type, const Credential& credential) {
  const bool is_ours = ::geteuid() != 0 && there.uid == ::geteuid();
  return there.type == type && (is_ours || there.uid == credential.uid);
}

// The answer to a call that found its name taken, by what it may have made itself.
Result<CreateReply> confirm_made(LocalTree& tree, const Parent& parent, const NamedPlace& place,
                                 FileType type, const Credential& credential) {
  const OpenedFile there = TRY(tree.look_up(parent.directory.path, place.directory, place.name));
  TRY(check(is_as_made(there.found.attributes, type, credential) ? 0 : EEXIST, "the name"));
  return CreateReply{there.found.handle, there.found.attributes, change_of(parent.directory)};
}

// What one of mkdir, mknod, symlink has made is found again by its name.
Result<CreateReply> finish_making(LocalTree& tree, const Parent& parent, const NamedPlace& place,
                                  FileType type, const AttributeChanges& attributes,
                                  const Credential& credential) {
  const OpenedFile made = TRY(tree.look_up(parent.directory.path, place.directory, place.name));
  const Attributes& found = made.found.attributes;
  if (found.type != type) {
    return remote_failure(EBUSY, "somebody else has taken the name");
  }
  const bool is_ours =
      found.uid == ::geteuid() && (type == FileType::kDirectory || found.link_count == 1);
  if (is_ours) {
    TRY(adopt(made.path, parent, attributes, credential));
  }
  return reply_for(made.path, parent);
}

// The half of a verifier that begins at `at`, as a stamp: some time of 1970 to 2038, which any
// filesystem can keep.
netfs::Timestamp stamp_of(const netfs::CreateVerifier& verifier, std::size_t at) {
  static constexpr std::uint32_t kMost = 0x7fffffff;
  return {load_be<std::uint32_t>(verifier.data() + at) & kMost, 0};
}

netfs::Timestamp accessed_of(const netfs::CreateVerifier& verifier) {
  return stamp_of(verifier, 0);
}

netfs::Timestamp modified_of(const netfs::CreateVerifier& verifier) {
  return stamp_of(verifier, sizeof(std::uint32_t));
}

bool is_repetition(const Attributes& there, const netfs::CreateVerifier& verifier) {
  return there.type == FileType::kRegular && there.size == 0 &&
         there.accessed == accessed_of(verifier) && there.modified == modified_of(verifier);
}

// A creation found its name taken.
Result<CreateReply> take_existing(LocalTree& tree, const Parent& parent, const NamedPlace& place,
                                  const netfs::CreateOrder& order, const Credential& credential) {
  const OpenedFile there = TRY(tree.look_up(parent.directory.path, place.directory, place.name));
  const Attributes& attributes = there.found.attributes;
  if (order.mode == CreateMode::kGuarded ||
      (order.mode == CreateMode::kExclusive && !is_repetition(attributes, order.verifier))) {
    return remote_failure(EEXIST, "create");
  }
  if (attributes.type != FileType::kRegular) {
    return remote_failure(attributes.type == FileType::kDirectory ? EISDIR : EEXIST, "create");
  }
  if (order.mode == CreateMode::kUnchecked && order.attributes.size) {
    TRY(check(why_not_write(attributes, credential), "create"));
    TRY(set_size(there.path, *order.attributes.size));
    TRY(drop_privileges_of(there.path, attributes, credential));
  }
  return reply_for(there.path, parent);
}

// Changes from one start of this machine to the next: it is its memory that forgets.
netfs::WriteVerifier verifier_of_boot() {
  netfs::WriteVerifier verifier{};
  const UniqueFd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  std::array<char, 16> text{};
  if (!file.valid() ||
      ::read(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    store_be(verifier.data(), static_cast<std::uint64_t>(::time(nullptr)));
    return verifier;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    verifier.at(i / 2) ^= static_cast<std::byte>(text.at(i)) << (i % 2 == 0 ? 0U : 3U);
  }
  return verifier;
}

const netfs::WriteVerifier& write_verifier() {
  static const netfs::WriteVerifier verifier = verifier_of_boot();
  return verifier;
}

Result<std::size_t> write_all(const UniqueFd& file, Bytes source, std::uint64_t offset) {
  std::size_t written = 0;
  while (written < source.size()) {
    const Bytes rest = source.subspan(written);
    const ssize_t length =
        ::pwrite(file.get(), rest.data(), rest.size(), static_cast<off_t>(offset + written));
    if (length < 0 && errno != EINTR) {
      if (written > 0) {
        break;  // what was written counts; whoever writes the rest is told
      }
      return remote_failure(errno, "write");
    }
    written += length > 0 ? static_cast<std::size_t>(length) : 0;
  }
  return written;
}

}  // namespace

Result<Change> set_attributes(LocalTree& tree, const FileHandle& handle,
                              const AttributeChanges& changes, const Credential& credential) {
  const OpenedFile file = TRY(tree.find(handle));
  const Attributes& attributes = file.found.attributes;
  TRY(check(why_not_change(attributes, changes, credential), "setattr"));
  AttributeChanges allowed = changes;
  const std::uint32_t gid = changes.gid.value_or(attributes.gid);
  if (allowed.mode && credential.uid != 0 && !is_member(credential, gid)) {
    *allowed.mode &= ~std::uint32_t{S_ISGID};
  }
  TRY(carry_out(file.path, allowed));
  if (changes.size && !changes.mode) {
    TRY(drop_privileges_of(file.path, attributes, credential));
  }
  return change_of(file);
}

Result<CreateReply> create_file(LocalTree& tree, const NamedPlace& place,
                                const netfs::CreateOrder& order, const netfs::Asker& asker) {
  const Credential& credential = *asker.credential;
  const Parent parent = TRY(open_parent(tree, place, credential));
  const UniqueFd file(::openat(parent.directory.path.get(), place.name.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kOwnerOnly));
  if (!file.valid()) {
    if (errno != EEXIST) {
      return remote_failure(errno, "create");
    }
    if (asker.may_be_done && order.mode == CreateMode::kGuarded) {
      return confirm_made(tree, parent, place, FileType::kRegular, credential);
    }
    return take_existing(tree, parent, place, order, credential);
  }
  AttributeChanges attributes = order.attributes;
  if (order.mode == CreateMode::kExclusive) {
    attributes = {};
    attributes.accessed = accessed_of(order.verifier);
    attributes.modified = modified_of(order.verifier);
  }
  TRY(adopt(file, parent, attributes, credential));
  const CreateReply reply = TRY(reply_for(file, parent));
  if (reply.handle) {
    tree.remember(*reply.handle, place.directory, place.name);
  }
  return reply;
}

namespace {

Result<> make_node(const Parent& parent, const char* name, const netfs::MakeOrder& order) {
  const int directory = parent.directory.path.get();
  const dev_t device = ::makedev(order.device_major, order.device_minor);
  switch (order.type) {
    case FileType::kDirectory:
      return check_call(::mkdirat(directory, name, 0700), "mkdir");
    case FileType::kBlockDevice:
      return check_call(::mknodat(directory, name, S_IFBLK | kOwnerOnly, device), "mknod");
    case FileType::kCharacterDevice:
      return check_call(::mknodat(directory, name, S_IFCHR | kOwnerOnly, device), "mknod");
    case FileType::kFifo:
      return check_call(::mknodat(directory, name, S_IFIFO | kOwnerOnly, 0), "mknod");
    case FileType::kSocket:
      return check_call(::mknodat(directory, name, S_IFSOCK | kOwnerOnly, 0), "mknod");
    case FileType::kRegular:
    case FileType::kSymlink:
      break;
  }
  return remote_failure(EINVAL, "files and symlinks have calls of their own");
}

}  // namespace

Result<CreateReply> make_special(LocalTree& tree, const NamedPlace& place,
                                 const netfs::MakeOrder& order, const netfs::Asker& asker) {
  const Credential& credential = *asker.credential;
  const Parent parent = TRY(open_parent(tree, place, credential));
  const bool is_device =
      order.type == FileType::kBlockDevice || order.type == FileType::kCharacterDevice;
  TRY(check(is_device && credential.uid != 0 ? EPERM : 0, "mknod"));
  const Result<> made = make_node(parent, place.name.c_str(), order);
  if (is_echo(made, EEXIST, asker)) {
    return confirm_made(tree, parent, place, order.type, credential);
  }
  if (!made) {
    return fail(made.error());
  }
  return finish_making(tree, parent, place, order.type, order.attributes, credential);
}

Result<CreateReply> make_symlink(LocalTree& tree, const NamedPlace& place,
                                 const std::string& target, const netfs::Asker& asker) {
  const Credential& credential = *asker.credential;
  const Parent parent = TRY(open_parent(tree, place, credential));
  TRY(check(target.find('\0') == std::string::npos ? 0 : EINVAL, "symlink"));
  const Result<> made = check_call(
      ::symlinkat(target.c_str(), parent.directory.path.get(), place.name.c_str()), "symlink");
  if (is_echo(made, EEXIST, asker)) {
    const CreateReply there =
        TRY(confirm_made(tree, parent, place, FileType::kSymlink, credential));
    const netfs::ReadlinkReply link =
        TRY(read_link(tree, there.handle.value_or(netfs::FileHandle())));
    TRY(check(link.target == target ? 0 : EEXIST, "symlink"));
    return there;
  }
  if (!made) {
    return fail(made.error());
  }
  return finish_making(tree, parent, place, FileType::kSymlink, {}, credential);
}

Result<Change> remove_name(LocalTree& tree, const NamedPlace& place, bool is_directory,
                           const netfs::Asker& asker) {
  const Credential& credential = *asker.credential;
  const Parent parent = TRY(open_parent(tree, place, credential));
  const auto file = tree.look_up(parent.directory.path, place.directory, place.name);
  if (is_echo(file, ENOENT, asker)) {
    return Change{};
  }
  if (!file) {
    return fail(file.error());
  }
  TRY(check(why_not_take(parent.directory.found.attributes, file->found.attributes, credential),
            "remove"));
  if (!is_directory && file->found.attributes.type == FileType::kDirectory) {
    return remote_failure(EISDIR, "remove");
  }
  TRY(check_call(
      ::unlinkat(parent.directory.path.get(), place.name.c_str(), is_directory ? AT_REMOVEDIR : 0),
      "remove"));
  return change_of(parent.directory);
}

Result<netfs::RenameReply> rename_file(LocalTree& tree, const NamedPlace& from,
                                       const NamedPlace& to, const netfs::Asker& asker) {
  const Credential& credential = *asker.credential;
  const Parent source = TRY(open_parent(tree, from, credential));
  const Parent target = TRY(open_parent(tree, to, credential));
  const auto file = tree.look_up(source.directory.path, from.directory, from.name);
  if (is_echo(file, ENOENT, asker) && tree.look_up(target.directory.path, to.directory, to.name)) {
    return netfs::RenameReply{};
  }
  if (!file) {
    return fail(file.error());
  }
  const Attributes& attributes = file->found.attributes;
  TRY(check(why_not_take(source.directory.found.attributes, attributes, credential), "rename"));
  // A directory that moves gets another "..".
  const bool writes_to_it =
      attributes.type == FileType::kDirectory && !(from.directory == to.directory);
  TRY(check(writes_to_it ? why_not_add(attributes, credential) : 0, "rename"));
  if (const auto there = tree.look_up(target.directory.path, to.directory, to.name)) {
    TRY(check(why_not_take(target.directory.found.attributes, there->found.attributes, credential),
              "rename"));
  }
  TRY(check_call(::renameat(source.directory.path.get(), from.name.c_str(),
                            target.directory.path.get(), to.name.c_str()),
                 "rename"));
  tree.remember(file->found.handle, to.directory, to.name);
  return netfs::RenameReply{change_of(source.directory), change_of(target.directory)};
}

Result<netfs::LinkReply> link_file(LocalTree& tree, const FileHandle& handle,
                                   const NamedPlace& place, const netfs::Asker& asker) {
  const Credential& credential = *asker.credential;
  const OpenedFile file = TRY(tree.find(handle));
  const Parent parent = TRY(open_parent(tree, place, credential));
  TRY(check(why_not_link(file.found.attributes, credential), "link"));
  const Result<> linked =
      check_call(::linkat(AT_FDCWD, name_of_descriptor(file.path).c_str(),
                          parent.directory.path.get(), place.name.c_str(), AT_SYMLINK_FOLLOW),
                 "link");
  const bool echoes = is_echo(linked, EEXIST, asker);
  const auto there = echoes ? tree.look_up(parent.directory.path, place.directory, place.name)
                            : fail(Errc::kNotFound, "not looked for");
  if (!linked && !(there && there->found.handle == handle)) {
    return fail(linked.error());
  }
  tree.remember(handle, place.directory, place.name);
  const FoundFile found = TRY(examine(file.path));
  return netfs::LinkReply{found.attributes, change_of(parent.directory)};
}

Result<netfs::WriteReply> write_file(LocalTree& tree, const FileHandle& handle,
                                     const netfs::WriteOrder& order, const Credential& credential) {
  const OpenedFile file = TRY(tree.find(handle));
  const Attributes& attributes = file.found.attributes;
  TRY(check(why_not_write(attributes, credential), "write"));
  const auto most = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  TRY(check(order.source.empty() ? EINVAL : 0, "write"));
  TRY(check(order.offset > most - order.source.size() ? EFBIG : 0, "write"));
  const UniqueFd opened = TRY(reopen(file.path, O_WRONLY));
  netfs::WriteReply reply;
  reply.length = TRY(write_all(opened, order.source, order.offset));
  TRY(drop_privileges_of(file.path, attributes, credential));
  if (order.stability != Stability::kUnstable) {
    const bool all = order.stability == Stability::kFileSync;
    TRY(check_call(all ? ::fsync(opened.get()) : ::fdatasync(opened.get()), "write"));
  }
  reply.stability = order.stability;
  reply.verifier = write_verifier();
  reply.file = change_of(file);
  return reply;
}

Result<netfs::CommitReply> commit_file(LocalTree& tree, const FileHandle& handle) {
  const OpenedFile file = TRY(tree.find(handle));
  const UniqueFd opened = TRY(reopen(file.path, O_RDONLY));
  TRY(check_call(::fsync(opened.get()), "commit"));
  return netfs::CommitReply{write_verifier(), change_of(file)};
}

}  // namespace larder::localdir
