// Changes of a directory: what they do, and that a caller may do no more than by its mode bits,
// although this process may.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapters/localdir/localdir_fixture_test.h"
#include "adapters/localdir/rights.h"
#include "base/bytes.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::localdir {
namespace {

using netfs::AttributeChanges;
using netfs::Credential;
using netfs::CredentialRef;

CredentialRef user(std::uint32_t uid, std::vector<std::uint32_t> groups = {}) {
  return std::make_shared<Credential>(Credential{uid, uid, std::move(groups)});
}

class LocalChangesTest : public LocaldirTest {
 protected:
  // Who may do everything in the directory: this process, whoever that is.
  LocalChangesTest()
      : me_(std::make_shared<Credential>(Credential{::geteuid(), ::getegid(), {}})) {}

  Result<netfs::CreateReply> create(std::string_view name, netfs::CreateOrder order = {},
                                    const CredentialRef& who = {}) {
    return wait<netfs::CreateReply>([&](auto done) {
      adapter_->start_create(share_.root, name, order, {who ? who : me_, may_be_done_},
                             std::move(done));
    });
  }

  Result<netfs::CreateReply> make(std::string_view name, netfs::MakeOrder order,
                                  const CredentialRef& who = {}) {
    return wait<netfs::CreateReply>([&](auto done) {
      adapter_->start_make(share_.root, name, order, {who ? who : me_, may_be_done_},
                           std::move(done));
    });
  }

  Result<netfs::Change> remove(std::string_view name, const CredentialRef& who = {}) {
    return wait<netfs::Change>([&](auto done) {
      adapter_->start_remove(share_.root, name, {who ? who : me_, may_be_done_}, std::move(done));
    });
  }

  Result<netfs::RenameReply> rename(std::string_view from, std::string_view to,
                                    const CredentialRef& who = {}) {
    return wait<netfs::RenameReply>([&](auto done) {
      adapter_->start_rename(share_.root, from, share_.root, to, {who ? who : me_, may_be_done_},
                             std::move(done));
    });
  }

  Result<netfs::Change> setattr(const FileHandle& handle, const AttributeChanges& changes,
                                const CredentialRef& who = {}) {
    return wait<netfs::Change>([&](auto done) {
      adapter_->start_setattr(handle, changes, who ? who : me_, std::move(done));
    });
  }

  Result<netfs::WriteReply> write(const FileHandle& handle, std::uint64_t offset,
                                  std::string_view text, const CredentialRef& who = {}) {
    return wait<netfs::WriteReply>([&](auto done) {
      adapter_->start_write(handle, {offset, bytes_of(text), netfs::Stability::kFileSync},
                            who ? who : me_, std::move(done));
    });
  }

  [[nodiscard]] struct stat status(const std::string& name) const {
    struct stat found{};
    EXPECT_EQ(::lstat((root_ + "/" + name).c_str(), &found), 0) << name;
    return found;
  }

  static netfs::CreateOrder with_mode(std::uint32_t mode) {
    netfs::CreateOrder order;
    order.attributes.mode = mode;
    return order;
  }

  const CredentialRef me_;
  bool may_be_done_ = false;
};

TEST_F(LocalChangesTest, CreatesWritesAndReadsBack) {
  const auto created = create("file", with_mode(0640));
  ASSERT_TRUE(created) << created.error().message();
  EXPECT_EQ(status("file").st_mode & 07777U, 0640U);
  const auto written = write(*created->handle, 3, "hello");
  ASSERT_TRUE(written) << written.error().message();
  EXPECT_EQ(written->length, 5U);
  EXPECT_EQ(written->file.before->size, 0U);
  EXPECT_EQ(written->file.after->size, 8U);
  EXPECT_EQ(read(*created->handle, 0, 100).value(), std::string("\0\0\0hello", 8));
  const auto committed = wait<netfs::CommitReply>(
      [&](auto done) { adapter_->start_commit(*created->handle, me_, std::move(done)); });
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->verifier, written->verifier);
}

TEST_F(LocalChangesTest, ThreeWaysToCreate) {
  ASSERT_TRUE(create("file"));
  std::ofstream(root_ + "/file") << "content";
  netfs::CreateOrder order;
  EXPECT_TRUE(create("file", order));
  EXPECT_EQ(status("file").st_size, 7);
  order.attributes.size = 0;
  EXPECT_TRUE(create("file", order));
  EXPECT_EQ(status("file").st_size, 0);
  order.mode = netfs::CreateMode::kGuarded;
  EXPECT_EQ(create("file", order).error().error_number(), EEXIST);
  order.mode = netfs::CreateMode::kExclusive;
  order.verifier.fill(std::byte{0xa5});
  EXPECT_EQ(create("file", order).error().error_number(), EEXIST);
  const auto first = create("other", order);
  const auto repetition = create("other", order);
  ASSERT_TRUE(first && repetition);
  EXPECT_EQ(*first->handle, *repetition->handle);
  order.verifier.fill(std::byte{0x5a});
  EXPECT_EQ(create("other", order).error().error_number(), EEXIST);
}

TEST_F(LocalChangesTest, MakesAndRemovesWhatIsNoFile) {
  netfs::MakeOrder order;
  order.attributes.mode = 0750;
  ASSERT_TRUE(make("dir", order));
  EXPECT_EQ(status("dir").st_mode, S_IFDIR | 0750U);
  order.type = FileType::kFifo;
  ASSERT_TRUE(make("fifo", order));
  EXPECT_EQ(status("fifo").st_mode, S_IFIFO | 0750U);
  EXPECT_EQ(make("fifo", order).error().error_number(), EEXIST);
  ASSERT_TRUE(wait<netfs::CreateReply>([&](auto done) {
    adapter_->start_symlink(share_.root, "link", "../x", {}, {me_, may_be_done_}, std::move(done));
  }));
  EXPECT_EQ(std::filesystem::read_symlink(root_ + "/link"), "../x");
  EXPECT_EQ(remove("dir").error().error_number(), EISDIR);
  std::ofstream(root_ + "/dir/inside") << "x";
  const auto rmdir = [&](std::string_view name) {
    return wait<netfs::Change>([&](auto done) {
      adapter_->start_rmdir(share_.root, name, {me_, may_be_done_}, std::move(done));
    });
  };
  EXPECT_EQ(rmdir("dir").error().error_number(), ENOTEMPTY);
  EXPECT_EQ(rmdir("fifo").error().error_number(), ENOTDIR);
  std::filesystem::remove(root_ + "/dir/inside");
  EXPECT_TRUE(rmdir("dir"));
  EXPECT_TRUE(remove("fifo"));
  EXPECT_TRUE(remove("link"));
  EXPECT_EQ(remove("link").error().error_number(), ENOENT);
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(LocalChangesTest, HandlesFollowARenameAndALink) {
  const FileHandle handle = *create("a").value().handle;
  ASSERT_TRUE(rename("a", "b"));
  EXPECT_TRUE(getattr(handle));
  const auto linked = wait<netfs::LinkReply>([&](auto done) {
    adapter_->start_link(handle, share_.root, "c", {me_, may_be_done_}, std::move(done));
  });
  ASSERT_TRUE(linked);
  EXPECT_EQ(linked->attributes->link_count, 2U);
  ASSERT_TRUE(remove("b"));
  EXPECT_TRUE(write(handle, 0, "still there"));
}

TEST_F(LocalChangesTest, SetsWhatWasAskedAndNothingElse) {
  const FileHandle handle = *create("file", with_mode(0600)).value().handle;
  AttributeChanges changes;
  changes.modified = netfs::Timestamp{1'000'000, 5};
  changes.size = 10;
  const auto change = setattr(handle, changes);
  ASSERT_TRUE(change);
  EXPECT_EQ(change->before->size, 0U);
  EXPECT_EQ(change->after->size, 10U);
  EXPECT_EQ(change->after->modified, (netfs::Timestamp{1'000'000, 5}));
  EXPECT_EQ(change->after->mode, 0600U);
}

TEST_F(LocalChangesTest, NamesThatLeadElsewhereAreRefused) {
  std::filesystem::create_directory(root_ + "/dir");
  for (const std::string_view name :
       {std::string_view("../x"), std::string_view(".."), std::string_view("."),
        std::string_view("dir/x"), std::string_view(""), std::string_view("a\0b", 3)}) {
    EXPECT_EQ(create(name).error().error_number(), EINVAL) << name;
    EXPECT_EQ(remove(name).error().error_number(), EINVAL) << name;
    EXPECT_EQ(rename("dir", name).error().error_number(), EINVAL) << name;
  }
}

TEST_F(LocalChangesTest, ADirectoryOfOthersIsClosed) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root, who may do more than the caller";
  }
  ::chmod(root_.c_str(), 0755);
  ASSERT_TRUE(create("file", with_mode(0644)));
  EXPECT_EQ(create("new", {}, user(1000)).error().error_number(), EACCES);
  EXPECT_EQ(make("new", {}, user(1000)).error().error_number(), EACCES);
  EXPECT_EQ(remove("file", user(1000)).error().error_number(), EACCES);
  EXPECT_EQ(rename("file", "new", user(1000)).error().error_number(), EACCES);
  const FileHandle handle = look_up("file")->handle;
  EXPECT_EQ(write(handle, 0, "x", user(1000)).error().error_number(), EACCES);
  AttributeChanges changes;
  changes.mode = 0777;
  EXPECT_EQ(setattr(handle, changes, user(1000)).error().error_number(), EPERM);
  EXPECT_EQ(status("file").st_mode & 07777U, 0644U);
  EXPECT_EQ(status("file").st_size, 0);
}

TEST_F(LocalChangesTest, WhatIsNewBelongsToTheCaller) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root, who may give files away";
  }
  ::chmod(root_.c_str(), 0777);
  ASSERT_TRUE(create("file", with_mode(0600), user(1000)));
  EXPECT_EQ(status("file").st_uid, 1000U);
  EXPECT_EQ(status("file").st_gid, 1000U);
  ASSERT_TRUE(::chown(root_.c_str(), 0, 77) == 0 && ::chmod(root_.c_str(), 02777) == 0);
  ASSERT_TRUE(make("dir", {}, user(1000)));
  EXPECT_EQ(status("dir").st_gid, 77U) << "the setgid directory's";
  EXPECT_NE(status("dir").st_mode & S_ISGID, 0U);
  ASSERT_TRUE(create("program", with_mode(06755), user(1000)));
  EXPECT_EQ(status("program").st_mode & 07777U, 04755U) << "not with rights of a strange group";
  netfs::MakeOrder device;
  device.type = FileType::kBlockDevice;
  EXPECT_EQ(make("disk", device, user(1000)).error().error_number(), EPERM);
}

TEST_F(LocalChangesTest, StickyDirectoriesKeepOthersFiles) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root, who may give files away";
  }
  ::chmod(root_.c_str(), 01777);
  ASSERT_TRUE(create("his", {}, user(1000)));
  ASSERT_TRUE(create("hers", {}, user(1001)));
  EXPECT_EQ(remove("hers", user(1000)).error().error_number(), EPERM);
  EXPECT_EQ(rename("hers", "x", user(1000)).error().error_number(), EPERM);
  EXPECT_EQ(rename("his", "hers", user(1000)).error().error_number(), EPERM);
  EXPECT_TRUE(rename("his", "moved", user(1000)));
  EXPECT_TRUE(remove("moved", user(1000)));
}

TEST_F(LocalChangesTest, WritingToAProgramTakesItsPrivileges) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root, for whom the kernel does not do it";
  }
  ASSERT_TRUE(create("program"));
  ::chmod((root_ + "/program").c_str(), 06777);
  EXPECT_TRUE(write(look_up("program")->handle, 0, "x", user(1000)));
  EXPECT_EQ(status("program").st_mode & 07777U, 0777U);
}

// The rules alone, for users that no test process is.
TEST(RightsTest, OwnersMembersAndStrangers) {
  Attributes file;
  file.uid = 1000;
  file.gid = 77;
  file.mode = 0664;
  AttributeChanges give_away;
  give_away.uid = 1001;
  EXPECT_EQ(why_not_change(file, give_away, *user(1000)), EPERM);
  EXPECT_EQ(why_not_change(file, give_away, *user(0)), 0);
  AttributeChanges group;
  group.gid = 78;
  EXPECT_EQ(why_not_change(file, group, *user(1000)), EPERM);
  EXPECT_EQ(why_not_change(file, group, *user(1000, {78})), 0);
  EXPECT_EQ(why_not_change(file, group, *user(1001, {78})), EPERM);
  AttributeChanges touch;
  touch.modified = netfs::ServerNow{};
  EXPECT_EQ(why_not_change(file, touch, *user(1001, {77})), 0);
  EXPECT_EQ(why_not_change(file, touch, *user(1001)), EACCES);
  touch.modified = netfs::Timestamp{1, 0};
  EXPECT_EQ(why_not_change(file, touch, *user(1001, {77})), EPERM);
  EXPECT_EQ(why_not_link(file, *user(1001, {77})), 0);
  EXPECT_EQ(why_not_link(file, *user(1001)), EPERM);
  file.mode = 0444;
  EXPECT_EQ(why_not_write(file, *user(1000)), 0) << "opened before";
  EXPECT_EQ(why_not_write(file, *user(1001, {77})), EACCES);
  file.type = FileType::kDirectory;
  EXPECT_EQ(why_not_write(file, *user(1000)), EISDIR);
}

TEST_F(LocalChangesTest, WhatMayBeDoneIsNotRefusedForThat) {
  ASSERT_TRUE(create("file"));
  const auto symlink = [&](std::string_view target) {
    return wait<netfs::CreateReply>([&](auto done) {
      adapter_->start_symlink(share_.root, "symlink", target, {}, {me_, may_be_done_},
                              std::move(done));
    });
  };
  const auto link = [&](std::string_view name) {
    return wait<netfs::LinkReply>([&](auto done) {
      adapter_->start_link(look_up("file")->handle, share_.root, name, {me_, may_be_done_},
                           std::move(done));
    });
  };
  ASSERT_TRUE(make("directory", {}));
  ASSERT_TRUE(symlink("there"));
  ASSERT_TRUE(link("second"));
  ASSERT_TRUE(create("other"));
  EXPECT_EQ(make("directory", {}).error().error_number(), EEXIST);
  may_be_done_ = true;
  const auto made = make("directory", {});
  ASSERT_TRUE(made);
  EXPECT_EQ(*made->handle, look_up("directory")->handle);
  EXPECT_EQ(make("file", {}).error().error_number(), EEXIST) << "no directory";
  EXPECT_EQ(make("directory", {}, user(77)).error().error_number(), EACCES);
  EXPECT_TRUE(symlink("there"));
  EXPECT_EQ(symlink("elsewhere").error().error_number(), EEXIST);
  EXPECT_TRUE(link("second"));
  EXPECT_EQ(link("other").error().error_number(), EEXIST) << "another file";
  netfs::CreateOrder guarded;
  guarded.mode = netfs::CreateMode::kGuarded;
  EXPECT_TRUE(create("other", guarded));
  EXPECT_TRUE(rename("gone", "other"));
  EXPECT_EQ(rename("gone", "nowhere").error().error_number(), ENOENT);
  EXPECT_TRUE(remove("gone"));
  EXPECT_TRUE(remove("other"));
  EXPECT_EQ(::access((root_ + "/other").c_str(), F_OK), -1);
  EXPECT_TRUE(remove("other"));
}

}  // namespace
}  // namespace larder::localdir
