// The adapter must show a directory exactly as it is, whatever its names, kinds and sizes, and say
// "stale" rather than show one file for another.
#include "adapters/localdir/localdir_adapter.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "adapters/localdir/localdir_fixture_test.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "testing/stepper.h"

namespace larder::localdir {
namespace {

TEST_F(LocaldirTest, ConnectsToADirectoryOnly) {
  for (const char* const path : {"/nonexistent", "/etc/passwd"}) {
    const auto other = make_localdir_adapter(path, stepper_);
    const auto info =
        wait<netfs::ShareInfo>([&](auto done) { other->start_connect(std::move(done)); });
    ASSERT_FALSE(info.has_value());
    EXPECT_THAT(info.error().message(), ::testing::HasSubstr(path));
  }
  EXPECT_EQ(share_.root_attributes.type, FileType::kDirectory);
  EXPECT_TRUE(adapter_->status().connected);
}

TEST_F(LocaldirTest, ReadsFiles) {
  write("file", "0123456789");
  const auto found = look_up("file");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->attributes->size, 10U);
  EXPECT_EQ(found->attributes->type, FileType::kRegular);
  EXPECT_EQ(found->directory_attributes->fileid, share_.root_attributes.fileid);
  EXPECT_EQ(read(found->handle, 0, 4).value(), "0123");
  EXPECT_FALSE(last_end_);
  EXPECT_EQ(read(found->handle, 6, 100).value(), "6789");
  EXPECT_TRUE(last_end_);
  EXPECT_EQ(read(found->handle, 50, 10).value(), "");
  EXPECT_EQ(read(found->handle, UINT64_MAX, 10).error().error_number(), EINVAL);
  EXPECT_EQ(read(share_.root, 0, 10).error().error_number(), EISDIR);
  EXPECT_EQ(adapter_->status().bytes_read, 8U);
}

TEST_F(LocaldirTest, TellsTheServersErrno) {
  const auto missing = look_up("missing");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code(), Errc::kRemote);
  EXPECT_EQ(missing.error().error_number(), ENOENT);
  write("file", "x");
  EXPECT_EQ(look_up(look_up("file")->handle, "y").error().error_number(), ENOTDIR);
  EXPECT_EQ(look_up(std::string(300, 'x')).error().error_number(), ENAMETOOLONG);
}

TEST_F(LocaldirTest, NeverLeavesTheDirectory) {
  ASSERT_EQ(::symlink("/etc", (root_ + "/link").c_str()), 0);
  for (const char* const name : {"..", ".", "", "link/passwd", "../etc", "/etc"}) {
    EXPECT_FALSE(look_up(name).has_value()) << name;
  }
  const auto link = look_up("link");
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->attributes->type, FileType::kSymlink);
  EXPECT_FALSE(look_up(link->handle, "passwd").has_value());
  const auto target = wait<netfs::ReadlinkReply>(
      [&](auto done) { adapter_->start_readlink(link->handle, somebody_, std::move(done)); });
  EXPECT_EQ(target.value().target, "/etc");
}

TEST_F(LocaldirTest, ShowsNamesOfAnyBytes) {
  std::set<std::string> names{std::string(255, 'n'), "\xff\xfe", "a\nb", " ", "%", "\x01"};
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '/' && byte != '.') {
      names.insert(std::string(1, static_cast<char>(byte)));
    }
  }
  for (const std::string& name : names) {
    write(name, name);
  }
  EXPECT_EQ(list(share_.root, false), names);
  EXPECT_EQ(list(share_.root, true), names);
  for (const std::string& name : names) {
    EXPECT_EQ(read(look_up(name)->handle, 0, 300).value(), name);
  }
}

TEST_F(LocaldirTest, ListsAHundredThousandEntriesEachOnce) {
  constexpr int kFiles = 100'000;
  if (::access("/dev/shm", W_OK) == 0) {
    make_root("/dev/shm");  // a disk takes half a minute to make them
    make_adapter(1000);
  }
  const int directory = ::open(root_.c_str(), O_PATH | O_CLOEXEC);
  ASSERT_GE(directory, 0);
  for (int i = 0; i < kFiles; ++i) {
    ASSERT_EQ(::mknodat(directory, fmt::format("file-{}", i).c_str(), S_IFREG | 0600, 0), 0);
  }
  ::close(directory);
  const std::set<std::string> names = list(share_.root, false);
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kFiles));
  EXPECT_TRUE(names.contains("file-99999"));
}

TEST_F(LocaldirTest, AListingGoesOnWhereItWasWhileTheDirectoryChanges) {
  for (int i = 0; i < 3000; ++i) {
    write(fmt::format("old-{}", i), "");
  }
  const auto first = wait<netfs::ReaddirReply>([&](auto done) {
    adapter_->start_readdir(share_.root, {}, false, somebody_, std::move(done));
  });
  ASSERT_FALSE(first->end);
  std::set<std::string> seen;
  for (const auto& entry : first->entries) {
    seen.insert(entry.name);
  }
  std::filesystem::remove(root_ + "/" + first->entries.front().name);
  write("new", "");
  netfs::DirectoryPosition from{first->entries.back().cookie, 0};
  while (true) {
    const auto reply = wait<netfs::ReaddirReply>([&](auto done) {
      adapter_->start_readdir(share_.root, from, false, somebody_, std::move(done));
    });
    if (reply->end) {
      break;
    }
    for (const auto& entry : reply->entries) {
      seen.insert(entry.name);
      from.cookie = entry.cookie;
    }
  }
  seen.erase("new");
  EXPECT_EQ(seen.size(), 3000U);
}

TEST_F(LocaldirTest, HardLinksAreOneFileAsLongAsOneOfThemIsThere) {
  write("a", "linked");
  std::filesystem::create_hard_link(root_ + "/a", root_ + "/b");
  const auto a = look_up("a");
  const auto b = look_up("b");
  EXPECT_EQ(a->handle, b->handle);
  EXPECT_EQ(a->attributes->link_count, 2U);
  std::filesystem::remove(root_ + "/b");
  EXPECT_EQ(read(a->handle, 0, 10).value(), "linked");
  std::filesystem::remove(root_ + "/a");
  EXPECT_EQ(getattr(a->handle).error().code(), Errc::kStale);
}

TEST_F(LocaldirTest, ShowsSpecialFilesAndDoesNotOpenThem) {
  ASSERT_EQ(::mkfifo((root_ + "/fifo").c_str(), 0644), 0);
  EXPECT_EQ(look_up("fifo")->attributes->type, FileType::kFifo);
  EXPECT_EQ(read(look_up("fifo")->handle, 0, 1).error().error_number(), EINVAL);  // and no waiting
  if (::geteuid() == 0 && ::mknod((root_ + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0) {
    const auto null = look_up("null");
    EXPECT_EQ(null->attributes->type, FileType::kCharacterDevice);
    EXPECT_EQ(null->attributes->device_major, 1U);
    EXPECT_EQ(null->attributes->device_minor, 3U);
    EXPECT_FALSE(read(null->handle, 0, 1).has_value());
  }
}

TEST_F(LocaldirTest, SeesFilesChangeUnderIt) {
  write("file", "old");
  const auto old = look_up("file");
  write("file", "longer");
  EXPECT_EQ(getattr(old->handle)->size, 6U);
  EXPECT_EQ(read(old->handle, 0, 10).value(), "longer");
  // Replaced: the name now is another file, and the old handle must not show it.
  write("other", "other");
  std::filesystem::rename(root_ + "/other", root_ + "/file");
  EXPECT_EQ(getattr(old->handle).error().code(), Errc::kStale);
  EXPECT_EQ(read(look_up("file")->handle, 0, 10).value(), "other");
}

TEST_F(LocaldirTest, FindsFilesInDirectoriesThatWereRenamedOnceTheyAreLookedUpAgain) {
  std::filesystem::create_directories(root_ + "/d/e");
  write("d/e/file", "deep");
  const auto d = look_up("d");
  const auto e = look_up(d->handle, "e");
  const auto file = look_up(e->handle, "file");
  EXPECT_EQ(read(file->handle, 0, 10).value(), "deep");
  std::filesystem::rename(root_ + "/d", root_ + "/renamed");
  EXPECT_EQ(getattr(file->handle).error().code(), Errc::kStale);
  EXPECT_EQ(look_up("renamed")->handle, d->handle);
  EXPECT_EQ(read(file->handle, 0, 10).value(), "deep");
}

TEST_F(LocaldirTest, AFullTableForgetsTheLeastRecentlyUsed) {
  std::filesystem::create_directory(root_ + "/d");
  for (int i = 0; i < 20; ++i) {
    write(fmt::format("d/{}", i), "x");
  }
  make_adapter(10);
  const auto d = look_up("d");
  std::vector<FileHandle> handles;
  handles.reserve(20);
  for (int i = 0; i < 20; ++i) {
    handles.push_back(look_up(d->handle, fmt::format("{}", i))->handle);
  }
  EXPECT_TRUE(getattr(d->handle).has_value());  // in use by each of them
  EXPECT_EQ(getattr(handles.front()).error().code(), Errc::kStale);
  EXPECT_TRUE(getattr(handles.back()).has_value());
  EXPECT_EQ(look_up(d->handle, "0")->handle, handles.front());
  EXPECT_TRUE(getattr(handles.front()).has_value());
}

TEST_F(LocaldirTest, GrantsByModeBits) {
  using enum netfs::AccessBits;
  write("file", "x");
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root to change owners";
  }
  ASSERT_EQ(::chown((root_ + "/file").c_str(), 1000, 2000), 0);
  ASSERT_EQ(::chmod((root_ + "/file").c_str(), 0640), 0);
  const FileHandle file = look_up("file")->handle;
  EXPECT_EQ(rights(file, {1000, 1, {}}), kAccessRead | kAccessModify | kAccessExtend);
  EXPECT_EQ(rights(file, {1001, 2000, {}}), kAccessRead);
  EXPECT_EQ(rights(file, {1001, 1, {5, 2000}}), kAccessRead);
  EXPECT_EQ(rights(file, {1001, 1, {}}), 0U);
  EXPECT_EQ(rights(file, {0, 0, {}}), kAccessRead | kAccessModify | kAccessExtend);
  ASSERT_EQ(::chmod((root_ + "/file").c_str(), 0077), 0);
  EXPECT_EQ(rights(file, {1000, 2000, {}}), 0U);  // the owner's bits count, not the others'
  EXPECT_EQ(rights(file, {0, 0, {}}) & kAccessExecute, kAccessExecute);
  EXPECT_EQ(rights(share_.root, {0, 0, {}}) & (kAccessLookup | kAccessDelete),
            kAccessLookup | kAccessDelete);
}

TEST_F(LocaldirTest, CancelsWhatHasNotBegun) {
  std::optional<Errc> first;
  std::optional<Errc> second;
  const auto into = [](std::optional<Errc>& code) {
    return
        [&code](Result<Attributes> reply) { code = reply ? Errc::kExists : reply.error().code(); };
  };
  const auto id = adapter_->start_getattr(share_.root, somebody_, into(first));
  adapter_->start_getattr(share_.root, somebody_, into(second));
  adapter_->cancel(id);
  adapter_->cancel(999);
  stepper_.run();
  EXPECT_EQ(first, Errc::kCancelled);
  EXPECT_EQ(second, Errc::kExists);
}

TEST_F(LocaldirTest, ShutDownEndsEveryCall) {
  std::optional<Errc> queued;
  std::optional<Errc> late;
  adapter_->start_getattr(share_.root, somebody_,
                          [&](Result<Attributes> reply) { queued = reply.error().code(); });
  adapter_->shut_down();
  EXPECT_EQ(queued, Errc::kCancelled);
  adapter_->start_getattr(share_.root, somebody_,
                          [&](Result<Attributes> reply) { late = reply.error().code(); });
  EXPECT_EQ(late, Errc::kCancelled);
}

TEST_F(LocaldirTest, TellsTheSpaceOfTheFilesystem) {
  const auto space = wait<netfs::StatfsReply>(
      [&](auto done) { adapter_->start_statfs(share_.root, somebody_, std::move(done)); });
  ASSERT_TRUE(space.has_value());
  EXPECT_GE(space->total_bytes, space->free_bytes);
  EXPECT_GT(space->total_bytes, 0U);
}

TEST(LocaldirSourceTest, IsAPathOrAUrl) {
  EXPECT_EQ(parse_localdir_source("/srv//").value(), "/srv");
  EXPECT_EQ(parse_localdir_source("localdir:///srv").value(), "/srv");
  EXPECT_EQ(parse_localdir_source("/").value(), "/");
  EXPECT_FALSE(parse_localdir_source("localdir://srv").has_value());
  EXPECT_TRUE(is_localdir_source("/x"));
  EXPECT_TRUE(is_localdir_source("localdir://x"));
  EXPECT_FALSE(is_localdir_source("nfs://x/y"));
  EXPECT_THAT(check_localdir_options(std::vector<std::string>{"vers=3"}).error().context(),
              ::testing::HasSubstr("\"vers=3\""));
  EXPECT_TRUE(check_localdir_options({}).has_value());
}

}  // namespace
}  // namespace larder::localdir
