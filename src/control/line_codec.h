// The bytes of control.sock: a request is a line of words, a reply is packets of text.
//
// Words are separated by single spaces; within a word the bytes up to 0x20, 0x7f and '%' are
// written %XX. A reply is any number of packets "more\n<bytes>" and then one "ok\n<bytes>", whose
// bytes together are the body, or one "error <sentence>\n".
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace larder::control {

inline constexpr std::size_t kMostLineBytes = 16384;
inline constexpr std::size_t kMostWords = 16;
inline constexpr std::size_t kMostPacketBytes = 32768;
inline constexpr std::size_t kMostBodyBytes = std::size_t{8} * 1024 * 1024;

// Without a newline. kInvalid: an empty word, too many words, too long a line.
[[nodiscard]] Result<std::string> encode_line(const std::vector<std::string>& words);
// `line` with or without a newline at its end. kInvalid, as a sentence.
[[nodiscard]] Result<std::vector<std::string>> decode_line(std::string_view line);

// The packets of a reply. A body that is too long is cut; newlines in a sentence become spaces.
[[nodiscard]] std::vector<std::string> encode_reply(const Result<std::string>& reply);

// Puts a reply together again.
class ReplyReader {
 public:
  // True: the reply is complete. kCorrupt: the packet makes no sense, or the body is too long.
  [[nodiscard]] Result<bool> add(std::string_view packet);
  // Requires add() to have returned true. An "error" is kInvalid with the sentence as its context.
  [[nodiscard]] Result<std::string> take();

 private:
  std::string body_;
  bool is_error_ = false;
};

}  // namespace larder::control
