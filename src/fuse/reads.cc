// Reads of files: READ.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <sys/uio.h>

#include "base/bytes.h"
#include "base/result.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "netfs/file.h"
#include "netfs/read_request.h"
#include "netfs/share.h"

namespace larder::fuse {

namespace {

// How often a read begins anew because the file changed between its last byte and its reply.
constexpr int kMostReplyAttempts = 3;

}  // namespace

void Filesystem::read(const RequestRef& request) {
  const auto* const in = request->argument<fuse_read_in>();
  const HandleRef file = in == nullptr ? nullptr : handle(*request, in->fh);
  if (file == nullptr || file->open.file == nullptr) {
    request->reply_error(EBADF);
    return;
  }
  if (in->size > kMostIoBytes) {
    request->reply_error(EINVAL);
    return;
  }
  start_read(request, file, 1);
}

void Filesystem::start_read(const RequestRef& request, const HandleRef& handle, int attempt) {
  const auto* const in = request->argument<fuse_read_in>();
  share_.read(handle->open, {in->offset, in->size}, request->scope(),
              [this, request, handle, attempt](Result<netfs::ReadOutcome> outcome) {
                reply_read(request, handle, attempt, std::move(outcome));
              });
}

void Filesystem::reply_read(const RequestRef& request, const HandleRef& handle, int attempt,
                            Result<netfs::ReadOutcome> outcome) {
  if (!outcome) {
    request->reply_error(outcome.error());
    return;
  }
  netfs::File& file = *handle->open.file;
  const bool current = outcome->version != nullptr && file.begin_reply(outcome->version);
  if (!current && outcome->version != nullptr && attempt < kMostReplyAttempts) {
    start_read(request, handle, attempt + 1);
    return;
  }
  std::vector<iovec> parts;
  parts.reserve(outcome->slices.size());
  for (const auto& slice : outcome->slices) {
    // writev only reads from them
    parts.push_back({const_cast<std::byte*>(slice.bytes.data()), slice.bytes.size()});
  }
  request->reply_parts(parts);
  if (current) {
    file.end_reply();
  } else {
    // These bytes belong to no version that anybody may keep: the kernel neither.
    const auto* const in = request->argument<fuse_read_in>();
    session_->invalidate(handle->nodeid, static_cast<std::int64_t>(in->offset), in->size);
  }
}

}  // namespace larder::fuse
