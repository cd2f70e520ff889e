// larder_rpc_proxy: stands between an NFSv3 client and its server, counts what they say, and does
// to it what its control socket asks for.
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>

#include "base/error.h"
#include "base/result.h"
#include "proxy.h"

namespace larder::proxy {
namespace {

constexpr std::string_view kUsage =
    "usage: larder_rpc_proxy CONTROL_SOCKET NFS_LISTEN NFS_SERVER MOUNT_LISTEN MOUNT_SERVER\n"
    "       the last four as ADDRESS:PORT; a port 0 to listen on is chosen and printed\n";

Result<sockaddr_in> parse_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (colon != std::string_view::npos) {
    const std::string host(text.substr(0, colon));
    const std::string_view port_text = text.substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, error] =
        std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
    if (error == std::errc() && end == port_text.data() + port_text.size() &&
        ::inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1) {
      address.sin_port = htons(port);
      return address;
    }
  }
  return fail(Errc::kInvalid, fmt::format("'{}' is not ADDRESS:PORT", text));
}

Result<> run(const std::vector<std::string_view>& arguments) {
  Route nfs;
  Route mount;
  nfs.listen = TRY(parse_address(arguments[1]));
  nfs.server = TRY(parse_address(arguments[2]));
  mount.listen = TRY(parse_address(arguments[3]));
  mount.server = TRY(parse_address(arguments[4]));
  const auto proxy = TRY(Proxy::open(nfs, mount, std::string(arguments[0])));
  fmt::print("ready nfs={} mount={}\n", proxy->ports()[0], proxy->ports()[1]);
  static_cast<void>(std::fflush(stdout));
  return proxy->run();
}

}  // namespace
}  // namespace larder::proxy

int main(int count, char** values) {
  const std::vector<std::string_view> arguments(values + 1, values + count);
  if (arguments.size() != 5) {
    fmt::print(stderr, "{}", larder::proxy::kUsage);
    return 2;
  }
  const larder::Result<> result = larder::proxy::run(arguments);
  if (!result) {
    fmt::print(stderr, "larder_rpc_proxy: {}\n", result.error().message());
    return 1;
  }
  return 0;
}
