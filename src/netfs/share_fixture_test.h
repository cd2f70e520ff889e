// ShareTest: a share of a fake server with a cache in memory, under a stepper.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/credential.h"
#include "netfs/directory_stream.h"
#include "netfs/inode.h"
#include "netfs/read_request.h"
#include "netfs/share.h"
#include "netfs/writer.h"
#include "testing/fake_server.h"
#include "testing/memory_backend.h"
#include "testing/stepper.h"

namespace larder::netfs {

using testing::FakeAdapter;
using testing::FakeServer;
using testing::MemoryDisk;
using testing::Stepper;

inline constexpr auto kLongEnough = std::chrono::hours(1);

inline std::string text_of_outcome(const ReadOutcome& outcome) {
  std::string text;
  for (const auto& slice : outcome.slices) {
    text += text_of(slice.bytes);
  }
  return text;
}

inline std::string pattern(std::size_t size, unsigned seed) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 131 + i / 4096 + seed * 7919) & 0xff);
  }
  return text;
}

// A share of a fake server with a cache in memory, under a stepper.
class ShareTest : public ::testing::Test {
 protected:
  ShareTest() { cache_ = caches_.find_or_make("test"); }

  void TearDown() override {
    unmount();
    cache_->withdraw([] {});
    stepper_.run();
  }

  void mount(ShareOptions options = {}) {
    if (cache_->online() == nullptr && with_cache_) {
      ASSERT_TRUE(cache_->add_backend(testing::make_memory_backend(disk_)));
    }
    auto adapter = std::make_unique<FakeAdapter>(server_, stepper_);
    control_ = adapter->control();
    std::optional<Result<std::unique_ptr<Share>>> mounted;
    Share::start_mount(
        std::move(adapter), stepper_, cache_, options,
        [&](Result<std::unique_ptr<Share>> share) { mounted = std::move(share); },
        [&](std::unique_ptr<Adapter> failed) { retired_ = std::move(failed); });
    stepper_.run();
    ASSERT_TRUE(mounted && mounted->has_value());
    share_ = std::move(**mounted);
    // Everything that was made before is older than the server's clock is known to be.
    stepper_.advance(std::chrono::seconds(10));
    stepper_.run();
  }

  void unmount() {
    if (share_ != nullptr) {
      share_->shut_down();
      stepper_.run();
      share_.reset();
      stepper_.run();
    }
  }

  static OwnedBytes bytes_of_text(std::string text) {
    const auto kept = std::make_shared<const std::string>(std::move(text));
    return {kept, bytes_of(*kept)};
  }

  // Runs until the answer of an asynchronous call is there.
  template <class T, class Start>
  Result<T> wait(Start start) {
    std::optional<Result<T>> answer;
    start([&answer](Result<T> result) { answer = std::move(result); });
    stepper_.run_until([&] { return answer.has_value(); }, kLongEnough);
    if (!answer) {
      return fail(Errc::kTimedOut, "no answer");
    }
    return std::move(*answer);
  }

  // What waits for a held call is not answered until its caller is interrupted, and then at once.
  template <class T>
  void expect_interruptible(const Caller& caller, const std::optional<Result<T>>& answer) {
    stepper_.run();
    ASSERT_FALSE(answer);
    caller.scope->cancel();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->error().code(), Errc::kCancelled);
    control_->release();
    stepper_.run();
  }

  Result<InodeRef> look_up(const std::string& name) {
    auto outcome = wait<LookupOutcome>(
        [&](auto done) { share_->lookup(share_->root(), name, caller_, std::move(done)); });
    if (!outcome) {
      return fail(outcome.error());
    }
    return outcome->inode;
  }

  Result<OpenFile> open(const InodeRef& inode) {
    OpenFile opened =
        TRY(wait<OpenFile>([&](auto done) { share_->open(inode, {}, caller_, std::move(done)); }));
    opened.version = TRY(
        wait<VersionRef>([&](auto done) { share_->prepare(opened, caller_, std::move(done)); }));
    return opened;
  }

  Result<std::string> read(const OpenFile& opened, ByteRange range) {
    const ReadOutcome outcome = TRY(wait<ReadOutcome>([&](auto done) {
      share_->read(opened, range, std::make_shared<CallScope>(), std::move(done));
    }));
    return text_of_outcome(outcome);
  }

  Result<std::shared_ptr<DirectoryStream>> open_directory() {
    return wait<std::shared_ptr<DirectoryStream>>(
        [&](auto done) { share_->open_directory(share_->root(), caller_, std::move(done)); });
  }

  // To the end of the listing.
  Result<> load_all(const std::shared_ptr<DirectoryStream>& stream) {
    std::optional<Result<>> loaded;
    stream->load(1'000'000, caller_, [&](Result<> result) { loaded = std::move(result); });
    stepper_.run();
    return loaded ? std::move(*loaded) : fail(Errc::kTimedOut, "no answer");
  }

  // As `ls` would.
  void list() {
    const auto stream = open_directory();
    ASSERT_TRUE(stream);
    ASSERT_TRUE(load_all(*stream));
  }

  // As `cat` would: open, read to the end, close.
  Result<std::string> cat(const std::string& name) {
    const InodeRef inode = TRY(look_up(name));
    const OpenFile opened = TRY(open(inode));
    std::string text;
    while (true) {
      const std::string piece = TRY(read(opened, {text.size(), 128 * 1024}));
      if (piece.empty()) {
        break;
      }
      text += piece;
    }
    share_->closed(opened.file);
    stepper_.run();
    return text;
  }

  Stepper stepper_{
      ::testing::UnitTest::GetInstance()->random_seed() == 0
          ? 1U
          : static_cast<std::uint64_t>(::testing::UnitTest::GetInstance()->random_seed())};
  FakeServer server_{stepper_.clock()};
  MemoryDisk disk_;
  fscache::Caches caches_{stepper_};
  std::shared_ptr<fscache::Cache> cache_;
  bool with_cache_ = true;
  std::shared_ptr<FakeAdapter::Control> control_;
  std::unique_ptr<Share> share_;
  std::unique_ptr<Adapter> retired_;
  Caller caller_{std::make_shared<const Credential>(), nullptr};
};

}  // namespace larder::netfs
