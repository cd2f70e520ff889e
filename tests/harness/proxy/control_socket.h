// ControlSocket: a Unix stream socket that takes lines of text and answers each with one.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "poller.h"

namespace larder::proxy {

// Threads: one. Life: `poller` outlives it.
class ControlSocket {
 public:
  using Execute = std::function<std::string(std::string_view line)>;

  static Result<ControlSocket> open(const std::string& path, Poller& poller);

  // Something happened at the descriptor `fd`, the tag of the event.
  void handle(int fd, const Execute& execute);

 private:
  struct Client {
    UniqueFd socket;
    std::string received;
  };

  ControlSocket(UniqueFd listener, Poller& poller);

  void accept();
  // False if the client is gone.
  static bool serve(Client& client, const Execute& execute);

  UniqueFd listener_;
  Poller* poller_;
  std::map<int, Client> clients_;
};

}  // namespace larder::proxy
