#include "engine/hidden_name_table.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/unique_fd.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/hidden_name_store.h"

namespace larder::engine {
namespace {

using handover::HiddenNameRecord;
using handover::Table;
using handover::TableKind;
using handover::TableMemory;
using netfs::FileHandle;
using netfs::LeftName;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr handover::TableShape kFewNames{TableKind::kHiddenNames, "test-hidden",
                                         sizeof(HiddenNameRecord), 4, true};
constexpr const char* kShare = "larder,1,nfs,server,,%2fexport,1";

LeftName name_in(const std::string& directory, const std::string& name) {
  return {FileHandle(bytes_of(directory)), name, {1000, 100, {7}}};
}

class HiddenNameTableTest : public ::testing::Test {
 protected:
  HiddenNameTableTest() { next_engine(); }

  // The one before is dead, or has ended: its mounts are over.
  void next_engine() {
    table_ = std::make_unique<HiddenNameTable>(
        Table<HiddenNameRecord>(TableMemory::map(memory_, kFewNames).value()));
  }

  static std::vector<std::string> names_of(const std::vector<LeftName>& left) {
    std::vector<std::string> names;
    names.reserve(left.size());
    for (const LeftName& each : left) {
      names.push_back(each.name);
    }
    return names;
  }

  UniqueFd memory_ = TableMemory::create(kFewNames).value();
  std::unique_ptr<HiddenNameTable> table_;
};

TEST_F(HiddenNameTableTest, TheNextEngineFindsWhatIsLeft) {
  {
    const auto store = table_->store_for(1, kShare);
    store->put(name_in("root", ".nfs1"));
    store->put(name_in("other", ".nfs2"));
    store->put(name_in("root", ".nfs3"));
    store->remove(FileHandle(bytes_of("root")), ".nfs1");
    store->remove(FileHandle(bytes_of("root")), ".nfs2");  // of another directory
  }
  next_engine();
  auto store = table_->store_for(2, kShare);
  const std::vector<LeftName> left = store->adopt();
  ASSERT_THAT(names_of(left), UnorderedElementsAre(".nfs2", ".nfs3"));
  for (const LeftName& each : left) {
    EXPECT_EQ(text_of(each.directory.bytes()), each.name == ".nfs2" ? "other" : "root");
    EXPECT_EQ(each.credential.uid, 1000U);
    EXPECT_EQ(each.credential.gid, 100U);
    store->remove(each.directory, each.name);
  }
  store.reset();
  next_engine();
  EXPECT_THAT(table_->store_for(3, kShare)->adopt(), IsEmpty());
}

TEST_F(HiddenNameTableTest, WhatALivingMountHidesIsNobodyElses) {
  const auto first = table_->store_for(1, kShare);
  first->put(name_in("root", ".nfs1"));
  const auto second = table_->store_for(2, kShare);
  EXPECT_THAT(second->adopt(), IsEmpty());
  EXPECT_THAT(first->adopt(), IsEmpty());
}

TEST_F(HiddenNameTableTest, WhatAMountLeavesIsTheNextOnesOfTheSameShareOnce) {
  table_->store_for(1, kShare)->put(name_in("root", ".nfs1"));
  EXPECT_THAT(table_->store_for(2, kShare + std::string("0"))->adopt(), IsEmpty());
  const auto third = table_->store_for(3, kShare);
  const auto fourth = table_->store_for(4, kShare);
  EXPECT_THAT(names_of(third->adopt()), ElementsAre(".nfs1"));
  EXPECT_THAT(fourth->adopt(), IsEmpty());
}

TEST_F(HiddenNameTableTest, SlotsAreUsedAgainAndAFullTableForgets) {
  auto store = table_->store_for(1, kShare);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 6; ++i) {
      store->put(name_in("root", ".nfs" + std::to_string(i)));
    }
    for (int i = 0; i < 6; ++i) {
      store->remove(FileHandle(bytes_of("root")), ".nfs" + std::to_string(i));
    }
  }
  store->put(name_in("root", ".nfs9"));
  store.reset();
  next_engine();
  EXPECT_THAT(names_of(table_->store_for(2, kShare)->adopt()), ElementsAre(".nfs9"));
}

TEST_F(HiddenNameTableTest, WhatDoesNotFitIsNotKept) {
  table_->store_for(1, std::string(HiddenNameRecord::kMostShareBytes + 1, 'x'))
      ->put(name_in("root", ".nfs1"));
  auto store = table_->store_for(2, kShare);
  store->put(name_in("root", std::string(HiddenNameRecord::kMostNameBytes + 1, 'x')));
  store->put(name_in("root", std::string(HiddenNameRecord::kMostNameBytes, 'y')));
  store.reset();
  next_engine();
  EXPECT_THAT(names_of(table_->store_for(3, kShare)->adopt()),
              ElementsAre(std::string(HiddenNameRecord::kMostNameBytes, 'y')));
}

}  // namespace
}  // namespace larder::engine
