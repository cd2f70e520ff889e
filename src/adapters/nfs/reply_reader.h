// ReplyReader: from the bytes of a TCP stream to replies, and the data of READs to its destination.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_message.h"
#include "base/bytes.h"
#include "base/result.h"

namespace larder::nfs {

// Who knows the calls in flight. All on the stream's thread.
class ReplySink {
 public:
  struct Target {
    MutableBytes destination;
    FindData find_data = nullptr;
  };

  ReplySink() = default;
  ReplySink(const ReplySink&) = delete;
  ReplySink& operator=(const ReplySink&) = delete;
  virtual ~ReplySink() = default;

  // A reply to `xid` begins. The destination is the reader's from here until end_reply or
  // abandon(). Nothing: nobody waits for it (late, repeated, invented); it is skipped.
  [[nodiscard]] virtual std::optional<Target> begin_reply(std::uint32_t xid) = 0;
  // The reply that was begun is complete, or makes no sense.
  virtual void end_reply(Result<RpcReply> reply) = 0;
  // Data is read straight into destinations now, so a receive should not run far beyond a head.
  [[nodiscard]] virtual bool expects_data() const = 0;
};

// Cuts the stream into records, puts fragments together, and finds in each reply what belongs
// where. Bytes of a record's head go through a staging buffer; once a READ's head is known up to
// its data length, and that length fits, the stream receives straight into the destination. Nothing
// is ever written to a destination before that check, nor after end_reply or abandon().
//
// Memory grows with the bytes that arrived, never with a length that a peer only claims.
// Threads: the stream's alone.
class ReplyReader {
 public:
  ReplyReader(const RpcProgram& program, ReplySink& sink);

  // Where the next bytes go; never empty.
  [[nodiscard]] MutableBytes next_buffer();
  // The first `length` bytes of what next_buffer gave last have arrived. An error: this stream
  // makes no sense any more and has to be closed.
  [[nodiscard]] Result<> received(std::size_t length);
  // The reply that is being read shall go nowhere: its destination is let go, the rest skipped.
  void abandon();
  // Begins anew with another stream; what was begun is forgotten.
  void reset();

 private:
  // What the next byte of the record is.
  enum class Part : std::uint8_t {
    kHead,  // kept in head_
    kData,  // for the destination
    kSkip,  // for nobody
  };

  Result<> feed(Bytes bytes);
  Result<> feed_mark(Bytes& bytes);
  Result<> begin_fragment();
  Result<> feed_record(Bytes bytes);
  void feed_head(Bytes& bytes);
  void feed_data(Bytes& bytes);
  void claim();
  void unclaim();
  void examine_head();
  void find_data();
  void advance_data(std::size_t length);
  Result<> end_record();
  void refuse(Error error);
  void finish(Result<RpcReply> reply);
  void begin_record();

  const RpcProgram program_;
  ReplySink& sink_;

  const std::unique_ptr<std::byte[]> staging_;
  bool direct_ = false;  // next_buffer gave a piece of the destination

  std::array<std::byte, kMarkBytes> mark_{};
  std::size_t mark_length_ = 0;
  std::size_t fragment_left_ = 0;
  bool last_fragment_ = false;
  unsigned empty_fragments_ = 0;
  std::size_t record_length_ = 0;  // of the fragments seen so far

  Part part_ = Part::kHead;
  std::vector<std::byte> head_;
  bool claimed_ = false;        // between begin_reply and end_reply
  ReplySink::Target target_;    // while claimed_
  std::size_t results_at_ = 0;  // in head_; 0: not known yet
  bool no_data_ = false;        // the results were seen to have none
  std::size_t data_length_ = 0;
  std::size_t data_filled_ = 0;
};

}  // namespace larder::nfs
