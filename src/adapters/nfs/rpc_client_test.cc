// The client and its connections, with the test as the server.
#include "adapters/nfs/rpc_client.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_test_server.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "testing/fake_stream.h"
#include "testing/stepper.h"

namespace larder::nfs {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeConnector;
using testing::FakePeer;
using testing::Stepper;

struct Outcome {
  int times = 0;
  std::optional<Error> error;
  std::string results;
  std::size_t data_length = 0;
  bool repeated = false;
};

std::vector<std::byte> status_results(std::uint32_t status) {
  XdrEncoder out;
  out.put_u32(status);
  return out.take();
}

class RpcClientTest : public ::testing::Test {
 protected:
  RpcClientTest() : connector_(stepper_) {}

  RpcClientTest(const RpcClientTest&) = delete;
  RpcClientTest& operator=(const RpcClientTest&) = delete;

  ~RpcClientTest() override {
    if (client_) {
      client_->shut_down();
    }
  }

  void make(Patience patience, unsigned connections = 1, milliseconds timeout = seconds(10)) {
    RpcClientSettings settings;
    settings.program = kNfsProgram;
    settings.endpoint = {"server", 2049};
    settings.connections = connections;
    settings.timeout = timeout;
    settings.retrans = 3;
    settings.patience = patience;
    settings.asks_to_wait = &asks_to_wait;
    client_ = RpcClient::make(std::move(settings), stepper_, connector_);
  }

  void make_two_up() {
    make(Patience::kHard, 2);
    client_->open();
    settle();
    peer(0).accept();
    peer(1).accept();
    settle();
  }

  // Lets everything happen that needs no time.
  void settle() {
    stepper_.advance(milliseconds(0));
    stepper_.run();
  }

  void pass(Duration time) {
    const MonotonicTime end = stepper_.clock().now() + time;
    stepper_.run_until([] { return false; }, time);
    stepper_.advance(end - stepper_.clock().now());
    stepper_.run();
  }

  FakePeer& peer(std::size_t index = SIZE_MAX) {
    return *connector_.peers().at(std::min(index, connector_.peers().size() - 1));
  }

  // Lets the newest connection come up.
  void accept() {
    settle();
    peer().accept();
    settle();
  }

  std::shared_ptr<Outcome> submit(netfs::CallId id, MutableBytes destination = {},
                                  std::size_t expected = 100,
                                  CallClass call_class = CallClass::kMetadata) {
    auto outcome = std::make_shared<Outcome>();
    RpcRequest request;
    request.procedure = 1;
    request.destination = destination;
    request.find_data = destination.empty() ? nullptr : &find_read_data;
    request.expected_bytes = expected;
    request.call_class = call_class;
    request.done = [outcome](Result<RpcReply> reply) {
      ++outcome->times;
      if (!reply) {
        outcome->error = reply.error();
      } else {
        outcome->results = text_of(reply->results);
        outcome->data_length = reply->data_length;
      }
    };
    client_->submit(id, std::move(request));
    return outcome;
  }

  static std::vector<SeenCall> calls_at(FakePeer& peer) { return parse_calls(peer.take_sent()); }

  Stepper stepper_;
  FakeConnector connector_;
  std::shared_ptr<RpcClient> client_;
};

TEST_F(RpcClientTest, AnswersReachTheirCallsInAnyOrder) {
  make(Patience::kHard);
  const auto first = submit(1);
  const auto second = submit(2);
  accept();
  const std::vector<SeenCall> calls = calls_at(peer());
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_NE(calls[0].xid, calls[1].xid);
  peer().deliver(as_record(accepted_reply(calls[1].xid, bytes_of("two."))));
  peer().deliver(as_record(accepted_reply(calls[0].xid, bytes_of("one."))));
  settle();
  EXPECT_EQ(first->results, "one.");
  EXPECT_EQ(second->results, "two.");
}

TEST_F(RpcClientTest, ARefusedConnectionEndsAProbeAtOnce) {
  make(Patience::kProbe);
  const auto outcome = submit(1);
  settle();
  peer().refuse(Error(Errc::kIo, ECONNREFUSED, "connecting"));
  settle();
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->error_number(), ECONNREFUSED);
}

// A mount for which `timeo` is short may meet a server that is slow just now.
TEST_F(RpcClientTest, AProbeWaitsTenSecondsWhateverLaterCallsDo) {
  for (const milliseconds timeout : {milliseconds(100), milliseconds(60'000)}) {
    make(Patience::kProbe, 1, timeout);
    const MonotonicTime begin = stepper_.clock().now();
    const auto outcome = submit(1);
    accept();
    ASSERT_TRUE(stepper_.run_until([&] { return outcome->times > 0; }, seconds(30)));
    EXPECT_EQ(outcome->error->code(), Errc::kTimedOut);
    EXPECT_EQ(stepper_.clock().now() - begin, seconds(10));
    client_->shut_down();
  }
}

// A server that comes back late must find us, and one that never does must not be hammered.
TEST_F(RpcClientTest, HardCallsWaitAndReconnectsGetRarer) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  settle();
  std::vector<Duration> gaps;
  for (int i = 0; i < 14; ++i) {
    const std::size_t before = connector_.peers().size();
    const MonotonicTime refused_at = stepper_.clock().now();
    peer().refuse(Error(Errc::kIo, ECONNREFUSED, "connecting"));
    ASSERT_TRUE(
        stepper_.run_until([&] { return connector_.peers().size() > before; }, seconds(10)));
    gaps.push_back(stepper_.clock().now() - refused_at);
  }
  EXPECT_GE(gaps.front(), milliseconds(10));
  EXPECT_LE(gaps.front(), milliseconds(13));
  EXPECT_GE(gaps[4], milliseconds(160));
  EXPECT_GE(gaps.back(), seconds(5));
  EXPECT_LE(gaps.back(), milliseconds(6250));
  EXPECT_FALSE(client_->trouble().empty());
  accept();
  peer().deliver(as_record(accepted_reply(calls_at(peer()).at(0).xid, bytes_of("back"))));
  settle();
  EXPECT_EQ(outcome->results, "back");
  EXPECT_EQ(client_->trouble(), "");
}

TEST_F(RpcClientTest, CallsAreSentAgainWithTheirXidsAfterAReconnect) {
  make(Patience::kHard);
  const auto first = submit(1);
  const auto second = submit(2);
  accept();
  const std::vector<SeenCall> before = calls_at(peer());
  peer().deliver(as_record(accepted_reply(before.at(0).xid, bytes_of("one."))));
  settle();
  peer().hang_up();
  pass(milliseconds(20));
  ASSERT_EQ(connector_.peers().size(), 2U);
  accept();
  const std::vector<SeenCall> after = calls_at(peer());
  ASSERT_EQ(after.size(), 1U) << "what was answered is not asked again";
  EXPECT_EQ(after[0].xid, before[1].xid);
  EXPECT_EQ(client_->counters().retransmissions.value(), 1U);
  EXPECT_EQ(client_->counters().reconnects.value(), 1U);
  peer().deliver(as_record(accepted_reply(after[0].xid, bytes_of("two."))));
  settle();
  EXPECT_EQ(first->times + second->times, 2);
  EXPECT_EQ(second->results, "two.");
}

// The connection breaks after every byte of a reply to READ; the second connection answers.
TEST_F(RpcClientTest, AReplyBrokenOffAnywhereIsReadAgainInFull) {
  const std::vector<std::byte> data(50, std::byte{0x11});
  const std::vector<std::byte> final_data(40, std::byte{0x22});
  const std::size_t whole = as_record(accepted_reply(1, read_results(data))).size();
  for (std::size_t cut = 0; cut < whole; ++cut) {
    make(Patience::kHard);
    std::vector<std::byte> destination(60, kUntouched);
    const auto outcome = submit(1, destination, 100, CallClass::kRead);
    accept();
    const std::uint32_t xid = calls_at(peer()).at(0).xid;
    const auto record = as_record(accepted_reply(xid, read_results(data)));
    peer().deliver(Bytes(record).first(cut), 13);
    settle();
    peer().hang_up();
    pass(milliseconds(20));
    ASSERT_EQ(outcome->times, 0) << cut;
    accept();
    ASSERT_EQ(calls_at(peer()).at(0).xid, xid);
    peer().deliver(as_record(accepted_reply(xid, read_results(final_data)), 17), 7);
    settle();
    ASSERT_EQ(outcome->times, 1);
    ASSERT_EQ(outcome->data_length, final_data.size());
    ASSERT_TRUE(std::ranges::equal(Bytes(destination).first(40), final_data));
    client_->shut_down();
    client_.reset();
  }
}

TEST_F(RpcClientTest, ASilentServerEndsSoftCallsAfterTheirTimeouts) {
  make(Patience::kSoft);
  const MonotonicTime begin = stepper_.clock().now();
  const auto outcome = submit(1);
  settle();
  connector_.set_on_connect([](const std::shared_ptr<FakePeer>& each) { each->accept(); });
  peer().accept();
  ASSERT_TRUE(stepper_.run_until([&] { return outcome->times > 0; }, seconds(60)));
  EXPECT_EQ(outcome->error->code(), Errc::kTimedOut);
  EXPECT_EQ(stepper_.clock().now() - begin, seconds(30));
  EXPECT_TRUE(connector_.peers().at(0)->closed_by_client());
  EXPECT_EQ(connector_.peers().size(), 3U) << "each timeout broke a connection";
}

TEST_F(RpcClientTest, UnreachableCountsAgainstTheDeadlineOfSoftCalls) {
  make(Patience::kSoft);
  connector_.set_on_connect([](const std::shared_ptr<FakePeer>& each) {
    each->refuse(Error(Errc::kIo, ECONNREFUSED, "connecting"));
  });
  const MonotonicTime begin = stepper_.clock().now();
  const auto outcome = submit(1);
  ASSERT_TRUE(stepper_.run_until([&] { return outcome->times > 0; }, seconds(60)));
  EXPECT_EQ(outcome->error->code(), Errc::kTimedOut);
  EXPECT_EQ(stepper_.clock().now() - begin, seconds(30));
}

TEST_F(RpcClientTest, HardCallsOutliveAnySilenceUntilCancelled) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  connector_.set_on_connect([](const std::shared_ptr<FakePeer>& each) { each->accept(); });
  pass(seconds(3600));
  EXPECT_EQ(outcome->times, 0);
  EXPECT_GT(connector_.peers().size(), 30U) << "it keeps trying";
  client_->cancel(1);
  settle();
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
}

// A server that takes longer than the timeout for each answer is heard in the end.
TEST_F(RpcClientTest, HardCallsWaitLongerEachTime) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  connector_.set_on_connect([](const std::shared_ptr<FakePeer>& each) { each->accept(); });
  settle();
  peer().accept();
  pass(seconds(12));
  ASSERT_EQ(connector_.peers().size(), 2U) << "the first timeout, 10 s, has broken a connection";
  pass(seconds(15));
  ASSERT_EQ(connector_.peers().size(), 2U) << "the second time it waits for 20 s";
  peer().deliver(as_record(accepted_reply(calls_at(peer()).at(0).xid, bytes_of("slow"))));
  settle();
  EXPECT_EQ(outcome->results, "slow");
}

// A slow link under many reads is no dead server: breaking it would begin all over again.
TEST_F(RpcClientTest, ProgressKeepsAConnectionButNotForEver) {
  make(Patience::kHard);
  std::vector<std::byte> destination(10'000);
  const auto slow = submit(1, destination);
  accept();
  const std::uint32_t xid = calls_at(peer()).at(0).xid;
  const std::vector<std::byte> data(10'000);
  const auto record = as_record(accepted_reply(xid, read_results(data)));
  for (std::size_t i = 0; i < 6; ++i) {  // 36 s, at a timeout of 10
    peer().deliver(Bytes(record).subspan(i * 100, 100));
    settle();
    pass(seconds(6));
    EXPECT_FALSE(peer(0).closed_by_client()) << i;
  }
  for (std::size_t i = 6; i < 9 && !peer(0).closed_by_client(); ++i) {
    peer().deliver(Bytes(record).subspan(i * 100, 100));
    settle();
    pass(seconds(6));
  }
  EXPECT_TRUE(peer(0).closed_by_client()) << "a drip is not an answer";
  EXPECT_EQ(slow->times, 0);
}

TEST_F(RpcClientTest, GarbageBreaksTheConnectionAndTheCallIsAskedAgain) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  accept();
  peer().deliver(bytes_of("HTTP/1.1 400 Bad Request\r\n\r\n"), 5);
  settle();
  EXPECT_TRUE(peer(0).closed_by_client());
  pass(milliseconds(20));
  accept();
  peer().deliver(as_record(accepted_reply(calls_at(peer()).at(0).xid, bytes_of("fine"))));
  settle();
  EXPECT_EQ(outcome->results, "fine");
}

TEST_F(RpcClientTest, RepeatedAndInventedRepliesAreCountedAndIgnored) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  accept();
  const std::uint32_t xid = calls_at(peer()).at(0).xid;
  peer().deliver(as_record(accepted_reply(xid + 1, bytes_of("what"))));
  peer().deliver(as_record(accepted_reply(xid, bytes_of("once"))));
  peer().deliver(as_record(accepted_reply(xid, bytes_of("more"))));
  settle();
  EXPECT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->results, "once");
  EXPECT_EQ(client_->counters().unexpected_replies.value(), 2U);
  EXPECT_FALSE(peer().closed_by_client());
}

// The heart of it: the destination of a call that was cancelled is written no more, whenever the
// cancel comes: before it is sent, on its way, and after every byte of the reply.
TEST_F(RpcClientTest, NothingIsWrittenAfterACancelledCallHasEnded) {
  const std::vector<std::byte> data(80, std::byte{0x33});
  const std::size_t whole = as_record(accepted_reply(1, read_results(data)), 50).size();
  for (std::size_t at = 0; at <= whole; ++at) {
    make(Patience::kHard);
    std::vector<std::byte> destination(80, kUntouched);
    const auto outcome = submit(1, destination, 100, CallClass::kRead);
    const auto other = submit(2);
    accept();
    const std::vector<SeenCall> calls = calls_at(peer());
    const auto record = as_record(accepted_reply(calls.at(0).xid, read_results(data)), 50);
    const auto metadata = as_record(accepted_reply(calls.at(1).xid, bytes_of("meta")));
    peer().deliver(Bytes(record).first(at), 29);
    settle();
    client_->cancel(1);
    settle();
    ASSERT_EQ(outcome->times, 1) << at;
    ASSERT_EQ(outcome->error.has_value(), at < whole) << at;
    std::ranges::fill(destination, kUntouched);  // it is somebody else's now
    peer().deliver(Bytes(record).subspan(at), 3);
    peer().deliver(metadata);
    settle();
    ASSERT_TRUE(std::ranges::all_of(destination, [](std::byte b) { return b == kUntouched; }))
        << at;
    ASSERT_EQ(other->results, "meta");
    ASSERT_FALSE(peer().closed_by_client());
    client_->shut_down();
    client_.reset();
  }
}

// recv(2) is writing into the destination while another thread cancels: the call must not end
// before the stream's thread has let go of it.
TEST_F(RpcClientTest, ACancelDuringAReceiveWaitsForTheStreamsThread) {
  make(Patience::kHard);
  std::vector<std::byte> destination(5000, kUntouched);
  const auto outcome = submit(1, destination, 100, CallClass::kRead);
  accept();
  const std::vector<std::byte> data(5000, std::byte{0x44});
  const auto record = as_record(accepted_reply(calls_at(peer()).at(0).xid, read_results(data)));
  peer().deliver(Bytes(record).first(1000));
  settle();
  peer().begin_receive();
  client_->cancel(1);
  EXPECT_EQ(outcome->times, 0);
  EXPECT_EQ(peer().finish_receive(Bytes(record).subspan(1000, 500)), 500U);
  EXPECT_EQ(outcome->times, 0);
  settle();
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
  std::ranges::fill(destination, kUntouched);
  peer().deliver(Bytes(record).subspan(1500));
  settle();
  EXPECT_TRUE(std::ranges::all_of(destination, [](std::byte b) { return b == kUntouched; }));
  const auto next = submit(2);
  settle();
  peer().deliver(as_record(accepted_reply(calls_at(peer()).at(0).xid, bytes_of("next"))));
  settle();
  EXPECT_EQ(next->results, "next");
}

TEST_F(RpcClientTest, ACancelledReceiveThatStallsEndsWithItsConnection) {
  make(Patience::kHard);
  std::vector<std::byte> destination(5000, kUntouched);
  const auto outcome = submit(1, destination, 100, CallClass::kRead);
  accept();
  const std::vector<std::byte> data(5000, std::byte{0x44});
  const auto record = as_record(accepted_reply(calls_at(peer()).at(0).xid, read_results(data)));
  peer().deliver(Bytes(record).first(1000));
  settle();
  peer().begin_receive();
  client_->cancel(1);
  peer().hang_up();  // queued behind the task of the cancel or before it: both must do
  settle();
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
  pass(seconds(1));
  EXPECT_EQ(connector_.peers().size(), 1U) << "nobody waits: no connection is needed";
}

TEST_F(RpcClientTest, CancelBeforeTheConnectionAndOfUnknownIds) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  client_->cancel(99);
  client_->cancel(1);
  client_->cancel(1);
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
  accept();
  EXPECT_TRUE(calls_at(peer()).empty());
}

TEST_F(RpcClientTest, ShutDownEndsEveryCallWhereverItIs) {
  make(Patience::kHard);
  std::vector<std::byte> destination(5000, kUntouched);
  std::vector<std::shared_ptr<Outcome>> outcomes;
  outcomes.push_back(submit(1, destination));  // will be receiving
  for (netfs::CallId id = 2; id < 300; ++id) {
    outcomes.push_back(submit(id));  // in flight and queued
  }
  accept();
  const std::vector<SeenCall> calls = calls_at(peer());
  EXPECT_EQ(calls.size(), RpcClient::kMostCalls);
  peer().deliver(as_record(accepted_reply(calls.at(1).xid, status_results(10008))));  // paused
  const std::vector<std::byte> data(5000);
  peer().deliver(Bytes(as_record(accepted_reply(calls.at(0).xid, read_results(data)))).first(900));
  settle();
  client_->shut_down();
  for (const auto& outcome : outcomes) {
    ASSERT_EQ(outcome->times, 1);
    EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
  }
  EXPECT_EQ(submit(1000)->error->code(), Errc::kCancelled);
  EXPECT_TRUE(peer().ended());
}

// An NFS3ERR_JUKEBOX means "the tape is on its way": ask again, with another xid, inside the
// deadline.
TEST_F(RpcClientTest, JukeboxIsAskedAgainLaterWithANewXid) {
  make(Patience::kSoft);
  const auto outcome = submit(1);
  accept();
  const std::uint32_t first = calls_at(peer()).at(0).xid;
  peer().deliver(as_record(accepted_reply(first, status_results(10008))));
  settle();
  EXPECT_EQ(outcome->times, 0);
  EXPECT_TRUE(calls_at(peer()).empty());
  pass(milliseconds(100));
  const std::vector<SeenCall> again = calls_at(peer());
  ASSERT_EQ(again.size(), 1U);
  EXPECT_NE(again[0].xid, first);
  peer().deliver(as_record(accepted_reply(again[0].xid, status_results(0))));
  settle();
  EXPECT_EQ(outcome->results, text_of(status_results(0)));
}

TEST_F(RpcClientTest, JukeboxForEverEndsWithTheDeadlineOrACancel) {
  connector_.set_on_sent([](const std::shared_ptr<FakePeer>& each) {
    for (const SeenCall& call : parse_calls(each->take_sent())) {
      each->deliver(as_record(accepted_reply(call.xid, status_results(10008))));
    }
  });
  connector_.set_on_connect([](const std::shared_ptr<FakePeer>& each) { each->accept(); });
  make(Patience::kSoft);
  const auto outcome = submit(1);
  pass(seconds(29));
  EXPECT_EQ(outcome->times, 0);
  const auto cancelled = submit(2);
  pass(milliseconds(50));
  client_->cancel(2);
  EXPECT_EQ(cancelled->error->code(), Errc::kCancelled);
  pass(seconds(40));
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kTimedOut);
}

// Small calls must not stand behind megabytes when another connection is free.
TEST_F(RpcClientTest, LargePrefetchesKeepOffTheFirstConnection) {
  make_two_up();
  std::vector<std::byte> destination(1U << 20);
  for (netfs::CallId id = 1; id <= 30; ++id) {
    submit(id, destination, 1U << 20, CallClass::kPrefetch);
  }
  for (netfs::CallId id = 31; id <= 40; ++id) {
    submit(id);
  }
  settle();
  EXPECT_EQ(calls_at(peer(0)).size(), 10U) << "the small ones";
  EXPECT_EQ(calls_at(peer(1)).size(), 16U) << "16 MiB in flight at most";
}

// A file that the server cannot read just now must not keep others from being read.
TEST_F(RpcClientTest, ReadsThatAreNotAnsweredLeaveRoomForOthers) {
  make_two_up();
  constexpr std::size_t kSize = 256U << 10;
  std::vector<std::byte> destination(kSize);
  for (netfs::CallId id = 1; id <= 64; ++id) {
    submit(id, destination, kSize, CallClass::kRead);
  }
  settle();
  EXPECT_TRUE(calls_at(peer(0)).empty());
  EXPECT_EQ(calls_at(peer(1)).size(), 64U);
  const auto other = submit(65, destination, kSize, CallClass::kRead);
  settle();
  const auto calls = calls_at(peer(0));
  ASSERT_EQ(calls.size(), 1U);
  peer(0).deliver(as_record(accepted_reply(calls[0].xid, status_results(5))));
  settle();
  EXPECT_EQ(other->times, 1);
  // But not more than a quarter of what the others take.
  for (netfs::CallId id = 66; id <= 100; ++id) {
    submit(id, destination, kSize, CallClass::kRead);
  }
  submit(101);
  settle();
  EXPECT_EQ(calls_at(peer(0)).size(), 16U + 1U) << "4 MiB, and the small one";
}

TEST_F(RpcClientTest, QueuedCallsGoInTheOrderOfTheirClass) {
  make(Patience::kHard);
  std::vector<std::byte> destination(1U << 20);
  for (netfs::CallId id = 1; id <= 16; ++id) {
    submit(id, destination, 1U << 20, CallClass::kRead);
  }
  submit(17, destination, 1U << 20, CallClass::kPrefetch);
  submit(18, destination, 2U << 20, CallClass::kRead);
  accept();
  std::vector<SeenCall> calls = calls_at(peer());
  ASSERT_EQ(calls.size(), 16U);
  for (std::size_t i = 0; i < 2; ++i) {
    peer().deliver(as_record(accepted_reply(calls.at(i).xid, status_results(5))));
  }
  settle();
  ASSERT_EQ(calls_at(peer()).size(), 1U + 0U) << "two places of one MiB, one read of two";
}

TEST_F(RpcClientTest, AServerThatClosesAnIdleConnectionIsLeftInPeaceUntilNeeded) {
  make(Patience::kHard);
  const auto outcome = submit(1);
  accept();
  peer().deliver(as_record(accepted_reply(calls_at(peer()).at(0).xid, bytes_of("done"))));
  settle();
  peer().hang_up();
  pass(seconds(1000));
  EXPECT_EQ(connector_.peers().size(), 1U);
  const auto next = submit(2);
  pass(milliseconds(20));
  ASSERT_EQ(connector_.peers().size(), 2U);
  accept();
  peer().deliver(as_record(accepted_reply(calls_at(peer()).at(0).xid, bytes_of("more"))));
  settle();
  EXPECT_EQ(next->results, "more");
}

// Sixty reads of a server that does what the dice say.
class RandomRound {
 public:
  explicit RandomRound(std::mt19937_64& random)
      : random_(random), stepper_(random()), connector_(stepper_) {
    connector_.set_on_connect([this](const std::shared_ptr<FakePeer>& peer) {
      one_in(4) ? peer->refuse(Error(Errc::kIo, ECONNREFUSED, "no")) : peer->accept();
    });
    connector_.set_on_sent([this](const std::shared_ptr<FakePeer>& peer) {
      for (const SeenCall& call : parse_calls(peer->take_sent())) {
        answer(*peer, call);
      }
    });
    RpcClientSettings settings;
    settings.program = kNfsProgram;
    settings.connections = 1 + static_cast<unsigned>(random_() % 3);
    settings.timeout = seconds(2);
    settings.retrans = 50;
    settings.patience = Patience::kSoft;
    client_ = RpcClient::make(std::move(settings), stepper_, connector_);
  }

  void run() {
    for (std::uint32_t id = 1; id <= kReads; ++id) {
      submit(id);
      if (one_in(3)) {
        client_->cancel(1 + random_() % id);
      }
      for (std::uint64_t steps = random_() % 30; steps > 0; --steps) {
        stepper_.step();
      }
    }
    const auto ended = [](const Read& read) { return read.times > 0; };
    EXPECT_TRUE(
        stepper_.run_until([&] { return std::ranges::all_of(reads_, ended); }, seconds(1000)));
    stepper_.run_until([] { return false; }, seconds(10));
    client_->shut_down();
  }

  void check() const {
    for (const Read& read : reads_) {
      ASSERT_EQ(read.times, 1);
      ASSERT_TRUE(read.good);
      ASSERT_TRUE(std::ranges::all_of(read.destination, [](std::byte b) { return b == kLeft; }));
    }
  }

 private:
  static constexpr std::uint32_t kReads = 60;
  static constexpr std::byte kLeft{0x5a};  // written by the call's end

  struct Read {
    std::vector<std::byte> destination = std::vector<std::byte>(200, kUntouched);
    int times = 0;
    bool good = false;
  };

  bool one_in(std::uint64_t number) { return random_() % number == 0; }

  // How much is read depends on the id, and the bytes are the id.
  static std::size_t length_of(std::uint32_t id) { return id * 31 % 200; }

  void answer(FakePeer& peer, const SeenCall& call) {
    XdrDecoder arguments(call.arguments);
    const std::uint32_t id = arguments.u32();
    const std::vector<std::byte> data(length_of(id), static_cast<std::byte>(id));
    const auto record =
        as_record(accepted_reply(call.xid, read_results(data)), 1 + random_() % 300);
    const std::size_t cut = one_in(8) ? random_() % record.size() : record.size();
    if (!one_in(10)) {
      peer.deliver(Bytes(record).first(cut), 1 + random_() % 200);
    }
    if (cut < record.size() || one_in(20)) {
      peer.hang_up();
    }
  }

  void submit(std::uint32_t id) {
    Read& read = reads_.emplace_back();
    XdrEncoder arguments;
    arguments.put_u32(id);
    RpcRequest request;
    request.procedure = 6;
    request.arguments = arguments.take();
    request.destination = read.destination;
    request.find_data = &find_read_data;
    request.done = [&read, id](const Result<RpcReply>& reply) {
      ++read.times;
      if (reply) {
        read.good =
            reply->data_length == length_of(id) &&
            std::ranges::all_of(Bytes(read.destination).first(length_of(id)),
                                [id](std::byte b) { return b == static_cast<std::byte>(id); });
      } else {
        read.good = reply.error().code() == Errc::kCancelled;
      }
      std::ranges::fill(read.destination, kLeft);
    };
    client_->submit(id, std::move(request));
  }

  std::mt19937_64& random_;
  Stepper stepper_;
  FakeConnector connector_;
  std::deque<Read> reads_;
  std::shared_ptr<RpcClient> client_;
};

// Every call ends once, with its own bytes or an error, and nothing is written to a destination
// after its end.
TEST_F(RpcClientTest, RandomFaultsNeitherLoseNorMixUpCalls) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60 && !HasFailure(); ++round) {
    RandomRound one(random);
    one.run();
    one.check();
  }
}

class RpcBodyTest : public RpcClientTest {
 protected:
  std::shared_ptr<Outcome> submit_body(netfs::CallId id, Bytes body) {
    auto outcome = std::make_shared<Outcome>();
    RpcRequest request;
    request.procedure = 7;
    request.arguments = status_results(static_cast<std::uint32_t>(body.size()));
    request.body = body;
    request.done = [outcome](Result<RpcReply> reply) {
      ++outcome->times;
      if (!reply) {
        outcome->error = reply.error();
      } else {
        outcome->results = text_of(reply->results);
        outcome->repeated = reply->repeated;
      }
    };
    client_->submit(id, std::move(request));
    return outcome;
  }

  // A call whose body the stream still reads, and its xid.
  std::pair<std::shared_ptr<Outcome>, std::uint32_t> submit_held(Bytes body) {
    make(Patience::kHard);
    submit(1);
    accept();
    const std::uint32_t xid = calls_at(peer()).at(0).xid;
    peer().deliver(as_record(accepted_reply(xid, bytes_of("done"))));
    peer().hold_messages(true);
    settle();
    auto outcome = submit_body(2, body);
    settle();
    return {std::move(outcome), xid + 1};
  }
};

TEST_F(RpcBodyTest, IsSentBehindTheArgumentsAndPadded) {
  const std::string text = "1234567890";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    make(Patience::kHard);
    const auto outcome = submit_body(1, bytes_of(text).first(size));
    accept();
    const std::vector<SeenCall> calls = calls_at(peer());
    ASSERT_EQ(calls.size(), 1U);
    XdrDecoder in(calls[0].arguments);
    ASSERT_EQ(text_of(in.opaque(100)), text.substr(0, size));
    ASSERT_TRUE(in.ok() && in.remaining() == 0);
    peer().deliver(as_record(accepted_reply(calls[0].xid, bytes_of("fine"))));
    settle();
    ASSERT_EQ(outcome->results, "fine");
    ASSERT_FALSE(outcome->repeated);
    client_->shut_down();
    client_.reset();
  }
}

TEST_F(RpcBodyTest, ACancelledCallKeepsItUntilTheStreamHasReadIt) {
  const auto [outcome, xid] = submit_held(bytes_of("body"));
  client_->cancel(2);
  pass(milliseconds(500));
  EXPECT_EQ(outcome->times, 0);
  peer().hold_messages(false);
  settle();
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
  pass(seconds(2));
  EXPECT_FALSE(peer(0).closed_by_client());
}

TEST_F(RpcBodyTest, AServerThatTakesNoBytesCannotHoldUpACancelledCall) {
  const auto [outcome, xid] = submit_held(bytes_of("body"));
  client_->cancel(2);
  pass(seconds(2));
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
  EXPECT_TRUE(peer(0).closed_by_client());
}

TEST_F(RpcBodyTest, AnAnswerThatComesTooEarlyWaitsForTheStream) {
  const auto [outcome, xid] = submit_held(bytes_of("body"));
  peer().deliver(as_record(accepted_reply(xid, bytes_of("what"))));
  settle();
  EXPECT_EQ(outcome->times, 0);
  peer().deliver(as_record(accepted_reply(xid + 1, bytes_of("over the reader's buffer"))));
  settle();
  peer().hold_messages(false);
  settle();
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->results, "what");
}

TEST_F(RpcBodyTest, IsSentAgainOnTheNextConnection) {
  const auto [outcome, xid] = submit_held(bytes_of("body"));
  peer().hang_up();
  pass(milliseconds(20));
  ASSERT_EQ(connector_.peers().size(), 2U);
  EXPECT_EQ(outcome->times, 0);
  accept();
  const std::vector<SeenCall> calls = calls_at(peer());
  ASSERT_EQ(calls.size(), 1U);
  EXPECT_EQ(calls[0].xid, xid);
  peer().deliver(as_record(accepted_reply(xid, bytes_of("fine"))));
  settle();
  EXPECT_EQ(outcome->results, "fine");
  EXPECT_TRUE(outcome->repeated) << "the first may have arrived in part, or whole";
}

TEST_F(RpcBodyTest, ShutDownEndsCallsWhoseBodyIsStillRead) {
  const auto [outcome, xid] = submit_held(bytes_of("body"));
  client_->shut_down();
  ASSERT_EQ(outcome->times, 1);
  EXPECT_EQ(outcome->error->code(), Errc::kCancelled);
}

TEST_F(RpcBodyTest, ShutDownEndsCallsThatWereCancelledOrAnsweredBefore) {
  for (const bool answered : {false, true}) {
    const auto [outcome, xid] = submit_held(bytes_of("body"));
    if (answered) {
      peer().deliver(as_record(accepted_reply(xid, bytes_of("what"))));
    } else {
      client_->cancel(2);
    }
    settle();
    ASSERT_EQ(outcome->times, 0);
    client_->shut_down();
    ASSERT_EQ(outcome->times, 1);
    client_.reset();
  }
}

}  // namespace
}  // namespace larder::nfs
