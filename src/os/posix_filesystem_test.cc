#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "os/filesystem.h"

namespace larder::os {
namespace {

class PosixFilesystemTest : public ::testing::Test {
 protected:
  PosixFilesystemTest() : path_(::testing::TempDir() + "larder-posix-XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    filesystem_ = make_posix_filesystem();
    root_ = filesystem_->open_root(path_).value();
  }

  PosixFilesystemTest(const PosixFilesystemTest&) = delete;
  PosixFilesystemTest& operator=(const PosixFilesystemTest&) = delete;

  ~PosixFilesystemTest() override { std::filesystem::remove_all(path_); }

  [[nodiscard]] static std::string content(File& file, ReadHint hint = ReadHint::kNone) {
    std::string text(100, '\0');
    const auto got =
        file.read_at(0, {reinterpret_cast<std::byte*>(text.data()), text.size()}, hint);
    text.resize(got.value());
    return text;
  }

  std::string path_;
  std::unique_ptr<Filesystem> filesystem_;
  std::unique_ptr<Directory> root_;
};

TEST_F(PosixFilesystemTest, TellsWhichPagesAreInMemory) {
  constexpr std::uint64_t kPage = 4096;
  const auto file = root_->create_file("name", 0600).value();
  ASSERT_TRUE(file->write_at(0, std::vector<std::byte>(64 * kPage)));
  const auto all = file->pages_in_memory(0, 64 * kPage);
  if (!all && all.error().code() == Errc::kNotSupported) {
    GTEST_SKIP() << all.error().message();
  }
  EXPECT_EQ(all->all, 64U);
  EXPECT_EQ(all->ready, 64U);
  EXPECT_TRUE(all->first_ready);
  EXPECT_EQ(file->pages_in_memory(10 * kPage + 7, 2 * kPage)->all, 3U) << "those that it touches";
  ASSERT_TRUE(file->sync());
  const int descriptor = ::open((path_ + "/name").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  EXPECT_EQ(::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED), 0);
  ::close(descriptor);
  if (file->pages_in_memory(0, 64 * kPage)->all > 0) {
    GTEST_SKIP() << "a filesystem in memory";
  }
  EXPECT_FALSE(file->pages_in_memory(0, kPage)->first_ready);
  EXPECT_EQ(content(*file), std::string(100, '\0'));
  EXPECT_TRUE(file->pages_in_memory(0, kPage)->first_ready);
}

// Who has closed a file may have it mapped still.
TEST_F(PosixFilesystemTest, TellsWhetherAFileIsOpenOrMappedElsewhere) {
  const auto file = root_->create_file("name", 0600).value();
  ASSERT_TRUE(file->write_at(0, bytes_of("abc")));
  const auto elsewhere = file->is_open_elsewhere();
  if (!elsewhere && elsewhere.error().code() == Errc::kNotSupported) {
    GTEST_SKIP() << elsewhere.error().message();
  }
  EXPECT_FALSE(elsewhere.value());
  const int reader = ::open((path_ + "/name").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  EXPECT_TRUE(file->is_open_elsewhere().value());
  void* const mapped = ::mmap(nullptr, 3, PROT_READ, MAP_SHARED, reader, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  ::close(reader);
  EXPECT_TRUE(file->is_open_elsewhere().value()) << "its mapping is there";
  ::munmap(mapped, 3);
  EXPECT_FALSE(file->is_open_elsewhere().value());
}

// Somebody may remove a directory that is open. ext4 says EPERM to who makes an unnamed file there,
// others make one, which cannot be given a name there.
TEST_F(PosixFilesystemTest, ADirectoryThatWasRemovedHasNoNamesAndTakesNone) {
  ASSERT_TRUE(root_->make_directory("gone", 0700));
  const auto gone = root_->open_directory("gone").value();
  const auto file = gone->make_tmpfile(0600).value();
  ASSERT_TRUE(root_->remove_directory("gone"));
  std::size_t names = 0;
  EXPECT_TRUE(gone->list([&](const DirectoryEntry&) {
    ++names;
    return true;
  }));
  EXPECT_EQ(names, 0U);
  EXPECT_EQ(gone->make_directory("inside", 0700).error().code(), Errc::kNotFound);
  EXPECT_EQ(gone->create_file("name", 0600).error().code(), Errc::kNotFound);
  EXPECT_EQ(gone->link(*file, "name").error().code(), Errc::kNotFound);
  EXPECT_TRUE(root_->link(*file, "name")) << "it may get one elsewhere";
  const auto another = gone->make_tmpfile(0600);
  EXPECT_TRUE(another || another.error().code() == Errc::kNotFound) << another.error().message();
}

TEST_F(PosixFilesystemTest, AnUnnamedFileGetsItsNameWithDataAndAttribute) {
  auto file = root_->make_tmpfile(0600).value();
  ASSERT_TRUE(file->write_at(3, bytes_of("abc")));
  ASSERT_TRUE(file->set_xattr("user.test", bytes_of("label")));
  EXPECT_EQ(root_->stat("name").error().code(), Errc::kNotFound);
  ASSERT_TRUE(root_->link(*file, "name"));
  EXPECT_EQ(root_->link(*file, "name").error().code(), Errc::kExists);
  auto again = root_->open_file("name", OpenMode::kRead).value();
  EXPECT_EQ(content(*again), std::string("\0\0\0abc", 6));
  EXPECT_EQ(content(*again, ReadHint::kDropBehind), std::string("\0\0\0abc", 6));
  EXPECT_EQ(again->get_xattr("user.test", 5).value(), "label");
  EXPECT_EQ(again->get_xattr("user.test", 4).error().code(), Errc::kInvalid);
  EXPECT_EQ(again->get_xattr("user.none", 4).error().code(), Errc::kNotFound);
  EXPECT_EQ(again->stat()->inode, file->stat()->inode);
}

// A planted link must not lead the engine out of its directory.
TEST_F(PosixFilesystemTest, NothingFollowsLinksOrHangsOnAFifo) {
  ASSERT_EQ(::symlink("/etc/passwd", (path_ + "/link").c_str()), 0);
  ASSERT_EQ(::symlink("/etc", (path_ + "/linked").c_str()), 0);
  ASSERT_EQ(::mkfifo((path_ + "/fifo").c_str(), 0600), 0);
  ASSERT_TRUE(root_->make_directory("directory", 0700));
  for (const char* name : {"link", "fifo", "directory"}) {
    for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadWrite}) {
      EXPECT_EQ(root_->open_file(name, mode).error().code(), Errc::kInvalid) << name;
    }
  }
  EXPECT_FALSE(root_->open_directory("linked"));
  EXPECT_FALSE(root_->open_directory(".."));
  EXPECT_FALSE(root_->open_directory_in("linked", "ssl"));
  EXPECT_FALSE(root_->open_directory_in("directory", ".."));
  EXPECT_FALSE(root_->open_directory_in("..", "tmp"));
  EXPECT_EQ(root_->stat("link")->type, NodeType::kSymlink);
  EXPECT_EQ(root_->stat("fifo")->type, NodeType::kOther);
}

TEST_F(PosixFilesystemTest, OpensADirectoryInADirectory) {
  ASSERT_TRUE(root_->make_directory("outer", 0700));
  EXPECT_EQ(root_->open_directory_in("outer", "inner").error().code(), Errc::kNotFound);
  ASSERT_TRUE(root_->open_directory("outer").value()->make_directory("inner", 0700));
  ASSERT_TRUE(root_->open_directory_in("outer", "inner").value()->create_file("file", 0600));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/outer/inner/file"));
  EXPECT_EQ(root_->open_directory_in("none", "inner").error().code(), Errc::kNotFound);
  ASSERT_EQ(::symlink("inner", (path_ + "/outer/linked").c_str()), 0);
  EXPECT_FALSE(root_->open_directory_in("outer", "linked"));
}

TEST_F(PosixFilesystemTest, ListsEveryNameOnceAndStopsWhenAsked) {
  std::set<std::string> expected;
  for (int i = 0; i < 2000; ++i) {
    const std::string name = "a-rather-long-name-" + std::to_string(i);
    ASSERT_TRUE(root_->create_file(name, 0600));
    expected.insert(name);
  }
  std::set<std::string> seen;
  ASSERT_TRUE(root_->list([&](const DirectoryEntry& entry) {
    EXPECT_TRUE(seen.insert(entry.name).second);
    return true;
  }));
  EXPECT_EQ(seen, expected);
  int count = 0;
  ASSERT_TRUE(root_->list([&](const DirectoryEntry&) { return ++count < 5; }));
  EXPECT_EQ(count, 5);
}

TEST_F(PosixFilesystemTest, TheLockKeepsASecondOpenerOut) {
  auto first = root_->create_file("lock", 0600).value();
  auto second = root_->open_file("lock", OpenMode::kReadWrite).value();
  ASSERT_TRUE(first->lock_exclusive());
  EXPECT_EQ(second->lock_exclusive().error().code(), Errc::kBusy);
  first.reset();
  EXPECT_TRUE(second->lock_exclusive());
}

TEST_F(PosixFilesystemTest, StampsRenamesAndSizes) {
  auto file = root_->create_file("a", 0600).value();
  ASSERT_TRUE(file->set_times(FileTime{1000, 5}, FileTime{2000, 7}));
  EXPECT_EQ(file->stat()->accessed, (FileTime{1000, 5}));
  EXPECT_EQ(file->stat()->modified, (FileTime{2000, 7}));
  ASSERT_TRUE(file->set_accessed_now());
  EXPECT_GT(file->stat()->accessed.seconds, 1'000'000'000);
  EXPECT_EQ(file->stat()->modified, (FileTime{2000, 7}));
  ASSERT_TRUE(file->set_size(1 << 20));
  EXPECT_EQ(file->stat()->size, 1U << 20);
  EXPECT_LT(file->stat()->allocated, 1U << 20);
  ASSERT_TRUE(root_->make_directory("d", 0700));
  auto directory = root_->open_directory("d").value();
  ASSERT_TRUE(root_->rename("a", *directory, "b"));
  EXPECT_TRUE(directory->stat("b"));
  EXPECT_EQ(root_->remove_directory("d").error().code(), Errc::kExists);
  ASSERT_TRUE(directory->unlink("b"));
  ASSERT_TRUE(root_->remove_directory("d"));
  EXPECT_TRUE(root_->sync_filesystem());
}

TEST_F(PosixFilesystemTest, KnowsItsFilesystem) {
  const auto identity = root_->identity().value();
  EXPECT_NE(identity.mount_id, 0U);
  EXPECT_FALSE(identity.type.empty());
  EXPECT_GT(root_->space()->blocks, 0U);
  EXPECT_EQ(filesystem_->boot_id()->size(), 36U);
}

}  // namespace
}  // namespace larder::os
