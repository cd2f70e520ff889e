// What is written must be read as the kernel reads it: the same commands, the same refusals.
#include "device/command.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/error.h"
#include "control/cache_protocol.h"

namespace larder::device {
namespace {

using control::CacheCommand;
using control::CacheVerb;

Errc refused_write(std::string_view text) {
  const auto command = parse_write(text);
  return command ? Errc::kBusy : command.error().code();
}

TEST(CommandTest, AWordSpacesAndTheRest) {
  EXPECT_EQ(parse_write("dir /var/cache/it "),
            (CacheCommand{CacheVerb::kDir, "/var/cache/it ", {}}));
  EXPECT_EQ(parse_write("tag  a b"), (CacheCommand{CacheVerb::kTag, "a b", {}}));
  EXPECT_EQ(parse_write("cull\t \vDx"), (CacheCommand{CacheVerb::kCull, "Dx", {}}));
  EXPECT_EQ(parse_write("cull\xa0"
                        "Dx"),
            (CacheCommand{CacheVerb::kCull, "Dx", {}}));
  EXPECT_EQ(parse_write("bind"), (CacheCommand{CacheVerb::kBind, "", {}}));
  EXPECT_EQ(parse_write("bind "), (CacheCommand{CacheVerb::kBind, "", {}}));
}

TEST(CommandTest, WhatStandsBehindANewlineIsNotRead) {
  EXPECT_EQ(parse_write("brun 10%\n"), (CacheCommand{CacheVerb::kBrun, "10%", {}}));
  EXPECT_EQ(parse_write("inuse Dx\nDy"), (CacheCommand{CacheVerb::kInuse, "Dx", {}}));
}

TEST(CommandTest, WhatTheKernelRefusesIsRefused) {
  for (const char* const text : {"", "nonsense", " bind", "\tbind", "bindx", "BIND"}) {
    EXPECT_EQ(refused_write(text), Errc::kNotSupported) << text;
  }
  EXPECT_EQ(refused_write("\nbind"), Errc::kInvalid);
  EXPECT_EQ(refused_write(std::string_view("bind\0", 5)), Errc::kInvalid);
  EXPECT_EQ(refused_write("bind\n" + std::string(1, '\0')), Errc::kInvalid);
  EXPECT_EQ(refused_write("tag " + std::string(4092, 'x')), Errc::kNotSupported);
  EXPECT_TRUE(parse_write("tag " + std::string(4091, 'x')).has_value());
}

TEST(CommandTest, WhatOnlyAnEngineKnowsIsNoCommand) {
  for (const char* const text : {"state", "size 1G", "oldest 3", "restore", "copen 1,2"}) {
    EXPECT_EQ(refused_write(text), Errc::kNotSupported) << text;
  }
}

TEST(CommandTest, Percentages) {
  EXPECT_EQ(parse_kernel_percent("12%").value(), 12U);
  EXPECT_EQ(parse_kernel_percent("%").value(), 0U);
  EXPECT_EQ(parse_kernel_percent("101%").value(), 101U);
  for (const char* const text : {"", "10", "x%", "10% ", "10%%", "-1%", "0x10%"}) {
    EXPECT_EQ(parse_kernel_percent(text).error().code(), Errc::kInvalid) << text;
  }
}

TEST(CommandTest, Masks) {
  EXPECT_EQ(parse_mask("").value(), 0U);
  EXPECT_EQ(parse_mask("7").value(), 7U);
  EXPECT_EQ(parse_mask("010").value(), 8U);
  EXPECT_EQ(parse_mask("0x1F").value(), 31U);
  for (const char* const text : {"x", "0x", "08", "7 ", "-1"}) {
    EXPECT_EQ(parse_mask(text).error().code(), Errc::kInvalid) << text;
  }
}

}  // namespace
}  // namespace larder::device
