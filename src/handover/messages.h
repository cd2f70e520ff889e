// The messages on the keeper's two sockets: their layout, and sending and receiving them whole.
//
// keeper.sock carries one KeeperRequest and one KeeperReply per connection, both of fixed size. The
// channel between keeper and engine carries messages of a fixed head and, behind it, a text of the
// length that the head tells. Native byte order: both ends are programs of one machine. Whatever
// arrives is checked for version, length and number of descriptors before anybody looks at it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "os/packet_socket.h"

namespace larder::handover {

// Raised with every change of a layout or a meaning below.
inline constexpr std::uint32_t kProtocolVersion = 1;
inline constexpr std::size_t kMostSpecBytes = 4096;
inline constexpr std::size_t kMostSentenceBytes = 1000;
// Where an engine finds its end of the channel when it is started.
inline constexpr int kChannelDescriptor = 3;

// ---- keeper.sock

enum class RequestKind : std::uint32_t {
  kMount = 1,    // with one descriptor, the mounted /dev/fuse; answered when the engine serves it
  kUnmount = 2,  // let the mount go: its users get ENOTCONN until somebody detaches it
  kStop = 3,     // end the engine, then the keeper
  kPids = 4,     // nothing but the reply's pids
};

struct KeeperRequest {
  std::uint32_t version = kProtocolVersion;
  RequestKind kind{};
  std::uint32_t mount_id = 0;     // kUnmount
  std::uint32_t spec_length = 0;  // kMount
  std::uint64_t device = 0;       // kMount: st_dev of the mount
  std::array<char, kMostSpecBytes> spec{};
};

struct KeeperReply {
  std::uint32_t version = kProtocolVersion;
  std::int32_t error_number = 0;  // 0: done
  std::uint32_t mount_id = 0;
  std::int32_t keeper_pid = 0;
  std::int32_t engine_pid = 0;        // 0: none runs at the moment
  std::uint32_t sentence_length = 0;  // why it was refused
  std::array<char, kMostSentenceBytes> sentence{};
};

// The text cut to what fits.
void put_sentence(KeeperReply& reply, std::string_view sentence);
// The lengths are checked by whoever received them.
[[nodiscard]] std::string_view spec_of(const KeeperRequest& request);
[[nodiscard]] std::string_view sentence_of(const KeeperReply& reply);

struct ReceivedRequest {
  KeeperRequest request;
  UniqueFd descriptor;  // valid for kMount, and only then
};

// Errors as os::receive_packet; kCorrupt also for a wrong length, kind or number of descriptors;
// kNotSupported for another version.
[[nodiscard]] Result<ReceivedRequest> receive_request(const UniqueFd& socket, os::Wait wait);
[[nodiscard]] Result<KeeperReply> receive_reply(const UniqueFd& socket);

// ---- The channel

enum class MessageKind : std::uint32_t {
  // Keeper to engine.
  kHello = 1,         // text: HelloText; descriptors: the tables in their order, the control socket
  kTakeMount = 2,     // mount_id, device, text: the spec; descriptor: the mounted /dev/fuse
  kReleaseMount = 3,  // mount_id; answered by kUnmounted
  kStop = 4,          // answered by kStopping, then by the end of the process
  kBackingOpened = 5,  // request, error_number or backing_id
  kCacheOpened = 6,    // request, error_number and text, or one descriptor: the directory
  kTrouble = 7,        // text: what is wrong with the daemons, for the status; "": nothing any more

  // Engine to keeper.
  kReady = 64,         // mount_id: its requests are being served
  kFailed = 65,        // mount_id, error_number, text: why it cannot be served
  kUnmounted = 66,     // mount_id: the kernel or kReleaseMount ended it, nothing uses it any more
  kBackingOpen = 67,   // request, mount_id; descriptor: the file to be registered
  kBackingClose = 68,  // mount_id, backing_id; not answered
  kOpenCache = 69,     // request, text: an absolute path
  kStopping = 70,      // the engine ends on purpose
  kDetached = 71,  // text: the tag of a cache that nobody is to bring online, by the next either
  kAttached = 72,  // text: the same may be brought online again
};

struct MessageHead {
  std::uint32_t version = kProtocolVersion;
  MessageKind kind{};
  std::uint64_t request = 0;  // chosen by who asks, repeated in the answer
  std::uint64_t device = 0;
  std::uint32_t mount_id = 0;
  std::int32_t error_number = 0;
  std::int32_t backing_id = 0;
  std::uint32_t text_length = 0;
};

static_assert(std::has_unique_object_representations_v<MessageHead>);
static_assert(std::is_trivially_copyable_v<KeeperRequest>);
static_assert(std::is_trivially_copyable_v<KeeperReply>);

struct Message {
  MessageHead head;  // text_length is filled in by send_message
  std::string text;  // at most kMostSpecBytes
  std::vector<UniqueFd> descriptors;
};

// The descriptors stay the sender's. Errors as os::send_packet.
[[nodiscard]] Result<> send_message(const UniqueFd& socket, const Message& message, os::Wait wait);
// Errors as os::receive_packet; kCorrupt and kNotSupported as above: then the peer cannot be
// trusted to be what we think it is.
[[nodiscard]] Result<Message> receive_message(const UniqueFd& socket, os::Wait wait);
// What receive_message does with the bytes of a packet.
[[nodiscard]] Result<Message> decode_message(Bytes bytes, std::vector<UniqueFd> descriptors);

// An error that travelled as errno and whole sentence (Error::message() of the sender).
[[nodiscard]] Error received_error(std::int32_t error_number, std::string sentence);

// ---- What the keeper tells each engine at its start.

struct Hello {
  std::string runtime_directory;  // absolute
  std::string log_level = "info";
  std::string cache = {};        // brought online at once; "": when a mount names one
  std::uint64_t cache_size = 0;  // as MountSpec::cache_size
  // Tags of caches that nobody is to bring online; of more than fit into a message, some.
  std::vector<std::string> detached = {};
};

[[nodiscard]] std::string encode_hello(const Hello& hello);
[[nodiscard]] Result<Hello> decode_hello(std::string_view text);

}  // namespace larder::handover
