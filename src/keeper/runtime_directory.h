// What the keeper has in its runtime directory: the lock, keeper.sock, control.sock.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::keeper {

// Owned by the keeper. Life: until release() or destruction.
class RuntimeDirectory {
 public:
  // Makes the directory if it is not there. Errors are sentences: another keeper holds the lock,
  // others than root may write to the directory.
  [[nodiscard]] static Result<RuntimeDirectory> claim(const std::string& path);

  RuntimeDirectory(RuntimeDirectory&& other) noexcept = default;
  RuntimeDirectory& operator=(RuntimeDirectory&& other) noexcept = default;
  RuntimeDirectory(const RuntimeDirectory&) = delete;
  RuntimeDirectory& operator=(const RuntimeDirectory&) = delete;
  ~RuntimeDirectory();

  // Gives everything up, the sockets' names first and the lock last: who comes now meets nobody.
  void release();

  [[nodiscard]] const UniqueFd& keeper_socket() const { return keeper_socket_; }

  [[nodiscard]] const UniqueFd& control_socket() const { return control_socket_; }

 private:
  RuntimeDirectory(std::string path, UniqueFd lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  UniqueFd lock_;
  UniqueFd keeper_socket_;   // root only
  UniqueFd control_socket_;  // for everyone: the engine looks at who asks
};

}  // namespace larder::keeper
