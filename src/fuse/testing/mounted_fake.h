// MountedFake: a whole mount without a kernel, a network and a disk: a session and a filesystem
// over a share of a fake server with a cache in memory, under a stepper.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "fscache/cache.h"
#include "fuse/backing_registrar.h"
#include "fuse/filesystem.h"
#include "fuse/handle_table.h"
#include "fuse/journal.h"
#include "fuse/node_table.h"
#include "fuse/protocol.h"
#include "fuse/session.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/adapter.h"
#include "netfs/share.h"
#include "testing/fake_kernel.h"
#include "testing/fake_server.h"
#include "testing/memory_backend.h"
#include "testing/stepper.h"

namespace larder::fuse {

// Keeps the files that are registered. Threads: one.
class FakeRegistrar final : public BackingRegistrar {
 public:
  void open(std::uint64_t /*nodeid*/, UniqueFd file,
            std::move_only_function<void(Result<std::int32_t>)> done) override {
    if (refuse) {
      done(fail(Errc::kNotSupported, "refused by the test"));
      return;
    }
    files.emplace(++last_id, std::move(file));
    done(last_id);
  }

  void close(std::int32_t backing_id) override {
    CHECK(files.erase(backing_id) == 1, "backing id {} is not open", backing_id);
  }

  bool refuse = false;
  std::int32_t last_id = 0;
  std::map<std::int32_t, UniqueFd> files;
};

// Threads: one.
class MountedFake {
 public:
  static constexpr std::uint64_t kKernelFlags =
      kInitPassthrough | kInitHasResend | FUSE_INIT_EXT | FUSE_ASYNC_READ | FUSE_MAX_PAGES |
      FUSE_PARALLEL_DIROPS | FUSE_EXPLICIT_INVAL_DATA | FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS |
      FUSE_FLOCK_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_HANDLE_KILLPRIV_V2 | FUSE_BIG_WRITES |
      FUSE_ASYNC_DIO;

  static constexpr handover::TableShape kNodes{handover::TableKind::kNodes, "fake-nodes",
                                               sizeof(handover::NodeRecord), 1U << 16U};
  // Of which a test can open more.
  static constexpr handover::TableShape kFewHandles{handover::TableKind::kHandles, "few-handles",
                                                    sizeof(handover::HandleRecord), 64};
  static constexpr handover::TableShape kFewCalls{handover::TableKind::kJournal, "few-calls",
                                                  sizeof(handover::JournalRecord), 16};

  explicit MountedFake(bool passthrough = true, std::size_t most_nodes = NodeTable::kMostKept,
                       bool read_only = false)
      : node_memory_(std::move(*handover::TableMemory::create(kNodes))),
        handle_memory_(std::move(*handover::TableMemory::create(kFewHandles))),
        journal_memory_(std::move(*handover::TableMemory::create(kFewCalls))),
        passthrough_(passthrough),
        read_only_(read_only),
        node_records(std::move(*handover::TableMemory::map(node_memory_, kNodes))),
        handle_records(std::move(*handover::TableMemory::map(handle_memory_, kFewHandles))),
        nodes(handover::Table<handover::NodeRecord>(
                  std::move(*handover::TableMemory::map(node_memory_, kNodes))),
              most_nodes),
        handles(handover::Table<handover::HandleRecord>(
            std::move(*handover::TableMemory::map(handle_memory_, kFewHandles)))),
        cache_(caches_.find_or_make("fake")) {
    CHECK(cache_->add_backend(larder::testing::make_memory_backend(disk)).has_value());
    auto adapter = std::make_unique<larder::testing::FakeAdapter>(server, stepper);
    control = adapter->control();
    netfs::Share::start_mount(
        std::move(adapter), stepper, cache_, {},
        [this](Result<std::unique_ptr<netfs::Share>> mounted) { share = std::move(*mounted); },
        [](const std::unique_ptr<netfs::Adapter>& failed) { failed->shut_down(); });
    stepper.run();
    // Everything that was made before is older than the server's clock is known to be.
    advance(std::chrono::seconds(10));
    begin_life();
  }

  MountedFake(const MountedFake&) = delete;
  MountedFake& operator=(const MountedFake&) = delete;

  ~MountedFake() {
    session->stop();
    session->cancel_all();
    control->errors.clear();
    control->release();
    share->shut_down();
    stepper.run();
    session->drain();
    filesystem->close();
    for (Life& life : dead_) {
      life.session->drain();
      life.filesystem->close();
      life.session.reset();
    }
    session.reset();
    filesystem.reset();
    dead_.clear();
    stepper.run();
    share.reset();
    cache_->withdraw([] {});
    stepper.run();
  }

  // Time passes, and everything that is due happens.
  void advance(std::chrono::milliseconds time) {
    stepper.advance(time);
    stepper.run();
  }

  // Runs until the request is answered.
  larder::testing::FuseReply wait(std::uint64_t unique) {
    std::optional<larder::testing::FuseReply> reply = kernel.take_reply(unique);
    stepper.run_until(
        [&] {
          reply = reply ? std::move(reply) : kernel.take_reply(unique);
          return reply.has_value();
        },
        std::chrono::hours(1));
    CHECK(reply.has_value(), "request {} was never answered", unique);
    return *reply;
  }

  // The engine is killed: the kernel hears nothing of it any more. What it goes on doing here
  // changes nothing in the journal that next_life() finds.
  void die() {
    kernel.end_devices();
    UniqueFd left(std::move(*handover::TableMemory::create(kFewCalls)));
    const auto from = map_journal(journal_memory_);
    const auto to = map_journal(left);
    for (std::uint32_t slot = 0; slot < kFewCalls.capacity; ++slot) {
      to[slot] = from[slot];
    }
    journal_memory_ = std::move(left);
  }

  // The server carries out what the dead engine waits for, or has not got it; it gets
  // nothing more of that engine.
  void end_held_calls(bool carried_out) {
    if (carried_out) {
      control->lost_answers.resize(control->held.size(),
                                   Error(Errc::kCancelled, "the process is dead"));
      control->release();
      CHECK(control->lost_answers.empty());
    }
    control->unreachable = true;
    control->release();
    stepper.run();
    control->unreachable = false;
  }

  // The same for calls without which the engine here would go on, and open files that nobody closes
  // before the end of the test: they have no end. Not carried out.
  void forget_held_calls() {
    control->hold_of.clear();
    control->held.clear();
  }

  // The next engine takes over, and is sent again what the dead one has not answered.
  void next_life() {
    dead_.push_back({std::move(journal), std::move(filesystem), std::move(session)});
    begin_life();
    negotiate();
    if (next_life_begins) {
      next_life_begins();
    }
    kernel.resend();
  }

  // What the next engine would find of a call, by its slot.
  [[nodiscard]] handover::JournalRecord& journal_record(std::uint32_t slot) const {
    return journal_records_[slot];
  }

  // What the next engine would find of a node or an open.
  [[nodiscard]] const handover::NodeRecord& record_of(NodeId id) const {
    return node_records[static_cast<std::uint32_t>(id) - 16];
  }

  [[nodiscard]] const handover::HandleRecord& record_of(const OpenOut& opened) const {
    return handle_records[static_cast<std::uint32_t>(opened.fh)];
  }

  void negotiate(std::uint32_t minor = 45) {
    CHECK(wait(kernel.init(7, minor, kKernelFlags)).error == 0);
  }

  // Members in the order of their lives.
 private:
  struct Life {
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Filesystem> filesystem;
    std::unique_ptr<Session> session;
  };

  using JournalTable = handover::Table<handover::JournalRecord>;

  static JournalTable map_journal(const UniqueFd& memory) {
    return JournalTable(std::move(*handover::TableMemory::map(memory, kFewCalls)));
  }

  void begin_life() {
    journal_records_ = map_journal(journal_memory_);
    journal = std::make_unique<Journal>(map_journal(journal_memory_));
    filesystem = std::make_unique<Filesystem>(1, *share, Tables{nodes, handles, *journal},
                                              registrar, stepper);
    session = std::make_unique<Session>(
        kernel.make_device(), stepper,
        SessionOptions{.name = "fake",
                       .threads = 0,
                       .passthrough = passthrough_,
                       .locks = !read_only_,
                       .read_proc = [this](std::uint32_t, const char*) { return process_status; }});
    filesystem->attach(*session, {.read_only = read_only_});
    session->start(*filesystem, [](StopReason, const std::string&) {});
    kernel.attach([this](Bytes bytes) { session->process(bytes); });
  }

  const UniqueFd node_memory_, handle_memory_;
  UniqueFd journal_memory_;
  const bool passthrough_, read_only_;
  JournalTable journal_records_;

 public:
  const handover::Table<handover::NodeRecord> node_records;  // as the next engine finds it
  const handover::Table<handover::HandleRecord> handle_records;
  larder::testing::Stepper stepper;
  larder::testing::FakeServer server{stepper.clock()};
  larder::testing::MemoryDisk disk;
  larder::testing::FakeKernel kernel;
  FakeRegistrar registrar;
  NodeTable nodes;
  HandleTable handles;
  std::shared_ptr<larder::testing::FakeAdapter::Control> control;
  std::function<void()> next_life_begins;     // what happens just before requests come again
  std::optional<std::string> process_status;  // what /proc says of whoever is interrupted
  std::unique_ptr<netfs::Share> share;
  std::unique_ptr<Journal> journal;
  std::unique_ptr<Filesystem> filesystem;
  std::unique_ptr<Session> session;

 private:
  std::vector<Life> dead_;
  fscache::Caches caches_{stepper};
  const std::shared_ptr<fscache::Cache> cache_;
};

}  // namespace larder::fuse
