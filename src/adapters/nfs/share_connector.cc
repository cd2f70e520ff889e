#include "adapters/nfs/share_connector.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/mount.h"
#include "adapters/nfs/options.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_client.h"
#include "adapters/nfs/rpc_message.h"
#include "adapters/nfs/url.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "os/stream.h"

namespace larder::nfs {

namespace {

constexpr std::uint32_t kLeastDirectoryRead = 64U << 10;
constexpr std::uint32_t kMostDirectoryRead = 256U << 10;

// `asked` 0: what the server prefers.
std::uint32_t transfer_size(std::uint32_t asked, std::uint32_t preferred,
                            std::uint32_t server_most) {
  const std::uint32_t most = std::min(server_most, NfsOptions::kMostTransferSize);
  const std::uint32_t wanted = asked != 0 ? asked : preferred;
  return wanted == 0 ? most : std::min(wanted, most);
}

}  // namespace

ShareConnector::ShareConnector(const NfsUrl& url, const NfsOptions& options, Executor& executor,
                               os::StreamConnector& connector)
    : url_(url), options_(options), executor_(executor), connector_(connector) {}

void ShareConnector::start(netfs::Done<Share> done) {
  done_ = std::move(done);
  find_port(kMountProgram, options_.mount_port,
            [self = shared_from_this()](std::uint16_t port) { self->mount(port); });
}

std::shared_ptr<RpcClient> ShareConnector::make_client(const RpcProgram& program,
                                                       std::uint16_t port, unsigned connections) {
  RpcClientSettings settings;
  settings.program = program;
  settings.endpoint = {url_.host, port};
  settings.privileged_port = options_.privileged_port;
  settings.connections = connections;
  settings.timeout = options_.timeout;
  settings.retrans = options_.retrans;
  settings.patience = Patience::kProbe;
  settings.asks_to_wait = program.number == kNfsProgram.number ? &asks_to_wait : nullptr;
  std::shared_ptr<RpcClient> client = RpcClient::make(std::move(settings), executor_, connector_);
  bool stopped = false;
  {
    const MutexLock lock(mutex_);
    stopped = stopped_;
    if (!stopped) {
      clients_.push_back(client);
    }
  }
  if (stopped) {
    client->shut_down();  // its calls end with kCancelled at once
  }
  return client;
}

void ShareConnector::call(RpcClient& client, std::uint32_t procedure,
                          std::vector<std::byte> arguments, netfs::Done<RpcReply> done) {
  RpcRequest request;
  request.procedure = procedure;
  request.credential = std::make_shared<netfs::Credential>();  // root asks for the share
  request.arguments = std::move(arguments);
  request.done = std::move(done);
  client.submit(++last_id_, std::move(request));
}

// What a person at a prompt can do something with.
Error ShareConnector::told(const Error& error, const RpcProgram& program,
                           std::uint16_t port) const {
  switch (error.code()) {
    case Errc::kCancelled:
    case Errc::kNotSupported:
    case Errc::kPermission:
      return error;
    case Errc::kTimedOut:
      return {error.code(), error.error_number(),
              fmt::format("the {} of {} does not answer at port {}; check the network, a firewall, "
                          "and that the server runs",
                          program.name, url_.host, port)};
    default:
      return {error.code(), error.error_number(),
              fmt::format("cannot use the {} of {} at port {}; check the host, the port, and that "
                          "the server runs ({})",
                          program.name, url_.host, port, error.context())};
  }
}

void ShareConnector::find_port(const RpcProgram& program, std::optional<std::uint16_t> given,
                               PortDone next) {
  if (given) {
    next(*given);
    return;
  }
  const std::shared_ptr<RpcClient> client = make_client(kPortmapProgram, kPortmapPort, 1);
  call(
      *client, kPortmapGetport, encode_getport(program),
      [self = shared_from_this(), program, next = std::move(next)](Result<RpcReply> reply) mutable {
        self->on_port_reply(program, reply, std::move(next));
      });
}

void ShareConnector::on_port_reply(const RpcProgram& program, const Result<RpcReply>& reply,
                                   PortDone next) {
  const bool is_nfs = program.number == kNfsProgram.number;
  if (!reply) {
    // Many servers run without a portmapper; NFS has a port of its own all the same.
    if (is_nfs && reply.error().code() == Errc::kIo) {
      next(kUsualNfsPort);
      return;
    }
    const Error error = told(reply.error(), kPortmapProgram, kPortmapPort);
    finish(
        fail(Error(error.code(), error.error_number(),
                   fmt::format("{}; or give the ports: ?nfsport=N&mountport=N", error.context()))));
    return;
  }
  const Result<std::optional<std::uint16_t>> answer = decode_getport(reply->results);
  if (!answer) {
    finish(fail(told(answer.error(), kPortmapProgram, kPortmapPort)));
    return;
  }
  if (const std::optional<std::uint16_t> port = *answer) {
    next(*port);
    return;
  }
  finish(fail(
      Errc::kNotSupported,
      fmt::format("{} offers no version {} of the {} over TCP; enable NFSv3 at the server, "
                  "or give its port: ?{}=N",
                  url_.host, program.version, program.name, is_nfs ? "nfsport" : "mountport")));
}

void ShareConnector::mount(std::uint16_t port) {
  const std::shared_ptr<RpcClient> client = make_client(kMountProgram, port, 1);
  call(*client, kMountMnt, encode_mnt(url_.path),
       [self = shared_from_this(), port](Result<RpcReply> reply) {
         if (!reply) {
           self->finish(fail(self->told(reply.error(), kMountProgram, port)));
           return;
         }
         Result<netfs::FileHandle> root =
             decode_mnt(reply->results, self->url_.host, self->url_.path);
         if (!root) {
           self->finish(fail(std::move(root).error()));
           return;
         }
         self->info_.root = *root;
         self->find_port(kNfsProgram, self->options_.nfs_port,
                         [self](std::uint16_t nfs_port) { self->ask_share(nfs_port); });
       });
}

void ShareConnector::ask_share(std::uint16_t port) {
  const std::shared_ptr<RpcClient> client = make_client(kNfsProgram, port, options_.connections);
  client->open();
  call(*client, std::to_underlying(Procedure::kFsinfo), encode_handle(info_.root),
       [self = shared_from_this(), client, port](Result<RpcReply> reply) {
         if (!reply) {
           self->finish(fail(self->told(reply.error(), kNfsProgram, port)));
         } else {
           self->on_fsinfo(client, reply->results);
         }
       });
}

void ShareConnector::on_fsinfo(const std::shared_ptr<RpcClient>& client, Bytes results) {
  const Result<FsinfoReply> fsinfo = decode_fsinfo(results);
  if (!fsinfo) {
    finish(fail(fsinfo.error().within(fmt::format("{}:{}", url_.host, url_.path))));
    return;
  }
  info_.read_size = transfer_size(options_.read_size, fsinfo->read_preferred, fsinfo->read_max);
  // Who cannot be written to says so again when asked.
  const std::uint32_t write_max =
      fsinfo->write_max != 0 ? fsinfo->write_max : NfsOptions::kLeastTransferSize;
  info_.write_size = transfer_size(options_.write_size, fsinfo->write_preferred, write_max);
  info_.directory_read_size =
      std::clamp(fsinfo->readdir_preferred, kLeastDirectoryRead, kMostDirectoryRead);
  info_.time_granularity = fsinfo->time_delta;
  info_.most_file_size = fsinfo->most_file_size;
  call(*client, std::to_underlying(Procedure::kGetattr), encode_handle(info_.root),
       [self = shared_from_this(), client](Result<RpcReply> reply) {
         if (!reply) {
           self->finish(fail(std::move(reply).error()));
         } else {
           self->on_root(client, reply->results);
         }
       });
}

void ShareConnector::on_root(const std::shared_ptr<RpcClient>& client, Bytes results) {
  const Result<netfs::Attributes> root = decode_getattr(results);
  if (!root) {
    finish(fail(root.error().within(fmt::format("{}:{}", url_.host, url_.path))));
    return;
  }
  info_.root_attributes = *root;
  {
    const MutexLock lock(mutex_);
    std::erase(clients_, client);
    share_client_ = client;
  }
  client->set_patience(options_.soft ? Patience::kSoft : Patience::kHard);
  finish(Share{client, info_});
}

void ShareConnector::finish(Result<Share> share) {
  {
    const MutexLock lock(mutex_);
    if (!stopped_) {
      schedule_drop();
    }
  }
  done_(std::move(share));
}

// By a timer: we may be on the thread of one of them.
void ShareConnector::schedule_drop() {
  drop_timer_ = executor_.timers().schedule(Duration::zero(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->drop_clients();
    }
  });
}

void ShareConnector::drop_clients() {
  const Gate::Pass pass = dropping_.enter();
  if (!pass) {
    return;
  }
  std::vector<std::shared_ptr<RpcClient>> clients;
  {
    const MutexLock lock(mutex_);
    clients.swap(clients_);
  }
  for (const auto& client : clients) {
    client->shut_down();
  }
}

void ShareConnector::shut_down() {
  TimerId timer = 0;
  std::vector<std::shared_ptr<RpcClient>> clients;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    timer = drop_timer_;
    clients.swap(clients_);
    if (share_client_) {
      clients.push_back(std::move(share_client_));
    }
  }
  executor_.timers().cancel(timer);
  dropping_.close_and_wait();
  for (const auto& client : clients) {
    client->shut_down();
  }
}

}  // namespace larder::nfs
