// LocalWriters: programs of this machine that write through the simulated mount, and what they may
// rely on.
//
// What a successful sync confirmed is on the server's disk; what was written is what this machine
// reads from then on; a write that did not come through is told to whoever made it. Each holds as
// long as nobody else changed the file, which is noted here as a barrier.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/result.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "simulated_disk.h"
#include "testing/fake_server.h"

namespace larder {

// Threads: one (the Stepper's). Life: outlives shares; end_life() before one goes.
class LocalWriters {
 public:
  LocalWriters(Random& random, testing::FakeServer& server) : random_(random), server_(server) {}

  // Somebody opens, writes, cuts, syncs or closes. `name`: of the file that he opens if he does.
  void step(netfs::Share& share, const std::string& name);
  // Everybody asks for what he wrote to be safe.
  void sync_all(netfs::Share& share);

  // Nothing of theirs waits for an answer.
  [[nodiscard]] bool idle() const { return calls_ == 0; }

  // Nobody has anything open any more; what was not confirmed is nobody's loss.
  void end_life();

  // Somebody else changed the file.
  void note_change(std::uint64_t fileid) { raise_barrier(fileid); }

  // A call to the server may have failed since this was said last, or the server lost what it had
  // in memory: what was written may come later than it is looked for, or not at all.
  void note_trouble() { trouble_ = ++clock_; }

  // A moment in the order of what happens here.
  [[nodiscard]] std::uint64_t now() const { return clock_; }

  // Whether `got`, read from `range` of the file by a read that began at `since` (as now() said),
  // has all that was written before.
  void check_read(std::uint64_t fileid, std::uint64_t since, ByteRange range,
                  std::string_view got) const;

  // Whether anything was written, cut or otherwise changed here since.
  [[nodiscard]] bool wrote_since(std::uint64_t fileid, std::uint64_t since) const;

  [[nodiscard]] std::uint64_t bytes_confirmed() const { return bytes_confirmed_; }

  [[nodiscard]] std::uint64_t bytes_read_back() const { return bytes_read_back_; }

 private:
  struct Write {
    std::uint64_t begun = 0;
    std::uint64_t accepted = 0;  // 0: not answered yet
    ByteRange range;             // of an append: when it was accepted
    std::string bytes;
  };

  using WriteRef = std::shared_ptr<Write>;

  struct Log {
    std::vector<WriteRef> writes;
    std::uint64_t barrier = 0;  // of what was written before it nothing is certain
    std::uint64_t last = 0;     // change of ours
  };

  struct Writer {
    std::uint64_t fileid = 0;
    netfs::OpenFile open;
    std::vector<WriteRef> unconfirmed;
  };

  using WriterRef = std::shared_ptr<Writer>;

  void open(netfs::Share& share, const std::string& name);
  void write(netfs::Share& share, const WriterRef& writer);
  void cut(netfs::Share& share, const WriterRef& writer);
  void sync(netfs::Share& share, const WriterRef& writer);
  void close(netfs::Share& share, const WriterRef& writer);
  void on_error(Writer& writer);
  void raise_barrier(std::uint64_t fileid);
  void check_confirmed(const Writer& writer, std::uint64_t before);
  // Nothing that came later can have changed its bytes.
  [[nodiscard]] bool is_certain(const Log& log, const Write& write) const;

  Random& random_;
  testing::FakeServer& server_;
  const netfs::Caller caller_{std::make_shared<const netfs::Credential>(), nullptr};
  std::vector<WriterRef> writers_;
  std::map<std::uint64_t, Log> logs_;  // by fileid
  std::uint64_t clock_ = 0;
  std::uint64_t trouble_ = 0;
  std::uint64_t life_ = 0;
  unsigned calls_ = 0;
  std::uint64_t bytes_confirmed_ = 0;
  mutable std::uint64_t bytes_read_back_ = 0;
};

}  // namespace larder
