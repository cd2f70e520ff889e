// An engine dies in the midst of a call that must not happen twice; the kernel asks the next one
// for the same call.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "fuse/journal.h"
#include "fuse/protocol.h"
#include "fuse/testing/changing_test.h"
#include "handover/records.h"
#include "testing/fake_kernel.h"

namespace larder::fuse {
namespace {

using handover::CallState;
using larder::testing::FuseReply;
using ::testing::Contains;

constexpr std::uint64_t kTop = FUSE_ROOT_ID;

// A call that changes something at the server.
struct Step {
  std::string procedure;
  unsigned skipped = 0;        // of the same procedure before it
  bool can_be_missed = false;  // the call goes on when it fails
};

class RepeatsTest : public ChangingTest {
 public:
  using Ask = std::function<std::uint64_t()>;

  // ---- What is prepared, asked for and expected, by call.

  void nothing() {}

  std::uint64_t create() { return kernel().create(kTop, "new", O_RDWR, 0640); }

  std::uint64_t create_exclusive() { return kernel().create(kTop, "new", O_RDWR | O_EXCL, 0640); }

  void add_program() {
    const std::uint64_t program = fake_.server.add_file("new", "a program");
    fake_.server.set_mode(program, 04640);
    settle();
  }

  std::uint64_t create_over_program() {
    fuse_create_in in{};
    in.flags = O_RDWR | O_TRUNC;
    in.mode = S_IFREG | 0600;
    in.open_flags = FUSE_OPEN_KILL_SUIDGID;
    return kernel().send(FUSE_CREATE, kTop, larder::testing::FuseBytes().add(in).add_name("new"));
  }

  std::uint64_t mknod_regular() { return kernel().mknod(kTop, "new", S_IFREG | 0640); }

  std::uint64_t mknod_fifo() { return kernel().mknod(kTop, "new", S_IFIFO | 0640); }

  std::uint64_t mkdir() { return kernel().mkdir(kTop, "new", 0750); }

  std::uint64_t symlink() { return kernel().symlink(kTop, "new", "target"); }

  void is_created(const FuseReply& reply) {
    const auto made = reply.body.as<CreatedOut>();
    is_regular(reply);
    EXPECT_EQ(fake_.handles.size(), 1U);
    EXPECT_EQ(fake_.record_of(made.entry.nodeid).open_count, 1U);
    EXPECT_EQ(write(made.entry.nodeid, made.open, 0, "text"), 4U);
    close(made.entry.nodeid, made.open);
    EXPECT_EQ(fake_.handles.size(), 0U);
    EXPECT_EQ(fake_.record_of(made.entry.nodeid).open_count, 0U);
    EXPECT_EQ(fake_.server.stable_content(*fake_.server.find_name("new")), "text");
  }

  void is_regular(const FuseReply& reply) { is_made(reply, S_IFREG | 0640); }

  void is_fifo(const FuseReply& reply) { is_made(reply, S_IFIFO | 0640); }

  void is_directory(const FuseReply& reply) { is_made(reply, S_IFDIR | 0750); }

  void is_symlink(const FuseReply& reply) { is_made(reply, S_IFLNK | 0777); }

  void look_up_small() { node_ = lookup("small"); }

  std::uint64_t link() { return kernel().link(node_, kTop, "new"); }

  void is_linked(const FuseReply& reply) {
    const auto entry = reply.body.as<fuse_entry_out>();
    EXPECT_EQ(entry.nodeid, node_);
    EXPECT_EQ(entry.attr.nlink, 2U);
    EXPECT_EQ(fake_.server.attributes(small_).link_count, 2U);
    EXPECT_EQ(fake_.record_of(node_).lookup_count, 2U);
  }

  std::uint64_t unlink() { return kernel().unlink(kTop, "small"); }

  void is_gone(const FuseReply& /*reply*/) {
    EXPECT_FALSE(fake_.server.find_name("small"));
    EXPECT_EQ(names_at_server(), 1U);
  }

  void hold_small() {
    look_up_small();
    held_ = open(node_, O_RDWR);
  }

  void is_hidden(const FuseReply& /*reply*/) {
    EXPECT_FALSE(fake_.server.find_name("small"));
    EXPECT_EQ(names_at_server(), 2U) << "large, and the hidden one";
    EXPECT_EQ(read(node_, held_), "first content");
    close(node_, held_);
    fake_.stepper.run();
    EXPECT_EQ(names_at_server(), 1U);
  }

  void make_directory() { fake_.server.add_directory("directory"); }

  std::uint64_t rmdir() { return kernel().rmdir(kTop, "directory"); }

  void has_no_directory(const FuseReply& /*reply*/) {
    EXPECT_FALSE(fake_.server.find_name("directory"));
  }

  void remove_in_directory() {
    make_directory();
    const std::uint64_t directory = lookup("directory");
    EXPECT_EQ(error_of(kernel().rename(kTop, "small", directory, "small")), 0);
    node_ = lookup("small", directory);
    held_ = open(node_, O_RDWR);
    EXPECT_EQ(error_of(kernel().unlink(directory, "small")), 0);
  }

  void has_no_directory_but_its_file(const FuseReply& reply) {
    has_no_directory(reply);
    is_hidden(reply);
  }

  std::uint64_t rename() { return kernel().rename(kTop, "small", kTop, "new"); }

  std::uint64_t rename2() { return kernel().rename2(kTop, "small", kTop, "new", 0); }

  void is_renamed(const FuseReply& /*reply*/) {
    EXPECT_FALSE(fake_.server.find_name("small"));
    EXPECT_EQ(fake_.server.find_name("new"), small_);
    EXPECT_EQ(names_at_server(), 2U);
  }

  void open_large() {
    node_ = lookup("large");
    held_ = open(node_, O_RDWR);
  }

  std::uint64_t rename_over() { return kernel().rename(kTop, "small", kTop, "large"); }

  void has_replaced(const FuseReply& /*reply*/) {
    EXPECT_FALSE(fake_.server.find_name("small"));
    EXPECT_EQ(fake_.server.find_name("large"), small_);
    EXPECT_EQ(names_at_server(), 1U);
  }

  void has_replaced_what_is_open(const FuseReply& /*reply*/) {
    EXPECT_EQ(fake_.server.find_name("large"), small_);
    EXPECT_EQ(names_at_server(), 2U) << "the hidden one";
    EXPECT_EQ(read(node_, held_).size(), kLarge);
    close(node_, held_);
    fake_.stepper.run();
    EXPECT_EQ(names_at_server(), 1U);
  }

  // What is moved is open, and is what has the new name when the call comes again.
  void has_moved_what_is_open(const FuseReply& reply) {
    has_replaced(reply);
    EXPECT_EQ(read(node_, held_), "first content");
    close(node_, held_);
  }

  std::uint64_t append() {
    // The kernel takes the file to end elsewhere.
    return kernel().write(node_, held_.fh, 5, " and more", O_RDWR | O_APPEND);
  }

  void is_appended(const FuseReply& reply) {
    EXPECT_EQ(reply.body.as<fuse_write_out>().size, 9U);
    EXPECT_EQ(fake_.server.content(small_), "first content and more");
    if (!notices_lost_) {
      EXPECT_THAT(invalidated(), Contains(node_)) << "its pages have the bytes elsewhere";
    }
    close(node_, held_);
  }

 protected:
  void is_made(const FuseReply& reply, std::uint32_t mode) {
    const auto entry = reply.body.as<fuse_entry_out>();
    EXPECT_EQ(entry.attr.mode, mode);
    EXPECT_EQ(entry.attr.ino, fake_.server.find_name("new"));
    EXPECT_EQ(fake_.server.attributes(entry.attr.ino).mode, mode & 07777U);
    EXPECT_EQ(fake_.record_of(entry.nodeid).lookup_count, 1U);
    EXPECT_EQ(lookup("new"), entry.nodeid);
    EXPECT_EQ(names_at_server(), 3U);
  }

  std::size_t names_at_server() { return fake_.server.names().size(); }

  // ---- Deaths.

  // While the server is asked for something; it then does it, or does not.
  std::uint64_t die_at(const Ask& ask, const Step& step, bool done) {
    fake_.control->hold_of[step.procedure] = step.skipped;
    const std::uint64_t unique = ask();
    fake_.stepper.run();
    EXPECT_EQ(fake_.control->held.size(), 1U) << step.procedure;
    fake_.die();
    if (step.can_be_missed) {
      fake_.forget_held_calls();
    } else {
      fake_.end_held_calls(done);
    }
    return unique;
  }

  // `stored`: the answer; else what the kernel is to be told of is taken, and that is all.
  std::uint64_t die_before_reply(const Ask& ask, bool stored) {
    kernel().before_reply = [this, stored] {
      if (!stored) {
        fake_.journal_record(0).state = static_cast<std::uint8_t>(CallState::kSent);
      }
      fake_.die();
    };
    const std::uint64_t unique = ask();
    fake_.stepper.run();
    EXPECT_EQ(kernel().before_reply, nullptr) << "there was a reply";
    return unique;
  }

  // Before its slot is free.
  std::uint64_t die_after_reply(const Ask& ask) {
    kernel().after_reply = [this] { fake_.die(); };
    const std::uint64_t unique = ask();
    fake_.stepper.run();
    EXPECT_EQ(kernel().after_reply, nullptr) << "there was a reply";
    return unique;
  }

  // The slot is taken, and nothing else has happened.
  std::uint64_t die_at_once(const Ask& ask) {
    std::uint32_t opcode = 0;
    kernel().attach([&opcode](Bytes bytes) {
      opcode = reinterpret_cast<const fuse_in_header*>(bytes.data())->opcode;
    });
    const std::uint64_t unique = ask();
    EXPECT_NE(fake_.journal->begin(1, unique, opcode), nullptr);
    fake_.die();
    return unique;
  }

  std::uint64_t calls_to_server() {
    std::uint64_t sum = 0;
    for (const auto& [procedure, count] : fake_.server.calls) {
      sum += count;
    }
    return sum;
  }

  std::uint64_t node_ = 0;
  OpenOut held_{};
  bool notices_lost_ = false;  // the engine died before it could tell
};

struct Call {
  const char* name;
  std::vector<Step> steps;
  void (RepeatsTest::*prepare)();
  std::uint64_t (RepeatsTest::*ask)();
  void (RepeatsTest::*check)(const FuseReply& reply);
};

std::vector<Call> all_calls() {
  using T = RepeatsTest;
  return {
      {"Create", {{"CREATE"}}, &T::nothing, &T::create, &T::is_created},
      {"CreateExclusive",
       {{"CREATE"}, {"SETATTR"}},
       &T::nothing,
       &T::create_exclusive,
       &T::is_created},
      {"CreateOverProgram",
       {{"CREATE"}, {"SETATTR"}, {"SETATTR", 1, true}},
       &T::add_program,
       &T::create_over_program,
       &T::is_created},
      {"MknodRegular", {{"CREATE"}, {"SETATTR"}}, &T::nothing, &T::mknod_regular, &T::is_regular},
      {"MknodFifo", {{"MKNOD"}}, &T::nothing, &T::mknod_fifo, &T::is_fifo},
      {"Mkdir", {{"MKDIR"}}, &T::nothing, &T::mkdir, &T::is_directory},
      {"Symlink", {{"SYMLINK"}}, &T::nothing, &T::symlink, &T::is_symlink},
      {"Link", {{"LINK"}}, &T::look_up_small, &T::link, &T::is_linked},
      {"Unlink", {{"REMOVE"}}, &T::look_up_small, &T::unlink, &T::is_gone},
      {"UnlinkOpen", {{"RENAME"}}, &T::hold_small, &T::unlink, &T::is_hidden},
      {"Rmdir", {{"RMDIR"}}, &T::make_directory, &T::rmdir, &T::has_no_directory},
      {"RmdirWithHidden",
       {{"RMDIR"}, {"RENAME"}, {"RMDIR", 1}},
       &T::remove_in_directory,
       &T::rmdir,
       &T::has_no_directory_but_its_file},
      {"Rename", {{"RENAME"}}, &T::look_up_small, &T::rename, &T::is_renamed},
      {"Rename2", {{"RENAME"}}, &T::look_up_small, &T::rename2, &T::is_renamed},
      {"RenameOver", {{"RENAME"}}, &T::look_up_small, &T::rename_over, &T::has_replaced},
      {"RenameOpen", {{"RENAME"}}, &T::hold_small, &T::rename_over, &T::has_moved_what_is_open},
      {"RenameOverOpen",
       {{"RENAME"}, {"RENAME", 1}},
       &T::open_large,
       &T::rename_over,
       &T::has_replaced_what_is_open},
      {"Append", {{"WRITE"}}, &T::hold_small, &T::append, &T::is_appended},
  };
}

enum class Moment : std::uint8_t { kAtOnce, kNotDone, kDone, kTaken, kAnswered, kReplied };

struct Death {
  Call call;
  Moment moment = Moment::kAtOnce;
  std::size_t step = 0;
};

std::string name_of(const Death& death) {
  const std::string step = death.step == 0 ? "" : std::to_string(death.step + 1);
  switch (death.moment) {
    case Moment::kAtOnce:
      return std::string(death.call.name) + "AtOnce";
    case Moment::kNotDone:
      return std::string(death.call.name) + "NotDone" + step;
    case Moment::kDone:
      return std::string(death.call.name) + "Done" + step;
    case Moment::kTaken:
      return std::string(death.call.name) + "Taken";
    case Moment::kAnswered:
      return std::string(death.call.name) + "Answered";
    case Moment::kReplied:
      return std::string(death.call.name) + "Replied";
  }
  return "?";
}

std::ostream& operator<<(std::ostream& out, const Death& death) {
  return out << name_of(death);
}

std::vector<Death> all_deaths() {
  std::vector<Death> deaths;
  for (const Call& call : all_calls()) {
    deaths.push_back({call, Moment::kAtOnce, 0});
    for (std::size_t step = 0; step < call.steps.size(); ++step) {
      deaths.push_back({call, Moment::kNotDone, step});
      if (!call.steps[step].can_be_missed) {
        deaths.push_back({call, Moment::kDone, step});
      }
    }
    deaths.push_back({call, Moment::kTaken, 0});
    deaths.push_back({call, Moment::kAnswered, 0});
    deaths.push_back({call, Moment::kReplied, 0});
  }
  return deaths;
}

class RepeatedCallTest : public RepeatsTest, public ::testing::WithParamInterface<Death> {
 protected:
  std::uint64_t die() {
    const Death& death = GetParam();
    const Ask ask = [this, &death] { return (this->*death.call.ask)(); };
    const Step& step = death.call.steps[death.step];
    switch (death.moment) {
      case Moment::kAtOnce:
        return die_at_once(ask);
      case Moment::kNotDone:
        return die_at(ask, step, false);
      case Moment::kDone:
        return die_at(ask, step, true);
      case Moment::kTaken:
        return die_before_reply(ask, false);
      case Moment::kAnswered:
        return die_before_reply(ask, true);
      case Moment::kReplied:
        notices_lost_ = true;
        return die_after_reply(ask);
    }
    return 0;
  }
};

TEST_P(RepeatedCallTest, HappensOnceAndIsAnsweredAsIfNothingHadHappened) {
  const Death& death = GetParam();
  (this->*death.call.prepare)();
  fake_.stepper.run();
  (void)kernel().take_notices();
  const std::uint64_t unique = die();
  if (death.moment == Moment::kAnswered) {
    (void)kernel().take_notices();  // the kernel may not have got them
  }
  const std::uint64_t calls = calls_to_server();
  fake_.next_life();
  const FuseReply reply = fake_.wait(unique);
  EXPECT_EQ(reply.error, 0);
  fake_.stepper.run();
  if (death.moment == Moment::kAnswered) {
    EXPECT_EQ(calls_to_server(), calls) << "the server was not asked";
  }
  EXPECT_EQ(fake_.journal->size(), death.moment == Moment::kReplied ? 1U : 0U);
  (this->*death.call.check)(reply);
  EXPECT_EQ(fake_.handles.size(), 0U);
  fake_.filesystem->close();
  EXPECT_EQ(fake_.journal->size(), 0U);
}

INSTANTIATE_TEST_SUITE_P(All, RepeatedCallTest, ::testing::ValuesIn(all_deaths()),
                         [](const auto& tested) { return name_of(tested.param); });

// ---- Answers that are no successes, or that nobody wants any more.

TEST_F(RepeatsTest, ARefusalIsRepeatedAlthoughItWouldNotBeOneNow) {
  fake_.server.add_directory("new");
  const std::uint64_t unique = die_before_reply([this] { return mkdir(); }, true);
  fake_.server.remove("new");
  const std::uint64_t calls = calls_to_server();
  fake_.next_life();
  EXPECT_EQ(error_of(unique), EEXIST);
  EXPECT_EQ(calls_to_server(), calls);
  EXPECT_EQ(fake_.journal->size(), 0U);
}

TEST_F(RepeatsTest, WhatOthersHaveMadeIsNotTakenForOurs) {
  const std::uint64_t unique = die_at([this] { return mkdir(); }, {"MKDIR"}, false);
  fake_.server.add_file("new", "of others");
  fake_.next_life();
  EXPECT_EQ(error_of(unique), EEXIST);
}

TEST_F(RepeatsTest, AnExclusiveCreationThatOthersHaveWonIsLost) {
  const std::uint64_t unique = die_at([this] { return create_exclusive(); }, {"CREATE"}, false);
  fake_.server.add_file("new", "");
  fake_.next_life();
  EXPECT_EQ(error_of(unique), EEXIST);
  EXPECT_EQ(fake_.handles.size(), 0U);
}

TEST_F(RepeatsTest, ARemovalOfWhatNeverWasIsRefusedIfItWasNotAskedFor) {
  fake_.server.remove("small");
  const std::uint64_t unique = die_at_once([this] { return unlink(); });
  fake_.next_life();
  EXPECT_EQ(error_of(unique), ENOENT);
}

TEST_F(RepeatsTest, ARepeatedAnswerThatNobodyTakesLeavesNothingOpen) {
  const std::size_t nodes = fake_.nodes.size();
  const std::uint64_t unique = die_before_reply([this] { return create(); }, true);
  EXPECT_EQ(fake_.nodes.size(), nodes + 1);
  EXPECT_EQ(fake_.handles.size(), 1U);
  fake_.next_life_begins = [this] { kernel().refuse_next_reply = true; };
  fake_.next_life();
  EXPECT_EQ(kernel().take_reply(unique), std::nullopt);
  EXPECT_EQ(fake_.nodes.size(), nodes);
  EXPECT_EQ(fake_.handles.size(), 0U);
}

TEST_F(RepeatsTest, AFailedCreationGivesBackWhatItHadTaken) {
  const std::size_t nodes = fake_.nodes.size();
  const std::uint64_t unique = die_before_reply([this] { return create(); }, false);
  fake_.server.denied_uid = kernel().uid;
  fake_.next_life();
  EXPECT_EQ(error_of(unique), 0) << "made by the first engine, and its owner may open it";
  EXPECT_EQ(fake_.handles.size(), 1U);
  EXPECT_EQ(fake_.nodes.size(), nodes + 1);
}

TEST_F(RepeatsTest, WhatTheKernelWasToBelieveItShallAskFor) {
  const std::uint64_t unique = die_before_reply([this] { return mkdir(); }, true);
  fake_.next_life();
  const auto entry = answer<fuse_entry_out>(unique);
  EXPECT_EQ(entry.entry_valid + entry.attr_valid, 0U);
  EXPECT_EQ(entry.entry_valid_nsec + entry.attr_valid_nsec, 0U);
  EXPECT_EQ(entry.attr.mode, S_IFDIR | 0750U);
}

TEST_F(RepeatsTest, ItMayDieMoreThanOnce) {
  look_up_small();
  const std::uint64_t unique = die_at([this] { return unlink(); }, {"REMOVE"}, true);
  fake_.control->hold_of["REMOVE"] = 0;
  fake_.next_life();
  fake_.stepper.run();
  EXPECT_EQ(fake_.control->held.size(), 1U);
  fake_.die();
  fake_.end_held_calls(true);
  fake_.next_life();
  EXPECT_EQ(error_of(unique), 0);
  EXPECT_EQ(fake_.journal->size(), 0U);
}

// ---- While nobody dies.

TEST_F(RepeatsTest, ASlotIsFreeOnceItsCallIsAnswered) {
  fake_.control->hold_of["MKDIR"] = 0;
  const std::uint64_t unique = mkdir();
  fake_.stepper.run();
  EXPECT_EQ(fake_.journal->size(), 1U);
  EXPECT_EQ(fake_.journal_record(0).unique, unique);
  EXPECT_EQ(fake_.journal_record(0).state, static_cast<std::uint8_t>(CallState::kSent));
  EXPECT_EQ(fake_.journal_record(0).mount_id, 1U);
  fake_.control->release();
  EXPECT_EQ(error_of(unique), 0);
  EXPECT_EQ(fake_.journal->size(), 0U);
  EXPECT_EQ(error_of(mkdir()), EEXIST);
  EXPECT_EQ(fake_.journal->size(), 0U);
}

TEST_F(RepeatsTest, ACallThatGoesOnWithoutItsCallerHasNoSlot) {
  fake_.control->hold_of["CREATE"] = 0;
  const std::uint64_t unique = create_exclusive();
  fake_.stepper.run();
  fake_.process_status = std::nullopt;  // killed
  (void)kernel().interrupt(unique);
  EXPECT_EQ(error_of(unique), EINTR);
  EXPECT_EQ(fake_.journal->size(), 0U);
  fake_.control->hold_of["MKDIR"] = 0;
  (void)kernel().mkdir(kTop, "directory");
  fake_.stepper.run();
  EXPECT_EQ(fake_.journal_record(0).opcode, std::uint32_t{FUSE_MKDIR}) << "in the same slot";
  fake_.control->release();
  fake_.stepper.run();
  EXPECT_EQ(fake_.journal_record(0).made_length, 0) << "the creation has ended since";
  EXPECT_TRUE(fake_.server.find_name("new"));
}

TEST_F(RepeatsTest, WritesInTheirPlaceNeedNoSlot) {
  hold_small();
  fake_.control->hold_of["WRITE"] = 0;
  (void)kernel().write(node_, held_.fh, 0, "first", O_RDWR | O_SYNC);
  // A mapping's pages lie where they lie, whoever wrote them back.
  (void)kernel().write(node_, held_.fh, 0, "first", O_RDWR | O_APPEND, FUSE_WRITE_CACHE);
  fake_.stepper.run();
  EXPECT_EQ(fake_.journal->size(), 0U);
  fake_.control->release();
  fake_.stepper.run();
  close(node_, held_);
}

TEST_F(RepeatsTest, AFullJournalStopsNobody) {
  fake_.control->hold = true;
  std::vector<std::uint64_t> calls;
  calls.reserve(MountedFake::kFewCalls.capacity + 2);
  for (std::uint32_t i = 0; i < MountedFake::kFewCalls.capacity + 2; ++i) {
    calls.push_back(kernel().mkdir(kTop, "new" + std::to_string(i)));
  }
  fake_.stepper.run();
  EXPECT_EQ(fake_.journal->unjournaled(), 2U);
  fake_.control->release();
  for (const std::uint64_t unique : calls) {
    EXPECT_EQ(error_of(unique), 0);
  }
  EXPECT_EQ(fake_.journal->size(), 0U);
}

}  // namespace
}  // namespace larder::fuse
