#include "fuse/request.h"

#include <cerrno>
#include <cstddef>
#include <span>
#include <string_view>

#include <sys/uio.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"

namespace larder::fuse {

Request::~Request() {
  if (!answered_) {
    reply_error(EIO);
  }
}

std::string_view Request::name(std::size_t skip) const {
  if (body_.size() <= skip) {
    return {};
  }
  const std::string_view text = text_of(body()).substr(skip);
  return text.substr(0, text.find('\0'));
}

bool Request::reply_error(int error_number) {
  return answer(error_number, {});
}

// The one place where a failure becomes what a process sees.
bool Request::reply_error(const Error& error) {
  return reply_error(error.error_number());
}

bool Request::reply_empty() {
  return reply_parts({});
}

bool Request::reply_parts(std::span<const iovec> parts) {
  return answer(0, parts);
}

bool Request::answer(int error_number, std::span<const iovec> parts) {
  CHECK(!answered_, "request {} answered twice", unique());
  answered_ = true;
  if (journal_ == nullptr) {
    return sink_.send_reply(*this, error_number, parts);
  }
  journal_->note_answer(error_number, parts);
  const bool taken = sink_.send_reply(*this, error_number, parts);
  journal_->end();
  return taken;
}

}  // namespace larder::fuse
