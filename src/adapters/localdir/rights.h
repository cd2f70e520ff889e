// What a caller may do with a file, by its mode bits: the adapter works with the rights of this
// process, which may be more.
#pragma once

#include <cstdint>

#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::localdir {

// The AccessBits that mode bits grant; root may do anything but execute what nobody may execute.
[[nodiscard]] std::uint32_t rights_of(const netfs::Attributes& attributes,
                                      const netfs::Credential& credential);

[[nodiscard]] bool is_member(const netfs::Credential& credential, std::uint32_t gid);

// The others return 0 or the errno of what is not allowed (POSIX).

// To add a name to a directory.
[[nodiscard]] int why_not_add(const netfs::Attributes& directory,
                              const netfs::Credential& credential);
// To take a name away from a directory; sticky ones let only the owners do so.
[[nodiscard]] int why_not_take(const netfs::Attributes& directory, const netfs::Attributes& file,
                               const netfs::Credential& credential);
// To write to a file. Its owner may in any case: somebody opened it before its mode was changed.
[[nodiscard]] int why_not_write(const netfs::Attributes& file, const netfs::Credential& credential);
// To give a file one more name: only who could have copied it.
[[nodiscard]] int why_not_link(const netfs::Attributes& file, const netfs::Credential& credential);
[[nodiscard]] int why_not_change(const netfs::Attributes& file,
                                 const netfs::AttributeChanges& changes,
                                 const netfs::Credential& credential);

}  // namespace larder::localdir
