// DirectRead: the bytes of a range as the server has them now, past the cache and shared with
// nobody: for files that change too fast to be kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/inode.h"
#include "netfs/read_slice.h"
#include "netfs/share_context.h"

namespace larder::netfs {

// Asks for everything at once, in pieces that the server takes. What comes back ends early only
// where the file does: to the kernel a short answer is the end of the file. Where the server tells
// of a change between two pieces it is asked again, many times; then each piece is what the server
// held, and all of them together what a program may see that reads while another one writes.
// Threads: finished by whoever delivers the last piece. Life: keeps itself alive until `done` ran.
class DirectRead : public std::enable_shared_from_this<DirectRead> {
 public:
  // In order, without gaps.
  struct Outcome {
    std::vector<ReadSlice> slices;
    std::size_t length = 0;
  };

  enum class Sameness : std::uint8_t {
    kOneVersion,   // as said above
    kAnyVersions,  // of a file that we ourselves write to: as a disk would give them
  };

  static void start(std::shared_ptr<ShareContext> share, InodeRef inode, CredentialRef credential,
                    ByteRange wanted, Sameness sameness, Done<Outcome> done);

  // By start() only.
  DirectRead(std::shared_ptr<ShareContext> share, InodeRef inode, CredentialRef credential,
             ByteRange wanted, Sameness sameness, Done<Outcome> done);

 private:
  static constexpr int kMostAttempts = 32;

  struct Piece {
    ByteRange range;
    Buffer buffer;
    std::size_t got = 0;
    bool end = false;  // the file ends behind what was got
  };

  void begin() EXCLUDES(mutex_);
  void ask_attributes(void (DirectRead::*then)());
  void ask_pieces() EXCLUDES(mutex_);
  void check_again() EXCLUDES(mutex_);
  void ask(std::size_t index);
  void on_reply(std::size_t index, Result<ReadReply> reply) EXCLUDES(mutex_);
  // False: more of the piece is to be asked for.
  [[nodiscard]] bool take(Piece& piece, const Result<ReadReply>& reply) REQUIRES(mutex_);
  void note(const Attributes& attributes) REQUIRES(mutex_);
  void finish() EXCLUDES(mutex_);

  const std::shared_ptr<ShareContext> share_;
  const InodeRef inode_;
  const CredentialRef credential_;
  const ByteRange wanted_;
  const Sameness sameness_;
  Done<Outcome> done_;
  int attempts_ = 0;

  Mutex mutex_{LockRank::kStats};
  std::vector<Piece> pieces_ GUARDED_BY(mutex_);
  std::size_t pending_ GUARDED_BY(mutex_) = 0;
  std::optional<Attributes> seen_ GUARDED_BY(mutex_);  // with the first answer
  bool mixed_ GUARDED_BY(mutex_) = false;              // answers of more than one version
  // The server's answers come without attributes: it is asked for them before and after.
  bool blind_ GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

}  // namespace larder::netfs
