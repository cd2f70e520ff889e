// What the fake server does with the calls that change it.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "testing/fake_server.h"

namespace larder::testing {

namespace {

using netfs::AttributeChanges;
using netfs::Change;
using netfs::CreateReply;
using netfs::FileHandle;
using netfs::FileType;

constexpr std::uint64_t kMostFileBytes = 1U << 30U;  // they are in memory
constexpr std::size_t kMostNameBytes = 255;

std::unexpected<Error> refuse(int error_number) {
  const Errc code = error_number == ESTALE   ? Errc::kStale
                    : error_number == ENOENT ? Errc::kNotFound
                                             : Errc::kRemote;
  return fail(code, error_number, "the server refuses");
}

}  // namespace

std::optional<netfs::BeforeChange> FakeServer::before(const Node& node) const {
  if (!tells_before || !post_op_attributes) {
    return std::nullopt;
  }
  return netfs::BeforeChange{node.attributes.size, node.attributes.modified,
                             node.attributes.changed};
}

netfs::WriteVerifier FakeServer::write_verifier() const {
  netfs::WriteVerifier verifier{};
  store_be(verifier.data(), lives_);
  return verifier;
}

bool FakeServer::fits(const Node& node, std::uint64_t size) const {
  std::uint64_t others = 0;
  for (const auto& [fileid, each] : nodes_) {
    others += &each == &node ? 0 : each.content.size();
  }
  return others + size <= capacity;
}

void FakeServer::note_content(Node& node) {
  node.attributes.size = node.content.size();
  node.attributes.used = node.content.size();
  stamp(node);
  node.history.push_back({clock_.now(), node.content, node.attributes});
}

Result<FakeServer::Node*> FakeServer::find_directory(const FileHandle& handle) {
  Node* const node = find(handle);
  if (node == nullptr) {
    return refuse(ESTALE);
  }
  if (node->attributes.type != FileType::kDirectory) {
    return refuse(ENOTDIR);
  }
  return node;
}

FakeServer::Entry* FakeServer::find_entry(Node& directory, std::string_view name) {
  const auto found = std::ranges::find(directory.entries, name, &Entry::name);
  return found == directory.entries.end() ? nullptr : &*found;
}

void FakeServer::add_entry(Node& directory, const std::string& name, std::uint64_t fileid) {
  directory.entries.push_back({name, fileid, ++directory.last_cookie});
  stamp(directory);
}

void FakeServer::drop_entry(Node& directory, const std::string& name) {
  std::erase_if(directory.entries, [&](const Entry& entry) { return entry.name == name; });
  stamp(directory);
}

void FakeServer::drop_link(std::uint64_t fileid) {
  Node& node = nodes_.at(fileid);
  if (--node.attributes.link_count == 0) {
    nodes_.erase(fileid);
  } else {
    node.attributes.changed = now();
  }
}

Result<> FakeServer::resize(Node& node, std::uint64_t size) {
  if (node.attributes.type != FileType::kRegular) {
    return refuse(node.attributes.type == FileType::kDirectory ? EISDIR : EINVAL);
  }
  if (size > kMostFileBytes) {
    return refuse(EFBIG);
  }
  if (size > node.content.size() && !fits(node, size)) {
    return refuse(ENOSPC);
  }
  node.content.resize(size);
  note_content(node);
  if (node.on_disk) {  // the new size is on the disk at once, older writes are not
    node.on_disk->content.resize(size);
    node.on_disk->attributes = node.attributes;
  }
  return {};
}

Result<> FakeServer::apply(Node& node, const AttributeChanges& changes) {
  if (changes.size) {
    TRY(resize(node, *changes.size));
  }
  netfs::Attributes& attributes = node.attributes;
  attributes.mode = changes.mode.value_or(attributes.mode);
  attributes.uid = changes.uid.value_or(attributes.uid);
  attributes.gid = changes.gid.value_or(attributes.gid);
  const auto set = [this](netfs::Timestamp& stamp, const auto& change) {
    if (change) {
      const auto* const time = std::get_if<netfs::Timestamp>(&*change);
      stamp = time != nullptr ? *time : now();
    }
  };
  set(attributes.accessed, changes.accessed);
  set(attributes.modified, changes.modified);
  attributes.changed = now();
  if (node.on_disk) {
    const std::uint64_t size = node.on_disk->content.size();
    node.on_disk->attributes = attributes;
    node.on_disk->attributes.size = size;
    node.on_disk->attributes.used = size;
  }
  return {};
}

Result<Change> FakeServer::setattr(const FileHandle& handle, const AttributeChanges& changes) {
  Node* const node = find(handle);
  if (node == nullptr) {
    return refuse(ESTALE);
  }
  Change change;
  change.before = before(*node);
  TRY(apply(*node, changes));
  if (changes.accessed || changes.modified) {
    node->verifier.reset();  // as where it lies in the stamps
  }
  change.after = post_op(*node);
  return change;
}

Result<CreateReply> FakeServer::add_new(Node& directory, const std::string& name, FileType type,
                                        const AttributeChanges& attributes,
                                        const netfs::Credential& credential) {
  if (name.size() > kMostNameBytes) {
    return refuse(ENAMETOOLONG);
  }
  CreateReply reply;
  reply.directory.before = before(directory);
  const std::uint64_t fileid = make_node(type);
  Node& node = nodes_.at(fileid);
  node.attributes.uid = credential.uid;
  node.attributes.gid = credential.gid;
  if (type == FileType::kRegular) {
    note_content(node);
  }
  if (const Result<> applied = apply(node, attributes); !applied) {
    nodes_.erase(fileid);
    return fail(applied.error());
  }
  add_entry(directory, name, fileid);
  reply.directory.after = post_op(directory);
  reply.attributes = post_op(node);
  if (post_op_attributes) {
    reply.handle = handle_of(fileid);
  }
  return reply;
}

Result<CreateReply> FakeServer::create(const FileHandle& directory, const std::string& name,
                                       const netfs::CreateOrder& order,
                                       const netfs::Credential& credential) {
  using netfs::CreateMode;
  Node* const parent = TRY(find_directory(directory));
  const bool exclusive = order.mode == CreateMode::kExclusive;
  const Entry* const there = find_entry(*parent, name);
  if (there == nullptr) {
    CreateReply reply = TRY(add_new(*parent, name, FileType::kRegular,
                                    exclusive ? AttributeChanges{} : order.attributes, credential));
    if (exclusive) {
      nodes_.at(parent->entries.back().fileid).verifier = order.verifier;
    }
    return reply;
  }
  Node& node = nodes_.at(there->fileid);
  const bool repetition = exclusive && node.verifier == order.verifier;
  if (order.mode != CreateMode::kUnchecked && !repetition) {
    return refuse(EEXIST);
  }
  if (node.attributes.type != FileType::kRegular) {
    return refuse(node.attributes.type == FileType::kDirectory ? EISDIR : EEXIST);
  }
  if (!exclusive && order.attributes.size) {
    TRY(resize(node, *order.attributes.size));
  }
  CreateReply reply;
  reply.attributes = post_op(node);
  reply.directory = {before(*parent), post_op(*parent)};
  if (post_op_attributes) {
    reply.handle = handle_of(there->fileid);
  }
  return reply;
}

Result<CreateReply> FakeServer::make(const FileHandle& directory, const std::string& name,
                                     const netfs::MakeOrder& order,
                                     const netfs::Credential& credential) {
  Node* const parent = TRY(find_directory(directory));
  if (order.type == FileType::kRegular || order.type == FileType::kSymlink) {
    return refuse(EINVAL);
  }
  if (find_entry(*parent, name) != nullptr) {
    return refuse(EEXIST);
  }
  CreateReply reply = TRY(add_new(*parent, name, order.type, order.attributes, credential));
  Node& node = nodes_.at(parent->entries.back().fileid);
  node.attributes.device_major = order.device_major;
  node.attributes.device_minor = order.device_minor;
  reply.attributes = post_op(node);
  return reply;
}

Result<CreateReply> FakeServer::symlink(const FileHandle& directory, const std::string& name,
                                        const std::string& target,
                                        const netfs::Credential& credential) {
  Node* const parent = TRY(find_directory(directory));
  if (find_entry(*parent, name) != nullptr) {
    return refuse(EEXIST);
  }
  CreateReply reply = TRY(add_new(*parent, name, FileType::kSymlink, {}, credential));
  Node& node = nodes_.at(parent->entries.back().fileid);
  node.content = target;
  note_content(node);
  node.attributes.mode = 0777;
  reply.attributes = post_op(node);
  return reply;
}

Result<Change> FakeServer::unlink(const FileHandle& directory, const std::string& name,
                                  bool is_directory) {
  Node* const parent = TRY(find_directory(directory));
  const Entry* const entry = find_entry(*parent, name);
  if (entry == nullptr) {
    return refuse(ENOENT);
  }
  const std::uint64_t fileid = entry->fileid;
  const Node& node = nodes_.at(fileid);
  if ((node.attributes.type == FileType::kDirectory) != is_directory) {
    return refuse(is_directory ? ENOTDIR : EISDIR);
  }
  if (!node.entries.empty()) {
    return refuse(ENOTEMPTY);
  }
  Change change;
  change.before = before(*parent);
  drop_entry(*parent, name);
  drop_link(fileid);
  change.after = post_op(*parent);
  return change;
}

bool FakeServer::is_below(std::uint64_t fileid, std::uint64_t directory) const {
  return fileid == directory ||
         std::ranges::any_of(nodes_.at(directory).entries,
                             [&](const Entry& entry) { return is_below(fileid, entry.fileid); });
}

// Before a rename: takes away what has the new name, if it may.
Result<> FakeServer::make_room_for_name(const FileHandle& to_directory, std::uint64_t fileid,
                                        Node& directory, const std::string& to) {
  const bool is_directory = nodes_.at(fileid).attributes.type == FileType::kDirectory;
  if (is_directory && is_below(directory.attributes.fileid, fileid)) {
    return refuse(EINVAL);
  }
  const Entry* const there = find_entry(directory, to);
  if (there == nullptr) {
    return {};
  }
  const Result<Change> gone = unlink(to_directory, to, is_directory);
  if (!gone) {
    return fail(gone.error());
  }
  return {};
}

Result<netfs::RenameReply> FakeServer::rename(const FileHandle& from_directory,
                                              const std::string& from,
                                              const FileHandle& to_directory,
                                              const std::string& to) {
  Node* const source = TRY(find_directory(from_directory));
  Node* const target = TRY(find_directory(to_directory));
  const Entry* const entry = find_entry(*source, from);
  if (entry == nullptr) {
    return refuse(ENOENT);
  }
  if (to.size() > kMostNameBytes) {
    return refuse(ENAMETOOLONG);
  }
  const std::uint64_t fileid = entry->fileid;
  netfs::RenameReply reply;
  reply.from.before = before(*source);
  reply.to.before = before(*target);
  const Entry* const there = find_entry(*target, to);
  if (there == nullptr || there->fileid != fileid) {  // else there is nothing to do
    TRY(make_room_for_name(to_directory, fileid, *target, to));
    drop_entry(*source, from);
    add_entry(*target, to, fileid);
    nodes_.at(fileid).attributes.changed = now();
  }
  reply.from.after = post_op(*source);
  reply.to.after = post_op(*target);
  return reply;
}

Result<netfs::LinkReply> FakeServer::link(const FileHandle& file, const FileHandle& directory,
                                          const std::string& name) {
  Node* const node = find(file);
  if (node == nullptr) {
    return refuse(ESTALE);
  }
  Node* const parent = TRY(find_directory(directory));
  if (node->attributes.type == FileType::kDirectory) {
    return refuse(EPERM);
  }
  if (find_entry(*parent, name) != nullptr) {
    return refuse(EEXIST);
  }
  if (name.size() > kMostNameBytes) {
    return refuse(ENAMETOOLONG);
  }
  netfs::LinkReply reply;
  reply.directory.before = before(*parent);
  ++node->attributes.link_count;
  node->attributes.changed = now();
  add_entry(*parent, name, node->attributes.fileid);
  reply.directory.after = post_op(*parent);
  reply.attributes = post_op(*node);
  return reply;
}

Result<netfs::WriteReply> FakeServer::write(const FileHandle& handle,
                                            const netfs::WriteOrder& order) {
  Node* const node = find(handle);
  if (node == nullptr) {
    return refuse(ESTALE);
  }
  if (node->attributes.type != FileType::kRegular) {
    return refuse(node->attributes.type == FileType::kDirectory ? EISDIR : EINVAL);
  }
  const Bytes source = order.source.first(std::min<std::size_t>(order.source.size(), write_size));
  if (source.empty() || order.offset > kMostFileBytes) {
    return refuse(source.empty() ? EINVAL : EFBIG);
  }
  const std::uint64_t end = order.offset + source.size();
  if (end > node->content.size() && !fits(*node, end)) {
    return refuse(ENOSPC);
  }
  netfs::WriteReply reply;
  reply.file.before = before(*node);
  reply.stability = writes_through ? netfs::Stability::kFileSync : order.stability;
  if (reply.stability == netfs::Stability::kUnstable && !node->on_disk) {
    node->on_disk = OnDisk{node->content, node->attributes};
  }
  node->content.resize(std::max<std::size_t>(node->content.size(), end));
  std::ranges::copy(text_of(source),
                    node->content.begin() + static_cast<std::ptrdiff_t>(order.offset));
  note_content(*node);
  bytes_written += source.size();
  if (reply.stability != netfs::Stability::kUnstable && node->on_disk) {
    std::string& disk = node->on_disk->content;  // of these bytes alone
    disk.resize(std::max<std::size_t>(disk.size(), end));
    std::ranges::copy(text_of(source), disk.begin() + static_cast<std::ptrdiff_t>(order.offset));
    node->on_disk->attributes = node->attributes;
    node->on_disk->attributes.size = disk.size();
    node->on_disk->attributes.used = disk.size();
  }
  reply.length = source.size();
  reply.verifier = write_verifier();
  reply.file.after = post_op(*node);
  return reply;
}

Result<netfs::CommitReply> FakeServer::commit(const FileHandle& handle) {
  Node* const node = find(handle);
  if (node == nullptr) {
    return refuse(ESTALE);
  }
  netfs::CommitReply reply;
  reply.file.before = before(*node);
  node->on_disk.reset();
  reply.verifier = write_verifier();
  reply.file.after = post_op(*node);
  return reply;
}

}  // namespace larder::testing
