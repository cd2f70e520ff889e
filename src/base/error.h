// What went wrong, as a value: a code for the program, an errno for the caller, a context for
// people.
#pragma once

#include <string>
#include <string_view>

namespace larder {

// What the code that handles an error needs to tell apart; everything finer is in the errno.
enum class Errc {
  kNotFound,      // no such name, object or range
  kExists,        // the name is taken
  kStale,         // it was there, but is not the same thing any more
  kChanged,       // the file has another version now: ask again
  kNoSpace,       // the disk or a limit is full: cull, and do not cache this
  kBusy,          // in use by somebody else; worth trying again later
  kIo,            // the device or the filesystem failed
  kCacheDead,     // the cache was withdrawn; ask the server
  kCorrupt,       // bytes that fail their checksum or make no sense
  kInvalid,       // bad input; the context says what, where and what to do
  kUnsuitable,    // what was named belongs to others or is of another kind: name something else
  kNotSupported,  // this kernel, filesystem or server cannot do it
  kTimedOut,      // the deadline passed
  kRemote,        // the server refused; the errno says how
  kCancelled,     // we were told to stop
  kPermission,    // the operating system refused us
};

[[nodiscard]] std::string_view name_of(Errc code);

// An error that travels up to where it is handled or shown. Cheap to move, not for hot paths.
// Threads: a value; as safe as a std::string.
class Error {
 public:
  // `context` is the whole sentence.
  Error(Errc code, std::string context);
  // `error_number` adds to it what a system call or a server said; 0: the code's own.
  Error(Errc code, int error_number, std::string context);

  // `error_number` is an errno of a failed system call; the one place where it becomes a code.
  static Error from_errno(int error_number, std::string context);

  [[nodiscard]] Errc code() const { return code_; }

  // An errno that a caller of the mount may be given; never 0.
  [[nodiscard]] int error_number() const { return error_number_; }

  // What, where and, for bad input, what to do: can be shown as it is.
  [[nodiscard]] const std::string& context() const { return context_; }

  // The context, with the errno's text behind it if there was one.
  [[nodiscard]] std::string message() const;
  // The same error, told from further up: "where: context".
  [[nodiscard]] Error within(std::string_view where) const;

 private:
  Errc code_;
  int error_number_;
  bool from_errno_;
  std::string context_;
};

}  // namespace larder
