// Request: one request of the kernel, from its arrival to its answer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/gate.h"
#include "fuse/journal.h"
#include "fuse/protocol.h"
#include "netfs/call_scope.h"

namespace larder::fuse {

class Request;

// Where answers go: the session.
class ReplySink {
 public:
  ReplySink() = default;
  ReplySink(const ReplySink&) = delete;
  ReplySink& operator=(const ReplySink&) = delete;
  virtual ~ReplySink() = default;

  // Sends the answer, once a request. False: the kernel does not wait for it any more.
  virtual bool send_reply(const Request& request, int error_number,
                          std::span<const iovec> parts) = 0;
};

// Answered exactly once, by whoever has the answer; a request that is destroyed without one is
// answered EIO, so that no process waits for ever.
// Threads: one at a time, but for scope(). Life: shared by whoever works on it.
class Request {
 public:
  // `pass`: held as long as the request lives, so that a session can wait for the last of them.
  Request(ReplySink& sink, Gate::Pass pass, const fuse_in_header& header, Bytes body)
      : pass_(std::move(pass)),
        sink_(sink),
        header_(header),
        body_(body.begin(), body.end()),
        scope_(std::make_shared<netfs::CallScope>()) {}

  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  ~Request();

  [[nodiscard]] const fuse_in_header& header() const { return header_; }

  [[nodiscard]] std::uint64_t unique() const { return header_.unique & ~kUniqueResend; }

  [[nodiscard]] std::uint64_t nodeid() const { return header_.nodeid; }

  [[nodiscard]] Bytes body() const { return body_; }

  // Gives the body away, for bytes that are needed longer than the request: what was read of it
  // stays where it is as long as somebody has it, and body() is empty from now on.
  [[nodiscard]] std::shared_ptr<const std::vector<std::byte>> take_body() {
    return std::make_shared<const std::vector<std::byte>>(std::move(body_));
  }

  // What an interrupt of this request ends.
  [[nodiscard]] const std::shared_ptr<netfs::CallScope>& scope() const { return scope_; }

  // Of a call that must not happen twice: notes its answer before it is sent, and lets go of the
  // slot then. Null: there is none.
  void set_journal(std::shared_ptr<JournaledCall> call) { journal_ = std::move(call); }

  [[nodiscard]] const std::shared_ptr<JournaledCall>& journal() const { return journal_; }

  // The fixed part of the body; null if the body is too short for it.
  template <class T>
  [[nodiscard]] const T* argument() const {
    return body_.size() >= sizeof(T) ? reinterpret_cast<const T*>(body_.data()) : nullptr;
  }

  // The zero-terminated name behind `skip` bytes of the body; empty when there is none.
  [[nodiscard]] std::string_view name(std::size_t skip = 0) const;

  // False: the kernel does not wait for the answer any more, nothing of it counts.
  bool reply_error(int error_number);
  bool reply_error(const Error& error);
  bool reply_empty();

  // For the requests that the protocol leaves unanswered.
  void end_without_reply() { answered_ = true; }

  bool reply_parts(std::span<const iovec> parts);

  template <class T>
  bool reply(const T& object) {
    const iovec part{const_cast<T*>(&object), sizeof object};  // writev only reads it
    return reply_parts({&part, 1});
  }

 private:
  bool answer(int error_number, std::span<const iovec> parts);

  const Gate::Pass pass_;  // first: it leaves last
  ReplySink& sink_;
  const fuse_in_header header_;
  std::vector<std::byte> body_;
  const std::shared_ptr<netfs::CallScope> scope_;
  std::shared_ptr<JournaledCall> journal_;
  bool answered_ = false;
};

using RequestRef = std::shared_ptr<Request>;

}  // namespace larder::fuse
