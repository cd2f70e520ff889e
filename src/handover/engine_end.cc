#include "handover/engine_end.h"

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "handover/messages.h"
#include "handover/table.h"
#include "os/packet_socket.h"

namespace larder::handover {

namespace {

std::unexpected<Error> keeper_gone() {
  return fail(Errc::kCancelled, "the keeper is gone or ends");
}

Message make_message(MessageKind kind, std::uint32_t mount_id) {
  Message message;
  message.head.kind = kind;
  message.head.mount_id = mount_id;
  return message;
}

Result<TableMemory> map_table(const std::vector<UniqueFd>& descriptors, TableKind kind) {
  const auto index = static_cast<std::size_t>(std::to_underlying(kind));
  return TableMemory::map(descriptors.at(index), table_shapes()[index]);
}

}  // namespace

Result<std::unique_ptr<EngineEnd>> EngineEnd::adopt(UniqueFd channel) {
  Message message = TRY(receive_message(channel, os::Wait::kYes));
  if (message.head.kind != MessageKind::kHello) {
    return fail(Errc::kCorrupt, "the keeper did not say hello");
  }
  std::unique_ptr<EngineEnd> end(new EngineEnd(std::move(channel)));
  end->hello_ = TRY(decode_hello(message.text));
  end->nodes_ = TRY(map_table(message.descriptors, TableKind::kNodes));
  end->handles_ = TRY(map_table(message.descriptors, TableKind::kHandles));
  end->backings_ = TRY(map_table(message.descriptors, TableKind::kBackings));
  end->hidden_names_ = TRY(map_table(message.descriptors, TableKind::kHiddenNames));
  end->journal_ = TRY(map_table(message.descriptors, TableKind::kJournal));
  end->writes_ = TRY(map_table(message.descriptors, TableKind::kWrites));
  end->write_pages_ = TRY(map_table(message.descriptors, TableKind::kWritePages));
  end->control_socket_ = std::move(message.descriptors.back());
  return end;
}

EngineEnd::~EngineEnd() {
  ::shutdown(channel_.get(), SHUT_RDWR);  // wakes the receiver
  receiver_.join();
  give_up();
}

void EngineEnd::start(KeeperOrders orders) {
  CHECK(!receiver_.joinable());
  orders_ = std::move(orders);
  receiver_ = Thread("keeper", [this] { receive(); });
}

void EngineEnd::open_backing(std::uint32_t mount_id, UniqueFd file,
                             std::move_only_function<void(Result<std::int32_t>)> done) {
  Message question = make_message(MessageKind::kBackingOpen, mount_id);
  question.descriptors.push_back(std::move(file));
  ask(std::move(question), [done = std::move(done)](Result<Message> answer) mutable {
    if (!answer) {
      done(fail(std::move(answer).error()));
    } else if (answer->head.error_number != 0) {
      done(fail_errno(answer->head.error_number, "registration for passthrough"));
    } else {
      done(answer->head.backing_id);
    }
  });
}

void EngineEnd::open_cache_directory(const std::string& path,
                                     std::move_only_function<void(Result<UniqueFd>)> done) {
  if (path.size() > kMostSpecBytes) {
    done(fail(Errc::kInvalid,
              fmt::format("the cache directory's path is longer than {} bytes", kMostSpecBytes)));
    return;
  }
  Message question = make_message(MessageKind::kOpenCache, 0);
  question.text = path;
  ask(std::move(question), [done = std::move(done)](Result<Message> answer) mutable {
    if (!answer) {
      done(fail(std::move(answer).error()));
    } else if (answer->head.kind != MessageKind::kCacheOpened) {
      done(fail(Errc::kCorrupt, "the keeper answered another question"));
    } else if (answer->head.error_number != 0) {
      done(fail(received_error(answer->head.error_number, std::move(answer->text))));
    } else {
      done(std::move(answer->descriptors.front()));
    }
  });
}

void EngineEnd::close_backing(std::uint32_t mount_id, std::int32_t backing_id) {
  Message news = make_message(MessageKind::kBackingClose, mount_id);
  news.head.backing_id = backing_id;
  tell(news);
}

void EngineEnd::report_ready(std::uint32_t mount_id) {
  tell(make_message(MessageKind::kReady, mount_id));
}

void EngineEnd::report_failed(std::uint32_t mount_id, const Error& why) {
  Message news = make_message(MessageKind::kFailed, mount_id);
  news.head.error_number = why.error_number();
  news.text = why.message().substr(0, kMostSentenceBytes);
  tell(news);
}

void EngineEnd::report_unmounted(std::uint32_t mount_id) {
  tell(make_message(MessageKind::kUnmounted, mount_id));
}

void EngineEnd::report_detached(const std::string& tag, bool detached) {
  Message news = make_message(detached ? MessageKind::kDetached : MessageKind::kAttached, 0);
  news.text = tag.substr(0, kMostSpecBytes);
  tell(news);
}

void EngineEnd::report_stopping() {
  tell(make_message(MessageKind::kStopping, 0));
}

void EngineEnd::ask(Message question, Answer answer) {
  {
    const MutexLock lock(mutex_);
    question.head.request = ++last_request_;
    if (!hung_up_) {
      unanswered_.emplace(question.head.request, std::exchange(answer, nullptr));
    }
  }
  if (answer) {
    answer(keeper_gone());
    return;
  }
  const Result<> sent = send_message(channel_, question, os::Wait::kYes);
  if (sent) {
    return;
  }
  // Whoever takes the answer out of the map runs it: us, or the receiver that saw the hang-up.
  Answer unsent;
  {
    const MutexLock lock(mutex_);
    if (const auto node = unanswered_.extract(question.head.request)) {
      unsent = std::move(node.mapped());
    }
  }
  if (unsent) {
    unsent(fail(sent.error()));
  }
}

void EngineEnd::tell(const Message& news) {
  const Result<> sent = send_message(channel_, news, os::Wait::kYes);
  if (!sent && sent.error().code() != Errc::kNotFound) {
    log_warning("a message to the keeper was lost: {}", sent.error().message());
  }
}

void EngineEnd::receive() {
  while (true) {
    Result<Message> message = receive_message(channel_, os::Wait::kYes);
    if (!message) {
      if (message.error().code() != Errc::kNotFound) {
        log_error("the channel to the keeper failed: {}", message.error().message());
      }
      break;
    }
    dispatch(std::move(*message));
  }
  give_up();
  if (orders_.stop) {
    std::exchange(orders_.stop, nullptr)();
  }
}

void EngineEnd::dispatch(Message message) {
  switch (message.head.kind) {
    case MessageKind::kTakeMount:
      orders_.take_mount({message.head.mount_id, message.head.device, std::move(message.text),
                          std::move(message.descriptors.front())});
      return;
    case MessageKind::kReleaseMount:
      orders_.release_mount(message.head.mount_id);
      return;
    case MessageKind::kStop:
      if (orders_.stop) {
        std::exchange(orders_.stop, nullptr)();
      }
      return;
    case MessageKind::kTrouble:
      if (orders_.trouble) {
        orders_.trouble(std::move(message.text));
      }
      return;
    case MessageKind::kBackingOpened:
    case MessageKind::kCacheOpened:
      answer(std::move(message));
      return;
    default:
      log_warning("the keeper sent a message of kind {}: ignored",
                  std::to_underlying(message.head.kind));
  }
}

void EngineEnd::answer(Message message) {
  Answer waiting;
  {
    const MutexLock lock(mutex_);
    if (const auto node = unanswered_.extract(message.head.request)) {
      waiting = std::move(node.mapped());
    }
  }
  if (waiting) {
    waiting(std::move(message));
  }
}

void EngineEnd::give_up() {
  std::unordered_map<std::uint64_t, Answer> abandoned;
  {
    const MutexLock lock(mutex_);
    hung_up_ = true;
    abandoned.swap(unanswered_);
  }
  for (auto& [request, waiting] : abandoned) {
    waiting(keeper_gone());
  }
}

}  // namespace larder::handover
