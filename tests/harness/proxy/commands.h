// The proxy's command language: one line in, one line out. docs/testing.md has the table.
#pragma once

#include <string>
#include <string_view>

namespace larder::proxy {

class Proxy;

// The answer without its newline: "ok", "ok VALUE", or "error SENTENCE".
[[nodiscard]] std::string execute_command(Proxy& proxy, std::string_view line);

}  // namespace larder::proxy
