// Which of a caller's groups go to the server first: AUTH_SYS has room for 16.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"

namespace larder::netfs {

// The same rights, with the file's group at the front if the caller is a member of it: an adapter
// that must cut the list keeps what matters for this file. The same object where nothing is to be
// done.
[[nodiscard]] inline CredentialRef with_group_first(const CredentialRef& credential,
                                                    std::uint32_t file_gid) {
  constexpr std::size_t kGroupsOnTheWire = 16;  // RFC 5531, authsys_parms
  if (credential->groups.size() <= kGroupsOnTheWire) {
    return credential;
  }
  const auto found = std::ranges::find(credential->groups, file_gid);
  if (found == credential->groups.end()) {
    return credential;
  }
  Credential reordered = *credential;
  const auto at = reordered.groups.begin() + (found - credential->groups.begin());
  std::rotate(reordered.groups.begin(), at, at + 1);
  return std::make_shared<const Credential>(std::move(reordered));
}

// The caller as the server is to see him for this inode.
[[nodiscard]] inline Caller caller_for(const Inode& inode, const Caller& caller) {
  return {with_group_first(caller.credential, inode.attributes().attributes.gid), caller.scope,
          caller.journal};
}

}  // namespace larder::netfs
