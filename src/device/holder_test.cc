// A holder must say to the engine what the kernel's commands mean there, and to its user what the
// kernel would say.
#include "device/holder.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include "device/device_fixture_test.h"

namespace larder::device {
namespace {

namespace fs = std::filesystem;

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using HolderTest = DeviceTest;

std::string refusing_bind(const std::string& text) {
  return text == "bind" ? "error EBUSY somebody else has it\n" : "ok\n";
}

TEST_F(HolderTest, BindGivesTheEngineEverything) {
  ASSERT_EQ(opened(), 0);
  EXPECT_EQ(written("dir " + cache().string()), 0);
  EXPECT_EQ(written("tag mine"), 0);
  EXPECT_EQ(written("brun 20%"), 0);
  EXPECT_THAT(got_, IsEmpty());
  EXPECT_EQ(state(), "");
  EXPECT_EQ(written("bind"), 0);
  ASSERT_EQ(got_.size(), 14U);
  EXPECT_EQ(got_.front(), "dir " + cache().string());
  EXPECT_EQ(got_[1], "tag mine");
  EXPECT_THAT(got_[2], StartsWith("size "));
  EXPECT_THAT(got_, Contains("brun 20%"));
  EXPECT_EQ(got_.back(), "bind");
  EXPECT_EQ(descriptors_, 1U);
  EXPECT_EQ(written("bind"), EBUSY);
  EXPECT_EQ(written("bind x"), EBUSY);
  EXPECT_EQ(written("dir /other"), EEXIST);
}

TEST_F(HolderTest, WhatIsSetAfterBindChangesNothing) {
  bind();
  EXPECT_EQ(written("brun 20%"), 0);
  EXPECT_EQ(written("brun 1%"), EINVAL);
  EXPECT_EQ(written("tag late"), EEXIST);
  EXPECT_THAT(got_, IsEmpty());
}

TEST_F(HolderTest, ABindThatFailedIsTriedAgainOnAnotherChannel) {
  ASSERT_EQ(opened(), 0);
  EXPECT_EQ(written("bind"), EINVAL);
  EXPECT_EQ(written("dir " + cache().string()), 0);
  EXPECT_EQ(written("bind x"), EINVAL);
  answer_ = refusing_bind;
  EXPECT_EQ(written("bind"), EBUSY);
  EXPECT_EQ(state(), "");
  answer_ = [](const std::string& text) {
    return text.starts_with("tag ") ? "error EMEDIUMTYPE not this one\n" : "ok\n";
  };
  EXPECT_EQ(written("bind"), EINVAL);
  answer_ = [](const std::string&) { return "ok\n"; };
  got_.clear();
  EXPECT_EQ(written("bind"), 0);
  EXPECT_EQ(channels_, 3);
  EXPECT_EQ(got_.front(), "dir " + cache().string());
  EXPECT_EQ(written("bind"), EBUSY);
}

TEST_F(HolderTest, ADirectoryIsLookedForAtBindFromWhereTheWriterStands) {
  ASSERT_EQ(opened(), 0);
  EXPECT_EQ(written("dir it"), 0);
  EXPECT_EQ(written("bind"), ENOENT);
  EXPECT_EQ(opened_, "//it");
  standing_ = top_;
  EXPECT_EQ(written("bind"), 0);
  EXPECT_EQ(got_.front(), "dir " + cache().string());
}

TEST_F(HolderTest, TheEngineSaysWhatItThinksOfSecctxAndHearsOfDebug) {
  answer_ = [](const std::string& text) {
    return text.starts_with("secctx") ? "error EINVAL leave it out\n" : "ok\n";
  };
  ASSERT_EQ(opened(), 0);
  EXPECT_EQ(written("secctx a:b"), EINVAL);
  EXPECT_EQ(written("debug 0x7"), 0);
  EXPECT_EQ(written("debug 7 "), EINVAL);
  EXPECT_THAT(got_, ElementsAre("secctx a:b", "debug 7"));
}

TEST_F(HolderTest, AReadIsTheKernelsStateLine) {
  bind();
  EXPECT_EQ(state(), kStateLine);
  const Ticket fits = read(std::string(kStateLine).size());
  const Ticket does_not_fit = read(std::string(kStateLine).size() - 1);
  run();
  EXPECT_EQ(result(fits), 0);
  EXPECT_EQ(result(does_not_fit), EMSGSIZE);
}

TEST_F(HolderTest, WhatWasReleasedIsToldOnce) {
  bind();
  push("cull=0 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=1 breleased=2");
  EXPECT_EQ(device_.events(), unsigned{POLLIN});
  push("cull=1 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=1 breleased=2");
  EXPECT_EQ(device_.events(), unsigned{POLLIN} | unsigned{POLLOUT});
  EXPECT_EQ(state(),
            "cull=0 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=9 breleased=c");
  EXPECT_EQ(device_.events(), 0U);
  EXPECT_EQ(state(), kStateLine);
}

TEST_F(HolderTest, PollSaysWhatHasChanged) {
  EXPECT_EQ(device_.events(), 0U);
  bind();
  EXPECT_EQ(device_.events(), 0U);
  push("cull=0 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=0 breleased=0 graveyard=1");
  EXPECT_EQ(device_.events(), 0U) << "the kernel does not speak of its graveyard";
  answer_ = [](const std::string&) {
    return "ok\ncull=1 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=0 breleased=0\n";
  };
  state();
  EXPECT_EQ(device_.events(), unsigned{POLLOUT});
  push("cull=0 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=0 breleased=0");
  EXPECT_EQ(device_.events(), unsigned{POLLIN});
}

class CullTest : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    bind();
    std::ofstream(fan_out() / "Dobject") << "bytes";
  }
};

TEST_F(CullTest, OfAnObjectWhereTheWriterStands) {
  EXPECT_EQ(written("cull Dobject"), 0);
  EXPECT_EQ(written("inuse  Dobject\n"), 0);
  EXPECT_THAT(got_, ElementsAre("cull Ivolume/@3f/Dobject", "inuse Ivolume/@3f/Dobject"));
}

TEST_F(CullTest, TheEnginesRefusalsAreTheKernels) {
  for (const auto& [name, number] : {std::pair("EBUSY", EBUSY),
                                     {"ENOENT", ENOENT},
                                     {"ESTALE", ESTALE},
                                     {"ENOMEM", ENOMEM},
                                     {"EIO", EIO},
                                     {"EACCES", EIO},
                                     {"EINVAL", EBUSY}}) {
    answer_ = [name](const std::string&) { return std::string("error ") + name + " no\n"; };
    EXPECT_EQ(written("cull Dobject"), number) << name;
  }
}

TEST_F(CullTest, NamesThatAreNone) {
  for (const char* const text : {"cull", "cull .", "cull ..", "inuse", "inuse ."}) {
    EXPECT_EQ(written(text), EIO) << text;
  }
  EXPECT_EQ(written("cull " + std::string(256, 'D')), EIO);
  for (const char* const text : {"cull ../@3f/Dobject", "cull /etc/passwd", "inuse a/"}) {
    EXPECT_EQ(written(text), EINVAL) << text;
  }
  EXPECT_EQ(written("cull Dother"), ENOENT);
  EXPECT_EQ(written("inuse Dother"), ENOENT);
  EXPECT_THAT(got_, IsEmpty());
}

TEST_F(CullTest, NothingElsewhereIsTouched) {
  standing_ = cache() / "cache";
  EXPECT_EQ(written("cull Ivolume"), EBUSY);
  EXPECT_EQ(written("inuse Ivolume"), EBUSY);
  EXPECT_EQ(written("cull Inone"), ENOENT);
  standing_ = cache();
  EXPECT_EQ(written("cull cache"), EBUSY);
  standing_ = "/";
  EXPECT_EQ(written("cull etc"), EIO);
  standing_ = "/does/not/exist";
  EXPECT_EQ(written("cull etc"), EIO);
  EXPECT_THAT(got_, IsEmpty());
}

TEST_F(CullTest, WhatTheEngineBuriesIsCulled) {
  fs::create_directory(fan_out() / "Ddirectory");
  answer_ = [this](const std::string&) {
    fs::remove(fan_out() / "Ddirectory");
    return "error ENOENT it is no object\n";
  };
  EXPECT_EQ(written("cull Ddirectory"), 0);
  fs::create_directory(fan_out() / "Dstays");
  EXPECT_EQ(written("cull Dstays"), ENOENT);
}

TEST_F(CullTest, BeforeBindThereIsNothing) {
  device_.release();
  ASSERT_EQ(opened(), 0);
  EXPECT_EQ(written("cull Dobject"), EIO);
  EXPECT_EQ(written("inuse Dobject"), EIO);
  EXPECT_EQ(written("cull a/b"), EINVAL);
}

TEST_F(HolderTest, AnEngineThatIsGoneIsEIOUntilTheHolderCloses) {
  bind();
  const Ticket waiting = read();
  const Ticket behind = write("brun 30%");
  engine_.reset();
  device_.on_readable();
  EXPECT_EQ(result(waiting), EIO);
  EXPECT_EQ(result(behind), EIO);
  EXPECT_EQ(device_.events(), unsigned{POLLIN} | unsigned{POLLERR});
  EXPECT_EQ(device_.descriptor(), -1);
  EXPECT_EQ(written("bind"), EIO);
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(channels_, 1);
  device_.release();
  EXPECT_EQ(opened(), 0);
  EXPECT_EQ(channels_, 2);
}

TEST_F(HolderTest, AnEngineThatTalksNonsenseIsGone) {
  bind();
  answer_ = [](const std::string&) { return "fine\n"; };
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(written("brun 30%"), EIO);
}

TEST_F(HolderTest, RequestsAreAnsweredInTheirOrder) {
  bind();
  std::ofstream(fan_out() / "Dobject") << "bytes";
  const Ticket first = write("cull Dobject");
  const Ticket second = read();
  const Ticket third = write("brun 30%");
  EXPECT_FALSE(result(first) || result(second) || result(third));
  ASSERT_TRUE(answer_all());
  EXPECT_THAT(got_, ElementsAre("cull Ivolume/@3f/Dobject"));
  run();
  EXPECT_EQ(result(first), 0);
  EXPECT_EQ(result(second), 0);
  EXPECT_EQ(result(third), 0);
  EXPECT_THAT(got_, ElementsAre("cull Ivolume/@3f/Dobject", "state"));
}

TEST_F(HolderTest, WhatAKilledWriterBeganGoesOnWithoutHim) {
  ASSERT_EQ(opened(), 0);
  ASSERT_EQ(written("dir " + cache().string()), 0);
  const Ticket bound = write("bind");
  const Ticket behind = read();
  ending_.insert(10);
  device_.interrupt(bound, 10);
  device_.interrupt(behind, 10);
  EXPECT_EQ(result(bound), EINTR);
  EXPECT_EQ(result(behind), EINTR);
  run();
  EXPECT_EQ(written("bind"), EBUSY);
}

}  // namespace
}  // namespace larder::device
