// Version: the bytes of a file between two changes at the server, as far as its stamps tell.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "fscache/backend.h"
#include "fscache/cookie.h"
#include "netfs/attributes.h"
#include "netfs/whole_copy.h"

namespace larder::netfs {

// Life: shared by the file, by reads under way and by whoever holds it for passthrough.
struct Version {
  // ---- Constant.
  Attributes attributes;  // those that made it; only size and stamps identify it
  bool racy = false;      // too young for its stamps: fetched again once it is older
  bool written = false;   // by us, now: its attributes are of the moment when that began
  // All of it, where we have just written it; null: it is the cookie's, or the server's. It is not
  // to be believed by opens from `content_until` on.
  std::shared_ptr<const WrittenContent> content;
  MonotonicTime content_until{};
  std::shared_ptr<fscache::Cookie> cookie;

  [[nodiscard]] std::uint64_t size() const { return attributes.size; }

  [[nodiscard]] bool small() const { return size() <= fscache::BackendObject::kMostSmallBytes; }
};

using VersionRef = std::shared_ptr<const Version>;

}  // namespace larder::netfs
