#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "testing/fake_server.h"

namespace larder::testing {

namespace {

constexpr unsigned kServerThreads = 8;

std::unexpected<Error> stale_handle() {
  return fail(Errc::kStale, ESTALE, "the server does not know this file handle");
}

// Whether an answer is what a call is told that was carried out before.
template <class T>
bool is_echo(const Result<T>& reply, int echo, const netfs::Asker& asker) {
  return asker.may_be_done && !reply && reply.error().error_number() == echo;
}

}  // namespace

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
    if (control_->unreachable) {
      finish(fail(Errc::kCancelled, "the server is not there"));
      return;
    }
    ++server_.calls[procedure];
    if (!control_->errors.empty()) {
      Error error = std::move(control_->errors.front());
      control_->errors.pop_front();
      finish(fail(std::move(error)));
      return;
    }
    if (const auto refused = control_->errors_of.find(procedure);
        refused != control_->errors_of.end()) {
      finish(fail(refused->second));
      return;
    }
    Result<T> result = answer();
    if (!control_->lost_answers.empty()) {
      result = fail(std::move(control_->lost_answers.front()));
      control_->lost_answers.pop_front();
    }
    finish(std::move(result));
  };
  if (control_->at_once > 0) {
    --control_->at_once;
    carry_out();
    return id;
  }
  pool_->post([control = control_, procedure, carry_out = std::move(carry_out)]() mutable {
    if (control->holds(procedure)) {
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
    info.write_size = server_.write_size;
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
        if (const FakeServer::Entry* const entry = FakeServer::find_entry(*node, name)) {
          return netfs::LookupReply{server_.handle_of(entry->fileid),
                                    server_.post_op(server_.nodes_.at(entry->fileid)),
                                    server_.post_op(*node)};
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
        reply.end = true;
        for (const auto& [name, fileid, cookie] : node->entries) {
          if (cookie <= from.cookie) {
            continue;
          }
          if (reply.entries.size() >= server_.entries_per_readdir) {
            reply.end = false;
            break;
          }
          netfs::RemoteEntry entry;
          entry.name = name;
          entry.fileid = fileid;
          entry.cookie = cookie;
          if (with_attributes) {
            entry.handle = server_.handle_of(fileid);
            entry.attributes = server_.post_op(server_.nodes_.at(fileid));
          }
          reply.entries.push_back(std::move(entry));
        }
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

template <class T>
netfs::CallId FakeAdapter::start_change(const char* procedure,
                                        const netfs::CredentialRef& credential, netfs::Done<T> done,
                                        std::move_only_function<Result<T>()> answer) {
  return start<T>(procedure, std::move(done),
                  [this, uid = credential->uid, answer = std::move(answer)]() mutable -> Result<T> {
                    if (uid == server_.denied_uid) {
                      return fail(Errc::kRemote, EACCES,
                                  "the server does not let this user change anything");
                    }
                    return answer();
                  });
}

netfs::CallId FakeAdapter::start_setattr(const netfs::FileHandle& handle,
                                         const netfs::AttributeChanges& changes,
                                         netfs::CredentialRef credential,
                                         netfs::Done<netfs::Change> done) {
  return start_change<netfs::Change>(
      "SETATTR", credential, std::move(done),
      [this, handle, changes] { return server_.setattr(handle, changes); });
}

std::optional<std::uint64_t> FakeServer::id_of(const netfs::FileHandle& directory,
                                               std::string_view name) {
  Node* const node = find(directory);
  const Entry* const entry = node == nullptr ? nullptr : find_entry(*node, name);
  return entry == nullptr ? std::nullopt : std::optional(entry->fileid);
}

Result<netfs::Change> FakeServer::remove_once(const netfs::FileHandle& directory,
                                              const std::string& name, bool is_directory,
                                              const netfs::Asker& asker) {
  Result<netfs::Change> change = unlink(directory, name, is_directory);
  if (is_echo(change, ENOENT, asker)) {
    return netfs::Change{};
  }
  return change;
}

Result<netfs::CreateReply> FakeServer::confirm_made(Result<netfs::CreateReply> reply,
                                                    const netfs::Asker& asker,
                                                    const netfs::FileHandle& directory,
                                                    const std::string& name,
                                                    const MadeNode& wanted) {
  const std::optional<std::uint64_t> there = id_of(directory, name);
  if (!is_echo(reply, EEXIST, asker) || !there) {
    return reply;
  }
  const Node& node = nodes_.at(*there);
  const bool fits = node.attributes.type == wanted.type && node.content == wanted.target;
  return fits ? netfs::CreateReply{handle_of(*there), post_op(node), {}} : std::move(reply);
}

netfs::CallId FakeAdapter::start_create(const netfs::FileHandle& directory, std::string_view name,
                                        const netfs::CreateOrder& order, netfs::Asker asker,
                                        netfs::Done<netfs::CreateReply> done) {
  return start_change<netfs::CreateReply>(
      "CREATE", asker.credential, std::move(done),
      [this, directory, name = std::string(name), order, asker] {
        return server_.create(directory, name, order, *asker.credential);
      });
}

netfs::CallId FakeAdapter::start_make(const netfs::FileHandle& directory, std::string_view name,
                                      const netfs::MakeOrder& order, netfs::Asker asker,
                                      netfs::Done<netfs::CreateReply> done) {
  return start_change<netfs::CreateReply>(
      order.type == netfs::FileType::kDirectory ? "MKDIR" : "MKNOD", asker.credential,
      std::move(done), [this, directory, name = std::string(name), order, asker] {
        return server_.confirm_made(server_.make(directory, name, order, *asker.credential), asker,
                                    directory, name, {order.type, ""});
      });
}

netfs::CallId FakeAdapter::start_symlink(const netfs::FileHandle& directory, std::string_view name,
                                         std::string_view target,
                                         const netfs::AttributeChanges& /*attributes*/,
                                         netfs::Asker asker, netfs::Done<netfs::CreateReply> done) {
  return start_change<netfs::CreateReply>(
      "SYMLINK", asker.credential, std::move(done),
      [this, directory, name = std::string(name), target = std::string(target), asker] {
        return server_.confirm_made(server_.symlink(directory, name, target, *asker.credential),
                                    asker, directory, name, {netfs::FileType::kSymlink, target});
      });
}

netfs::CallId FakeAdapter::start_remove(const netfs::FileHandle& directory, std::string_view name,
                                        netfs::Asker asker, netfs::Done<netfs::Change> done) {
  return start_change<netfs::Change>("REMOVE", asker.credential, std::move(done),
                                     [this, directory, name = std::string(name), asker] {
                                       return server_.remove_once(directory, name, false, asker);
                                     });
}

netfs::CallId FakeAdapter::start_rmdir(const netfs::FileHandle& directory, std::string_view name,
                                       netfs::Asker asker, netfs::Done<netfs::Change> done) {
  return start_change<netfs::Change>("RMDIR", asker.credential, std::move(done),
                                     [this, directory, name = std::string(name), asker] {
                                       return server_.remove_once(directory, name, true, asker);
                                     });
}

netfs::CallId FakeAdapter::start_rename(const netfs::FileHandle& from_directory,
                                        std::string_view from,
                                        const netfs::FileHandle& to_directory, std::string_view to,
                                        netfs::Asker asker, netfs::Done<netfs::RenameReply> done) {
  return start_change<netfs::RenameReply>(
      "RENAME", asker.credential, std::move(done),
      [this, from_directory, from = std::string(from), to_directory, to = std::string(to),
       asker]() -> Result<netfs::RenameReply> {
        auto reply = server_.rename(from_directory, from, to_directory, to);
        if (is_echo(reply, ENOENT, asker) && server_.id_of(to_directory, to)) {
          return netfs::RenameReply{};
        }
        return reply;
      });
}

netfs::CallId FakeAdapter::start_link(const netfs::FileHandle& file,
                                      const netfs::FileHandle& directory, std::string_view name,
                                      netfs::Asker asker, netfs::Done<netfs::LinkReply> done) {
  return start_change<netfs::LinkReply>(
      "LINK", asker.credential, std::move(done),
      [this, file, directory, name = std::string(name), asker]() -> Result<netfs::LinkReply> {
        auto reply = server_.link(file, directory, name);
        const auto there = server_.id_of(directory, name);
        if (is_echo(reply, EEXIST, asker) && there && server_.handle_of(*there) == file) {
          return netfs::LinkReply{};
        }
        return reply;
      });
}

netfs::CallId FakeAdapter::start_write(const netfs::FileHandle& handle,
                                       const netfs::WriteOrder& order,
                                       netfs::CredentialRef credential,
                                       netfs::Done<netfs::WriteReply> done) {
  return start_change<netfs::WriteReply>(
      "WRITE", credential, std::move(done),
      [this, handle, order] { return server_.write(handle, order); });
}

netfs::CallId FakeAdapter::start_commit(const netfs::FileHandle& handle,
                                        netfs::CredentialRef /*credential*/,
                                        netfs::Done<netfs::CommitReply> done) {
  return start<netfs::CommitReply>("COMMIT", std::move(done),
                                   [this, handle] { return server_.commit(handle); });
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
