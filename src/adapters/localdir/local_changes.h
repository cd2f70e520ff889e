// What the adapter's calls that change something do; each blocks on the disk. The caller's rights
// are checked by mode bits (rights.h); what is new becomes the caller's, if this process may give
// it away, and else stays this process's. Who asks for what may be done already (netfs::Asker) is
// told that it is, if what is there is what the call would have left.
#pragma once

#include <cstddef>
#include <string>

#include "adapters/localdir/local_tree.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::localdir {

// A name in a directory.
struct NamedPlace {
  netfs::FileHandle directory;
  std::string name;
};

[[nodiscard]] Result<netfs::Change> set_attributes(LocalTree& tree, const netfs::FileHandle& handle,
                                                   const netfs::AttributeChanges& changes,
                                                   const netfs::Credential& credential);
// An exclusive creation leaves its verifier in the file's stamps, where a repetition finds it.
[[nodiscard]] Result<netfs::CreateReply> create_file(LocalTree& tree, const NamedPlace& place,
                                                     const netfs::CreateOrder& order,
                                                     const netfs::Asker& asker);
[[nodiscard]] Result<netfs::CreateReply> make_special(LocalTree& tree, const NamedPlace& place,
                                                      const netfs::MakeOrder& order,
                                                      const netfs::Asker& asker);
[[nodiscard]] Result<netfs::CreateReply> make_symlink(LocalTree& tree, const NamedPlace& place,
                                                      const std::string& target,
                                                      const netfs::Asker& asker);
[[nodiscard]] Result<netfs::Change> remove_name(LocalTree& tree, const NamedPlace& place,
                                                bool is_directory, const netfs::Asker& asker);
[[nodiscard]] Result<netfs::RenameReply> rename_file(LocalTree& tree, const NamedPlace& from,
                                                     const NamedPlace& to,
                                                     const netfs::Asker& asker);
[[nodiscard]] Result<netfs::LinkReply> link_file(LocalTree& tree, const netfs::FileHandle& file,
                                                 const NamedPlace& place,
                                                 const netfs::Asker& asker);
[[nodiscard]] Result<netfs::WriteReply> write_file(LocalTree& tree, const netfs::FileHandle& handle,
                                                   const netfs::WriteOrder& order,
                                                   const netfs::Credential& credential);
[[nodiscard]] Result<netfs::CommitReply> commit_file(LocalTree& tree,
                                                     const netfs::FileHandle& handle);

}  // namespace larder::localdir
