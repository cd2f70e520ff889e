#include "adapters/nfs/reply_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"

namespace larder::nfs {

namespace {

constexpr std::size_t kStagingBytes = 64U << 10;
// While data is expected: mark, head and a READ's results with attributes are 132 bytes; what comes
// with them beyond that is copied, which costs less than another system call for small files.
constexpr std::size_t kStagingBeforeData = 2048;
// Longer heads of replies with data do not exist.
constexpr std::size_t kMostHeadBeforeData = 1024;
constexpr unsigned kMostEmptyFragments = 64;
// What a long head may leave allocated.
constexpr std::size_t kKeptHeadBytes = 256U << 10;

}  // namespace

ReplyReader::ReplyReader(const RpcProgram& program, ReplySink& sink)
    : program_(program),
      sink_(sink),
      staging_(std::make_unique_for_overwrite<std::byte[]>(kStagingBytes)) {}

void ReplyReader::reset() {
  mark_length_ = 0;
  fragment_left_ = 0;
  direct_ = false;
  begin_record();
}

void ReplyReader::begin_record() {
  last_fragment_ = false;
  empty_fragments_ = 0;
  record_length_ = 0;
  part_ = Part::kHead;
  if (head_.capacity() > kKeptHeadBytes) {
    head_ = {};
  }
  head_.clear();
  unclaim();
  results_at_ = 0;
  no_data_ = false;
  data_length_ = 0;
  data_filled_ = 0;
}

void ReplyReader::abandon() {
  if (claimed_) {
    unclaim();
    part_ = Part::kSkip;
  }
}

MutableBytes ReplyReader::next_buffer() {
  const std::size_t left = std::min(fragment_left_, data_length_ - data_filled_);
  direct_ = part_ == Part::kData && left > 0;
  if (direct_) {
    return target_.destination.subspan(data_filled_, left);
  }
  const bool small = part_ != Part::kSkip && sink_.expects_data();
  return {staging_.get(), small ? kStagingBeforeData : kStagingBytes};
}

Result<> ReplyReader::received(std::size_t length) {
  if (!direct_) {
    return feed(Bytes(staging_.get(), length));
  }
  if (part_ != Part::kData) {  // abandoned since, by a task that came between
    return fail(Errc::kCorrupt, "a buffer was filled after it was taken back");
  }
  advance_data(length);
  fragment_left_ -= length;
  return fragment_left_ == 0 && last_fragment_ ? end_record() : Result<>();
}

Result<> ReplyReader::feed(Bytes bytes) {
  Result<> result;
  while (!bytes.empty() && result) {
    if (fragment_left_ == 0) {
      result = feed_mark(bytes);
    } else {
      const Bytes first = bytes.first(std::min(bytes.size(), fragment_left_));
      bytes = bytes.subspan(first.size());
      result = feed_record(first);
    }
  }
  return result;
}

Result<> ReplyReader::feed_mark(Bytes& bytes) {
  const std::size_t length = std::min(bytes.size(), kMarkBytes - mark_length_);
  std::memcpy(mark_.data() + mark_length_, bytes.data(), length);
  mark_length_ += length;
  bytes = bytes.subspan(length);
  if (mark_length_ < kMarkBytes) {
    return {};
  }
  mark_length_ = 0;
  return begin_fragment();
}

Result<> ReplyReader::begin_fragment() {
  const auto mark = load_be<std::uint32_t>(mark_.data());
  last_fragment_ = (mark & kLastFragment) != 0;
  fragment_left_ = mark & ~kLastFragment;
  record_length_ += fragment_left_;
  if (record_length_ > kMostRecordBytes) {
    return fail(Errc::kCorrupt, fmt::format("a record of at least {} bytes, longer than any reply",
                                            record_length_));
  }
  if (fragment_left_ > 0) {
    return {};
  }
  if (last_fragment_) {
    return end_record();
  }
  if (++empty_fragments_ > kMostEmptyFragments) {
    return fail(Errc::kCorrupt, "empty fragments without an end");
  }
  return {};
}

// `bytes` are of one fragment.
Result<> ReplyReader::feed_record(Bytes bytes) {
  while (!bytes.empty()) {
    const std::size_t before = bytes.size();
    switch (part_) {
      case Part::kHead:
        feed_head(bytes);
        break;
      case Part::kData:
        feed_data(bytes);
        break;
      case Part::kSkip:
        bytes = {};
        break;
    }
    fragment_left_ -= before - bytes.size();
  }
  return fragment_left_ == 0 && last_fragment_ ? end_record() : Result<>();
}

void ReplyReader::feed_data(Bytes& bytes) {
  const std::size_t length = std::min(bytes.size(), data_length_ - data_filled_);
  if (length > 0) {
    std::memcpy(target_.destination.data() + data_filled_, bytes.data(), length);
  }
  advance_data(length);
  bytes = bytes.subspan(length);
}

// Takes as much as belongs to the head, which may be less than is there when data follows.
void ReplyReader::feed_head(Bytes& bytes) {
  std::size_t length = bytes.size();
  if (head_.size() < kReplyPrefixBytes) {
    length = std::min(length, kReplyPrefixBytes - head_.size());
  } else if (claimed_ && !target_.destination.empty() && !no_data_) {
    length = std::min(length, kMostHeadBeforeData - head_.size());
  }
  const std::size_t before = head_.size();
  head_.insert(head_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
  examine_head();
  if (part_ == Part::kData) {  // the head ended within these bytes
    length = head_.size() - before;
  }
  bytes = bytes.subspan(length);
}

void ReplyReader::examine_head() {
  if (head_.size() < kReplyPrefixBytes) {
    return;
  }
  if (!claimed_) {
    claim();
    return;
  }
  if (target_.destination.empty() || no_data_) {
    return;  // looked at when it is complete
  }
  if (results_at_ == 0) {
    const ReplyHead reply = parse_reply_head(head_, false, program_);
    if (reply.verdict == ReplyHead::Verdict::kRefused) {
      refuse(reply.refusal());
      return;
    }
    results_at_ = reply.results_at;
  }
  if (results_at_ != 0) {
    find_data();
  }
  if (part_ == Part::kHead && !no_data_ && head_.size() >= kMostHeadBeforeData) {
    refuse(Error(Errc::kCorrupt, "a reply to READ whose data does not begin"));
  }
}

void ReplyReader::claim() {
  const ReplyPrefix prefix = parse_reply_prefix(head_);
  const std::optional<ReplySink::Target> target =
      prefix.is_reply ? sink_.begin_reply(prefix.xid) : std::nullopt;
  claimed_ = target.has_value();
  if (target) {
    target_ = *target;
  } else {
    part_ = Part::kSkip;
  }
}

void ReplyReader::unclaim() {
  claimed_ = false;
  target_ = {};
}

void ReplyReader::find_data() {
  const DataPlace place = target_.find_data(Bytes(head_).subspan(results_at_));
  switch (place.outcome) {
    case DataPlace::Outcome::kNeedMore:
      return;
    case DataPlace::Outcome::kNone:
      no_data_ = true;
      return;
    case DataPlace::Outcome::kCorrupt:
      refuse(Error(Errc::kCorrupt, "a reply to READ that makes no sense"));
      return;
    case DataPlace::Outcome::kFound:
      break;
  }
  if (place.length > target_.destination.size()) {
    refuse(Error(Errc::kCorrupt, fmt::format("the server sent {} bytes where {} were asked for",
                                             place.length, target_.destination.size())));
    return;
  }
  CHECK(results_at_ + place.offset <= head_.size());
  head_.resize(results_at_ + place.offset);
  data_length_ = place.length;
  part_ = Part::kData;
  advance_data(0);
}

void ReplyReader::advance_data(std::size_t length) {
  data_filled_ += length;
  if (data_filled_ == data_length_ && claimed_) {
    // The padding goes nowhere; the reply is whole when its record is.
    part_ = Part::kSkip;
  }
}

Result<> ReplyReader::end_record() {
  if (head_.size() < kReplyPrefixBytes) {
    return fail(Errc::kCorrupt,
                fmt::format("a record of {} bytes, too short for a reply", record_length_));
  }
  if (!claimed_) {
    begin_record();
    return {};
  }
  if (results_at_ == 0) {
    const ReplyHead reply = parse_reply_head(head_, true, program_);
    if (reply.verdict != ReplyHead::Verdict::kAccepted) {
      finish(fail(reply.refusal()));
      begin_record();
      return {};
    }
    results_at_ = reply.results_at;
  }
  const bool found = !target_.destination.empty() && !no_data_ && part_ == Part::kSkip;
  const bool wants_data = !target_.destination.empty() && !no_data_;
  if (wants_data && !found) {
    finish(fail(Errc::kCorrupt, "a reply to READ that ends too early"));
  } else {
    finish(RpcReply{Bytes(head_).subspan(results_at_), data_filled_});
  }
  begin_record();
  return {};
}

// The reply ends here for whoever waits; what is left of its record is skipped.
void ReplyReader::refuse(Error error) {
  finish(fail(std::move(error)));
  part_ = Part::kSkip;
}

void ReplyReader::finish(Result<RpcReply> reply) {
  unclaim();
  sink_.end_reply(std::move(reply));
}

}  // namespace larder::nfs
