// The adapter over a directory of its own, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapters/localdir/localdir_adapter.h"
#include "base/bytes.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "testing/stepper.h"

namespace larder::localdir {

using netfs::Attributes;
using netfs::FileHandle;
using netfs::FileType;

class LocaldirTest : public ::testing::Test {
 protected:
  LocaldirTest() {
    make_root("/tmp");
    make_adapter(1000);
  }

  void make_root(const std::string& above) {
    if (!root_.empty()) {
      std::filesystem::remove_all(root_);
    }
    std::string pattern = above + "/larder-localdir-test-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
  }

  LocaldirTest(const LocaldirTest&) = delete;
  LocaldirTest& operator=(const LocaldirTest&) = delete;

  ~LocaldirTest() override {
    adapter_->shut_down();
    adapter_.reset();
    std::filesystem::remove_all(root_);
  }

  void make_adapter(std::size_t most_entries) {
    adapter_ = make_localdir_adapter(root_, stepper_, most_entries);
    const auto info =
        wait<netfs::ShareInfo>([&](auto done) { adapter_->start_connect(std::move(done)); });
    ASSERT_TRUE(info.has_value()) << info.error().message();
    share_ = *info;
  }

  template <class Reply, class Start>
  Result<Reply> wait(Start start) {
    std::optional<Result<Reply>> result;
    start([&result](Result<Reply> reply) { result = std::move(reply); });
    stepper_.run();
    return std::move(*result);
  }

  Result<netfs::LookupReply> look_up(const FileHandle& directory, std::string_view name) {
    return wait<netfs::LookupReply>(
        [&](auto done) { adapter_->start_lookup(directory, name, somebody_, std::move(done)); });
  }

  Result<netfs::LookupReply> look_up(std::string_view name) { return look_up(share_.root, name); }

  Result<Attributes> getattr(const FileHandle& handle) {
    return wait<Attributes>(
        [&](auto done) { adapter_->start_getattr(handle, somebody_, std::move(done)); });
  }

  Result<std::string> read(const FileHandle& handle, std::uint64_t offset, std::size_t length) {
    std::vector<std::byte> buffer(length);
    const netfs::ReadReply reply = TRY(wait<netfs::ReadReply>([&](auto done) {
      adapter_->start_read(handle, {offset, buffer}, somebody_, std::move(done));
    }));
    last_end_ = reply.end;
    return std::string(text_of(Bytes(buffer).first(reply.length)));
  }

  // The whole listing, checking that cookies advance it and nothing comes twice.
  std::set<std::string> list(const FileHandle& handle, bool with_attributes) {
    std::set<std::string> names;
    netfs::DirectoryPosition from;
    while (true) {
      const auto reply = wait<netfs::ReaddirReply>([&](auto done) {
        adapter_->start_readdir(handle, from, with_attributes, somebody_, std::move(done));
      });
      EXPECT_TRUE(reply.has_value());
      if (!reply || reply->end) {
        return names;
      }
      for (const auto& entry : reply->entries) {
        EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
        EXPECT_EQ(entry.attributes.has_value(), with_attributes) << entry.name;
        from.cookie = entry.cookie;
      }
    }
  }

  void write(const std::string& name, std::string_view text) const {
    std::ofstream(root_ + "/" + name) << text;
  }

  std::uint32_t rights(const FileHandle& handle, netfs::Credential credential) {
    const auto reply = wait<netfs::AccessReply>([&](auto done) {
      adapter_->start_access(handle, 63, std::make_shared<netfs::Credential>(std::move(credential)),
                             std::move(done));
    });
    return reply ? reply->granted : 0;
  }

  const netfs::CredentialRef somebody_ = std::make_shared<netfs::Credential>();
  testing::Stepper stepper_;
  std::string root_;
  std::unique_ptr<netfs::Adapter> adapter_;
  netfs::ShareInfo share_;
  bool last_end_ = false;
};

}  // namespace larder::localdir
