// Calls that must not happen twice, when they come again after an engine died.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <fcntl.h>
#include <sys/uio.h>

#include "base/log.h"
#include "fuse/filesystem.h"
#include "fuse/journal.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"

namespace larder::fuse {

namespace {

// The end of a file is chosen by us, and is another one a moment later.
bool is_append(const Request& request) {
  const auto* const in = request.argument<fuse_write_in>();
  return in != nullptr && (in->flags & O_APPEND) != 0 && (in->write_flags & FUSE_WRITE_CACHE) == 0;
}

template <class Struct, class Change>
void change_at(std::span<std::byte> bytes, const Change& change) {
  Struct fixed{};
  if (bytes.size() >= sizeof fixed) {
    std::memcpy(&fixed, bytes.data(), sizeof fixed);
    change(fixed);
    std::memcpy(bytes.data(), &fixed, sizeof fixed);
  }
}

// Names, attributes and pages were right when the answer was made. What has changed since then
// nobody has told the kernel: it shall ask.
void take_trust_out(std::span<std::byte> body) {
  if (body.size() < sizeof(fuse_entry_out)) {
    return;
  }
  change_at<fuse_entry_out>(body, [](fuse_entry_out& out) {
    out.entry_valid = out.attr_valid = 0;
    out.entry_valid_nsec = out.attr_valid_nsec = 0;
  });
  change_at<OpenOut>(body.subspan(sizeof(fuse_entry_out)),
                     [](OpenOut& out) { out.open_flags &= ~std::uint32_t{FOPEN_KEEP_CACHE}; });
}

}  // namespace

bool Filesystem::begin_once_only(const RequestRef& request) {
  const std::uint32_t opcode = request->header().opcode;
  if (opcode == FUSE_WRITE && !is_append(*request)) {
    return true;  // the same bytes in the same place
  }
  const std::shared_ptr<JournaledCall> call = journal_.begin(mount_id_, request->unique(), opcode);
  if (call == nullptr) {
    return true;
  }
  request->set_journal(call);
  const std::optional<JournaledCall::Answer>& answer = call->earlier_answer();
  if (call->earlier().sent) {
    log_debug("request {} (opcode {}) comes again, {}", request->unique(), opcode,
              answer ? "answered" : "sent");
  }
  const bool succeeded = answer && answer->error_number == 0;
  if (!succeeded && call->earlier_taken().nodeid != 0) {
    // In this order: a kill in between leaves one too many, never one too few.
    call->note_handle(0);
    call->note_node(0);
    give_back_taken(call->earlier_taken());
  }
  if (!answer) {
    return true;
  }
  repeat_answer(*request, *answer);
  return false;
}

void Filesystem::repeat_answer(Request& request, const JournaledCall::Answer& stored) {
  if (stored.error_number != 0) {
    request.reply_error(stored.error_number);
    return;
  }
  const std::shared_ptr<JournaledCall> call = request.journal();
  if (const auto* const in = request.argument<fuse_write_in>();
      request.header().opcode == FUSE_WRITE && call->earlier().offset != in->offset) {
    // As the first time: its pages have the bytes elsewhere.
    session_->invalidate(request.nodeid());
  }
  std::vector<std::byte> body = stored.body;
  take_trust_out(body);
  const iovec part{body.data(), body.size()};
  if (!request.reply_parts({&part, body.empty() ? 0U : 1U})) {
    give_back_taken(call->earlier_taken());
  }
}

// The kernel does not know of it, and will not give it back.
void Filesystem::give_back_taken(const JournaledCall::Taken& taken) {
  if (taken.fh != 0 && handles_.remove(mount_id_, taken.nodeid, taken.fh) != nullptr) {
    close_node(taken.nodeid);
  }
  if (taken.nodeid != 0) {
    give_back(nodes_.forget(taken.nodeid, 1));
  }
}

}  // namespace larder::fuse
