// Where we are mounted is read from the kernel's table; a line misread would detach, or spare, the
// wrong mount.
#include "cli/mount_table.h"

#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace larder::cli {
namespace {

constexpr std::string_view kTable =
    "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
    "30 22 0:30 / /mnt/a\\040b ro,nosuid shared:7 master:2 - fuse.larder nfs://h/e\\134x ro\n"
    "31 22 0:31 / /mnt rw - tmpfs tmpfs rw\n"
    "32 22 0:32 / /srv rw - ext4 /dev/x rw\n"
    "33 22 0:33 / /srv rw - fuse.larder /src rw\n"
    "nonsense\n"
    "1 2 3:x / /y rw - a b c\n"
    "1 2 3:4 / /y rw\n";

TEST(MountTableTest, ReadsWhatTheKernelWrites) {
  const std::vector<MountEntry> table = parse_mount_table(kTable);
  ASSERT_EQ(table.size(), 5U);
  EXPECT_EQ(table[1].mountpoint, "/mnt/a b");
  EXPECT_EQ(table[1].source, "nfs://h/e\\x");
  EXPECT_EQ(table[1].device_minor, 30U);
  EXPECT_TRUE(table[1].is_ours());
  EXPECT_FALSE(table[0].is_ours());
}

TEST(MountTableTest, FindsTheMountThatShowsAPath) {
  const std::vector<MountEntry> table = parse_mount_table(kTable);
  EXPECT_EQ(mount_of(table, "/etc/x")->mountpoint, "/");
  EXPECT_EQ(mount_of(table, "/mnt/a b/c")->mountpoint, "/mnt/a b");
  EXPECT_EQ(mount_of(table, "/mnt/a bc")->mountpoint, "/mnt");
  EXPECT_EQ(mount_of(table, "/srv")->source, "/src");  // the later one hides the other
  EXPECT_EQ(mount_of({}, "/"), nullptr);
}

TEST(MountTableTest, WithinMeansWholeNames) {
  EXPECT_TRUE(is_within("/a/b", "/a"));
  EXPECT_TRUE(is_within("/a", "/a"));
  EXPECT_TRUE(is_within("/a", "/"));
  EXPECT_FALSE(is_within("/ab", "/a"));
  EXPECT_FALSE(is_within("/", "/a"));
}

}  // namespace
}  // namespace larder::cli
