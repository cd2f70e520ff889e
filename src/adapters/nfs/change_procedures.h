// The procedures of NFSv3 (RFC 1813) that change something: arguments to XDR, results from XDR.
//
// Encoders return the arguments of a call. Decoders take a call's whole results; a status that is
// not OK becomes its error, and whatever makes no sense kCorrupt. Stamps that NFSv3 cannot carry
// (before 1970, after 2106) become the nearest that it can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::nfs {

[[nodiscard]] std::vector<std::byte> encode_setattr(const netfs::FileHandle& handle,
                                                    const netfs::AttributeChanges& changes);
[[nodiscard]] std::vector<std::byte> encode_create(const netfs::FileHandle& directory,
                                                   std::string_view name,
                                                   const netfs::CreateOrder& order);
[[nodiscard]] std::vector<std::byte> encode_mkdir(const netfs::FileHandle& directory,
                                                  std::string_view name,
                                                  const netfs::AttributeChanges& attributes);
// A device, FIFO or socket.
[[nodiscard]] std::vector<std::byte> encode_mknod(const netfs::FileHandle& directory,
                                                  std::string_view name,
                                                  const netfs::MakeOrder& order);
[[nodiscard]] std::vector<std::byte> encode_symlink(const netfs::FileHandle& directory,
                                                    std::string_view name, std::string_view target,
                                                    const netfs::AttributeChanges& attributes);
// REMOVE and RMDIR.
[[nodiscard]] std::vector<std::byte> encode_remove(const netfs::FileHandle& directory,
                                                   std::string_view name);
[[nodiscard]] std::vector<std::byte> encode_rename(const netfs::FileHandle& from_directory,
                                                   std::string_view from,
                                                   const netfs::FileHandle& to_directory,
                                                   std::string_view to);
[[nodiscard]] std::vector<std::byte> encode_link(const netfs::FileHandle& file,
                                                 const netfs::FileHandle& directory,
                                                 std::string_view name);
// Up to the data, which with its padding comes behind.
[[nodiscard]] std::vector<std::byte> encode_write(const netfs::FileHandle& handle,
                                                  std::uint64_t offset, netfs::Stability stability,
                                                  std::uint32_t length);
// Of the whole file.
[[nodiscard]] std::vector<std::byte> encode_commit(const netfs::FileHandle& handle);

// SETATTR, REMOVE, RMDIR; `what` names the call.
[[nodiscard]] Result<netfs::Change> decode_change(Bytes results, std::string_view what);
// CREATE, MKDIR, MKNOD, SYMLINK; `what` names the call.
[[nodiscard]] Result<netfs::CreateReply> decode_create(Bytes results, std::string_view what);
[[nodiscard]] Result<netfs::RenameReply> decode_rename(Bytes results);
[[nodiscard]] Result<netfs::LinkReply> decode_link(Bytes results);
// `sent` bytes were to be written: none of them written, or more, makes no sense.
[[nodiscard]] Result<netfs::WriteReply> decode_write(Bytes results, std::size_t sent);
[[nodiscard]] Result<netfs::CommitReply> decode_commit(Bytes results);

}  // namespace larder::nfs
