#include "testing/fake_server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::testing {

namespace {

constexpr unsigned kServerThreads = 8;
constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

std::unexpected<Error> stale_handle() {
  return fail(Errc::kStale, ESTALE, "the server does not know this file handle");
}

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
  nodes_.at(parent).entries.emplace_back(name, fileid);
  stamp(nodes_.at(parent));
  return fileid;
}

std::uint64_t FakeServer::add_directory(const std::string& name, std::uint64_t parent) {
  const std::uint64_t fileid = make_node(netfs::FileType::kDirectory);
  nodes_.at(parent).entries.emplace_back(name, fileid);
  stamp(nodes_.at(parent));
  return fileid;
}

std::uint64_t FakeServer::add_symlink(const std::string& name, std::string target,
                                      std::uint64_t parent) {
  const std::uint64_t fileid = make_node(netfs::FileType::kSymlink);
  write_file(fileid, std::move(target));
  nodes_.at(parent).entries.emplace_back(name, fileid);
  stamp(nodes_.at(parent));
  return fileid;
}

void FakeServer::remove(const std::string& name, std::uint64_t parent) {
  auto& entries = nodes_.at(parent).entries;
  const auto found =
      std::ranges::find_if(entries, [&](const auto& entry) { return entry.first == name; });
  CHECK(found != entries.end());
  nodes_.erase(found->second);
  entries.erase(found);
  stamp(nodes_.at(parent));
}

void FakeServer::write_file(std::uint64_t fileid, std::string content) {
  Node& node = nodes_.at(fileid);
  node.content = std::move(content);
  node.attributes.size = node.content.size();
  node.attributes.used = node.content.size();
  stamp(node);
  node.history.push_back({clock_.now(), node.content, node.attributes});
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

FakeAdapter::FakeAdapter(FakeServer& server, Executor& executor)
    : server_(server),
      control_(std::make_shared<Control>()),
      pool_(executor.make_pool("server", kServerThreads, 1'000'000)) {}

FakeAdapter::~FakeAdapter() = default;

template <class T>
netfs::CallId FakeAdapter::start(const char* procedure, netfs::Done<T> done,
                                 std::move_only_function<Result<T>()> answer) {
  const netfs::CallId id = ++last_call_;
  auto shared_done = std::make_shared<netfs::Done<T>>(std::move(done));
  // Whoever is first ends the call.
  auto finish = [this, id, shared_done](Result<T> result) {
    cancels_.erase(id);
    if (netfs::Done<T> once = std::exchange(*shared_done, nullptr)) {
      once(std::move(result));
    }
  };
  cancels_.emplace(id, [finish] { finish(fail(Errc::kCancelled, "cancelled")); });
  Task carry_out = [this, procedure, finish, shared_done, answer = std::move(answer)]() mutable {
    if (!*shared_done) {
      return;  // cancelled
    }
    ++server_.calls[procedure];
    if (!control_->errors.empty()) {
      Error error = std::move(control_->errors.front());
      control_->errors.pop_front();
      finish(fail(std::move(error)));
      return;
    }
    finish(answer());
  };
  if (control_->at_once > 0) {
    --control_->at_once;
    carry_out();
    return id;
  }
  pool_->post([control = control_, carry_out = std::move(carry_out)]() mutable {
    if (control->hold) {
      control->held.push_back(std::move(carry_out));
    } else {
      carry_out();
    }
  });
  return id;
}

void FakeAdapter::start_connect(netfs::Done<netfs::ShareInfo> done) {
  start<netfs::ShareInfo>("connect", std::move(done), [this]() -> Result<netfs::ShareInfo> {
    netfs::ShareInfo info;
    info.root = server_.handle_of(FakeServer::kRoot);
    info.root_attributes = server_.nodes_.at(FakeServer::kRoot).attributes;
    info.read_size = server_.read_size;
    info.directory_read_size = 65536;
    info.time_granularity = server_.say_granularity ? server_.granularity : netfs::Timestamp{0, 1};
    info.most_file_size = std::uint64_t{1} << 62;
    return info;
  });
}

netfs::CallId FakeAdapter::start_lookup(const netfs::FileHandle& directory, std::string_view name,
                                        netfs::CredentialRef /*credential*/,
                                        netfs::Done<netfs::LookupReply> done) {
  return start<netfs::LookupReply>(
      "LOOKUP", std::move(done),
      [this, directory, name = std::string(name)]() -> Result<netfs::LookupReply> {
        FakeServer::Node* const node = server_.find(directory);
        if (node == nullptr) {
          return stale_handle();
        }
        for (const auto& [entry, fileid] : node->entries) {
          if (entry == name) {
            return netfs::LookupReply{server_.handle_of(fileid),
                                      server_.post_op(server_.nodes_.at(fileid)),
                                      server_.post_op(*node)};
          }
        }
        return fail(Errc::kRemote, ENOENT, "no such name");
      });
}

netfs::CallId FakeAdapter::start_getattr(const netfs::FileHandle& handle,
                                         netfs::CredentialRef /*credential*/,
                                         netfs::Done<netfs::Attributes> done) {
  return start<netfs::Attributes>("GETATTR", std::move(done),
                                  [this, handle]() -> Result<netfs::Attributes> {
                                    FakeServer::Node* const node = server_.find(handle);
                                    if (node == nullptr) {
                                      return stale_handle();
                                    }
                                    return node->attributes;
                                  });
}

netfs::CallId FakeAdapter::start_access(const netfs::FileHandle& handle, std::uint32_t wanted,
                                        netfs::CredentialRef credential,
                                        netfs::Done<netfs::AccessReply> done) {
  return start<netfs::AccessReply>(
      "ACCESS", std::move(done),
      [this, handle, wanted, credential]() -> Result<netfs::AccessReply> {
        FakeServer::Node* const node = server_.find(handle);
        if (node == nullptr) {
          return stale_handle();
        }
        const bool denied = credential->uid == server_.denied_uid;
        return netfs::AccessReply{denied ? 0 : wanted, server_.post_op(*node)};
      });
}

netfs::CallId FakeAdapter::start_readlink(const netfs::FileHandle& handle,
                                          netfs::CredentialRef /*credential*/,
                                          netfs::Done<netfs::ReadlinkReply> done) {
  return start<netfs::ReadlinkReply>(
      "READLINK", std::move(done), [this, handle]() -> Result<netfs::ReadlinkReply> {
        FakeServer::Node* const node = server_.find(handle);
        if (node == nullptr) {
          return stale_handle();
        }
        if (node->attributes.type != netfs::FileType::kSymlink) {
          return fail(Errc::kInvalid, EINVAL, "READLINK of what is no link");
        }
        return netfs::ReadlinkReply{node->content, server_.post_op(*node)};
      });
}

netfs::CallId FakeAdapter::start_readdir(const netfs::FileHandle& handle,
                                         netfs::DirectoryPosition from, bool with_attributes,
                                         netfs::CredentialRef /*credential*/,
                                         netfs::Done<netfs::ReaddirReply> done) {
  return start<netfs::ReaddirReply>(
      "READDIR", std::move(done),
      [this, handle, from, with_attributes]() -> Result<netfs::ReaddirReply> {
        FakeServer::Node* const node = server_.find(handle);
        if (node == nullptr) {
          return stale_handle();
        }
        netfs::ReaddirReply reply;
        reply.verifier = server_.listing_verifier;
        std::uint64_t index = from.cookie;
        for (; index < node->entries.size() && reply.entries.size() < server_.entries_per_readdir;
             ++index) {
          const auto& [name, fileid] = node->entries[index];
          netfs::RemoteEntry entry;
          entry.name = name;
          entry.fileid = fileid;
          entry.cookie = index + 1;
          if (with_attributes) {
            entry.handle = server_.handle_of(fileid);
            entry.attributes = server_.post_op(server_.nodes_.at(fileid));
          }
          reply.entries.push_back(std::move(entry));
        }
        reply.end = index >= node->entries.size();
        reply.directory_attributes = server_.post_op(*node);
        return reply;
      });
}

netfs::CallId FakeAdapter::start_statfs(const netfs::FileHandle& /*handle*/,
                                        netfs::CredentialRef /*credential*/,
                                        netfs::Done<netfs::StatfsReply> done) {
  return start<netfs::StatfsReply>("FSSTAT", std::move(done), []() -> Result<netfs::StatfsReply> {
    return netfs::StatfsReply{1U << 30U, 1U << 29U, 1U << 29U, 1000, 500};
  });
}

netfs::CallId FakeAdapter::start_read(const netfs::FileHandle& handle,
                                      const netfs::ReadOrder& order,
                                      netfs::CredentialRef /*credential*/,
                                      netfs::Done<netfs::ReadReply> done) {
  return start<netfs::ReadReply>(
      "READ", std::move(done),
      [this, handle, offset = order.offset,
       destination = order.destination]() -> Result<netfs::ReadReply> {
        if (server_.before_read) {
          server_.before_read();
        }
        FakeServer::Node* const node = server_.find(handle);
        if (node == nullptr) {
          return stale_handle();
        }
        const std::string& content = node->content;
        const std::size_t begin = std::min<std::size_t>(offset, content.size());
        const std::size_t length = std::min({destination.size(), content.size() - begin,
                                             static_cast<std::size_t>(server_.read_size)});
        std::ranges::copy(bytes_of(content).subspan(begin, length), destination.begin());
        server_.bytes_read += length;
        return netfs::ReadReply{length, begin + length >= content.size(), server_.post_op(*node)};
      });
}

void FakeAdapter::cancel(netfs::CallId id) {
  const auto found = cancels_.find(id);
  if (found != cancels_.end()) {
    Task cancel_it = std::move(found->second);
    cancels_.erase(found);
    cancel_it();
  }
}

netfs::AdapterStatus FakeAdapter::status() const {
  netfs::AdapterStatus status;
  status.connected = true;
  return status;
}

void FakeAdapter::shut_down() {
  while (!cancels_.empty()) {
    cancel(cancels_.begin()->first);
  }
}

}  // namespace larder::testing
