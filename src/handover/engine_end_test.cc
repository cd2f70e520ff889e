// An engine must get its tables and mounts, hear the answer to each of its questions once, and come
// to an orderly end when the keeper is gone. The test plays the keeper.
#include "handover/engine_end.h"

#include <cerrno>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/messages.h"
#include "handover/records.h"
#include "handover/table.h"
#include "os/packet_socket.h"

namespace larder::handover {
namespace {

UniqueFd some_descriptor() {
  return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

Message hello_message() {
  Message message;
  message.head.kind = MessageKind::kHello;
  message.text = encode_hello({"/run/larder", "debug"});
  for (const TableShape& shape : table_shapes()) {
    message.descriptors.push_back(TableMemory::create(shape).value());
  }
  message.descriptors.push_back(some_descriptor());
  return message;
}

class EngineEndTest : public testing::Test {
 protected:
  EngineEndTest() {
    auto pair = os::packet_socket_pair();
    keeper_ = std::move(pair->first);
    engine_side_ = std::move(pair->second);
  }

  void adopt() {
    const Message hello = hello_message();
    ASSERT_TRUE(send_message(keeper_, hello, os::Wait::kYes));
    auto end = EngineEnd::adopt(std::move(engine_side_));
    ASSERT_TRUE(end.has_value()) << end.error().message();
    end_ = std::move(*end);
  }

  void start() {
    end_->start({.take_mount = [this](MountOrder order) { order_.set_value(std::move(order)); },
                 .release_mount = [this](std::uint32_t id) { released_.set_value(id); },
                 .stop = [this] { stopped_.set_value(); },
                 .trouble = [this](std::string trouble) { trouble_.set_value(trouble); }});
  }

  Message receive() {
    auto message = receive_message(keeper_, os::Wait::kYes);
    EXPECT_TRUE(message.has_value());
    return message ? std::move(*message) : Message();
  }

  void send(MessageKind kind, MessageHead head = {}, std::string text = {},
            bool descriptor = false) {
    Message message;
    message.head = head;
    message.head.kind = kind;
    message.text = std::move(text);
    if (descriptor) {
      message.descriptors.push_back(some_descriptor());
    }
    ASSERT_TRUE(send_message(keeper_, message, os::Wait::kYes));
  }

  UniqueFd keeper_, engine_side_;
  std::promise<MountOrder> order_;
  std::promise<std::uint32_t> released_;
  std::promise<void> stopped_;
  std::promise<std::string> trouble_;
  std::unique_ptr<EngineEnd> end_;  // after the promises: its thread fulfils them until it ends
};

TEST_F(EngineEndTest, TakesWhatTheHelloBrings) {
  adopt();
  EXPECT_EQ(end_->hello().runtime_directory, "/run/larder");
  EXPECT_EQ(end_->hello().log_level, "debug");
  const Table<NodeRecord> nodes = end_->take_nodes();
  nodes[1].fileid = 42;
  EXPECT_EQ(nodes[1].fileid, 42U);
  EXPECT_GT(end_->take_handles().capacity(), 0U);
  EXPECT_GT(end_->take_backings().capacity(), 0U);
  EXPECT_TRUE(end_->take_control_socket().valid());
}

TEST_F(EngineEndTest, RefusesAnotherFirstMessageAndAHangUp) {
  send(MessageKind::kStop);
  EXPECT_EQ(EngineEnd::adopt(std::move(engine_side_)).error().code(), Errc::kCorrupt);
  auto pair = os::packet_socket_pair();
  pair->first.reset();
  EXPECT_EQ(EngineEnd::adopt(std::move(pair->second)).error().code(), Errc::kNotFound);
}

TEST_F(EngineEndTest, PassesTheKeepersOrdersOn) {
  adopt();
  start();
  send(MessageKind::kTakeMount, {.device = 9, .mount_id = 4}, "source=a\n", true);
  const MountOrder order = order_.get_future().get();
  EXPECT_EQ(order.mount_id, 4U);
  EXPECT_EQ(order.device, 9U);
  EXPECT_EQ(order.spec, "source=a\n");
  EXPECT_TRUE(order.fuse.valid());
  send(MessageKind::kReleaseMount, {.mount_id = 4});
  EXPECT_EQ(released_.get_future().get(), 4U);
  send(MessageKind::kStop);
  stopped_.get_future().get();
  send(MessageKind::kStop);  // a second one is not passed on: it would break the promise
}

TEST_F(EngineEndTest, AnswersReachTheirQuestionsInAnyOrder) {
  adopt();
  start();
  std::promise<Result<std::int32_t>> first;
  std::promise<Result<std::int32_t>> second;
  end_->open_backing(4, some_descriptor(), [&](auto result) { first.set_value(result); });
  end_->open_backing(4, some_descriptor(), [&](auto result) { second.set_value(result); });
  const Message one = receive();
  const Message two = receive();
  EXPECT_EQ(one.head.kind, MessageKind::kBackingOpen);
  EXPECT_EQ(one.head.mount_id, 4U);
  EXPECT_EQ(one.descriptors.size(), 1U);
  send(MessageKind::kBackingOpened, {.request = 999, .backing_id = 1});  // nobody's: ignored
  send(MessageKind::kBackingOpened, {.request = two.head.request, .error_number = ELOOP});
  send(MessageKind::kBackingOpened, {.request = one.head.request, .backing_id = 31});
  EXPECT_EQ(first.get_future().get().value(), 31);
  EXPECT_EQ(second.get_future().get().error().error_number(), ELOOP);
}

TEST_F(EngineEndTest, OpensCacheDirectories) {
  adopt();
  start();
  std::promise<bool> opened;
  std::promise<std::string> refused;
  end_->open_cache_directory("/a", [&](Result<UniqueFd> fd) { opened.set_value(fd->valid()); });
  const Message asked = receive();
  EXPECT_EQ(asked.text, "/a");
  send(MessageKind::kCacheOpened, {.request = asked.head.request}, "", true);
  EXPECT_TRUE(opened.get_future().get());
  end_->open_cache_directory("/b",
                             [&](Result<UniqueFd> fd) { refused.set_value(fd.error().context()); });
  send(MessageKind::kCacheOpened, {.request = receive().head.request, .error_number = EACCES},
       "/b holds other files");
  EXPECT_EQ(refused.get_future().get(), "/b holds other files");
}

TEST_F(EngineEndTest, TellsNews) {
  adopt();
  start();
  end_->report_ready(3);
  EXPECT_EQ(receive().head.kind, MessageKind::kReady);
  end_->report_failed(3, Error(Errc::kInvalid, "no such export"));
  const Message failed = receive();
  EXPECT_EQ(failed.head.error_number, EINVAL);
  EXPECT_EQ(failed.text, "no such export");
  end_->close_backing(3, 12);
  EXPECT_EQ(receive().head.backing_id, 12);
  end_->report_unmounted(3);
  EXPECT_EQ(receive().head.mount_id, 3U);
  end_->report_detached("farm", true);
  const auto detached = receive();
  EXPECT_EQ(detached.head.kind, MessageKind::kDetached);
  EXPECT_EQ(detached.text, "farm");
  end_->report_detached("farm", false);
  EXPECT_EQ(receive().head.kind, MessageKind::kAttached);
  end_->report_stopping();
  EXPECT_EQ(receive().head.kind, MessageKind::kStopping);
}

TEST_F(EngineEndTest, EndsEveryQuestionAndStopsWhenTheKeeperIsGone) {
  adopt();
  start();
  std::promise<Errc> open;
  end_->open_backing(1, some_descriptor(),
                     [&](auto result) { open.set_value(result.error().code()); });
  keeper_.reset();
  EXPECT_EQ(open.get_future().get(), Errc::kCancelled);
  stopped_.get_future().get();
  std::promise<Errc> late;
  end_->open_backing(1, some_descriptor(),
                     [&](auto result) { late.set_value(result.error().code()); });
  EXPECT_EQ(late.get_future().get(), Errc::kCancelled);
  end_->report_ready(1);  // dropped, not a crash
}

TEST_F(EngineEndTest, DestructionEndsQuestions) {
  adopt();
  start();
  std::promise<Errc> open;
  end_->open_backing(1, some_descriptor(),
                     [&](auto result) { open.set_value(result.error().code()); });
  end_.reset();
  EXPECT_EQ(open.get_future().get(), Errc::kCancelled);
}

TEST_F(EngineEndTest, HearsWhatIsWrongWithTheDaemons) {
  adopt();
  start();
  send(MessageKind::kTrouble, {}, "the daemon keeps dying");
  EXPECT_EQ(trouble_.get_future().get(), "the daemon keeps dying");
}

}  // namespace
}  // namespace larder::handover
