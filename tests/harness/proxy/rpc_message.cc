// The heads of RPC calls and replies (RFC 5531) of NFSv3 and MOUNT (RFC 1813).
#include "rpc_message.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/endian.h"

namespace larder::proxy {
namespace {

constexpr std::uint32_t kNfsProgram = 100003;
constexpr std::uint32_t kMountProgram = 100005;
constexpr std::uint32_t kMessageCall = 0;
constexpr std::uint32_t kMessageReply = 1;
constexpr std::uint32_t kAuthSys = 1;

struct ProcedureRow {
  std::string_view name;
  bool handle_first;           // the arguments begin with a file handle
  std::uint8_t failure_words;  // XDR words after the status of a failure, all "does not follow"
};

constexpr std::array<ProcedureRow, kProcedureCount> kProcedures{{
    {"NULL", false, 0},    {"GETATTR", true, 0},     {"SETATTR", true, 2},     {"LOOKUP", true, 1},
    {"ACCESS", true, 1},   {"READLINK", true, 1},    {"READ", true, 1},        {"WRITE", true, 2},
    {"CREATE", true, 2},   {"MKDIR", true, 2},       {"SYMLINK", true, 2},     {"MKNOD", true, 2},
    {"REMOVE", true, 2},   {"RMDIR", true, 2},       {"RENAME", true, 4},      {"LINK", true, 3},
    {"READDIR", true, 1},  {"READDIRPLUS", true, 1}, {"FSSTAT", true, 1},      {"FSINFO", true, 1},
    {"PATHCONF", true, 1}, {"COMMIT", true, 2},      {"MOUNT_NULL", false, 0}, {"MNT", false, 0},
    {"DUMP", false, 0},    {"UMNT", false, 0},       {"UMNTALL", false, 0},    {"EXPORT", false, 0},
    {"OTHER", false, 0},
}};

const ProcedureRow& row_of(Procedure procedure) {
  return kProcedures.at(static_cast<std::size_t>(procedure));
}

Procedure procedure_of(std::uint32_t program, std::uint32_t version, std::uint32_t number) {
  constexpr auto kFirstMount = static_cast<std::uint32_t>(Procedure::kMountNull);
  constexpr auto kOther = static_cast<std::uint32_t>(Procedure::kOther);
  if (program == kNfsProgram && version == 3 && number < kFirstMount) {
    return static_cast<Procedure>(number);
  }
  if (program == kMountProgram && number < kOther - kFirstMount) {
    return static_cast<Procedure>(kFirstMount + number);
  }
  return Procedure::kOther;
}

std::optional<std::uint32_t> uid_of(std::uint32_t flavor, Bytes credential) {
  if (flavor != kAuthSys) {
    return std::nullopt;
  }
  XdrReader reader(credential);
  static_cast<void>(reader.u32());     // stamp
  static_cast<void>(reader.opaque());  // machine name
  const std::uint32_t uid = reader.u32();
  return reader.ok() ? std::optional(uid) : std::nullopt;
}

void append_words(std::vector<std::byte>& to, std::initializer_list<std::uint32_t> words) {
  for (const std::uint32_t word : words) {
    to.resize(to.size() + 4);
    store_be(to.data() + to.size() - 4, word);
  }
}

}  // namespace

std::string_view name_of(Procedure procedure) {
  return row_of(procedure).name;
}

std::optional<Procedure> procedure_named(std::string_view name) {
  const auto* const row = std::ranges::find(kProcedures, name, &ProcedureRow::name);
  if (row == kProcedures.end()) {
    return std::nullopt;
  }
  return static_cast<Procedure>(std::distance(kProcedures.begin(), row));
}

bool is_mount(Procedure procedure) {
  return procedure >= Procedure::kMountNull && procedure < Procedure::kOther;
}

std::optional<CallHead> parse_call(Bytes head) {
  XdrReader reader(head);
  CallHead call;
  call.xid = reader.u32();
  if (reader.u32() != kMessageCall || reader.u32() != 2) {
    return std::nullopt;
  }
  const std::uint32_t program = reader.u32();
  const std::uint32_t version = reader.u32();
  call.procedure = procedure_of(program, version, reader.u32());
  const std::uint32_t flavor = reader.u32();
  call.uid = uid_of(flavor, reader.opaque());
  static_cast<void>(reader.u32());
  static_cast<void>(reader.opaque());
  if (!reader.ok()) {
    return std::nullopt;
  }
  if (row_of(call.procedure).handle_first) {
    call.handle = text_of(reader.opaque());
  }
  return call;
}

std::optional<ReplyHead> parse_reply(Bytes head) {
  XdrReader reader(head);
  ReplyHead reply;
  reply.xid = reader.u32();
  if (reader.u32() != kMessageReply) {
    return std::nullopt;
  }
  const bool accepted = reader.u32() == 0;
  if (accepted) {
    static_cast<void>(reader.u32());
    static_cast<void>(reader.opaque());
    reply.is_success = reader.u32() == 0;
  }
  if (!reader.ok()) {
    return std::nullopt;
  }
  reply.result_at = reader.position();
  return reply;
}

std::uint32_t read_reply_count(Bytes head) {
  const std::optional<ReplyHead> reply = parse_reply(head);
  if (!reply || !reply->is_success) {
    return 0;
  }
  XdrReader reader(head.subspan(reply->result_at));
  if (reader.u32() != 0) {
    return 0;
  }
  if (reader.u32() != 0) {
    reader.fixed_opaque(kAttributesBytes);
  }
  return reader.u32();
}

std::vector<std::byte> make_error_reply(std::uint32_t xid, Procedure procedure,
                                        std::uint32_t status) {
  std::vector<std::byte> reply;
  append_words(reply, {xid, kMessageReply, 0, 0, 0, 0, status});
  for (int i = 0; i < row_of(procedure).failure_words; ++i) {
    append_words(reply, {0});
  }
  return reply;
}

std::uint32_t XdrReader::u32() {
  const Bytes word = fixed_opaque(4);
  return word.size() == 4 ? load_be<std::uint32_t>(word.data()) : 0;
}

Bytes XdrReader::fixed_opaque(std::size_t length) {
  const std::size_t padded = (length + 3) / 4 * 4;
  if (!ok_ || from_.size() - position_ < padded || padded < length) {
    ok_ = false;
    return {};
  }
  const Bytes bytes = from_.subspan(position_, length);
  position_ += padded;
  return bytes;
}

Bytes XdrReader::opaque() {
  return fixed_opaque(u32());
}

}  // namespace larder::proxy
