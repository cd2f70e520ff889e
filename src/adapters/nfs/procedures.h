// The procedures of NFSv3 (RFC 1813) that we use: arguments to XDR, results from XDR.
//
// Encoders return the arguments of a call. Decoders take a call's whole results; a status that is
// not OK becomes its error, and whatever makes no sense kCorrupt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::nfs {

inline constexpr RpcProgram kNfsProgram{100003, 3, "NFS"};

// No name that we send or take is longer.
inline constexpr std::size_t kMostNameBytes = 255;

enum class Procedure : std::uint32_t {
  kNull = 0,
  kGetattr = 1,
  kLookup = 3,
  kAccess = 4,
  kReadlink = 5,
  kRead = 6,
  kReaddir = 16,
  kReaddirplus = 17,
  kFsstat = 18,
  kFsinfo = 19,
  kPathconf = 20,
};

// GETATTR, READLINK, FSSTAT, FSINFO, PATHCONF.
[[nodiscard]] std::vector<std::byte> encode_handle(const netfs::FileHandle& handle);
[[nodiscard]] std::vector<std::byte> encode_lookup(const netfs::FileHandle& directory,
                                                   std::string_view name);
[[nodiscard]] std::vector<std::byte> encode_access(const netfs::FileHandle& handle,
                                                   std::uint32_t wanted);
[[nodiscard]] std::vector<std::byte> encode_read(const netfs::FileHandle& handle,
                                                 std::uint64_t offset, std::uint32_t length);
[[nodiscard]] std::vector<std::byte> encode_readdir(const netfs::FileHandle& handle,
                                                    netfs::DirectoryPosition from,
                                                    std::uint32_t most_bytes);
// `most_bytes` bounds the reply, names and attributes.
[[nodiscard]] std::vector<std::byte> encode_readdirplus(const netfs::FileHandle& handle,
                                                        netfs::DirectoryPosition from,
                                                        std::uint32_t most_bytes);

[[nodiscard]] Result<netfs::Attributes> decode_getattr(Bytes results);
[[nodiscard]] Result<netfs::LookupReply> decode_lookup(Bytes results);
[[nodiscard]] Result<netfs::AccessReply> decode_access(Bytes results);
[[nodiscard]] Result<netfs::ReadlinkReply> decode_readlink(Bytes results);

// READ's results up to its data; `data_length` bytes of it have arrived, `wanted` were asked for.
[[nodiscard]] Result<netfs::ReadReply> decode_read(Bytes results, std::size_t data_length,
                                                   std::size_t wanted);
[[nodiscard]] DataPlace find_read_data(Bytes results);

// A page of a listing. Names that no directory can hold are left out and counted.
struct DirectoryPage {
  netfs::ReaddirReply reply;  // without "." and ".."
  std::uint64_t last_cookie =
      0;  // of the last entry, also of one left out; `from` if there is none
  std::size_t refused_names = 0;
};

// Errors: also kCorrupt when the page does not lead on from `from`: a cookie repeats, or nothing
// comes and the listing is not at its end.
[[nodiscard]] Result<DirectoryPage> decode_readdir(Bytes results, std::uint64_t from);
[[nodiscard]] Result<DirectoryPage> decode_readdirplus(Bytes results, std::uint64_t from);

[[nodiscard]] Result<netfs::StatfsReply> decode_fsstat(Bytes results);

struct FsinfoReply {
  std::uint32_t read_max = 0;
  std::uint32_t read_preferred = 0;
  std::uint32_t readdir_preferred = 0;
  std::uint64_t most_file_size = 0;
  netfs::Timestamp time_delta;
  std::optional<netfs::Attributes> attributes;
};

[[nodiscard]] Result<FsinfoReply> decode_fsinfo(Bytes results);

struct PathconfReply {
  std::uint32_t most_links = 0;
  std::uint32_t most_name_bytes = 0;
  bool case_insensitive = false;
};

[[nodiscard]] Result<PathconfReply> decode_pathconf(Bytes results);

// True for NFS3ERR_JUKEBOX: the server asks to come back later.
[[nodiscard]] bool asks_to_wait(Bytes results);

}  // namespace larder::nfs
