// A whole client against a server that does anything: the input is a script of what the server
// sends, in which sizes, and of cancels and hang-ups between.
//
// A script is steps of {operation, argument, bytes}; the xids of the calls in flight are put in
// place of those that a reply begins with, so that replies reach their calls.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_client.h"
#include "adapters/nfs/rpc_test_server.h"
#include "base/bytes.h"
#include "base/check.h"
#include "testing/fake_stream.h"
#include "testing/stepper.h"

namespace {

using namespace larder;
using namespace larder::nfs;

constexpr std::size_t kCalls = 6;
constexpr std::byte kUntouched{0xee};

class Script {
 public:
  explicit Script(std::span<const std::uint8_t> input) : input_(input) {}

  [[nodiscard]] bool more() const { return !input_.empty(); }

  std::uint8_t byte() {
    if (input_.empty()) {
      return 0;
    }
    const std::uint8_t value = input_.front();
    input_ = input_.subspan(1);
    return value;
  }

  Bytes bytes(std::size_t length) {
    const auto taken = input_.first(std::min(length, input_.size()));
    input_ = input_.subspan(taken.size());
    return std::as_bytes(taken);
  }

 private:
  std::span<const std::uint8_t> input_;
};

struct Read {
  std::vector<std::byte> destination = std::vector<std::byte>(64, kUntouched);
  int times = 0;
};

class Session {
 public:
  Session() : connector_(stepper_) {
    connector_.set_on_connect(
        [](const std::shared_ptr<testing::FakePeer>& peer) { peer->accept(); });
    RpcClientSettings settings;
    settings.program = kNfsProgram;
    settings.timeout = std::chrono::seconds(2);
    settings.patience = Patience::kSoft;
    settings.asks_to_wait = &asks_to_wait;
    client_ = RpcClient::make(std::move(settings), stepper_, connector_);
    for (std::size_t i = 0; i < kCalls; ++i) {
      submit(i);
    }
    settle();
  }

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  ~Session() {
    client_->shut_down();
    for (const Read& read : reads_) {
      CHECK(read.times == 1);
      // What a call's end left behind is nobody's to write any more.
      CHECK(
          std::ranges::all_of(read.destination, [](std::byte b) { return b == std::byte{0x5a}; }));
    }
  }

  void step(Script& script) {
    const std::uint8_t operation = script.byte();
    const std::uint8_t argument = script.byte();
    switch (operation % 6) {
      case 0: {  // raw bytes
        deliver(script.bytes(argument), 1 + operation / 6U);
        break;
      }
      case 1:    // a reply in fragments, with the xid of a call
      case 2: {  // the same, not to its end: what comes next is taken for the rest
        std::vector<std::byte> reply{std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
        const Bytes rest = script.bytes(argument);
        reply.insert(reply.end(), rest.begin(), rest.end());
        store_be(reply.data(), xid_of(script.byte()));
        const std::vector<std::byte> record = as_record(reply, 1 + operation / 2U);
        const std::size_t missing = operation % 6 == 2 ? script.byte() : 0;
        deliver(Bytes(record).first(record.size() - std::min(missing, record.size())),
                1 + operation / 3U);
        break;
      }
      case 3:
        client_->cancel(1 + argument % kCalls);
        break;
      case 4:
        if (!peer().ended()) {
          peer().hang_up();
        }
        break;
      default:
        stepper_.run_until([] { return false; }, std::chrono::milliseconds(argument * 20));
        break;
    }
    settle();
  }

 private:
  void submit(std::size_t index) {
    Read& read = reads_[index];
    RpcRequest request;
    request.procedure = 6;
    const bool data = index % 3 != 2;
    request.destination = data ? MutableBytes(read.destination) : MutableBytes();
    request.find_data = data ? &find_read_data : nullptr;
    request.done = [&read, data](Result<RpcReply> reply) {
      ++read.times;
      if (reply && data) {
        CHECK(reply->data_length <= read.destination.size());
        static_cast<void>(decode_read(reply->results, reply->data_length, 64));
      }
      std::ranges::fill(read.destination, std::byte{0x5a});
    };
    client_->submit(1 + index, std::move(request));
  }

  void settle() {
    stepper_.advance(std::chrono::milliseconds(0));
    stepper_.run();
    for (const SeenCall& call : parse_calls(peer().take_sent())) {
      xids_.push_back(call.xid);
    }
  }

  testing::FakePeer& peer() { return *connector_.peers().back(); }

  std::uint32_t xid_of(std::uint8_t which) {
    return xids_.empty() ? which : xids_[which % xids_.size()];
  }

  void deliver(Bytes bytes, std::size_t piece) {
    if (!peer().ended()) {
      peer().deliver(bytes, piece);
    }
  }

  std::vector<Read> reads_ = std::vector<Read>(kCalls);
  std::vector<std::uint32_t> xids_;
  testing::Stepper stepper_;
  testing::FakeConnector connector_;
  std::shared_ptr<RpcClient> client_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script script({data, size});
  Session session;
  while (script.more()) {
    session.step(script);
  }
  return 0;
}
