// The adapter, with the test as portmapper, mount service and NFS server.
#pragma once

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

#include "adapters/nfs/nfs_adapter.h"
#include "adapters/nfs/nfs_test_results.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_test_server.h"
#include "adapters/nfs/url.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "testing/fake_stream.h"
#include "testing/stepper.h"

namespace larder::nfs {

inline std::vector<std::byte> words(std::initializer_list<std::uint32_t> values) {
  XdrEncoder out;
  for (const std::uint32_t value : values) {
    out.put_u32(value);
  }
  return out.take();
}

class NfsAdapterTest : public ::testing::Test {
 protected:
  // Answers one call; nothing: swallows it.
  using Answer = std::function<std::optional<std::vector<std::byte>>(const SeenCall&)>;

  NfsAdapterTest() : connector_(stepper_) {
    connector_.set_on_connect([this](const std::shared_ptr<testing::FakePeer>& peer) {
      ports_.push_back(peer->endpoint().port);
      if (std::ranges::find(refused_ports_, peer->endpoint().port) != refused_ports_.end()) {
        peer->refuse(Error(Errc::kIo, ECONNREFUSED, "connecting"));
      } else {
        peer->accept();
      }
    });
    connector_.set_on_sent([this](const std::shared_ptr<testing::FakePeer>& peer) {
      for (const SeenCall& call : parse_calls(peer->take_sent())) {
        ++calls_seen_;
        last_call_ = call;
        const auto results = answer(call);
        if (lost_ && call.program == kNfsProgram.number &&
            call.procedure == std::to_underlying(*lost_)) {
          lost_.reset();
          peer->hang_up();
        } else if (results) {
          peer->deliver(as_record(accepted_reply(call.xid, *results, accept_stat_)), 100);
        }
      }
    });
  }

  NfsAdapterTest(const NfsAdapterTest&) = delete;
  NfsAdapterTest& operator=(const NfsAdapterTest&) = delete;

  ~NfsAdapterTest() override {
    if (adapter_) {
      adapter_->shut_down();
    }
  }

  std::optional<std::vector<std::byte>> answer(const SeenCall& call) {
    if (call.program == 100000) {
      XdrDecoder in(call.arguments);
      return words({in.u32() == 100003 ? nfs_port_ : 635U});
    }
    if (call.program == 100005) {
      XdrDecoder in(call.arguments);
      mounted_path_ = in.string(1024);
      if (mount_status_ != 0) {
        return words({mount_status_});
      }
      XdrEncoder out;
      out.put_u32(0);
      out.put_string("root handle");
      out.put_u32(1);
      out.put_u32(1);
      return out.take();
    }
    if (on_nfs_) {
      if (auto results = on_nfs_(call)) {
        return results;
      }
    }
    switch (static_cast<Procedure>(call.procedure)) {
      case Procedure::kFsinfo:
        return fsinfo_results(read_max_, read_preferred_);
      case Procedure::kGetattr:
        return getattr_results(test_attributes(2));
      default:
        return std::nullopt;
    }
  }

  void make(const std::string& url_text) {
    const Result<NfsUrl> url = parse_nfs_url(url_text);
    ASSERT_TRUE(url) << url.error().context();
    adapter_ = make_nfs_adapter(*url, url->options, stepper_, connector_);
  }

  template <class T>
  Result<T> wait_for(const std::function<void(netfs::Done<T>)>& start) {
    std::optional<Result<T>> result;
    start([&result](Result<T> answer) {
      ASSERT_FALSE(result) << "done ran twice";
      result = std::move(answer);
    });
    if (!stepper_.run_until([&] { return result.has_value(); }, std::chrono::seconds(100))) {
      return fail(Errc::kBusy, "no answer");
    }
    return std::move(*result);
  }

  Result<netfs::ShareInfo> connect() {
    return wait_for<netfs::ShareInfo>(
        [this](auto done) { adapter_->start_connect(std::move(done)); });
  }

  Result<netfs::ReaddirReply> list(bool plus, netfs::DirectoryPosition from = {}) {
    return wait_for<netfs::ReaddirReply>([&](auto done) {
      last_id_ = adapter_->start_readdir(netfs::FileHandle(bytes_of("dir")), from, plus,
                                         credential_, std::move(done));
    });
  }

  void make_and_connect(const std::string& url = "nfs://server:2049/export?mountport=635") {
    make(url);
    const Result<netfs::ShareInfo> share = connect();
    ASSERT_TRUE(share) << share.error().context();
    stepper_.run_until([] { return false; }, std::chrono::seconds(1));
  }

  testing::Stepper stepper_;
  testing::FakeConnector connector_;
  std::unique_ptr<netfs::Adapter> adapter_;
  const netfs::CredentialRef credential_ =
      std::make_shared<netfs::Credential>(netfs::Credential{1000, 100, {4, 5}});

  std::vector<std::uint16_t> ports_;  // that were connected to
  std::vector<std::uint16_t> refused_ports_;
  std::uint32_t nfs_port_ = 2049;
  std::uint32_t mount_status_ = 0;
  std::uint32_t read_max_ = 1U << 20;
  std::uint32_t read_preferred_ = 131072;
  std::uint32_t accept_stat_ = 0;
  std::string mounted_path_;
  int calls_seen_ = 0;
  SeenCall last_call_;
  Answer on_nfs_;
  std::optional<Procedure> lost_;  // the next call of it is carried out, but its answer is lost
  netfs::CallId last_id_ = 0;
};

}  // namespace larder::nfs
