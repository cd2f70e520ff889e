// FlushWalk: takes a file, or every file below a directory, out of the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "netfs/call_scope.h"
#include "netfs/directory_stream.h"
#include "netfs/inode.h"
#include "netfs/share.h"

namespace larder::engine {

// Asks the server in root's name, one call at a time. Life: keeps itself alive until `done` ran;
// the share must not be torn down before (its shut_down ends the calls).
class FlushWalk : public std::enable_shared_from_this<FlushWalk> {
 public:
  // `path` is relative to the share's root, "" for all of it; `done` gets the number of files.
  static void start(netfs::Share& share, const std::string& path,
                    std::move_only_function<void(Result<std::uint64_t>)> done);

  FlushWalk(netfs::Share& share, std::move_only_function<void(Result<std::uint64_t>)> done);

 private:
  void resolve(const netfs::InodeRef& at, std::vector<std::string> names, std::size_t next);
  void next();
  void flush_file(const netfs::InodeRef& inode);
  void list(const std::shared_ptr<netfs::DirectoryStream>& stream, std::size_t index);
  void look_up(const std::shared_ptr<netfs::DirectoryStream>& stream, std::size_t index,
               std::vector<std::string> names, std::size_t next);

  netfs::Share& share_;
  std::move_only_function<void(Result<std::uint64_t>)> done_;
  const netfs::Caller caller_;
  std::vector<netfs::InodeRef> to_visit_;
  std::uint64_t files_ = 0;
};

}  // namespace larder::engine
