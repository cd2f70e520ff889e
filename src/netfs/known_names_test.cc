#include "netfs/known_names.h"

#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "netfs/attributes.h"

namespace larder::netfs {
namespace {

FileHandle handle(std::string_view text) {
  return FileHandle(bytes_of(text));
}

TEST(KnownNamesTest, KnowsTheLastFileOfANameInItsDirectory) {
  KnownNames names;
  EXPECT_EQ(names.find(handle("d"), "a"), std::nullopt);
  names.note(handle("d"), "a", handle("file"));
  EXPECT_EQ(names.find(handle("d"), "a"), handle("file"));
  EXPECT_EQ(names.find(handle("e"), "a"), std::nullopt);
  EXPECT_EQ(names.find(handle("d"), "b"), std::nullopt);
  names.note(handle("d"), "a", handle("other"));
  EXPECT_EQ(names.find(handle("d"), "a"), handle("other"));
}

TEST(KnownNamesTest, ForgetsWhatItIsToldTo) {
  KnownNames names;
  names.note(handle("d"), "a", handle("file"));
  names.forget(handle("d"), "b");
  EXPECT_TRUE(names.find(handle("d"), "a"));
  names.forget(handle("d"), "a");
  EXPECT_EQ(names.find(handle("d"), "a"), std::nullopt);
}

TEST(KnownNamesTest, PartsTheHandleFromTheName) {
  KnownNames names;
  names.note(handle("ab"), "c", handle("file"));
  EXPECT_EQ(names.find(handle("a"), "bc"), std::nullopt);
}

TEST(KnownNamesTest, NeverTakesOneNameForAnother) {
  KnownNames names;
  for (int i = 0; i < 20'000; ++i) {
    names.note(handle("d"), std::to_string(i), handle(std::to_string(i)));
  }
  for (int i = 0; i < 20'000; ++i) {
    const auto found = names.find(handle("d"), std::to_string(i));
    EXPECT_TRUE(!found || *found == handle(std::to_string(i)));
  }
  EXPECT_TRUE(names.find(handle("d"), "19999"));
}

}  // namespace
}  // namespace larder::netfs
