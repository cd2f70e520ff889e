// FakeKernel: plays the kernel's side of a FUSE connection: builds requests, hands them to a
// session, and keeps the replies and notifications that come back through its device.
//
// It watches the protocol: every reply must be of a request that waits, have its true length, and
// come once; what breaks this is kept as a sentence in violations().
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <linux/fuse.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "os/fuse_device.h"

namespace larder::testing {

// Body of a request or of a reply.
class FuseBytes {
 public:
  FuseBytes() = default;

  template <class T>
  FuseBytes& add(const T& fixed) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(&fixed);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof fixed);
    return *this;
  }

  // Zero-terminated.
  FuseBytes& add_name(std::string_view name) { return add_bytes(bytes_of(name)).add('\0'); }

  FuseBytes& add_bytes(Bytes bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }

  // The fixed struct at its front; zeros where the body is shorter.
  template <class T>
  [[nodiscard]] T as() const {
    T fixed{};
    std::memcpy(&fixed, bytes_.data(), std::min(sizeof fixed, bytes_.size()));
    return fixed;
  }

  [[nodiscard]] Bytes bytes() const { return bytes_; }

  [[nodiscard]] std::string text() const { return std::string(text_of(bytes())); }

 private:
  std::vector<std::byte> bytes_;
};

struct FuseReply {
  int error = 0;  // positive errno
  FuseBytes body;
};

struct FuseNotice {
  int code = 0;  // FUSE_NOTIFY_...
  FuseBytes body;
};

struct ListedName {
  std::string name;
  std::uint64_t offset = 0;  // of the entry behind it
  std::uint64_t ino = 0;
};

// Threads: one (the Stepper's). Life: outlives its device.
class FakeKernel {
 public:
  FakeKernel() = default;
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;
  ~FakeKernel() = default;

  // Who makes the next requests. The default is a thread that /proc does not know: no groups.
  std::uint32_t uid = 1000;
  std::uint32_t gid = 1000;
  std::uint32_t pid = 4'194'305;
  // The next reply finds nobody waiting (its caller was killed): write(2) gives ENOENT.
  bool refuse_next_reply = false;

  // Run once, when the next reply is about to be taken; end_devices() in it loses the reply.
  std::function<void()> before_reply;
  // Run once, when the next reply has been taken.
  std::function<void()> after_reply;

  [[nodiscard]] std::unique_ptr<os::FuseDevice> make_device() {
    return std::make_unique<Device>(*this, life_);
  }

  // Who holds the devices that were made so far is dead: nothing that he writes arrives.
  void end_devices() { ++life_; }

  // NOTIFY_RESEND: what nobody has answered is sent again, to where requests go now.
  void resend() {
    std::set<std::uint64_t> again;
    for (const std::uint64_t unique : waiting_) {
      again.insert(unique | kResent);
    }
    waiting_ = again;
    for (const std::uint64_t unique : again) {
      FuseBytes& request = requests_[unique & ~kResent];
      auto header = request.as<fuse_in_header>();
      header.unique = unique;
      const FuseBytes before = std::move(request);
      request = FuseBytes().add(header).add_bytes(before.bytes().subspan(sizeof header));
      process_(request.bytes());
    }
  }

  // Where requests go: Session::process.
  void attach(std::function<void(Bytes)> process) { process_ = std::move(process); }

  // A request; returns its unique number.
  std::uint64_t send(std::uint32_t opcode, std::uint64_t nodeid, const FuseBytes& body = {}) {
    const std::uint64_t unique = last_unique_ += 2;
    if (opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET) {
      waiting_.insert(unique);
    }
    if (opcode == FUSE_INTERRUPT) {
      waiting_.erase(unique);  // may be left unanswered
      interrupts_.insert(unique);
    }
    const std::size_t length = sizeof(fuse_in_header) + body.bytes().size();
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(length);
    header.opcode = opcode;
    header.unique = unique;
    header.nodeid = nodeid;
    header.uid = uid;
    header.gid = gid;
    header.pid = pid;
    FuseBytes request;
    request.add(header).add_bytes(body.bytes());
    if (waiting_.contains(unique)) {
      requests_[unique] = request;
    }
    process_(request.bytes());
    return unique;
  }

  // Bytes as they are, of which nothing need be true.
  void send_raw(Bytes bytes) { process_(bytes); }

  [[nodiscard]] std::uint64_t init(std::uint32_t major, std::uint32_t minor, std::uint64_t flags) {
    fuse_init_in in{};
    in.major = major;
    in.minor = minor;
    in.max_readahead = 128 * 1024;
    in.flags = static_cast<std::uint32_t>(flags);
    in.flags2 = static_cast<std::uint32_t>(flags >> 32U);
    return send(FUSE_INIT, 0, FuseBytes().add(in));
  }

  [[nodiscard]] std::uint64_t lookup(std::uint64_t parent, std::string_view name) {
    return send(FUSE_LOOKUP, parent, FuseBytes().add_name(name));
  }

  [[nodiscard]] std::uint64_t getattr(std::uint64_t nodeid) {
    return send(FUSE_GETATTR, nodeid, FuseBytes().add(fuse_getattr_in{}));
  }

  [[nodiscard]] std::uint64_t open(std::uint64_t nodeid, std::uint32_t flags = 0) {
    return send(FUSE_OPEN, nodeid, FuseBytes().add(fuse_open_in{flags, 0}));
  }

  [[nodiscard]] std::uint64_t opendir(std::uint64_t nodeid) {
    return send(FUSE_OPENDIR, nodeid, FuseBytes().add(fuse_open_in{}));
  }

  [[nodiscard]] std::uint64_t read(std::uint64_t nodeid, std::uint64_t fh, std::uint64_t offset,
                                   std::uint32_t size) {
    return send(FUSE_READ, nodeid, FuseBytes().add(read_in(fh, offset, size)));
  }

  [[nodiscard]] std::uint64_t readdir(std::uint64_t nodeid, std::uint64_t fh, std::uint64_t offset,
                                      std::uint32_t size) {
    return send(FUSE_READDIR, nodeid, FuseBytes().add(read_in(fh, offset, size)));
  }

  [[nodiscard]] std::uint64_t release(std::uint64_t nodeid, std::uint64_t fh,
                                      std::uint32_t opcode = FUSE_RELEASE) {
    fuse_release_in in{};
    in.fh = fh;
    return send(opcode, nodeid, FuseBytes().add(in));
  }

  // ---- Changes.

  [[nodiscard]] std::uint64_t create(std::uint64_t parent, std::string_view name,
                                     std::uint32_t flags, std::uint32_t mode = 0644) {
    fuse_create_in in{};
    in.flags = flags;
    in.mode = kRegular | mode;
    return send(FUSE_CREATE, parent, FuseBytes().add(in).add_name(name));
  }

  // `mode` with the type's bits.
  [[nodiscard]] std::uint64_t mknod(std::uint64_t parent, std::string_view name, std::uint32_t mode,
                                    std::uint32_t device = 0) {
    fuse_mknod_in in{};
    in.mode = mode;
    in.rdev = device;
    return send(FUSE_MKNOD, parent, FuseBytes().add(in).add_name(name));
  }

  [[nodiscard]] std::uint64_t mkdir(std::uint64_t parent, std::string_view name,
                                    std::uint32_t mode = 0755) {
    return send(FUSE_MKDIR, parent, FuseBytes().add(fuse_mkdir_in{mode, 0}).add_name(name));
  }

  [[nodiscard]] std::uint64_t symlink(std::uint64_t parent, std::string_view name,
                                      std::string_view target) {
    return send(FUSE_SYMLINK, parent, FuseBytes().add_name(name).add_name(target));
  }

  [[nodiscard]] std::uint64_t link(std::uint64_t nodeid, std::uint64_t parent,
                                   std::string_view name) {
    return send(FUSE_LINK, parent, FuseBytes().add(fuse_link_in{nodeid}).add_name(name));
  }

  [[nodiscard]] std::uint64_t unlink(std::uint64_t parent, std::string_view name) {
    return send(FUSE_UNLINK, parent, FuseBytes().add_name(name));
  }

  [[nodiscard]] std::uint64_t rmdir(std::uint64_t parent, std::string_view name) {
    return send(FUSE_RMDIR, parent, FuseBytes().add_name(name));
  }

  [[nodiscard]] std::uint64_t rename(std::uint64_t from_parent, std::string_view from,
                                     std::uint64_t to_parent, std::string_view to) {
    return send(FUSE_RENAME, from_parent,
                FuseBytes().add(fuse_rename_in{to_parent}).add_name(from).add_name(to));
  }

  // renameat2(2), with its flags.
  [[nodiscard]] std::uint64_t rename2(std::uint64_t from_parent, std::string_view from,
                                      std::uint64_t to_parent, std::string_view to,
                                      std::uint32_t flags) {
    return send(FUSE_RENAME2, from_parent,
                FuseBytes().add(fuse_rename2_in{to_parent, flags, 0}).add_name(from).add_name(to));
  }

  // What of `in` is meant, in.valid says.
  [[nodiscard]] std::uint64_t setattr(std::uint64_t nodeid, const fuse_setattr_in& in) {
    return send(FUSE_SETATTR, nodeid, FuseBytes().add(in));
  }

  // `flags` of the open file, `write_flags` are FUSE_WRITE_...
  [[nodiscard]] std::uint64_t write(std::uint64_t nodeid, std::uint64_t fh, std::uint64_t offset,
                                    std::string_view data, std::uint32_t flags = 0,
                                    std::uint32_t write_flags = 0) {
    fuse_write_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = static_cast<std::uint32_t>(data.size());
    in.flags = flags;
    in.write_flags = write_flags;
    return send(FUSE_WRITE, nodeid, FuseBytes().add(in).add_bytes(bytes_of(data)));
  }

  // `owner` of the locks that the process has there.
  [[nodiscard]] std::uint64_t flush(std::uint64_t nodeid, std::uint64_t fh,
                                    std::uint64_t owner = 0) {
    fuse_flush_in in{};
    in.fh = fh;
    in.lock_owner = owner;
    return send(FUSE_FLUSH, nodeid, FuseBytes().add(in));
  }

  [[nodiscard]] std::uint64_t fsync(std::uint64_t nodeid, std::uint64_t fh) {
    fuse_fsync_in in{};
    in.fh = fh;
    return send(FUSE_FSYNC, nodeid, FuseBytes().add(in));
  }

  // GETLK, SETLK or SETLKW.
  [[nodiscard]] std::uint64_t lock(std::uint32_t opcode, std::uint64_t nodeid,
                                   const fuse_lk_in& in) {
    return send(opcode, nodeid, FuseBytes().add(in));
  }

  void forget(std::uint64_t nodeid, std::uint64_t count) {
    send(FUSE_FORGET, nodeid, FuseBytes().add(fuse_forget_in{count}));
  }

  void batch_forget(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& nodes) {
    FuseBytes body;
    body.add(fuse_batch_forget_in{static_cast<std::uint32_t>(nodes.size()), 0});
    for (const auto& [nodeid, count] : nodes) {
      body.add(fuse_forget_one{nodeid, count});
    }
    send(FUSE_BATCH_FORGET, 0, body);
  }

  std::uint64_t interrupt(std::uint64_t unique) {
    return send(FUSE_INTERRUPT, 0, FuseBytes().add(fuse_interrupt_in{unique}));
  }

  // The answer, if it came; at most once.
  [[nodiscard]] std::optional<FuseReply> take_reply(std::uint64_t unique) {
    const auto found = replies_.find(unique);
    if (found == replies_.end()) {
      return std::nullopt;
    }
    std::optional<FuseReply> reply = std::move(found->second);
    replies_.erase(found);
    return reply;
  }

  [[nodiscard]] std::vector<FuseNotice> take_notices() { return std::exchange(notices_, {}); }

  // Requests that nobody has answered.
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }

  // The entries of a READDIR reply.
  [[nodiscard]] static std::vector<ListedName> entries_of(const FuseReply& reply) {
    std::vector<ListedName> entries;
    Bytes rest = reply.body.bytes();
    while (rest.size() >= FUSE_NAME_OFFSET) {
      fuse_dirent dirent{};
      std::memcpy(&dirent, rest.data(), FUSE_NAME_OFFSET);
      const std::size_t length = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
      if (length > rest.size()) {
        break;
      }
      entries.push_back({std::string(text_of(rest.subspan(FUSE_NAME_OFFSET, dirent.namelen))),
                         dirent.off, dirent.ino});
      rest = rest.subspan(length);
    }
    return entries;
  }

 private:
  static constexpr std::uint32_t kRegular = 0100000;                 // S_IFREG
  static constexpr std::uint64_t kResent = std::uint64_t{1} << 63U;  // FUSE_UNIQUE_RESEND

  class Device final : public os::FuseDevice {
   public:
    Device(FakeKernel& kernel, unsigned life) : kernel_(kernel), life_(life) {}

    Result<MutableBytes> read_request(MutableBytes /*buffer*/) override {
      return fail(Errc::kCancelled, "requests are handed over by the test");
    }

    Result<> write_reply(std::span<const iovec> parts) override {
      const bool is_notice = static_cast<const fuse_out_header*>(parts[0].iov_base)->unique == 0;
      if (!is_notice && is_heard()) {
        run_once(kernel_.before_reply);
      }
      if (!is_heard()) {
        return {};
      }
      const Result<> taken = kernel_.take(parts);
      if (!is_notice) {
        run_once(kernel_.after_reply);
      }
      return taken;
    }

    void stop() override {}

   private:
    [[nodiscard]] bool is_heard() const { return life_ == kernel_.life_; }

    static void run_once(std::function<void()>& hook) {
      if (const auto once = std::exchange(hook, nullptr)) {
        once();
      }
    }

    FakeKernel& kernel_;
    const unsigned life_;
  };

  static fuse_read_in read_in(std::uint64_t fh, std::uint64_t offset, std::uint32_t size) {
    fuse_read_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = size;
    return in;
  }

  // What write(2) to the device would do.
  Result<> take(std::span<const iovec> parts) {
    FuseBytes all;
    for (const iovec& part : parts) {
      all.add_bytes({static_cast<const std::byte*>(part.iov_base), part.iov_len});
    }
    const auto header = all.as<fuse_out_header>();
    if (all.bytes().size() < sizeof header || header.len != all.bytes().size()) {
      return violation("a reply has another length than it says");
    }
    FuseBytes body;
    body.add_bytes(all.bytes().subspan(sizeof header));
    if (header.unique == 0) {
      notices_.push_back({header.error, std::move(body)});
      return {};
    }
    if (header.error > 0 || header.error <= -1000 || (header.error != 0 && !body.bytes().empty())) {
      return violation(fmt::format("a reply with the error {} makes no sense", header.error));
    }
    if (interrupts_.erase(header.unique) > 0) {
      if (header.error != -EAGAIN && header.error != -ENOSYS && header.error != -EINVAL) {
        return violation(fmt::format("INTERRUPT answered with {}", header.error));
      }
      replies_[header.unique] = {-header.error, {}};
      return {};
    }
    if (waiting_.erase(header.unique) == 0) {
      return violation(fmt::format("nobody waits for a reply to {}", header.unique));
    }
    requests_.erase(header.unique & ~kResent);
    if (std::exchange(refuse_next_reply, false)) {
      return fail(Errc::kNotFound, "nobody waits for it any more");
    }
    replies_[header.unique & ~kResent] = {-header.error, std::move(body)};
    return {};
  }

  std::unexpected<Error> violation(std::string what) {
    violations_.push_back(std::move(what));
    return fail(Errc::kInvalid, violations_.back());
  }

  std::function<void(Bytes)> process_;
  std::uint64_t last_unique_ = 0;
  unsigned life_ = 0;  // of who holds the device
  std::set<std::uint64_t> waiting_, interrupts_;
  std::map<std::uint64_t, FuseBytes> requests_;  // that wait
  std::map<std::uint64_t, FuseReply> replies_;
  std::vector<FuseNotice> notices_;
  std::vector<std::string> violations_;
};

}  // namespace larder::testing
