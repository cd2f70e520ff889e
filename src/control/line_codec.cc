#include "control/line_codec.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::control {

namespace {

constexpr std::string_view kMore = "more\n";
constexpr std::string_view kOk = "ok\n";
constexpr std::string_view kError = "error ";
constexpr std::size_t kMostSentenceBytes = 4096;

bool is_plain(char c) {
  return static_cast<unsigned char>(c) > 0x20 && c != 0x7f && c != '%';
}

Result<std::string> decode_word(std::string_view word) {
  if (word.empty()) {
    return fail(Errc::kInvalid, "an empty word: separate words by single spaces");
  }
  std::string decoded;
  for (std::size_t i = 0; i < word.size(); ++i) {
    if (word[i] != '%') {
      if (!is_plain(word[i])) {
        return fail(Errc::kInvalid, "an unprintable byte: write it %XX");
      }
      decoded.push_back(word[i]);
      continue;
    }
    const std::string_view digits = word.substr(i + 1, 2);
    unsigned char byte = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2 || byte == 0) {
      return fail(Errc::kInvalid, "% without two hexadecimal digits behind it, or %00");
    }
    decoded.push_back(static_cast<char>(byte));
    i += 2;
  }
  return decoded;
}

}  // namespace

Result<std::string> encode_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    if (word.empty() || word.find('\0') != std::string::npos) {
      return fail(Errc::kInvalid, "an argument is empty");
    }
    if (!line.empty()) {
      line += ' ';
    }
    for (const char c : word) {
      if (is_plain(c)) {
        line += c;
      } else {
        line += fmt::format("%{:02x}", static_cast<unsigned char>(c));
      }
    }
  }
  if (words.empty() || words.size() > kMostWords || line.size() > kMostLineBytes) {
    return fail(Errc::kInvalid, "too many or too long arguments");
  }
  return line;
}

Result<std::vector<std::string>> decode_line(std::string_view line) {
  if (line.ends_with('\n')) {
    line.remove_suffix(1);
  }
  if (line.size() > kMostLineBytes) {
    return fail(Errc::kInvalid, fmt::format("a line of more than {} bytes", kMostLineBytes));
  }
  std::vector<std::string> words;
  while (true) {
    if (words.size() == kMostWords) {
      return fail(Errc::kInvalid, fmt::format("more than {} words", kMostWords));
    }
    const std::size_t space = line.find(' ');
    words.push_back(TRY(decode_word(line.substr(0, space))));
    if (space == std::string_view::npos) {
      return words;
    }
    line.remove_prefix(space + 1);
  }
}

std::vector<std::string> encode_reply(const Result<std::string>& reply) {
  if (!reply) {
    std::string sentence = reply.error().message().substr(0, kMostSentenceBytes);
    std::ranges::replace(sentence, '\n', ' ');
    return {fmt::format("{}{}\n", kError, sentence)};
  }
  std::vector<std::string> packets;
  std::string_view rest = std::string_view(*reply).substr(0, kMostBodyBytes);
  constexpr std::size_t kRoom = kMostPacketBytes - kMore.size();
  while (rest.size() > kRoom) {
    packets.push_back(fmt::format("{}{}", kMore, rest.substr(0, kRoom)));
    rest.remove_prefix(kRoom);
  }
  packets.push_back(fmt::format("{}{}", kOk, rest));
  return packets;
}

Result<bool> ReplyReader::add(std::string_view packet) {
  if (packet.starts_with(kError) && packet.ends_with('\n') && body_.empty()) {
    is_error_ = true;
    body_ = packet.substr(kError.size(), packet.size() - kError.size() - 1);
    return true;
  }
  const bool more = packet.starts_with(kMore);
  if (!more && !packet.starts_with(kOk)) {
    return fail(Errc::kCorrupt, "the engine's reply makes no sense");
  }
  packet.remove_prefix(more ? kMore.size() : kOk.size());
  if (body_.size() + packet.size() > kMostBodyBytes) {
    return fail(Errc::kCorrupt, "the engine's reply is too long");
  }
  body_ += packet;
  return !more;
}

Result<std::string> ReplyReader::take() {
  if (is_error_) {
    return fail(Errc::kInvalid, std::move(body_));
  }
  return std::move(body_);
}

}  // namespace larder::control
