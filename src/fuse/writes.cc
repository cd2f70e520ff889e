// Writes of files: WRITE, FLUSH, FSYNC.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/result.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "fuse/write_watch.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/writer.h"

namespace larder::fuse {

namespace {

bool can_write(const netfs::OpenFile& open) {
  return open.opened != nullptr && open.opened->writes();
}

// What the kernel wrote back of a mapping is of nobody's write(2), whatever the handle says.
bool is_written_back(const fuse_write_in& in) {
  return (in.write_flags & FUSE_WRITE_CACHE) != 0;
}

// What is written back has no close behind it that would wait for it.
bool goes_through(const fuse_write_in& in) {
  return is_written_back(in) || (in.flags & (O_SYNC | O_DSYNC | O_DIRECT)) != 0;
}

std::uint64_t end_of(const fuse_write_in& in) {
  return in.offset + in.size;
}

bool ends_in_a_page(const fuse_write_in& in) {
  static const auto page_size = static_cast<std::uint64_t>(::getpagesize());
  return end_of(in) % page_size != 0;
}

netfs::WritePlace place_of(const fuse_write_in& in) {
  return {.offset = in.offset,
          .append = (in.flags & O_APPEND) != 0 && !is_written_back(in),
          .clear_privileges = (in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0,
          .through = goes_through(in),
          .of_mapping = is_written_back(in)};
}

}  // namespace

void Filesystem::write(const RequestRef& request) {
  const auto* const argument = request->argument<fuse_write_in>();
  if (argument == nullptr) {
    request->reply_error(EINVAL);
    return;
  }
  const fuse_write_in in = *argument;
  if (in.size > kMostIoBytes || in.size > request->body().size() - sizeof in) {
    request->reply_error(EINVAL);
    return;
  }
  const HandleRef file = handle(*request, in.fh);
  if (file == nullptr || file->nodeid != request->nodeid() || !can_write(file->open)) {
    request->reply_error(EBADF);
    return;
  }
  if (in.size == 0) {
    request->reply(fuse_write_out{});
    return;
  }
  const std::shared_ptr<const std::vector<std::byte>> body = request->take_body();
  const Bytes bytes = Bytes(*body).subspan(sizeof in, in.size);
  if (is_written_back(in)) {
    if (ends_in_a_page(in)) {
      write_watch_.note_write_back(request->nodeid(), end_of(in));
    }
    share_.write(file->open, place_of(in), {body, bytes}, caller_of(*request),
                 [this, request, file, in](const Result<netfs::Written>& written) {
                   answer_write_back(*request, *file->open.file->inode(), in, written);
                 });
    return;
  }
  const WriteWatch::WriteRef watched = write_watch_.begin(request->nodeid(), end_of(in));
  share_.write(file->open, place_of(in), {body, bytes}, caller_of(*request),
               [this, request, watched, in](Result<netfs::Written> written) {
                 answer_write(request, watched, in, std::move(written));
               });
}

void Filesystem::answer_write(const RequestRef& request, const WriteWatch::WriteRef& watched,
                              const fuse_write_in& in, Result<netfs::Written> written) {
  const std::optional<std::uint64_t> cleared_from = write_watch_.end(watched);
  if (!cleared_from) {
    reply_write(*request, in, written);
    return;
  }
  // Before the answer the file is not longer to anybody, and the server has the bytes: whoever has
  // the page read again gets them.
  session_->drop_page(
      request->nodeid(), *cleared_from,
      [this, request, in, written = std::move(written)] { reply_write(*request, in, written); });
}

void Filesystem::answer_write_back(Request& request, const netfs::Inode& inode,
                                   const fuse_write_in& in, const Result<netfs::Written>& written) {
  if (!written) {
    // The kernel goes on to show what a mapping brought, and the server has not got.
    invalidate_written(request.nodeid(), in);
    request.reply_error(written.error());
    return;
  }
  const std::uint64_t nodeid = request.nodeid();
  fuse_write_out out{};
  // Pages are written back whole, or lie where the file was cut off.
  out.size = in.size;
  request.reply(out);
  if (ends_in_a_page(in) && inode.attributes().attributes.size > end_of(in)) {
    // The file was longer already than the kernel took it to be.
    session_->drop_page(nodeid, end_of(in), [] {});
  }
}

void Filesystem::reply_write(Request& request, const fuse_write_in& in,
                             const Result<netfs::Written>& written) {
  if (!written) {
    request.reply_error(written.error());
    return;
  }
  if (written->offset != in.offset) {
    // Its pages have the bytes where it thought that the file ends. Told before the answer: from
    // then on others may read them.
    session_->invalidate(request.nodeid());
  }
  fuse_write_out out{};
  out.size = static_cast<std::uint32_t>(written->length);
  request.reply(out);
}

void Filesystem::invalidate_written(std::uint64_t nodeid, const fuse_write_in& in) {
  session_->invalidate(nodeid, static_cast<std::int64_t>(in.offset), in.size);
}

// close(2), of each copy of a descriptor.
void Filesystem::flush(const RequestRef& request) {
  const auto* const in = request->argument<fuse_flush_in>();
  const HandleRef file = in == nullptr ? nullptr : handle(*request, in->fh);
  if (file == nullptr) {
    request->reply_error(EBADF);
    return;
  }
  if (locks_ && file->open.file != nullptr) {
    // First: others must not wait for a server on account of one who is gone.
    share_.locks().close_descriptor(*file->open.file->inode(), in->lock_owner, in->fh);
  }
  if (can_write(file->open)) {
    sync(request, file);
  } else {
    request->reply_empty();
  }
}

// Of any descriptor: what others wrote to the file is to be safe too.
void Filesystem::fsync(const RequestRef& request) {
  const auto* const in = request->argument<fuse_fsync_in>();
  const HandleRef file = in == nullptr ? nullptr : handle(*request, in->fh);
  if (file == nullptr || file->open.file == nullptr) {
    request->reply_error(EBADF);
  } else {
    sync(request, file);
  }
}

void Filesystem::sync(const RequestRef& request, const HandleRef& handle) {
  share_.sync(handle->open, caller_of(*request), empty_replier(request));
}

}  // namespace larder::fuse
