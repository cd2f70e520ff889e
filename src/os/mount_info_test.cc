#include "os/mount_info.h"

#include <gtest/gtest.h>

#include "os/filesystem.h"

namespace larder::os {
namespace {

constexpr const char* kMounts =
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "43 27 7:0 / /mnt/a\\040b rw,relatime shared:1 master:2 - ext4 /dev/loop0 rw,data=writeback\n"
    "nonsense\n"
    "44 27 254:3 / /srv rw - xfs /dev/vdb rw,attr2\n";

TEST(MountInfoTest, FindsTheMountByItsNumberWhateverOptionalFieldsStandBefore) {
  const auto mount = find_mount(kMounts, 43);
  ASSERT_TRUE(mount.has_value());
  EXPECT_EQ(mount->type, "ext4");
  EXPECT_EQ(mount->device_major, 7U);
  EXPECT_EQ(mount->super_options, "rw,data=writeback");
  EXPECT_EQ(find_mount(kMounts, 44)->device_minor, 3U);
  EXPECT_FALSE(find_mount(kMounts, 45).has_value());
}

// Trusting an ext4 without journal would hand out other files' bytes after a power cut.
TEST(MountInfoTest, OrderedOnlyWhereItIsCertain) {
  EXPECT_EQ(crash_safety_of("ext4", "rw", "rw\nstripe=0\ndata=ordered\n"), CrashSafety::kOrdered);
  EXPECT_EQ(crash_safety_of("ext4", "rw", "rw\ndata=journal\n"), CrashSafety::kOrdered);
  EXPECT_EQ(crash_safety_of("xfs", "rw", ""), CrashSafety::kOrdered);
  EXPECT_EQ(crash_safety_of("btrfs", "rw", ""), CrashSafety::kOrdered);
  EXPECT_EQ(crash_safety_of("ext4", "rw", "rw\nstripe=0\n"), CrashSafety::kUnordered);
  EXPECT_EQ(crash_safety_of("ext4", "rw", ""), CrashSafety::kUnordered);
  EXPECT_EQ(crash_safety_of("ext4", "rw,data=writeback", "data=writeback\n"),
            CrashSafety::kUnordered);
  EXPECT_EQ(crash_safety_of("overlay", "rw", ""), CrashSafety::kUnordered);
  EXPECT_EQ(crash_safety_of("tmpfs", "rw", ""), CrashSafety::kUnordered);
}

}  // namespace
}  // namespace larder::os
