// KeeperClient: questions to the keeper on keeper.sock, each on a connection of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/messages.h"

namespace larder::handover {

struct Pids {
  pid_t keeper = 0;
  pid_t engine = 0;  // 0: none runs at the moment
};

// Threads: any. Every call blocks for the answer, at most as long as told; kTimedOut after that;
// kNotFound when no keeper runs; the keeper's refusals are sentences with its errno.
class KeeperClient {
 public:
  explicit KeeperClient(const std::string& runtime_directory)
      : path_(runtime_directory + "/keeper.sock") {}

  // Hands a mounted /dev/fuse over and waits until the engine serves it; the mount's id.
  [[nodiscard]] Result<std::uint32_t> mount(std::string_view spec, std::uint64_t device,
                                            const UniqueFd& fuse, std::chrono::seconds patience);
  // Lets a mount go without detaching it.
  [[nodiscard]] Result<> unmount(std::uint32_t mount_id);
  // Returns when the engine has ended and the keeper is about to.
  [[nodiscard]] Result<> stop(std::chrono::seconds patience);
  [[nodiscard]] Result<Pids> pids();

 private:
  [[nodiscard]] Result<KeeperReply> ask(const KeeperRequest& request, const UniqueFd* descriptor,
                                        std::chrono::seconds patience);

  const std::string path_;
};

}  // namespace larder::handover
