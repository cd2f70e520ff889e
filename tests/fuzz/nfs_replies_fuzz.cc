// Every decoder of results, chosen by the first byte, fed with what a server could send.
#include <cstddef>
#include <cstdint>
#include <string>

#include "adapters/nfs/change_procedures.h"
#include "adapters/nfs/mount.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/check.h"

namespace {

using namespace larder;
using namespace larder::nfs;

void check_page(const Result<DirectoryPage>& page) {
  if (!page) {
    return;
  }
  for (const netfs::RemoteEntry& entry : page->reply.entries) {
    CHECK(!entry.name.empty() && entry.name.size() <= 255);
    CHECK(!entry.name.contains('/') && !entry.name.contains('\0'));
    CHECK(entry.name != "." && entry.name != "..");
  }
  CHECK(page->reply.end || page->last_cookie != 7);
}

void decode_change_of(std::uint8_t which, Bytes bytes) {
  switch (which % 6) {
    case 0:
      static_cast<void>(decode_change(bytes, "SETATTR"));
      break;
    case 1:
      static_cast<void>(decode_create(bytes, "CREATE"));
      break;
    case 2:
      static_cast<void>(decode_rename(bytes));
      break;
    case 3:
      static_cast<void>(decode_link(bytes));
      break;
    case 4: {
      const auto written = decode_write(bytes, 100);
      CHECK(!written || (written->length > 0 && written->length <= 100));
      CHECK(!written || written->stability <= netfs::Stability::kFileSync);
      break;
    }
    default:
      static_cast<void>(decode_commit(bytes));
      break;
  }
}

// Bytes from 0x80 on are those of changes, so that older inputs keep their meaning.
void decode(std::uint8_t which, Bytes bytes) {
  if (which >= 0x80) {
    decode_change_of(static_cast<std::uint8_t>(which - 0x80), bytes);
    return;
  }
  switch (which % 14) {
    case 0:
      static_cast<void>(decode_getattr(bytes));
      break;
    case 1:
      static_cast<void>(decode_lookup(bytes));
      break;
    case 2:
      static_cast<void>(decode_access(bytes));
      break;
    case 3:
      static_cast<void>(decode_readlink(bytes));
      break;
    case 4: {
      const auto read = decode_read(bytes, 100, 200);
      CHECK(!read || read->length == 100);
      break;
    }
    case 5: {
      const DataPlace place = find_read_data(bytes);
      CHECK(place.outcome != DataPlace::Outcome::kFound || place.offset <= bytes.size());
      break;
    }
    case 6:
      check_page(decode_readdir(bytes, 7));
      break;
    case 7:
      check_page(decode_readdirplus(bytes, 7));
      break;
    case 8:
      static_cast<void>(decode_fsstat(bytes));
      break;
    case 9:
      static_cast<void>(decode_fsinfo(bytes));
      break;
    case 10:
      static_cast<void>(decode_pathconf(bytes));
      break;
    case 11:
      static_cast<void>(decode_mnt(bytes, "host", "/export"));
      break;
    case 12:
      static_cast<void>(decode_getport(bytes));
      break;
    default: {
      const ReplyHead head = parse_reply_head(bytes, true, kNfsProgram);
      CHECK(head.verdict != ReplyHead::Verdict::kIncomplete);
      CHECK(head.results_at <= bytes.size());
      break;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) {
    decode(data[0], std::as_bytes(std::span(data + 1, size - 1)));
    static_cast<void>(asks_to_wait(std::as_bytes(std::span(data + 1, size - 1))));
  }
  return 0;
}
