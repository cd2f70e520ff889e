// BackingRegistrar: asks for the kernel's id of a backing file. The keeper holds the right to do
// so; the engine asks it, the tests answer by themselves.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::fuse {

// Threads: any. Life: outlives the session.
class BackingRegistrar {
 public:
  BackingRegistrar() = default;
  BackingRegistrar(const BackingRegistrar&) = delete;
  BackingRegistrar& operator=(const BackingRegistrar&) = delete;
  virtual ~BackingRegistrar() = default;

  // For the node that is opened. `done` once, on any thread; it must not wait.
  virtual void open(std::uint64_t nodeid, UniqueFd file,
                    std::move_only_function<void(Result<std::int32_t>)> done) = 0;
  virtual void close(std::int32_t backing_id) = 0;
};

}  // namespace larder::fuse
