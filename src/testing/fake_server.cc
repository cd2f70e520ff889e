#include "testing/fake_server.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "netfs/attributes.h"

namespace larder::testing {

namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

}  // namespace

std::uint64_t FakeServer::make_node(netfs::FileType type) {
  const std::uint64_t fileid = ++last_fileid_;
  Node& node = nodes_[fileid];
  node.attributes.type = type;
  node.attributes.mode = type == netfs::FileType::kDirectory ? 0755 : 0644;
  node.attributes.link_count = 1;
  node.attributes.fsid = 7;
  node.attributes.fileid = fileid;
  stamp(node);
  return fileid;
}

std::uint64_t FakeServer::add_file(const std::string& name, std::string content,
                                   std::uint64_t parent) {
  const std::uint64_t fileid = make_node(netfs::FileType::kRegular);
  write_file(fileid, std::move(content));
  add_entry(nodes_.at(parent), name, fileid);
  return fileid;
}

std::uint64_t FakeServer::add_directory(const std::string& name, std::uint64_t parent) {
  const std::uint64_t fileid = make_node(netfs::FileType::kDirectory);
  add_entry(nodes_.at(parent), name, fileid);
  return fileid;
}

std::uint64_t FakeServer::add_symlink(const std::string& name, std::string target,
                                      std::uint64_t parent) {
  const std::uint64_t fileid = make_node(netfs::FileType::kSymlink);
  write_file(fileid, std::move(target));
  add_entry(nodes_.at(parent), name, fileid);
  return fileid;
}

void FakeServer::remove(const std::string& name, std::uint64_t parent) {
  Node& directory = nodes_.at(parent);
  const Entry* const entry = find_entry(directory, name);
  CHECK(entry != nullptr);
  const std::uint64_t fileid = entry->fileid;
  drop_entry(directory, name);
  drop_link(fileid);
}

void FakeServer::write_file(std::uint64_t fileid, std::string content) {
  Node& node = nodes_.at(fileid);
  node.content = std::move(content);
  note_content(node);
  node.on_disk.reset();
}

void FakeServer::append(std::uint64_t fileid, std::string_view more) {
  write_file(fileid, nodes_.at(fileid).content + std::string(more));
}

void FakeServer::set_mode(std::uint64_t fileid, std::uint32_t mode) {
  Node& node = nodes_.at(fileid);
  node.attributes.mode = mode;
  node.attributes.changed = now();
}

const std::string& FakeServer::content(std::uint64_t fileid) const {
  return nodes_.at(fileid).content;
}

const netfs::Attributes& FakeServer::attributes(std::uint64_t fileid) const {
  return nodes_.at(fileid).attributes;
}

const std::string& FakeServer::stable_content(std::uint64_t fileid) const {
  const Node& node = nodes_.at(fileid);
  return node.on_disk ? node.on_disk->content : node.content;
}

std::optional<std::uint64_t> FakeServer::find_name(std::string_view name,
                                                   std::uint64_t parent) const {
  for (const Entry& entry : nodes_.at(parent).entries) {
    if (entry.name == name) {
      return entry.fileid;
    }
  }
  return std::nullopt;
}

std::vector<std::string> FakeServer::names(std::uint64_t directory) const {
  std::vector<std::string> names;
  for (const Entry& entry : nodes_.at(directory).entries) {
    names.push_back(entry.name);
  }
  return names;
}

void FakeServer::restart() {
  ++lives_;
  for (auto& [fileid, node] : nodes_) {
    if (node.on_disk) {
      node.content = std::move(node.on_disk->content);
      node.attributes = node.on_disk->attributes;
      node.on_disk.reset();
      node.history.push_back({clock_.now(), node.content, node.attributes});
    }
  }
}

void FakeServer::restart_without_loss() {
  ++lives_;
  for (auto& [fileid, node] : nodes_) {
    node.on_disk.reset();
  }
}

const std::vector<FakeServer::Moment>& FakeServer::history(std::uint64_t fileid) const {
  return nodes_.at(fileid).history;
}

FakeServer::Node* FakeServer::find(const netfs::FileHandle& handle) {
  const Bytes bytes = handle.bytes();
  if (bytes.size() != sizeof(std::uint64_t)) {
    return nullptr;
  }
  const auto found = nodes_.find(load_be<std::uint64_t>(bytes.data()));
  return found == nodes_.end() ? nullptr : &found->second;
}

netfs::FileHandle FakeServer::handle_of(std::uint64_t fileid) const {
  std::array<std::byte, sizeof fileid> bytes{};
  store_be(bytes.data(), fileid);
  return netfs::FileHandle(bytes);
}

netfs::Timestamp FakeServer::now() const {
  const auto since =
      std::chrono::duration_cast<std::chrono::nanoseconds>(clock_.now().time_since_epoch());
  std::int64_t time = since.count() + clock_offset_seconds * kNanosecondsPerSecond;
  const std::int64_t unit = granularity.seconds * kNanosecondsPerSecond + granularity.nanoseconds;
  time -= time % unit;
  return {time / kNanosecondsPerSecond, static_cast<std::uint32_t>(time % kNanosecondsPerSecond)};
}

void FakeServer::stamp(Node& node) {
  node.attributes.modified = now();
  node.attributes.changed = now();
}

std::optional<netfs::Attributes> FakeServer::post_op(const Node& node) const {
  return post_op_attributes ? std::optional(node.attributes) : std::nullopt;
}

}  // namespace larder::testing
