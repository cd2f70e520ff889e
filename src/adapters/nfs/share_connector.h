// ShareConnector: from a URL to a connected share: ports, MOUNT, FSINFO, the root's attributes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/nfs/mount.h"
#include "adapters/nfs/options.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_client.h"
#include "adapters/nfs/url.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "os/stream.h"

namespace larder::nfs {

// One attempt. Nobody has patience at a mount: what cannot be reached, or is silent for ten
// seconds, ends it with a sentence. The NFS connections get the patience of the options when it
// succeeds.
//
// Threads: any. Life: a shared pointer keeps it while it works. shut_down() before the last
// reference goes; not from within `done`.
class ShareConnector final : public std::enable_shared_from_this<ShareConnector> {
 public:
  struct Share {
    std::shared_ptr<RpcClient> client;  // shut down by the connector's shut_down()
    netfs::ShareInfo info;
  };

  ShareConnector(const NfsUrl& url, const NfsOptions& options, Executor& executor,
                 os::StreamConnector& connector);

  void start(netfs::Done<Share> done);
  // The attempt ends with kCancelled if it has not ended yet, and so does every call of the share's
  // client; waits for the threads of both.
  void shut_down() EXCLUDES(mutex_);

 private:
  using PortDone = std::move_only_function<void(std::uint16_t)>;
  using ReplyDone = std::move_only_function<void(Bytes)>;

  void find_port(const RpcProgram& program, std::optional<std::uint16_t> given, PortDone next);
  void on_port_reply(const RpcProgram& program, const Result<RpcReply>& reply, PortDone next);
  void mount(std::uint16_t port);
  void ask_share(std::uint16_t port);
  void on_fsinfo(const std::shared_ptr<RpcClient>& client, Bytes results);
  void on_root(const std::shared_ptr<RpcClient>& client, Bytes results);
  std::shared_ptr<RpcClient> make_client(const RpcProgram& program, std::uint16_t port,
                                         unsigned connections) EXCLUDES(mutex_);
  void call(RpcClient& client, std::uint32_t procedure, std::vector<std::byte> arguments,
            netfs::Done<RpcReply> done);
  [[nodiscard]] Error told(const Error& error, const RpcProgram& program, std::uint16_t port) const;
  void finish(Result<Share> share) EXCLUDES(mutex_);
  void schedule_drop() REQUIRES(mutex_);
  void drop_clients() EXCLUDES(mutex_);

  const NfsUrl url_;
  const NfsOptions options_;
  Executor& executor_;
  os::StreamConnector& connector_;
  netfs::Done<Share> done_;  // taken by finish()
  netfs::ShareInfo info_;    // one step at a time fills it
  netfs::CallId last_id_ = 0;
  Gate dropping_;

  Mutex mutex_{LockRank::kNetwork};
  bool stopped_ GUARDED_BY(mutex_) = false;
  TimerId drop_timer_ GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<RpcClient>> clients_ GUARDED_BY(mutex_);  // of the way there
  std::shared_ptr<RpcClient> share_client_ GUARDED_BY(mutex_);          // after success
};

}  // namespace larder::nfs
