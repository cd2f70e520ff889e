// What the adapter's calls that change nothing do; each blocks on the disk.
#pragma once

#include <cstdint>
#include <string>

#include "adapters/localdir/local_tree.h"
#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::localdir {

// Bytes of a listing that are asked for at a time.
inline constexpr std::uint32_t kDirectoryReadSize = 32U << 10U;

[[nodiscard]] Result<netfs::ReadReply> read_file(LocalTree& tree, const netfs::FileHandle& handle,
                                                 std::uint64_t offset, MutableBytes destination);
[[nodiscard]] Result<netfs::LookupReply> look_up(LocalTree& tree,
                                                 const netfs::FileHandle& directory,
                                                 const std::string& name);
[[nodiscard]] Result<netfs::ReadlinkReply> read_link(LocalTree& tree,
                                                     const netfs::FileHandle& handle);
[[nodiscard]] Result<netfs::StatfsReply> stat_filesystem(LocalTree& tree,
                                                         const netfs::FileHandle& handle);
[[nodiscard]] Result<netfs::ReaddirReply> read_directory(LocalTree& tree,
                                                         const netfs::FileHandle& handle,
                                                         netfs::DirectoryPosition from,
                                                         bool with_attributes);

// One component, and neither "." nor "..": what else a caller may think of is not ours to walk.
[[nodiscard]] bool is_plain_name(const std::string& name);

// Opens what an O_PATH descriptor names; `flags` are those of open(2).
[[nodiscard]] Result<UniqueFd> reopen(const UniqueFd& path, int flags);

}  // namespace larder::localdir
