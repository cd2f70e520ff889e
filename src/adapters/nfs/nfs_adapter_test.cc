// The adapter, with the test as portmapper, mount service and NFS server.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/nfs_adapter_fixture_test.h"
#include "adapters/nfs/nfs_test_results.h"
#include "adapters/nfs/rpc_test_server.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "testing/fake_stream.h"
#include "testing/stepper.h"

namespace larder::nfs {
namespace {

using std::chrono::seconds;

TEST_F(NfsAdapterTest, ConnectsThroughThePortmapperWhenNoPortIsGiven) {
  make("nfs://server/export/home");
  const Result<netfs::ShareInfo> share = connect();
  ASSERT_TRUE(share);
  EXPECT_EQ(text_of(share->root.bytes()), "root handle");
  EXPECT_EQ(share->root_attributes, test_attributes(2));
  EXPECT_EQ(share->read_size, 131072U) << "what the server prefers";
  EXPECT_EQ(share->time_granularity.nanoseconds, 1'000'000U);
  EXPECT_EQ(mounted_path_, "/export/home");
  EXPECT_EQ(ports_, (std::vector<std::uint16_t>{111, 635, 111, 2049, 2049}));
  stepper_.run_until([] { return false; }, seconds(1));
  EXPECT_EQ(
      std::ranges::count_if(connector_.peers(), [](const auto& peer) { return !peer->ended(); }), 2)
      << "only the NFS connections are left";
  EXPECT_TRUE(adapter_->status().connected);
  EXPECT_EQ(adapter_->name().host, "server");
  EXPECT_EQ(adapter_->name().port, "");
}

TEST_F(NfsAdapterTest, GivenPortsNeedNoPortmapper) {
  make_and_connect("nfs://server:12049/export?mountport=12050&nconnect=1");
  EXPECT_EQ(ports_, (std::vector<std::uint16_t>{12050, 12049}));
  EXPECT_EQ(adapter_->name().port, "12049");
}

TEST_F(NfsAdapterTest, WithoutAPortmapperTheUsualNfsPortIsTried) {
  refused_ports_ = {111};
  make_and_connect("nfs://server/export?mountport=635&nconnect=1");
  EXPECT_EQ(ports_, (std::vector<std::uint16_t>{635, 111, 2049}));
}

TEST_F(NfsAdapterTest, WhatCannotBeReachedIsToldInASentence) {
  refused_ports_ = {111, 635, 2049};
  for (const char* url : {"nfs://server/e", "nfs://server:2049/e?mountport=635",
                          "nfs://server:2049/e?mountport=636"}) {
    if (adapter_) {
      adapter_->shut_down();
    }
    make(url);
    const Result<netfs::ShareInfo> share = connect();
    ASSERT_FALSE(share);
    EXPECT_EQ(share.error().error_number(), ECONNREFUSED);
    EXPECT_TRUE(share.error().context().contains("server")) << share.error().context();
    EXPECT_TRUE(share.error().context().contains("port")) << share.error().context();
  }
}

TEST_F(NfsAdapterTest, ARefusedExportIsToldAndNothingIsLeftBehind) {
  mount_status_ = 13;
  make("nfs://server/secret");
  const Result<netfs::ShareInfo> share = connect();
  ASSERT_FALSE(share);
  EXPECT_EQ(share.error().error_number(), EACCES);
  EXPECT_TRUE(share.error().context().contains("/secret"));
  stepper_.run_until([] { return false; }, seconds(1));
  EXPECT_TRUE(
      std::ranges::all_of(connector_.peers(), [](const auto& each) { return each->ended(); }));
}

TEST_F(NfsAdapterTest, ASilentServerEndsTheMountAfterTenSeconds) {
  on_nfs_ = nullptr;
  connector_.set_on_sent(nullptr);
  make("nfs://server:2049/e?mountport=635");
  const MonotonicTime begin = stepper_.clock().now();
  const Result<netfs::ShareInfo> share = connect();
  ASSERT_FALSE(share);
  EXPECT_EQ(share.error().code(), Errc::kTimedOut);
  EXPECT_EQ(stepper_.clock().now() - begin, seconds(10));
}

TEST_F(NfsAdapterTest, ShutDownDuringConnectEndsIt) {
  for (int steps = 0; steps < 40; ++steps) {
    make("nfs://server/export");
    int times = 0;
    adapter_->start_connect([&times](const Result<netfs::ShareInfo>&) { ++times; });
    for (int i = 0; i < steps; ++i) {
      stepper_.advance(std::chrono::milliseconds(0));
      stepper_.step();
    }
    adapter_->shut_down();
    ASSERT_EQ(times, 1) << steps;
    stepper_.run();
    adapter_.reset();
    ASSERT_TRUE(
        std::ranges::all_of(connector_.peers(), [](const auto& each) { return each->ended(); }));
  }
}

TEST_F(NfsAdapterTest, CallsBeforeConnectAndAfterShutDownEnd) {
  make("nfs://server/export");
  EXPECT_EQ(list(true).error().code(), Errc::kInvalid);
  ASSERT_TRUE(connect());
  adapter_->shut_down();
  EXPECT_EQ(list(true).error().code(), Errc::kCancelled);
}

TEST_F(NfsAdapterTest, LookupAsksInTheCallersName) {
  make_and_connect();
  on_nfs_ = [](const SeenCall& call) -> std::optional<std::vector<std::byte>> {
    return call.procedure == 3
               ? lookup_results(netfs::FileHandle(bytes_of("file")), test_attributes(9))
               : std::optional<std::vector<std::byte>>();
  };
  const auto reply = wait_for<netfs::LookupReply>([&](auto done) {
    adapter_->start_lookup(netfs::FileHandle(bytes_of("dir")), "name", credential_,
                           std::move(done));
  });
  ASSERT_TRUE(reply);
  EXPECT_EQ(text_of(reply->handle.bytes()), "file");
  EXPECT_EQ(reply->attributes->fileid, 9U);
  EXPECT_FALSE(reply->directory_attributes);
  EXPECT_EQ(last_call_.uid, 1000U);
  EXPECT_EQ(last_call_.groups, (std::vector<std::uint32_t>{4, 5}));
  const auto too_long = wait_for<netfs::LookupReply>([&](auto done) {
    adapter_->start_lookup(netfs::FileHandle(bytes_of("dir")), std::string(256, 'x'), credential_,
                           std::move(done));
  });
  EXPECT_EQ(too_long.error().error_number(), ENAMETOOLONG);
}

TEST_F(NfsAdapterTest, ReadBringsDataAndCountsIt) {
  make_and_connect();
  on_nfs_ = [](const SeenCall& call) -> std::optional<std::vector<std::byte>> {
    if (call.procedure != 6) {
      return std::nullopt;
    }
    XdrEncoder out;
    out.put_u32(0);
    out.put_bool(true);
    put_attributes(out, test_attributes(9));
    out.put_u32(5);
    out.put_bool(true);
    out.put_string("hello");
    return out.take();
  };
  std::vector<std::byte> destination(100);
  const auto reply = wait_for<netfs::ReadReply>([&](auto done) {
    adapter_->start_read(netfs::FileHandle(bytes_of("file")), {10, destination}, credential_,
                         std::move(done));
  });
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->length, 5U);
  EXPECT_TRUE(reply->end);
  EXPECT_EQ(*reply->attributes, test_attributes(9));
  EXPECT_EQ(text_of(Bytes(destination).first(5)), "hello");
  EXPECT_EQ(adapter_->status().bytes_read, 5U);
  EXPECT_EQ(adapter_->status().reads, 1U);
}

TEST_F(NfsAdapterTest, AServerWithoutReaddirplusIsAskedForItOnce) {
  make_and_connect();
  int plus_calls = 0;
  on_nfs_ = [&](const SeenCall& call) -> std::optional<std::vector<std::byte>> {
    if (call.procedure == 17) {
      ++plus_calls;
      return words({10004, 0});
    }
    return readdir_results(false, {{"a", 1, 1}}, true);
  };
  for (int i = 0; i < 2; ++i) {
    const Result<netfs::ReaddirReply> page = list(true);
    ASSERT_TRUE(page);
    ASSERT_EQ(page->entries.size(), 1U);
    EXPECT_FALSE(page->entries[0].attributes);
    EXPECT_TRUE(page->end);
  }
  EXPECT_EQ(plus_calls, 1);
}

// Readable, not searchable: some servers refuse attributes together with the names.
TEST_F(NfsAdapterTest, ADirectoryWhoseAttributesAreRefusedIsListedWithoutThem) {
  make_and_connect();
  int plus_calls = 0;
  std::uint32_t answer = EACCES;
  on_nfs_ = [&](const SeenCall& call) -> std::optional<std::vector<std::byte>> {
    if (call.procedure == 17) {
      ++plus_calls;
      return words({EACCES, 0});
    }
    return answer != 0 ? words({answer, 0}) : readdir_results(false, {{"a", 1, 1}}, true);
  };
  EXPECT_EQ(list(true).error().error_number(), EACCES) << "not readable either";
  answer = 0;
  const Result<netfs::ReaddirReply> page = list(true);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->entries.size(), 1U);
  EXPECT_FALSE(page->entries[0].attributes);
  EXPECT_EQ(plus_calls, 2) << "others may have them";
}

TEST_F(NfsAdapterTest, PagesWithoutNamesForUsAreReadOver) {
  make_and_connect();
  on_nfs_ = [&](const SeenCall& call) -> std::optional<std::vector<std::byte>> {
    XdrDecoder in(call.arguments);
    static_cast<void>(in.opaque(64));
    if (in.u64() == 0) {
      return readdir_results(true, {{".", 1, 1}, {"..", 1, 2}}, false);
    }
    return readdir_results(true, {{"file", 3, 3}}, true);
  };
  const Result<netfs::ReaddirReply> page = list(true);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->entries.size(), 1U);
  EXPECT_EQ(page->entries[0].cookie, 3U);
  EXPECT_EQ(page->verifier, 0xabcdefU);
}

TEST_F(NfsAdapterTest, ListingsThatGoRoundInACircleEnd) {
  make_and_connect();
  std::uint64_t turn = 0;
  on_nfs_ = [&](const SeenCall&) {  // ever new cookies, never a name
    return readdir_results(true, {{".", 1, 100 + (++turn)}}, false);
  };
  EXPECT_EQ(list(true).error().code(), Errc::kCorrupt);
  on_nfs_ = [&](const SeenCall&) { return readdir_results(true, {{"a", 1, 7}}, false); };
  EXPECT_EQ(list(true, {7, 0}).error().code(), Errc::kCorrupt);
}

TEST_F(NfsAdapterTest, ABadCookieCanBeToldFromAStaleHandle) {
  make_and_connect();
  on_nfs_ = [&](const SeenCall&) { return words({10003, 0}); };
  const auto bad_cookie = list(true);
  EXPECT_EQ(bad_cookie.error().code(), Errc::kStale);
  EXPECT_EQ(bad_cookie.error().error_number(), EAGAIN);
  on_nfs_ = [&](const SeenCall&) { return words({70, 0}); };
  EXPECT_EQ(list(true).error().error_number(), ESTALE);
}

TEST_F(NfsAdapterTest, AListingCanBeCancelledBetweenItsPages) {
  make_and_connect();
  std::uint64_t turn = 0;
  on_nfs_ = [&](const SeenCall&) {
    if (++turn == 3) {
      adapter_->cancel(last_id_);
    }
    return readdir_results(true, {{".", 1, 100 + turn}}, false);
  };
  std::optional<Result<netfs::ReaddirReply>> result;
  last_id_ = adapter_->start_readdir(netfs::FileHandle(bytes_of("dir")), {}, true, credential_,
                                     [&](auto reply) { result = std::move(reply); });
  stepper_.run_until([&] { return result.has_value(); }, seconds(10));
  ASSERT_TRUE(result);
  EXPECT_EQ(result->error().code(), Errc::kCancelled);
  EXPECT_LT(turn, 6U);
}

TEST_F(NfsAdapterTest, SoftAndHardSurviveTheMount) {
  make_and_connect("nfs://server:2049/export?mountport=635&soft&timeo=100&retrans=2");
  on_nfs_ = nullptr;
  connector_.set_on_sent(nullptr);  // swallows everything from now on
  const MonotonicTime begin = stepper_.clock().now();
  const auto reply = wait_for<netfs::Attributes>([&](auto done) {
    adapter_->start_getattr(netfs::FileHandle(bytes_of("file")), credential_, std::move(done));
  });
  EXPECT_EQ(reply.error().code(), Errc::kTimedOut);
  EXPECT_GE(stepper_.clock().now() - begin, seconds(20));
  EXPECT_LE(stepper_.clock().now() - begin, seconds(40));
}

}  // namespace
}  // namespace larder::nfs
