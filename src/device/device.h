// Device: the file itself: who may open it and when, what poll says, and which requests still wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "device/holder.h"

namespace larder::device {

struct Caller {
  std::uint32_t pid = 0;
  std::uint32_t uid = 0;
};

// As the kernel's device: one open at a time, for root only. What the kernel does within close(2)
// a FUSE file hears of a moment later: an open that meets a holder of whose descriptors one was
// just closed waits for the release.
// Threads: one; it waits nowhere. Done is called as by Holder. Life: `clock` and `surroundings`
// outlive it; its end releases what is held.
class Device {
 public:
  Device(const Clock& clock, const Surroundings& surroundings)
      : clock_(clock), surroundings_(surroundings) {}

  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  ~Device() { end(); }

  // EPERM: not root; EBUSY: somebody else has it; ENXIO: there is no engine.
  void open(Ticket ticket, const Caller& caller, Done done);
  // Of whoever has it open.
  void write(Ticket ticket, const Caller& caller, std::string text, Done done);
  void read(Ticket ticket, std::size_t most_bytes, Done done);
  // One of the holder's descriptors was closed, perhaps not the last.
  void note_closed();
  void release();
  // The release, and EINTR for all who wait.
  void end();
  // A signal was sent to who waits. He is answered EINTR only if it is going to end him.
  void interrupt(Ticket ticket, std::uint32_t pid);

  [[nodiscard]] unsigned events() const;

  // Readable: call on_readable(). -1: none.
  [[nodiscard]] int descriptor() const;
  void on_readable();
  // When on_time() is to be called.
  [[nodiscard]] std::optional<MonotonicTime> deadline() const;
  void on_time();

 private:
  struct WaitingOpen {
    Ticket ticket = 0;
    Done done;
    MonotonicTime until;
  };

  struct Signalled {
    Ticket ticket = 0;
    std::uint32_t pid = 0;
  };

  void begin(Ticket ticket, Done done);
  // A holder whose open failed is none; who waits for its place has his turn.
  void settle();
  void cancel(Ticket ticket);
  [[nodiscard]] bool waits(Ticket ticket) const;

  const Clock& clock_;
  const Surroundings& surroundings_;
  std::unique_ptr<Holder> holder_;
  std::optional<Ticket> opening_;           // the holder's open is not answered yet
  bool open_failed_ = false;                // it is, with an error
  std::optional<MonotonicTime> closed_at_;  // of the holder's descriptors, the last
  std::deque<WaitingOpen> waiting_;
  std::vector<Signalled> signalled_;
  MonotonicTime look_again_;  // at those
};

}  // namespace larder::device
