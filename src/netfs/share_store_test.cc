// Bytes of writes that were answered early, in a store that outlives the share: when there is room
// for them, when they leave it, and that a next process can bring them to the server.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/share_fixture_test.h"
#include "netfs/write_store.h"
#include "netfs/writer.h"

namespace larder::netfs {
namespace {

struct KeptWrite {
  StoredWrite what;
  std::string bytes;
  bool closed = false;
  std::optional<WriteVerifier> at_server;
};

// What outlives the share: by order of reserve().
struct Memory {
  std::map<std::uint64_t, KeptWrite> writes;
  std::uint64_t last = 0;
  std::uint64_t capacity = std::uint64_t{1} << 30U;

  [[nodiscard]] std::uint64_t used() const {
    std::uint64_t bytes = 0;
    for (const auto& [order, kept] : writes) {
      bytes += kept.bytes.size();
    }
    return bytes;
  }
};

class KeptSpace final : public WriteSpace {
 public:
  KeptSpace(Memory& memory, std::uint64_t order) : memory_(memory), order_(order) {}

  KeptSpace(const KeptSpace&) = delete;
  KeptSpace& operator=(const KeptSpace&) = delete;

  ~KeptSpace() override { memory_.writes.erase(order_); }

  [[nodiscard]] std::size_t append(Bytes bytes) override {
    EXPECT_FALSE(kept().closed);
    const std::size_t part = std::min(bytes.size(), memory_.capacity - memory_.used());
    kept().bytes += text_of(bytes.first(part));
    return part;
  }

  void close() override { kept().closed = true; }

  void note_at_server(const WriteVerifier& verifier) override {
    EXPECT_TRUE(kept().closed);
    kept().at_server = verifier;
  }

  void note_lost() override { kept().at_server.reset(); }

  [[nodiscard]] Bytes bytes() const override { return bytes_of(memory_.writes.at(order_).bytes); }

 private:
  KeptWrite& kept() { return memory_.writes.at(order_); }

  Memory& memory_;
  const std::uint64_t order_;
};

class KeptStore final : public WriteStore {
 public:
  explicit KeptStore(Memory& memory) : memory_(memory) {}

  [[nodiscard]] std::unique_ptr<WriteSpace> reserve(const StoredWrite& what,
                                                    std::size_t /*most*/) override {
    if (memory_.used() >= memory_.capacity) {
      return nullptr;
    }
    memory_.writes[++memory_.last] = {what, "", false, std::nullopt};
    return std::make_unique<KeptSpace>(memory_, memory_.last);
  }

 private:
  Memory& memory_;
};

// One write(2) of a program.
struct Given {
  std::uint64_t offset = 0;
  std::string text;
  std::shared_ptr<std::optional<Result<Written>>> answer;

  [[nodiscard]] bool answered() const { return answer->has_value(); }
};

class ShareStoreTest : public ShareTest {
 protected:
  OpenFile new_file() {
    mount();
    share_->keep_writes(std::make_unique<KeptStore>(memory_));
    const CreateIntent intent{.mode = 0644, .exclusive = false, .open = {.write = true}};
    auto created = wait<Created>([&](auto done) {
      share_->create(share_->root(), "file", intent, caller_, std::move(done));
    });
    EXPECT_TRUE(created.has_value());
    server_.calls.clear();
    return created->open;
  }

  Given give(const OpenFile& open, std::uint64_t offset, std::string text, bool through = false) {
    Given given{offset, std::move(text), std::make_shared<std::optional<Result<Written>>>()};
    const auto kept = std::make_shared<const std::string>(given.text);
    share_->write(open, {.offset = offset, .through = through}, {kept, bytes_of(*kept)}, caller_,
                  [answer = given.answer](Result<Written> written) { *answer = written; });
    return given;
  }

  // Whoever is told that all is safe finds nothing kept.
  Result<> sync(const OpenFile& open) {
    return wait<void>([&](auto done) {
      share_->sync(open, caller_, [this, done = std::move(done)](Result<> synced) mutable {
        EXPECT_TRUE(memory_.writes.empty());
        done(std::move(synced));
      });
    });
  }

  [[nodiscard]] std::uint64_t file() const { return server_.find_name("file").value(); }

  // From now on this process reaches nobody; what it kept is what was there before.
  Memory kill() {
    Memory left = memory_;
    for (const char* const call : {"WRITE", "COMMIT"}) {
      control_->errors_of.emplace(call, Error(Errc::kCancelled, "dead"));
    }
    unmount();
    return left;
  }

  void send(Adapter& adapter, const KeptWrite& kept) {
    for (std::size_t at = 0; at < kept.bytes.size();) {
      std::optional<Result<WriteReply>> reply;
      adapter.start_write(kept.what.file, {kept.what.offset + at, bytes_of(kept.bytes).subspan(at)},
                          kept.what.credential,
                          [&](Result<WriteReply> written) { reply = std::move(written); });
      stepper_.run();
      ASSERT_TRUE(reply && reply->has_value());
      at += (*reply)->length;
    }
  }

  WriteVerifier commit(Adapter& adapter) {
    std::optional<Result<CommitReply>> reply;
    adapter.start_commit(server_handle_, caller_.credential,
                         [&](Result<CommitReply> done) { reply = std::move(done); });
    stepper_.run();
    EXPECT_TRUE(reply && reply->has_value());
    return (*reply)->verifier;
  }

  // As write_store.h says it.
  void take_over(Adapter& adapter, const Memory& left) {
    for (const auto& [order, kept] : left.writes) {
      if (!kept.at_server) {
        send(adapter, kept);
      }
    }
    const WriteVerifier verifier = commit(adapter);
    const bool lost = std::ranges::any_of(left.writes, [&](const auto& write) {
      return write.second.at_server && *write.second.at_server != verifier;
    });
    if (lost) {
      for (const auto& [order, kept] : left.writes) {
        send(adapter, kept);
      }
      commit(adapter);
    }
  }

  Memory memory_;
  FileHandle server_handle_;
};

TEST_F(ShareStoreTest, WhatIsAnsweredIsDescribedBeforeTheAnswer) {
  caller_.credential = std::make_shared<const Credential>(Credential{1000, 100, {7, 8}});
  server_.set_mode(FakeServer::kRoot, 0777);
  const OpenFile open = new_file();
  bool answered = false;
  const auto text = std::make_shared<const std::string>("bytes");
  share_->write(open, {.offset = 10}, {text, bytes_of(*text)}, caller_, [&](const auto& written) {
    ASSERT_TRUE(written);
    answered = true;
    ASSERT_EQ(memory_.writes.size(), 1U);
    const KeptWrite& kept = memory_.writes.begin()->second;
    EXPECT_EQ(kept.bytes, "bytes");
    EXPECT_EQ(kept.what.offset, 10U);
    EXPECT_EQ(kept.what.file, open.file->inode()->handle());
    EXPECT_EQ(kept.what.fileid, file());
    EXPECT_EQ(kept.what.credential->uid, 1000U);
    EXPECT_EQ(kept.what.credential->groups, (std::vector<std::uint32_t>{7, 8}));
  });
  EXPECT_TRUE(answered);
  EXPECT_EQ(server_.calls["WRITE"], 0U);
  EXPECT_EQ(share_->statistics().unsafe_bytes, 5U);
  ASSERT_TRUE(sync(open));
  EXPECT_TRUE(memory_.writes.empty());
  EXPECT_EQ(share_->statistics().unsafe_bytes, 0U);
}

TEST_F(ShareStoreTest, WithoutRoomAWriteWaitsForTheServer) {
  memory_.capacity = 100;
  const OpenFile open = new_file();
  const Given first = give(open, 0, std::string(60, 'a'));
  EXPECT_TRUE(first.answered());
  const Given second = give(open, 60, std::string(60, 'b'));
  EXPECT_FALSE(second.answered()) << "there was room for the first half only";
  EXPECT_EQ(memory_.used(), 100U);
  const Given third = give(open, 200, std::string(60, 'c'));
  EXPECT_FALSE(third.answered());
  stepper_.run();
  EXPECT_TRUE(second.answered() && third.answered());
  EXPECT_EQ(server_.content(file()), std::string(60, 'a') + std::string(60, 'b') +
                                         std::string(80, '\0') + std::string(60, 'c'));
  EXPECT_EQ(memory_.used(), 100U) << "not safe yet";
  EXPECT_FALSE(give(open, 300, "d").answered());
  ASSERT_TRUE(sync(open));
  EXPECT_EQ(memory_.used(), 0U);
  EXPECT_TRUE(give(open, 301, "e").answered());
}

TEST_F(ShareStoreTest, RoomIsGivenBackAfterAnErrorAndATruncation) {
  const OpenFile open = new_file();
  server_.capacity = 10;
  EXPECT_TRUE(give(open, 0, std::string(100, 'x')).answered());
  EXPECT_EQ(sync(open).error().error_number(), ENOSPC);
  EXPECT_TRUE(memory_.writes.empty());
  server_.capacity = 1000;
  EXPECT_FALSE(give(open, 0, "through").answered()) << "after an error";
  stepper_.run();
  EXPECT_TRUE(give(open, 0, std::string(100, 'y')).answered());
  EXPECT_EQ(memory_.used(), 100U);
  AttributeChanges cut;
  cut.size = 3;
  const auto set = wait<FreshAttributes>([&](auto done) {
    share_->set_attributes(open.file->inode(), cut, &open, caller_, std::move(done));
  });
  ASSERT_TRUE(set);
  EXPECT_TRUE(memory_.writes.empty());
  EXPECT_EQ(server_.content(file()), "yyy");
}

TEST_F(ShareStoreTest, WhatTheServerHasIsMarkedUntilItLostIt) {
  const OpenFile open = new_file();
  give(open, 0, "first");
  give(open, 100, "second");  // not a neighbour: the first goes
  stepper_.run();
  ASSERT_EQ(memory_.writes.size(), 2U);
  EXPECT_TRUE(memory_.writes[1].at_server);
  EXPECT_FALSE(memory_.writes[2].at_server);
  server_.restart();
  control_->hold = true;
  share_->sync(open, caller_, [](const auto&) {});
  stepper_.run();
  ASSERT_TRUE(memory_.writes[1].at_server);
  control_->release();  // WRITE of the second
  stepper_.run_until([&] { return !memory_.writes[1].at_server; }, std::chrono::seconds(1));
  EXPECT_FALSE(memory_.writes[1].at_server) << "COMMIT said so";
  stepper_.run();
  EXPECT_TRUE(memory_.writes.empty());
  EXPECT_EQ(server_.stable_content(file()), "first" + std::string(95, '\0') + "second");
}

TEST_F(ShareStoreTest, WhatIsNotStoredDoesNotGoOverWhatIs) {
  const OpenFile open = new_file();
  give(open, 0, "stored");
  const Given through = give(open, 2, "OVER", true);
  stepper_.run_until([&] { return through.answered(); }, kLongEnough);
  ASSERT_TRUE(through.answered());
  EXPECT_EQ(server_.calls["COMMIT"], 1U);
  EXPECT_TRUE(memory_.writes.empty());
  EXPECT_EQ(server_.content(file()), "stOVER");
}

// What came later is sent later, also when the server lost both: so nothing is put behind a piece
// once something else was accepted.
TEST_F(ShareStoreTest, APieceIsNotContinuedBehindNewerBytes) {
  for (const bool through : {false, true}) {
    server_.write_size = 4096;
    const OpenFile open = new_file();
    control_->hold = true;
    give(open, 0, std::string(10, 'u'));
    give(open, 5, std::string(10, 'a'));  // waits for the first, which is under way
    give(open, 4090, std::string(6, 'b'), through);
    give(open, 15, std::string(4081, 'c'));
    stepper_.run();
    control_->release();
    stepper_.run();
    server_.restart();
    ASSERT_TRUE(sync(open));
    EXPECT_EQ(server_.stable_content(file()),
              std::string(5, 'u') + std::string(10, 'a') + std::string(4081, 'c'))
        << through;
    unmount();
  }
}

TEST_F(ShareStoreTest, AShortWriteLeavesWhatBelongsTogether) {
  const OpenFile open = new_file();
  const std::string text = pattern(50'000, 1);
  give(open, 0, text);
  server_.write_size = 10'000;
  give(open, 100'000, "elsewhere");
  stepper_.step();
  stepper_.step();
  ASSERT_EQ(memory_.writes.size(), 2U);
  EXPECT_EQ(memory_.writes[1].bytes, text);
  EXPECT_FALSE(memory_.writes[1].at_server);
  stepper_.run();
  EXPECT_TRUE(memory_.writes[1].at_server);
  EXPECT_EQ(server_.calls["WRITE"], 5U);
  ASSERT_TRUE(sync(open));
  EXPECT_EQ(server_.stable_content(file()).substr(0, text.size()), text);
}

// The server starts anew between the two halves of one WRITE.
TEST_F(ShareStoreTest, AShortWriteOfTwoServerLivesIsSentAnew) {
  const OpenFile open = new_file();
  const std::string text = pattern(20'000, 1);
  give(open, 0, text);
  server_.write_size = 10'000;
  give(open, 100'000, "elsewhere");
  while (server_.calls["WRITE"] < 1) {
    ASSERT_TRUE(stepper_.step());
  }
  server_.restart();
  stepper_.run();
  ASSERT_TRUE(sync(open));
  EXPECT_EQ(server_.stable_content(file()).substr(0, text.size()), text);
}

// As the writes and answers of one seed bring it.
class KilledShareTest : public ShareStoreTest {
 protected:
  std::uint64_t random(std::uint64_t below) { return random_() % below; }

  void write_something(const OpenFile& open, bool with_through) {
    const std::uint64_t offset = random(3) == 0 ? next_ : random(20'000);
    const std::string text = pattern(1 + random(6000), static_cast<unsigned>(random_()));
    next_ = offset + text.size();
    const bool through = with_through && random(5) == 0;
    wrote_through_ |= through;
    given_.push_back(give(open, offset, text, through));
  }

  void go_on(const OpenFile& open, bool with_through) {
    switch (random(12)) {
      case 0:
        stepper_.advance(std::chrono::milliseconds(random(1500)));
        break;
      case 1:
        share_->sync(open, caller_, [](const auto&) {});
        break;
      case 2:
        server_.write_size = random(2) == 0 ? 1000 : 4096;
        break;
      case 3:
        server_.writes_through = random(2) == 0;
        break;
      case 4:
        if (!with_through || !wrote_through_) {
          server_.restart();
        }
        break;
      case 5:
        if (with_through) {  // what finds no room goes through
          wrote_through_ = true;
          memory_.capacity = random(2) == 0 ? memory_.used() + random(3000) : 1U << 30U;
        }
        break;
      default:
        write_something(open, with_through);
    }
    for (std::uint64_t steps = random(4); steps > 0; --steps) {
      stepper_.step();
    }
  }

  // What the server must have: answered writes in their order; then the kernel repeats the others.
  [[nodiscard]] std::string expected() const {
    std::string content;
    for (const bool answered : {true, false}) {
      for (const Given& given : given_) {
        if (given.answered() == answered) {
          content.resize(std::max<std::size_t>(content.size(), given.offset + given.text.size()));
          content.replace(given.offset, given.text.size(), given.text);
        }
      }
    }
    return content;
  }

  std::mt19937_64 random_;
  std::uint64_t next_ = 0;
  bool wrote_through_ = false;
  std::vector<Given> given_;
};

class KilledShare : public KilledShareTest, public ::testing::WithParamInterface<unsigned> {};

// What went to the server and was kept by nobody may be lost when it starts anew: in such a run it
// does so only before.
TEST_P(KilledShare, ANextProcessBringsEveryAnsweredByteToTheServer) {
  random_.seed(GetParam());
  const bool with_through = GetParam() % 2 == 0;
  server_.write_size = 4096;
  const OpenFile open = new_file();
  server_handle_ = open.file->inode()->handle();
  for (std::uint64_t operations = 1 + random(60); operations > 0; --operations) {
    go_on(open, with_through);
  }
  std::vector<KeptWrite> unanswered;
  for (const Given& given : given_) {
    if (!given.answered()) {
      unanswered.push_back(
          {{server_handle_, 0, 0, given.offset, caller_.credential}, given.text, true, {}});
    }
  }
  const std::string content = expected();
  const Memory left = kill();
  FakeAdapter next(server_, stepper_);
  take_over(next, left);
  for (const KeptWrite& again : unanswered) {
    send(next, again);
  }
  commit(next);
  EXPECT_TRUE(server_.stable_content(server_.find_name("file").value()) == content)
      << "seed " << GetParam();
}

INSTANTIATE_TEST_SUITE_P(Seeds, KilledShare, ::testing::Range(1U, 301U));

}  // namespace
}  // namespace larder::netfs
