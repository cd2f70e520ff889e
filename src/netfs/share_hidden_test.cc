// Files that are removed while open: the names they get at the server, and who removes these.
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/hidden_name_store.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"

namespace larder::netfs {
namespace {

// What a next engine would find.
using Kept = std::map<std::string, LeftName>;

class FakeStore final : public HiddenNameStore {
 public:
  explicit FakeStore(Kept& kept) : kept_(kept) {}

  void put(const LeftName& name) override { kept_[name.name] = name; }

  void remove(const FileHandle& /*directory*/, std::string_view name) override {
    kept_.erase(std::string(name));
  }

  std::vector<LeftName> adopt() override {
    std::vector<LeftName> left;
    for (const auto& [name, each] : kept_) {
      left.push_back(each);
    }
    return left;
  }

 private:
  Kept& kept_;
};

class ShareHiddenTest : public ShareTest {
 protected:
  ShareHiddenTest() { caller_.credential = std::make_shared<const Credential>(1000U, 100U); }

  void begin() {
    mount();
    share_->keep_hidden_names(std::make_unique<FakeStore>(kept_));
    stepper_.run();
  }

  Result<OpenFile> open(const std::string& name) {
    const auto inode = look_up(name);
    if (!inode) {
      return fail(inode.error());
    }
    return wait<OpenFile>(
        [&](auto done) { share_->open(*inode, {.write = true}, caller_, std::move(done)); });
  }

  Result<> remove(const std::string& name) {
    return wait<void>(
        [&](auto done) { share_->remove(share_->root(), name, caller_, std::move(done)); });
  }

  Result<> rename(const std::string& from, const std::string& to) {
    return wait<void>([&](auto done) {
      share_->rename(share_->root(), from, share_->root(), to, caller_, std::move(done));
    });
  }

  // As when the process dies: nothing that it says from now on reaches the server.
  void die() {
    control_->hold = true;
    unmount();
    control_->errors.resize(control_->held.size(), Error(Errc::kCancelled, "the process is dead"));
    control_->release();
    stepper_.run();
  }

  Kept kept_;
};

TEST_F(ShareHiddenTest, ANameIsKeptFromBeforeItIsThereUntilItIsGone) {
  server_.add_file("file", "content");
  begin();
  auto file = open("file");
  ASSERT_TRUE(file);
  control_->hold = true;
  std::optional<Result<>> removed;
  share_->remove(share_->root(), "file", caller_,
                 [&](Result<> result) { removed = std::move(result); });
  stepper_.run();
  ASSERT_FALSE(removed);
  ASSERT_EQ(kept_.size(), 1U) << "the server is being asked";
  control_->release();
  stepper_.run();
  ASSERT_TRUE(removed && *removed);
  ASSERT_EQ(kept_.size(), 1U);
  EXPECT_TRUE(server_.find_name(kept_.begin()->first));
  file = fail(Errc::kStale, "closed");
  stepper_.run();
  EXPECT_TRUE(kept_.empty());
}

TEST_F(ShareHiddenTest, ARefusedRemovalLeavesNothingBehind) {
  server_.add_file("file", "content");
  begin();
  const auto file = open("file");
  ASSERT_TRUE(file);
  server_.denied_uid = caller_.credential->uid;
  EXPECT_EQ(remove("file").error().error_number(), EACCES);
  EXPECT_TRUE(kept_.empty());
  EXPECT_TRUE(server_.find_name("file"));
}

TEST_F(ShareHiddenTest, WhatAMountLeftBehindTheNextRemoves) {
  server_.add_file("file", "content");
  begin();
  const auto file = open("file");
  ASSERT_TRUE(file);
  ASSERT_TRUE(remove("file"));
  ASSERT_EQ(kept_.size(), 1U);
  const std::string hidden = kept_.begin()->first;
  die();
  ASSERT_TRUE(server_.find_name(hidden));
  begin();
  EXPECT_FALSE(server_.find_name(hidden));
  EXPECT_TRUE(kept_.empty());
}

TEST_F(ShareHiddenTest, WhoRemovedItMayHaveLostTheRightMeanwhile) {
  server_.add_file("file", "content");
  begin();
  const auto file = open("file");
  ASSERT_TRUE(file);
  ASSERT_TRUE(remove("file"));
  const std::string hidden = kept_.begin()->first;
  die();
  server_.denied_uid = caller_.credential->uid;
  begin();
  EXPECT_FALSE(server_.find_name(hidden));
  EXPECT_TRUE(kept_.empty());
}

TEST_F(ShareHiddenTest, WhatIsGoneAlreadyIsForgotten) {
  server_.add_file("file", "content");
  mount();
  kept_[".nfs1"] = {share_->root()->handle(), ".nfs1", {}};
  share_->keep_hidden_names(std::make_unique<FakeStore>(kept_));
  stepper_.run();
  EXPECT_TRUE(kept_.empty());
  EXPECT_TRUE(server_.find_name("file"));
}

// Until the new file has the name the old one must not be lost.
TEST_F(ShareHiddenTest, WhatIsReplacedIsKeptForRemovalOnlyOnceItIs) {
  server_.add_file("old", "old");
  server_.add_file("new", "new");
  begin();
  const auto file = open("old");
  ASSERT_TRUE(file);
  ASSERT_TRUE(look_up("new"));
  control_->hold = true;
  std::optional<Result<>> renamed;
  share_->rename(share_->root(), "new", share_->root(), "old", caller_,
                 [&](Result<> result) { renamed = std::move(result); });
  for (int step = 0; step < 10 && !renamed; ++step) {
    stepper_.run();
    EXPECT_TRUE(kept_.empty());
    control_->release();
    control_->hold = true;
  }
  ASSERT_TRUE(renamed && *renamed);
  control_->release();
  stepper_.run();
  EXPECT_EQ(kept_.size(), 1U);
}

TEST_F(ShareHiddenTest, AMountThatEndsRemovesWhatIsStillOpen) {
  server_.add_file("file", "content");
  begin();
  const auto file = open("file");
  ASSERT_TRUE(file);
  ASSERT_TRUE(remove("file"));
  EXPECT_EQ(share_->statistics().hidden_names, 1U);
  share_->let_hidden_go();
  stepper_.run();
  EXPECT_EQ(share_->statistics().hidden_names, 0U);
  EXPECT_EQ(server_.calls["REMOVE"], 1U);
  EXPECT_TRUE(kept_.empty());
}

}  // namespace
}  // namespace larder::netfs
