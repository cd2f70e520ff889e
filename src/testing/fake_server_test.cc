// The fake keeps a server's worst promises: what was not committed is gone after a restart.
#include "testing/fake_server.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "testing/stepper.h"

namespace larder::testing {
namespace {

using netfs::FileHandle;
using netfs::FileType;
using netfs::Stability;

class FakeServerTest : public ::testing::Test {
 protected:
  FakeServerTest() : server_(stepper_.clock()), adapter_(server_, stepper_) {
    root_ = wait<netfs::ShareInfo>([&](auto done) { adapter_.start_connect(std::move(done)); })
                .value()
                .root;
  }

  template <class Reply, class Start>
  Result<Reply> wait(Start start) {
    std::optional<Result<Reply>> result;
    start([&result](Result<Reply> reply) { result = std::move(reply); });
    stepper_.run();
    return std::move(*result);
  }

  Result<netfs::CreateReply> create(std::string_view name, const netfs::CreateOrder& order = {}) {
    return wait<netfs::CreateReply>([&](auto done) {
      adapter_.start_create(root_, name, order, {somebody_}, std::move(done));
    });
  }

  Result<netfs::CreateReply> make_directory(std::string_view name, const FileHandle& parent) {
    return wait<netfs::CreateReply>(
        [&](auto done) { adapter_.start_make(parent, name, {}, {somebody_}, std::move(done)); });
  }

  Result<netfs::WriteReply> write(const FileHandle& file, std::uint64_t offset,
                                  std::string_view text, Stability stability) {
    return wait<netfs::WriteReply>([&](auto done) {
      adapter_.start_write(file, {offset, bytes_of(text), stability}, somebody_, std::move(done));
    });
  }

  Result<netfs::CommitReply> commit(const FileHandle& file) {
    return wait<netfs::CommitReply>(
        [&](auto done) { adapter_.start_commit(file, somebody_, std::move(done)); });
  }

  Result<netfs::RenameReply> rename(std::string_view from, const FileHandle& to_directory,
                                    std::string_view to) {
    return wait<netfs::RenameReply>([&](auto done) {
      adapter_.start_rename(root_, from, to_directory, to, {somebody_}, std::move(done));
    });
  }

  Stepper stepper_;
  FakeServer server_;
  FakeAdapter adapter_;
  FileHandle root_;
  const netfs::CredentialRef somebody_ = std::make_shared<netfs::Credential>();
};

TEST_F(FakeServerTest, ARestartLosesWhatWasNotCommitted) {
  const FileHandle file = *create("file").value().handle;
  const std::uint64_t id = server_.find_name("file").value();
  ASSERT_TRUE(write(file, 0, "stable", Stability::kFileSync));
  const auto before = write(file, 6, " and not", Stability::kUnstable);
  EXPECT_EQ(server_.content(id), "stable and not");
  EXPECT_EQ(server_.stable_content(id), "stable");
  server_.restart();
  EXPECT_EQ(server_.content(id), "stable");
  EXPECT_EQ(server_.attributes(id).size, 6U);
  EXPECT_NE(commit(file)->verifier, before->verifier);
  ASSERT_TRUE(write(file, 6, " again", Stability::kUnstable));
  ASSERT_TRUE(commit(file));
  server_.restart();
  EXPECT_EQ(server_.content(id), "stable again");
}

TEST_F(FakeServerTest, AStableWriteCommitsItsOwnBytesAlone) {
  const FileHandle file = *create("file").value().handle;
  ASSERT_TRUE(write(file, 0, "lost", Stability::kUnstable));
  ASSERT_TRUE(write(file, 4, "kept", Stability::kFileSync));
  server_.restart();
  EXPECT_EQ(server_.content(server_.find_name("file").value()), std::string("\0\0\0\0kept", 8));
}

TEST_F(FakeServerTest, ChangesTellWhatWasBefore) {
  const FileHandle file = *create("file").value().handle;
  const auto first = write(file, 0, "123", Stability::kUnstable);
  const auto second = write(file, 3, "4", Stability::kUnstable);
  EXPECT_EQ(second->file.before->size, first->file.after->size);
  EXPECT_EQ(second->file.before->modified, first->file.after->modified);
  server_.tells_before = false;
  EXPECT_FALSE(write(file, 0, "x", Stability::kUnstable)->file.before);
}

TEST_F(FakeServerTest, CreatesExclusivelyOncePerVerifier) {
  netfs::CreateOrder order;
  order.mode = netfs::CreateMode::kExclusive;
  order.verifier.fill(std::byte{1});
  ASSERT_TRUE(create("file", order));
  EXPECT_TRUE(create("file", order)) << "a repetition";
  order.verifier.fill(std::byte{2});
  EXPECT_EQ(create("file", order).error().error_number(), EEXIST);
}

TEST_F(FakeServerTest, RenamesAsPosixSays) {
  const FileHandle directory = *make_directory("dir", root_).value().handle;
  const FileHandle inner = *make_directory("inner", directory).value().handle;
  ASSERT_TRUE(create("file"));
  EXPECT_EQ(rename("dir", inner, "loop").error().error_number(), EINVAL);
  EXPECT_EQ(rename("file", root_, "dir").error().error_number(), EISDIR);
  EXPECT_EQ(rename("dir", root_, "file").error().error_number(), ENOTDIR);
  EXPECT_EQ(rename("nothing", root_, "x").error().error_number(), ENOENT);
  EXPECT_TRUE(rename("file", directory, "moved"));
  EXPECT_FALSE(server_.find_name("file"));
  const auto not_empty = wait<netfs::Change>(
      [&](auto done) { adapter_.start_rmdir(root_, "dir", {somebody_}, std::move(done)); });
  EXPECT_EQ(not_empty.error().error_number(), ENOTEMPTY);
}

TEST_F(FakeServerTest, AFileLivesAsLongAsItHasANameAndTheDiskHasRoom) {
  const FileHandle file = *create("a").value().handle;
  ASSERT_TRUE(wait<netfs::LinkReply>(
      [&](auto done) { adapter_.start_link(file, root_, "b", {somebody_}, std::move(done)); }));
  const auto remove = [&](std::string_view name) {
    return wait<netfs::Change>(
        [&](auto done) { adapter_.start_remove(root_, name, {somebody_}, std::move(done)); });
  };
  ASSERT_TRUE(remove("a"));
  EXPECT_TRUE(write(file, 0, "1234", Stability::kUnstable));
  server_.capacity = 5;
  EXPECT_EQ(write(file, 2, "5678", Stability::kUnstable).error().error_number(), ENOSPC);
  ASSERT_TRUE(remove("b"));
  EXPECT_EQ(write(file, 0, "x", Stability::kUnstable).error().code(), Errc::kStale);
}

TEST_F(FakeServerTest, AnAnswerCanBeLostAfterTheDeed) {
  adapter_.control()->lost_answers.emplace_back(Errc::kTimedOut, "lost");
  EXPECT_EQ(make_directory("dir", root_).error().code(), Errc::kTimedOut);
  EXPECT_TRUE(server_.find_name("dir"));
  server_.denied_uid = 0;
  EXPECT_EQ(make_directory("other", root_).error().error_number(), EACCES);
}

}  // namespace
}  // namespace larder::testing
