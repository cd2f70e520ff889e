// The heads of RPC calls and replies of NFSv3 and MOUNT: as much as the proxy must understand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace larder::proxy {

// A whole fattr3.
inline constexpr std::size_t kAttributesBytes = 84;

// NFSv3 procedures by their number, then those of MOUNT, then everything else.
enum class Procedure : std::uint8_t {
  kNull,
  kGetattr,
  kSetattr,
  kLookup,
  kAccess,
  kReadlink,
  kRead,
  kWrite,
  kCreate,
  kMkdir,
  kSymlink,
  kMknod,
  kRemove,
  kRmdir,
  kRename,
  kLink,
  kReaddir,
  kReaddirplus,
  kFsstat,
  kFsinfo,
  kPathconf,
  kCommit,
  kMountNull,
  kMnt,
  kDump,
  kUmnt,
  kUmntall,
  kExport,
  kOther,
};
inline constexpr std::size_t kProcedureCount = static_cast<std::size_t>(Procedure::kOther) + 1;

[[nodiscard]] std::string_view name_of(Procedure procedure);
[[nodiscard]] std::optional<Procedure> procedure_named(std::string_view name);
[[nodiscard]] bool is_mount(Procedure procedure);

// A message is understood from its first bytes: RPC header, two credentials, one file handle.
inline constexpr std::size_t kHeadBytes = 1024;

struct CallHead {
  std::uint32_t xid = 0;
  Procedure procedure = Procedure::kOther;
  std::optional<std::uint32_t> uid;  // of AUTH_SYS
  std::string handle;  // the first file handle of the arguments; empty if there is none
};

// Nothing if `head`, the beginning of a message, is no RPC call.
[[nodiscard]] std::optional<CallHead> parse_call(Bytes head);

struct ReplyHead {
  std::uint32_t xid = 0;
  bool is_success = false;    // accepted and executed: a result follows
  std::size_t result_at = 0;  // where the result begins, from the start of the message
};

[[nodiscard]] std::optional<ReplyHead> parse_reply(Bytes head);

// Bytes of data in a READ reply whose beginning is `head`; 0 if it failed.
[[nodiscard]] std::uint32_t read_reply_count(Bytes head);

// An answer in the server's stead: `procedure` failed with the NFS (or MOUNT) error `status`.
[[nodiscard]] std::vector<std::byte> make_error_reply(std::uint32_t xid, Procedure procedure,
                                                      std::uint32_t status);

// Reads XDR from a span; after an over-read everything is 0 and ok() is false.
class XdrReader {
 public:
  explicit XdrReader(Bytes from) : from_(from) {}

  [[nodiscard]] std::uint32_t u32();
  // `length` bytes and their padding.
  Bytes fixed_opaque(std::size_t length);
  Bytes opaque();

  [[nodiscard]] bool ok() const { return ok_; }

  [[nodiscard]] std::size_t position() const { return position_; }

 private:
  Bytes from_;
  std::size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace larder::proxy
