// Session: one mounted filesystem: threads that read the kernel's requests, the requests under way,
// and the notifications that we send by ourselves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/uio.h>

#include "base/bytes.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "fuse/protocol.h"
#include "fuse/request.h"
#include "os/ending.h"
#include "os/fuse_device.h"

namespace larder::fuse {

// What INIT agreed on.
struct Negotiated {
  std::uint32_t minor = 0;
  bool passthrough = false;
  bool locks = false;  // flock(2) and fcntl(2) locks come to us, else the kernel keeps them by node
};

// What the session hands requests to.
class Handler {
 public:
  Handler() = default;
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  virtual ~Handler() = default;

  // Once, before the first handle().
  virtual void on_negotiated(const Negotiated& negotiated) = 0;
  // Must not wait: the thread reads /dev/fuse.
  virtual void handle(const RequestRef& request) = 0;
  // FORGET and BATCH_FORGET, which have no answer.
  virtual void forget(std::uint64_t nodeid, std::uint64_t count) = 0;
};

// Why a session ended.
enum class StopReason : std::uint8_t {
  kStopped,      // stop() was called
  kUnmounted,    // the kernel says that the filesystem is gone
  kDeviceError,  // reading the device failed
  kBadProtocol,  // the kernel is too old, or what it sent makes no sense
};

struct SessionOptions {
  std::string name;      // of the threads
  unsigned threads = 2;  // that read requests
  bool passthrough = true;
  bool locks = true;
  os::ReadProc read_proc = os::read_proc_file;  // tests put their own here
};

// Threads: its own readers call the handler; answers and notifications come from any thread.
// Life: start(), then stop() or the kernel's end; destroyed after on_end ran and every request is
// gone.
class Session final : public ReplySink {
 public:
  Session(std::unique_ptr<os::FuseDevice> device, Executor& executor, SessionOptions options);
  ~Session() override;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Reads and answers INIT and everything after it. `on_end` runs on the last reader's thread.
  void start(Handler& handler, std::move_only_function<void(StopReason, std::string)> on_end);
  // Lets the readers end. Does not wait.
  void stop();
  // Ends what still waits for a server with EINTR.
  void cancel_all() EXCLUDES(mutex_);

  // Drops the pages and attributes that the kernel has of a node, from a thread of its own.
  void invalidate(std::uint64_t nodeid);
  void invalidate(std::uint64_t nodeid, std::int64_t offset, std::int64_t length);
  // Drops the page with the byte at `offset`, which must not be one that the kernel has locked
  // until an answer of ours that waits for `then`; runs that afterwards. From a thread of its own.
  void drop_page(std::uint64_t nodeid, std::uint64_t offset, Task then);
  // Asks the kernel to forget nodes that nothing uses; it keeps what it wants. Requires: it speaks
  // kPruneMinorVersion.
  void ask_to_forget(std::vector<std::uint64_t> nodeids);
  // Drops the attributes only, before this returns: they wait for no page and no lock.
  void invalidate_attributes(std::uint64_t nodeid);

  bool send_reply(const Request& request, int error_number, std::span<const iovec> parts) override
      EXCLUDES(mutex_);
  // Waits until the last request is answered and let go of; new ones are dropped. After the readers
  // ended, from a thread that no answer depends on.
  void drain();

  // One request as it came from the device; public for tests and fuzzers that play the kernel.
  void process(Bytes bytes) EXCLUDES(mutex_);

 private:
  void read_requests();
  void end(StopReason reason, const std::string& what) EXCLUDES(mutex_);
  void negotiate(Request& request);
  void interrupt(const RequestRef& request) EXCLUDES(mutex_);
  void write_invalidation(std::uint64_t nodeid, std::int64_t offset, std::int64_t length);
  void ask_again_later(const RequestRef& interrupt) EXCLUDES(mutex_);
  void answer_held_interrupts() EXCLUDES(mutex_);
  void write_notification(std::int32_t code, std::span<const iovec> body);
  void forget(const fuse_in_header& header, Bytes body);

  const std::unique_ptr<os::FuseDevice> device_;
  Executor& executor_;
  const SessionOptions options_;
  const std::unique_ptr<Pool> notifier_;
  const std::unique_ptr<Pool> page_droppers_;  // answers wait for them, not for the others
  const std::shared_ptr<Gate> timers_;         // what runs later holds it weakly
  Handler* handler_ = nullptr;
  Gate requests_;

  mutable Mutex mutex_{LockRank::kSession};

  struct UnderWay {
    std::weak_ptr<netfs::CallScope> scope;
    std::uint32_t pid = 0;
    bool any_signal_ends = false;  // not only one that ends the thread
  };

  std::unordered_map<std::uint64_t, UnderWay> under_way_ GUARDED_BY(mutex_);
  // INTERRUPTs of threads that only handle a signal, to be answered after a while.
  std::vector<RequestRef> held_interrupts_ GUARDED_BY(mutex_);
  bool interrupt_timer_set_ GUARDED_BY(mutex_) = false;
  bool negotiated_ GUARDED_BY(mutex_) = false;
  unsigned readers_ GUARDED_BY(mutex_) = 0;
  StopReason reason_ GUARDED_BY(mutex_) = StopReason::kStopped;
  std::string what_ GUARDED_BY(mutex_);
  std::move_only_function<void(StopReason, std::string)> on_end_ GUARDED_BY(mutex_);
  std::vector<Thread> threads_;
};

}  // namespace larder::fuse
