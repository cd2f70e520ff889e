// What a call of a remote procedure is to those who make it: arguments in, one answer out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::nfs {

// In the order of service.
enum class CallClass : std::uint8_t {
  kMetadata,  // somebody waits for a name or an attribute
  kRead,      // somebody waits for data, or for data to be written
  kPrefetch,  // nobody waits yet
};

inline constexpr std::size_t kCallClasses = 3;

// Where the data of a READ begins in its results.
struct DataPlace {
  enum class Outcome : std::uint8_t {
    kNeedMore,  // not to be told from these bytes
    kNone,      // there is no data in these results (the server refused)
    kFound,
    kCorrupt,
  };

  Outcome outcome = Outcome::kNeedMore;
  std::size_t offset = 0;  // from the start of the results
  std::size_t length = 0;  // bytes, without padding
};

// Looks at the first bytes of the results; a pure function.
using FindData = DataPlace (*)(Bytes results);

// Results, valid while `done` runs. The data of a call with a destination is not in them: they end
// where it begins.
struct RpcReply {
  Bytes results;
  std::size_t data_length = 0;  // bytes that were put at the start of the destination
  // The call left us more than once, so the server may have carried it out more than once, and this
  // may be the answer to a repetition.
  bool repeated = false;
};

struct RpcRequest {
  std::uint32_t procedure = 0;
  netfs::CredentialRef credential;   // null: AUTH_NONE
  std::vector<std::byte> arguments;  // XDR
  Bytes body;  // sent behind the arguments, with XDR's padding; the call's until `done` has run
  CallClass call_class = CallClass::kMetadata;
  std::size_t expected_bytes = 256;  // of reply and body, about: calls are spread by it
  MutableBytes destination;          // for data; the call's until `done` has run
  FindData find_data = nullptr;      // set when there is a destination
  Duration pause{};                  // it is sent this long after it was submitted
  netfs::Done<RpcReply> done;        // exactly once, any thread, without locks; must not wait
};

}  // namespace larder::nfs
