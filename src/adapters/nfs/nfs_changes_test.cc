// Changes through the adapter: what is sent, and that each is done once however often it is sent.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/nfs_adapter_fixture_test.h"
#include "adapters/nfs/nfs_test_results.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_test_server.h"
#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::nfs {
namespace {

using netfs::FileHandle;
using netfs::FileType;

using Reply = std::vector<std::byte>;

constexpr std::uint32_t kNoEntry = 2;
constexpr std::uint32_t kExists = 17;
constexpr std::uint32_t kJukebox = 10008;

const FileHandle dir_handle(bytes_of("dir"));
const FileHandle other_handle(bytes_of("other"));
const FileHandle file_handle(bytes_of("file"));

// A refusal; all that may follow its status is left out.
Reply refusal(std::uint32_t status) {
  return words({status, 0, 0, 0, 0});
}

// Success, with nothing of what a server may leave out.
Reply bare_success() {
  return words({0, 0, 0, 0, 0});
}

Reply found(const FileHandle& handle, FileType type, std::uint64_t size = 0) {
  netfs::Attributes attributes = test_attributes(9);
  attributes.type = type;
  attributes.size = size;
  return lookup_results(handle, attributes);
}

Reply found_bare(const FileHandle& handle) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_opaque(handle.bytes());
  out.put_u64(0);
  return out.take();
}

Reply link_to(const std::string& target) {
  XdrEncoder out;
  out.put_u64(0);
  out.put_string(target);
  return out.take();
}

Reply write_reply(std::uint32_t count, std::uint32_t committed = 0) {
  return words({0, 0, 0, count, committed, 7, 7});
}

class NfsChangesTest : public NfsAdapterTest {
 protected:
  NfsChangesTest() {
    make_and_connect();
    on_nfs_ = [this](const SeenCall& call) -> std::optional<Reply> {
      const auto procedure = static_cast<Procedure>(call.procedure);
      seen_.push_back(procedure);
      std::deque<Reply>& answers = script_[procedure];
      if (answers.empty()) {
        ADD_FAILURE() << "nobody expected procedure " << call.procedure;
        return std::nullopt;
      }
      Reply answer = std::move(answers.front());
      answers.pop_front();
      return answer;
    };
  }

  // The answer to the first is lost; so the call is sent twice.
  void sent_twice(Procedure procedure, std::uint32_t second_status) {
    seen_.clear();
    script_.clear();
    lost_ = procedure;
    script_[procedure] = {bare_success(), refusal(second_status)};
  }

  Result<netfs::Change> remove(bool is_directory = false) {
    return wait_for<netfs::Change>([&](auto done) {
      last_id_ = is_directory
                     ? adapter_->start_rmdir(dir_handle, "name", {credential_, may_be_done_},
                                             std::move(done))
                     : adapter_->start_remove(dir_handle, "name", {credential_, may_be_done_},
                                              std::move(done));
    });
  }

  Result<netfs::CreateReply> make_node(FileType type) {
    return wait_for<netfs::CreateReply>([&](auto done) {
      adapter_->start_make(dir_handle, "name", {type, {}, 1, 2}, {credential_, may_be_done_},
                           std::move(done));
    });
  }

  Result<netfs::CreateReply> symlink(std::string_view target) {
    return wait_for<netfs::CreateReply>([&](auto done) {
      adapter_->start_symlink(dir_handle, "name", target, {}, {credential_, may_be_done_},
                              std::move(done));
    });
  }

  Result<netfs::CreateReply> create(netfs::CreateMode mode) {
    return wait_for<netfs::CreateReply>([&](auto done) {
      adapter_->start_create(dir_handle, "name", {mode, {}, {}}, {credential_, may_be_done_},
                             std::move(done));
    });
  }

  Result<netfs::RenameReply> rename() {
    return wait_for<netfs::RenameReply>([&](auto done) {
      last_id_ = adapter_->start_rename(dir_handle, "name", other_handle, "new",
                                        {credential_, may_be_done_}, std::move(done));
    });
  }

  Result<netfs::LinkReply> link() {
    return wait_for<netfs::LinkReply>([&](auto done) {
      adapter_->start_link(file_handle, dir_handle, "name", {credential_, may_be_done_},
                           std::move(done));
    });
  }

  Result<netfs::WriteReply> write(Bytes source, std::uint64_t offset = 0) {
    return wait_for<netfs::WriteReply>([&](auto done) {
      adapter_->start_write(file_handle, {offset, source, netfs::Stability::kUnstable}, credential_,
                            std::move(done));
    });
  }

  // To a call that was sent once, but may have been done for a process before us.
  void sent_before(Procedure procedure, std::uint32_t status) {
    seen_.clear();
    script_.clear();
    may_be_done_ = true;
    script_[procedure] = {refusal(status)};
  }

  bool may_be_done_ = false;
  std::vector<Procedure> seen_;
  std::map<Procedure, std::deque<Reply>> script_;
};

TEST_F(NfsChangesTest, ARemovalThatWasDoneTheFirstTimeHasSucceeded) {
  for (const Procedure procedure : {Procedure::kRemove, Procedure::kRmdir}) {
    sent_twice(procedure, kNoEntry);
    EXPECT_TRUE(remove(procedure == Procedure::kRmdir));
    EXPECT_EQ(seen_, (std::vector{procedure, procedure}));
  }
}

TEST_F(NfsChangesTest, AnswersToTheFirstTransmissionAreTakenAsTheyAre) {
  script_[Procedure::kRemove] = {refusal(kNoEntry)};
  EXPECT_EQ(remove().error().error_number(), ENOENT);
  script_[Procedure::kMkdir] = {refusal(kExists)};
  EXPECT_EQ(make_node(FileType::kDirectory).error().error_number(), EEXIST);
  script_[Procedure::kRename] = {refusal(kNoEntry)};
  EXPECT_EQ(rename().error().error_number(), ENOENT);
  EXPECT_EQ(std::ranges::count(seen_, Procedure::kLookup), 0);
}

TEST_F(NfsChangesTest, AnswersToTheFirstTransmissionOfWhatMayBeDoneAreLookedInto) {
  for (const Procedure procedure : {Procedure::kRemove, Procedure::kRmdir}) {
    sent_before(procedure, kNoEntry);
    EXPECT_TRUE(remove(procedure == Procedure::kRmdir));
    EXPECT_EQ(seen_, std::vector{procedure});
  }
  sent_before(Procedure::kMkdir, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kDirectory)};
  EXPECT_TRUE(make_node(FileType::kDirectory));
  sent_before(Procedure::kSymlink, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kSymlink)};
  script_[Procedure::kReadlink] = {link_to("../elsewhere")};
  EXPECT_EQ(symlink("../there").error().error_number(), EEXIST);
  sent_before(Procedure::kCreate, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular)};
  EXPECT_TRUE(create(netfs::CreateMode::kGuarded));
  sent_before(Procedure::kRename, kNoEntry);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular), refusal(kNoEntry)};
  EXPECT_TRUE(rename());
  sent_before(Procedure::kLink, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular)};
  EXPECT_TRUE(link());
}

TEST_F(NfsChangesTest, OtherAnswersToARepetitionAreTakenAsTheyAre) {
  sent_twice(Procedure::kRmdir, 66);
  EXPECT_EQ(remove(true).error().error_number(), ENOTEMPTY);
  sent_twice(Procedure::kMkdir, 28);
  EXPECT_EQ(make_node(FileType::kDirectory).error().error_number(), ENOSPC);
  EXPECT_EQ(std::ranges::count(seen_, Procedure::kLookup), 0);
}

TEST_F(NfsChangesTest, WhatTheFirstTransmissionMadeIsFound) {
  const std::pair<FileType, Procedure> kinds[] = {{FileType::kDirectory, Procedure::kMkdir},
                                                  {FileType::kFifo, Procedure::kMknod},
                                                  {FileType::kSocket, Procedure::kMknod},
                                                  {FileType::kBlockDevice, Procedure::kMknod}};
  for (const auto& [type, procedure] : kinds) {
    sent_twice(procedure, kExists);
    script_[Procedure::kLookup] = {found(file_handle, type)};
    const auto made = make_node(type);
    ASSERT_TRUE(made);
    EXPECT_EQ(*made->handle, file_handle);
    EXPECT_EQ(made->attributes->type, type);
    EXPECT_EQ(last_call_.uid, 1000U) << "in the caller's name";
    sent_twice(procedure, kExists);
    script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular)};
    EXPECT_EQ(make_node(type).error().error_number(), EEXIST) << "another file has the name";
  }
}

TEST_F(NfsChangesTest, AServerWithoutAttributesIsAskedForThem) {
  sent_twice(Procedure::kMkdir, kExists);
  script_[Procedure::kLookup] = {found_bare(file_handle)};
  netfs::Attributes attributes = test_attributes(9);
  attributes.type = FileType::kDirectory;
  script_[Procedure::kGetattr] = {getattr_results(attributes)};
  const auto made = make_node(FileType::kDirectory);
  ASSERT_TRUE(made);
  EXPECT_EQ(*made->attributes, attributes);
}

TEST_F(NfsChangesTest, ASymlinkIsOursIfItLeadsWhereOursShould) {
  sent_twice(Procedure::kSymlink, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kSymlink)};
  script_[Procedure::kReadlink] = {link_to("../there")};
  EXPECT_TRUE(symlink("../there"));
  sent_twice(Procedure::kSymlink, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kSymlink)};
  script_[Procedure::kReadlink] = {link_to("../elsewhere")};
  EXPECT_EQ(symlink("../there").error().error_number(), EEXIST);
}

TEST_F(NfsChangesTest, AGuardedFileIsOursWhileItIsEmpty) {
  sent_twice(Procedure::kCreate, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular)};
  EXPECT_TRUE(create(netfs::CreateMode::kGuarded));
  sent_twice(Procedure::kCreate, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular, 1)};
  EXPECT_EQ(create(netfs::CreateMode::kGuarded).error().error_number(), EEXIST);
}

// A server lets nobody take a file that is there who may not write to it, its maker neither.
TEST_F(NfsChangesTest, AFileWithoutRightsForItsMakerIsOursIfItLooksSo) {
  const auto create_with = [&](std::uint32_t mode, std::uint32_t uid, std::uint64_t size) {
    sent_twice(Procedure::kCreate, EACCES);
    netfs::Attributes attributes = test_attributes(9);
    attributes.mode = mode;
    attributes.uid = uid;
    attributes.size = size;
    script_[Procedure::kLookup] = {lookup_results(file_handle, attributes)};
    return wait_for<netfs::CreateReply>([&](auto done) {
      netfs::CreateOrder order;
      order.attributes.mode = 04;
      adapter_->start_create(dir_handle, "name", order, {credential_, may_be_done_},
                             std::move(done));
    });
  };
  EXPECT_EQ(create_with(04, credential_->uid, 0).value().handle, file_handle);
  for (const auto& other :
       {create_with(0, credential_->uid, 0), create_with(04, credential_->uid + 1, 0),
        create_with(04, credential_->uid, 1)}) {
    EXPECT_EQ(other.error().error_number(), EACCES);
  }
}

TEST_F(NfsChangesTest, AnExclusiveFilesServerKnowsItsOwnRepetition) {
  sent_twice(Procedure::kCreate, kExists);
  EXPECT_EQ(create(netfs::CreateMode::kExclusive).error().error_number(), EEXIST);
  EXPECT_EQ(seen_, (std::vector{Procedure::kCreate, Procedure::kCreate}));
}

TEST_F(NfsChangesTest, ALinkIsOursIfItIsTheSameFile) {
  sent_twice(Procedure::kLink, kExists);
  script_[Procedure::kLookup] = {found(file_handle, FileType::kRegular)};
  const auto linked = link();
  ASSERT_TRUE(linked);
  EXPECT_EQ(linked->attributes->fileid, 9U);
  sent_twice(Procedure::kLink, kExists);
  script_[Procedure::kLookup] = {found(other_handle, FileType::kRegular)};
  EXPECT_EQ(link().error().error_number(), EEXIST);
}

TEST_F(NfsChangesTest, ARenameIsDoneWhenTheOldNameIsGoneAndTheNewIsThere) {
  const Reply there = found(file_handle, FileType::kRegular);
  const Reply another = found(other_handle, FileType::kRegular);
  const Reply gone = refusal(kNoEntry);
  const auto rename_meets = [&](std::deque<Reply> looks) {
    sent_twice(Procedure::kRename, kNoEntry);
    script_[Procedure::kLookup] = std::move(looks);
    const Result<netfs::RenameReply> renamed = rename();
    EXPECT_TRUE(script_[Procedure::kLookup].empty());
    return renamed ? 0 : renamed.error().error_number();
  };
  EXPECT_EQ(rename_meets({there, gone}), 0);
  EXPECT_EQ(rename_meets({there, there}), 0) << "one file by both names";
  EXPECT_EQ(rename_meets({another, there, there, there, there}), ENOENT);
  EXPECT_EQ(rename_meets({gone, gone, gone, gone}), ENOENT);
}

// The second call can be answered while the server is still at the first, or remembers names from
// before it.
TEST_F(NfsChangesTest, NamesThatAreNotYetAsTheyShouldBeAreLookedAtAgain) {
  const Reply there = found(file_handle, FileType::kRegular);
  const Reply replaced = found(other_handle, FileType::kRegular);
  const Reply gone = refusal(kNoEntry);
  sent_twice(Procedure::kRename, kNoEntry);
  script_[Procedure::kLookup] = {gone, gone, there, gone};
  EXPECT_TRUE(rename());
  sent_twice(Procedure::kRename, kNoEntry);
  script_[Procedure::kLookup] = {replaced, there, there, gone};
  EXPECT_TRUE(rename());
  sent_twice(Procedure::kMkdir, kExists);
  script_[Procedure::kLookup] = {gone, found(file_handle, FileType::kDirectory)};
  EXPECT_TRUE(make_node(FileType::kDirectory));
  sent_twice(Procedure::kLink, kExists);
  script_[Procedure::kLookup] = {gone, gone, gone, there};
  EXPECT_TRUE(link());
}

// Who says "later" has done nothing yet: the second answer is the first one.
TEST_F(NfsChangesTest, WhatWasPutOffWasNotDone) {
  script_[Procedure::kMkdir] = {refusal(kJukebox), refusal(kJukebox), refusal(kExists)};
  EXPECT_EQ(make_node(FileType::kDirectory).error().error_number(), EEXIST);
  EXPECT_EQ(std::ranges::count(seen_, Procedure::kLookup), 0);
}

TEST_F(NfsChangesTest, WhatWasPutOffAfterARepetitionMayHaveBeenDone) {
  lost_ = Procedure::kMkdir;
  script_[Procedure::kMkdir] = {bare_success(), refusal(kJukebox), refusal(kExists)};
  script_[Procedure::kLookup] = {found(file_handle, FileType::kDirectory)};
  EXPECT_TRUE(make_node(FileType::kDirectory));
}

TEST_F(NfsChangesTest, AConfirmationCanBeCancelled) {
  sent_twice(Procedure::kRename, kNoEntry);
  const Answer scripted = std::move(on_nfs_);
  on_nfs_ = [&](const SeenCall& call) -> std::optional<Reply> {
    if (call.procedure == std::to_underlying(Procedure::kLookup)) {
      adapter_->cancel(last_id_);
      return std::nullopt;
    }
    return scripted(call);
  };
  EXPECT_EQ(rename().error().code(), Errc::kCancelled);
}

TEST_F(NfsChangesTest, AWriteBringsItsBytesAndTheirPadding) {
  std::vector<std::byte> source(5);
  std::ranges::copy(bytes_of("hello"), source.begin());
  script_[Procedure::kWrite] = {write_reply(5, 2)};
  const auto written = write(source, 1000);
  ASSERT_TRUE(written);
  EXPECT_EQ(written->length, 5U);
  EXPECT_EQ(written->stability, netfs::Stability::kFileSync);
  XdrDecoder in(last_call_.arguments);
  EXPECT_EQ(text_of(in.opaque(64)), "file");
  EXPECT_EQ(in.u64(), 1000U);
  EXPECT_EQ(in.u32(), 5U);
  EXPECT_EQ(in.u32(), 0U) << "unstable";
  EXPECT_EQ(text_of(in.opaque(5)), "hello");
  EXPECT_TRUE(in.ok());
  EXPECT_EQ(in.remaining(), 0U);
}

TEST_F(NfsChangesTest, ALongWriteIsCutToTheServersSizeAndMayComeShort) {
  const std::vector<std::byte> source(300'000, std::byte{1});
  script_[Procedure::kWrite] = {write_reply(7)};
  const auto written = write(source);
  ASSERT_TRUE(written);
  EXPECT_EQ(written->length, 7U);
  XdrDecoder in(last_call_.arguments);
  static_cast<void>(in.opaque(64));
  static_cast<void>(in.u64());
  EXPECT_EQ(in.u32(), read_max_ < 300'000 ? read_max_ : 300'000U);
  script_[Procedure::kWrite] = {write_reply(0)};
  EXPECT_EQ(write(source).error().code(), Errc::kCorrupt);
  script_[Procedure::kWrite] = {write_reply(300'001)};
  EXPECT_EQ(write(source).error().code(), Errc::kCorrupt);
  EXPECT_EQ(write({}).error().code(), Errc::kInvalid);
}

TEST_F(NfsChangesTest, ARepeatedWriteBringsTheSameBytes) {
  const std::vector<std::byte> source(1001, std::byte{0x5a});
  lost_ = Procedure::kWrite;
  std::vector<std::vector<std::byte>> arguments;
  on_nfs_ = [&](const SeenCall& call) {
    arguments.push_back(call.arguments);
    return write_reply(1001);
  };
  EXPECT_TRUE(write(source));
  ASSERT_EQ(arguments.size(), 2U);
  EXPECT_EQ(arguments[0], arguments[1]);
}

TEST_F(NfsChangesTest, NamesAndTargetsThatCannotBeAreRefusedHere) {
  const std::string long_name(256, 'n');
  const auto made = wait_for<netfs::CreateReply>([&](auto done) {
    adapter_->start_make(dir_handle, long_name, {}, {credential_, may_be_done_}, std::move(done));
  });
  EXPECT_EQ(made.error().error_number(), ENAMETOOLONG);
  EXPECT_EQ(symlink(std::string(4097, 't')).error().error_number(), ENAMETOOLONG);
  EXPECT_EQ(make_node(FileType::kRegular).error().code(), Errc::kInvalid);
  EXPECT_TRUE(seen_.empty());
}

TEST_F(NfsChangesTest, SetattrAndCommitAskOnce) {
  script_[Procedure::kSetattr] = {words({0, 0, 0})};
  EXPECT_TRUE(wait_for<netfs::Change>([&](auto done) {
    netfs::AttributeChanges changes;
    changes.mode = 0600;
    adapter_->start_setattr(file_handle, changes, credential_, std::move(done));
  }));
  script_[Procedure::kCommit] = {words({0, 0, 0, 1, 2})};
  const auto committed = wait_for<netfs::CommitReply>(
      [&](auto done) { adapter_->start_commit(file_handle, credential_, std::move(done)); });
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->verifier[3], std::byte{1});
}

}  // namespace
}  // namespace larder::nfs
