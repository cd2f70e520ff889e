// ChangingTest: what tests of changes begin with: a writable mount of a fake server with two files.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/testing/mounted_fake.h"
#include "testing/fake_kernel.h"

namespace larder::fuse {

// What CREATE is answered with.
struct CreatedOut {
  fuse_entry_out entry;
  OpenOut open;
};

class ChangingTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kLarge = 400'000;

  explicit ChangingTest(bool read_only = false) : fake_(true, NodeTable::kMostKept, read_only) {
    large_ = fake_.server.add_file("large", std::string(kLarge, 'l'));
    small_ = fake_.server.add_file("small", "first content");
    fake_.negotiate();
    settle();
  }

  ChangingTest(const ChangingTest&) = delete;
  ChangingTest& operator=(const ChangingTest&) = delete;

  ~ChangingTest() override { EXPECT_THAT(kernel().violations(), ::testing::IsEmpty()); }

  larder::testing::FakeKernel& kernel() { return fake_.kernel; }

  // Long enough that nothing is too young, and nothing fresh any more.
  void settle() { fake_.advance(std::chrono::seconds(20)); }

  int error_of(std::uint64_t unique) { return fake_.wait(unique).error; }

  template <class T>
  T answer(std::uint64_t unique) {
    const larder::testing::FuseReply reply = fake_.wait(unique);
    EXPECT_EQ(reply.error, 0);
    return reply.body.as<T>();
  }

  std::uint64_t lookup(std::string_view name, std::uint64_t parent = FUSE_ROOT_ID) {
    return answer<fuse_entry_out>(kernel().lookup(parent, name)).nodeid;
  }

  fuse_attr attr(std::uint64_t node) { return answer<fuse_attr_out>(kernel().getattr(node)).attr; }

  OpenOut open(std::uint64_t node, std::uint32_t flags = O_RDONLY) {
    return answer<OpenOut>(kernel().open(node, flags));
  }

  // As close(2) does it.
  void close(std::uint64_t node, const OpenOut& open) {
    if ((open.open_flags & kOpenNoFlush) == 0) {
      EXPECT_EQ(error_of(kernel().flush(node, open.fh)), 0);
    }
    EXPECT_EQ(error_of(kernel().release(node, open.fh)), 0);
  }

  std::string read(std::uint64_t node, const OpenOut& open) {
    return fake_.wait(kernel().read(node, open.fh, 0, kMostIoBytes)).body.text();
  }

  std::uint32_t write(std::uint64_t node, const OpenOut& open, std::uint64_t offset,
                      std::string_view data, std::uint32_t flags = 0) {
    return answer<fuse_write_out>(kernel().write(node, open.fh, offset, data, flags)).size;
  }

  // The large file is in the cache; its node.
  std::uint64_t fill_large() {
    const std::uint64_t node = lookup("large");
    const OpenOut opened = open(node);
    EXPECT_EQ(read(node, opened).size(), kLarge);
    close(node, opened);
    fake_.advance(std::chrono::seconds(1));
    return node;
  }

  // Nodes of which the kernel was told to drop pages.
  std::vector<std::uint64_t> invalidated() {
    std::vector<std::uint64_t> nodes;
    for (const larder::testing::FuseNotice& notice : kernel().take_notices()) {
      const auto out = notice.body.as<fuse_notify_inval_inode_out>();
      if (out.off >= 0) {
        nodes.push_back(out.ino);
      }
    }
    return nodes;
  }

  MountedFake fake_;
  std::uint64_t large_ = 0;
  std::uint64_t small_ = 0;
};

}  // namespace larder::fuse
