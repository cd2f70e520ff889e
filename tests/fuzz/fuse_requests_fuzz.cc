// A kernel that sends anything: the input is a script of requests to one mount of a fake server, of
// what happens to that server, and of how far the engine gets in between. Every request is answered
// once, with as many bytes as the kernel takes for an answer to it; reads give no byte that the
// server never had; and at the end the mount still serves what the server has.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/protocol.h"
#include "fuse/testing/mounted_fake.h"
#include "netfs/attributes.h"
#include "testing/fake_kernel.h"

namespace {

using namespace larder;
using fuse::MountedFake;
using testing::FuseBytes;
using testing::FuseReply;

constexpr int kMostSteps = 100;
constexpr std::array<std::string_view, 8> kNames = {"large", "small",   "directory", "new",
                                                    "",      "missing", "link",      "long_link"};

class Script {
 public:
  explicit Script(Bytes bytes) : rest_(bytes) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }

  std::uint8_t byte() {
    const Bytes taken = take(1);
    return taken.empty() ? std::uint8_t{0} : std::to_integer<std::uint8_t>(taken.front());
  }

  Bytes take(std::size_t most) {
    const Bytes taken = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

  // Mostly one that makes sense, sometimes any.
  std::uint64_t number(std::uint64_t most) {
    const std::uint8_t way = byte();
    if (way >= 0xf0) {
      return (std::uint64_t{way} << 60U) | byte();
    }
    return ((std::uint64_t{way} << 8U) | byte()) * 251 % (most + 1);
  }

 private:
  Bytes rest_;
};

// How long the data of an answer without error may be, and must be.
struct Lengths {
  std::size_t least = 0;
  std::size_t most = 0;
};

Lengths lengths_of(std::uint32_t opcode, const FuseBytes& body) {
  const auto exactly = [](std::size_t length) { return Lengths{length, length}; };
  switch (opcode) {
    case FUSE_LOOKUP:
      return exactly(sizeof(fuse_entry_out));
    case FUSE_GETATTR:
      return exactly(sizeof(fuse_attr_out));
    case FUSE_SETATTR:
      return exactly(sizeof(fuse_attr_out));
    case FUSE_MKDIR:
    case FUSE_MKNOD:
    case FUSE_SYMLINK:
    case FUSE_LINK:
      return exactly(sizeof(fuse_entry_out));
    case FUSE_CREATE:
      return exactly(sizeof(fuse_entry_out) + sizeof(fuse_open_out));
    case FUSE_WRITE:
      return exactly(sizeof(fuse_write_out));
    case FUSE_READLINK:
      return {1, 4095};
    case FUSE_OPEN:
    case FUSE_OPENDIR:
      return exactly(sizeof(fuse_open_out));
    case FUSE_READ:
    case FUSE_READDIR:
      return {0, body.as<fuse_read_in>().size};
    case FUSE_GETLK:
      return exactly(sizeof(fuse_lk_out));
    case FUSE_STATFS:
      return exactly(sizeof(fuse_statfs_out));
    case FUSE_INIT:
      return exactly(sizeof(fuse::InitOut));
    default:
      return {};
  }
}

// The kernel's checks of a listing (fuse_readdir in fs/fuse/readdir.c): one that breaks them is
// EIO.
void check_listing(Bytes rest) {
  while (!rest.empty()) {
    fuse_dirent dirent{};
    CHECK(rest.size() >= FUSE_NAME_OFFSET);
    std::memcpy(&dirent, rest.data(), FUSE_NAME_OFFSET);
    CHECK(dirent.namelen > 0 && dirent.namelen <= 255);
    const std::size_t length = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
    CHECK(length <= rest.size());
    const std::string_view name = text_of(rest.subspan(FUSE_NAME_OFFSET, dirent.namelen));
    CHECK(!name.contains('/') && !name.contains('\0'));
    rest = rest.subspan(length);
  }
}

class Run {
 public:
  Run() {
    fake_.server.add_file("small", "small");
    fake_.server.add_directory("directory");
    fake_.server.add_symlink("link", "small");
    fake_.server.add_symlink("long_link", std::string(5000, 'l'));
    fake_.negotiate();
  }

  void step(Script& script) {
    const std::uint8_t operation = script.byte();
    act(operation % 16, script);
    for (int i = operation / 16; i > 0 && fake_.stepper.step(); --i) {
    }
    collect();
  }

  void finish() {
    fake_.kernel.refuse_next_reply = false;
    fake_.control->errors.clear();
    fake_.control->release();
    // Long enough for everything that counted as fresh to be asked for anew.
    fake_.stepper.run();
    fake_.advance(std::chrono::hours(1));
    fake_.session->cancel_all();  // who waits for a lock that somebody has
    collect();
    CHECK(fake_.kernel.waiting() == 0, "{} requests were not answered", fake_.kernel.waiting());
    check_that_it_serves();
    const auto& violations = fake_.kernel.violations();
    CHECK(violations.empty(), "{}", violations.front());
  }

 private:
  void act(int what, Script& script) {
    switch (what) {
      case 0:
      case 1:
        look_up(script);
        break;
      case 2:
        send(FUSE_GETATTR, node(script), FuseBytes().add(fuse_getattr_in{}));
        break;
      case 3:
        open(script);
        break;
      case 4:
      case 5:
        read(script);
        break;
      case 6:
        release(script);
        break;
      case 7:
        forget(script);
        break;
      case 8:
        interrupt(script);
        break;
      case 9: {
        const std::uint8_t opcode = script.byte();
        const std::uint64_t nodeid = node(script);
        changed_ = true;  // perhaps
        send(opcode, nodeid, FuseBytes().add_bytes(script.take(script.byte())));
        break;
      }
      case 10:
        send_broken(script);
        break;
      default:
        happen(what, script);
        break;
    }
  }

  // What is no request.
  void happen(int what, Script& script) {
    switch (what) {
      case 11:
        if (fake_.control->hold) {
          fake_.control->release();
        } else {
          fake_.control->hold = true;
        }
        break;
      case 12:
        fake_.server.write_file(file_, std::string(std::size_t{script.byte()} * 1024, 'n'));
        break;
      case 13:
        fake_.kernel.refuse_next_reply = true;
        break;
      case 14: {
        constexpr std::array kErrors = {EIO, ESTALE, ENOENT, EACCES, ETIMEDOUT};
        const int number = kErrors.at(script.byte() % kErrors.size());
        fake_.control->errors.push_back(Error::from_errno(number, "by the script"));
        break;
      }
      default: {
        const std::uint8_t tenths = script.byte();
        if (tenths >= 0xf0) {
          fake_.server.restart();  // what was not committed is lost
        } else if (tenths >= 0x80) {
          change(tenths % 16, script);
        } else {
          fake_.stepper.advance(std::chrono::milliseconds(tenths * 100));
        }
        break;
      }
    }
  }

  void change(int what, Script& script) {
    changed_ = true;
    switch (what) {
      case 0:
      case 1:
      case 2:
        write(script);
        break;
      case 3:
      case 4:
        open_to_change(script);
        break;
      case 5:
        create(script);
        break;
      case 6:
      case 7:
        set_attributes(script);
        break;
      case 8:
        synchronize(script);
        break;
      default:
        change_names(what, script);
        break;
    }
  }

  void write(Script& script) {
    fuse_write_in in{};
    in.fh = handle(script);
    in.offset = script.number(300'000);
    in.size = static_cast<std::uint32_t>(script.number(100'000));
    const std::uint8_t how = script.byte();
    in.write_flags = how % 8;
    in.flags = (how & 0x80) != 0 ? O_APPEND : 0;
    // Sometimes with less than it says.
    const std::size_t length = how == 0x7f ? in.size / 2 : in.size % (fuse::kMostIoBytes + 1);
    const std::string data(length, 'w');
    send(FUSE_WRITE, node(script), FuseBytes().add(in).add_bytes(bytes_of(data)));
  }

  void open_to_change(Script& script) {
    constexpr std::array<std::uint32_t, 4> kFlags = {O_RDWR, O_WRONLY | O_APPEND, O_RDWR | O_TRUNC,
                                                     O_RDONLY | O_TRUNC};
    const std::uint8_t which = script.byte();
    const fuse_open_in in{kFlags.at(which % kFlags.size()), which >= 128 ? 1U : 0U};
    send(FUSE_OPEN, node(script), FuseBytes().add(in));
  }

  void create(Script& script) {
    fuse_create_in in{};
    const std::uint8_t how = script.byte();
    in.flags = (how % 3) | ((how & 0x10) != 0 ? O_EXCL : 0) | ((how & 0x20) != 0 ? O_TRUNC : 0);
    in.mode = 0100644;
    in.open_flags = how >= 128 ? 1 : 0;
    send(FUSE_CREATE, node(script), FuseBytes().add(in).add_name(name(script)));
  }

  void set_attributes(Script& script) {
    fuse_setattr_in in{};
    in.valid = script.byte() | std::uint32_t{script.byte()} << 8U;
    in.fh = handle(script);
    in.size = script.number(300'000);
    in.mode = script.byte() * 37U;
    in.mtimensec = static_cast<std::uint32_t>(script.number(1'000'000));
    send(FUSE_SETATTR, node(script), FuseBytes().add(in));
  }

  void synchronize(Script& script) {
    const std::uint8_t which = script.byte();
    if (which >= 0xc0) {
      lock(which, script);
    } else if (which % 2 == 0) {
      fuse_flush_in in{};
      in.fh = handle(script);
      in.lock_owner = which % 4;
      send(FUSE_FLUSH, node(script), FuseBytes().add(in));
    } else {
      fuse_fsync_in in{};
      in.fh = handle(script);
      send(FUSE_FSYNC, node(script), FuseBytes().add(in));
    }
  }

  void lock(std::uint8_t how, Script& script) {
    constexpr std::array<std::uint32_t, 3> kOpcodes = {FUSE_GETLK, FUSE_SETLK, FUSE_SETLKW};
    fuse_lk_in in{};
    in.fh = handle(script);
    in.owner = script.byte() % 4;
    in.lk.start = script.number(20);
    in.lk.end = in.lk.start + script.number(20);
    in.lk.type = how % 8;  // of which three are known
    in.lk_flags = (how & 8U) != 0 ? FUSE_LK_FLOCK : 0;
    send(kOpcodes.at(how / 16 % kOpcodes.size()), node(script), FuseBytes().add(in));
  }

  void change_names(int what, Script& script) {
    const std::uint64_t directory = node(script);
    const std::string_view first = name(script);
    switch (what) {
      case 9:
        send(FUSE_MKDIR, directory, FuseBytes().add(fuse_mkdir_in{0755, 0}).add_name(first));
        break;
      case 10: {
        fuse_mknod_in in{};
        in.mode = std::uint32_t{script.byte()} << 9U | 0600U;
        send(FUSE_MKNOD, directory, FuseBytes().add(in).add_name(first));
        break;
      }
      case 11:
        send(FUSE_SYMLINK, directory, FuseBytes().add_name(first).add_name(name(script)));
        break;
      case 12:
        send(FUSE_LINK, directory, FuseBytes().add(fuse_link_in{node(script)}).add_name(first));
        break;
      case 13:
        send(FUSE_UNLINK, directory, FuseBytes().add_name(first));
        break;
      case 14:
        send(FUSE_RMDIR, directory, FuseBytes().add_name(first));
        break;
      default: {
        const fuse_rename2_in in{node(script), script.byte() >= 0xf0 ? 1U : 0U, 0};
        send(FUSE_RENAME2, directory, FuseBytes().add(in).add_name(first).add_name(name(script)));
        break;
      }
    }
  }

  // One of those that were given, or any.
  std::uint64_t handle(Script& script) {
    const std::uint8_t which = script.byte();
    if (which < 0xf0 && !handles_.empty()) {
      return handles_.at(which % handles_.size());
    }
    return script.number(8);
  }

  static std::string_view name(Script& script) { return kNames.at(script.byte() % kNames.size()); }

  void look_up(Script& script) {
    const std::uint64_t parent = node(script);
    const std::uint8_t which = script.byte();
    if (which < 0xf0) {
      send(FUSE_LOOKUP, parent, FuseBytes().add_name(kNames.at(which % kNames.size())));
    } else {
      send(FUSE_LOOKUP, parent, FuseBytes().add_bytes(script.take(script.byte())));
    }
  }

  void open(Script& script) {
    const std::uint8_t which = script.byte();
    fuse_open_in in{};
    in.flags = which < 0xf0 ? 0U : script.byte() * 3U;
    send(which % 4 == 0 ? FUSE_OPENDIR : FUSE_OPEN, node(script), FuseBytes().add(in));
  }

  void read(Script& script) {
    fuse_read_in in{};
    const std::uint8_t which = script.byte();
    in.fh = handle(script);
    in.offset = script.number(which >= 128 ? 8 : 300'000);
    in.size = static_cast<std::uint32_t>(script.number(200'000));
    send(which >= 128 ? FUSE_READDIR : FUSE_READ, node(script), FuseBytes().add(in));
  }

  void release(Script& script) {
    fuse_release_in in{};
    const std::uint8_t which = script.byte();
    in.fh = handle(script);
    send(which >= 128 ? FUSE_RELEASEDIR : FUSE_RELEASE, node(script), FuseBytes().add(in));
  }

  void forget(Script& script) {
    const std::uint8_t count = script.byte();
    if (count < 128) {
      fake_.kernel.forget(node(script), count);
      return;
    }
    std::vector<std::pair<std::uint64_t, std::uint64_t>> nodes;
    for (int i = 0; i < count % 8; ++i) {
      nodes.emplace_back(node(script), 1);
    }
    fake_.kernel.batch_forget(nodes);
  }

  void interrupt(Script& script) {
    const std::uint8_t which = script.byte();
    if (pending_.empty()) {
      fake_.kernel.interrupt(which);
      return;
    }
    const auto chosen = std::next(pending_.begin(), which % std::ssize(pending_));
    fake_.kernel.interrupt(chosen->first);
  }

  // A request whose length is a lie: nobody knows whom to answer.
  void send_broken(Script& script) {
    const Bytes taken = script.take(script.byte());
    std::vector<std::byte> bytes(taken.begin(), taken.end());
    if (bytes.size() >= sizeof(fuse_in_header)) {
      const bool too_long = bytes.front() == std::byte{1};
      const auto length = static_cast<std::uint32_t>(too_long ? bytes.size() + 1 : 39);
      std::memcpy(bytes.data(), &length, sizeof length);
    }
    fake_.kernel.send_raw(bytes);
  }

  // One of those that the kernel was told of, or any.
  std::uint64_t node(Script& script) {
    const std::uint8_t which = script.byte();
    if (which < 0xe0) {
      return nodes_.at(which % nodes_.size());
    }
    return script.number(1U << 16U);
  }

  std::uint64_t send(std::uint32_t opcode, std::uint64_t nodeid, const FuseBytes& body) {
    const std::uint64_t unique = fake_.kernel.send(opcode, nodeid, body);
    if (opcode != FUSE_INTERRUPT && opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET) {
      pending_.emplace(unique, Sent{opcode, body});
    }
    return unique;
  }

  void collect() {
    for (auto it = pending_.begin(); it != pending_.end();) {
      if (const auto reply = fake_.kernel.take_reply(it->first)) {
        check(it->second.opcode, it->second.body, *reply);
        it = pending_.erase(it);
      } else {
        ++it;
      }
    }
  }

  void check(std::uint32_t opcode, const FuseBytes& body, const FuseReply& reply) {
    if (reply.error != 0) {
      return;
    }
    const Bytes answer = reply.body.bytes();
    const Lengths lengths = lengths_of(opcode, body);
    CHECK(answer.size() >= lengths.least && answer.size() <= lengths.most,
          "opcode {} was answered with {} bytes", opcode, answer.size());
    if (opcode == FUSE_LOOKUP || opcode == FUSE_MKDIR || opcode == FUSE_MKNOD ||
        opcode == FUSE_SYMLINK || opcode == FUSE_LINK) {
      const std::uint64_t nodeid = reply.body.as<fuse_entry_out>().nodeid;
      CHECK(nodeid != FUSE_ROOT_ID);
      if (nodeid != 0) {
        nodes_.push_back(nodeid);
      }
    } else if (opcode == FUSE_OPEN || opcode == FUSE_OPENDIR) {
      handles_.push_back(reply.body.as<fuse_open_out>().fh);
    } else if (opcode == FUSE_CREATE) {
      take_created(reply);
    } else if (opcode == FUSE_READ) {
      // All contents are letters: a zero would be a hole that nobody filled, unless we made it.
      const std::string_view text = text_of(answer);
      CHECK(std::ranges::all_of(
          text, [this](char c) { return (c >= 'a' && c <= 'z') || (c == 0 && changed_); }));
    } else if (opcode == FUSE_WRITE) {
      CHECK(reply.body.as<fuse_write_out>().size <= body.as<fuse_write_in>().size);
    } else if (opcode == FUSE_READDIR) {
      check_listing(answer);
    }
  }

  void take_created(const FuseReply& reply) {
    fuse_open_out open{};
    std::memcpy(&open, reply.body.bytes().data() + sizeof(fuse_entry_out), sizeof open);
    nodes_.push_back(reply.body.as<fuse_entry_out>().nodeid);
    handles_.push_back(open.fh);
  }

  void check_that_it_serves() {
    CHECK(fake_.wait(fake_.kernel.getattr(FUSE_ROOT_ID)).error == 0);
    const FuseReply found = fake_.wait(fake_.kernel.lookup(FUSE_ROOT_ID, "large"));
    CHECK(found.error == 0, "lookup: {}", found.error);
    const std::uint64_t nodeid = found.body.as<fuse_entry_out>().nodeid;
    const std::optional<std::uint64_t> file = fake_.server.find_name("large");
    CHECK((nodeid != 0) == file.has_value(), "a name is what it is at the server");
    if (!file || fake_.server.attributes(*file).type != netfs::FileType::kRegular) {
      return;
    }
    const std::string& wanted = fake_.server.content(*file);
    const FuseReply opened = fake_.wait(fake_.kernel.open(nodeid));
    CHECK(opened.error == 0 || opened.error == ESTALE, "open: {}", opened.error);
    if (opened.error == ESTALE) {
      return;  // others hold an older version: the kernel would look it up again
    }
    const auto open = opened.body.as<fuse::OpenOut>();
    if ((open.open_flags & fuse::kOpenPassthrough) != 0) {
      return;  // the kernel would read from the backing file, which nothing here does
    }
    const FuseReply read = fake_.wait(fake_.kernel.read(nodeid, open.fh, 0, fuse::kMostIoBytes));
    CHECK(read.error == 0 && read.body.text() == wanted.substr(0, fuse::kMostIoBytes), "read: {}",
          read.error);
  }

  struct Sent {
    std::uint32_t opcode = 0;
    FuseBytes body;
  };

  MountedFake fake_;
  bool changed_ = false;  // by requests
  const std::uint64_t file_ = fake_.server.add_file("large", std::string(200'000, 'a'));
  std::vector<std::uint64_t> nodes_{FUSE_ROOT_ID};
  std::vector<std::uint64_t> handles_;
  std::map<std::uint64_t, Sent> pending_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_log_level(LogLevel::kError);
  Run run;
  Script script(std::as_bytes(std::span(data, size)));
  for (int steps = 0; !script.empty() && steps < kMostSteps; ++steps) {
    run.step(script);
  }
  run.finish();
  return 0;
}
