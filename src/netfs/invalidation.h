// How netfs tells a front end that what it may have cached of a file is out of date, or that what
// it keeps of closed files takes the room of others.
#pragma once

#include <cstdint>

namespace larder::netfs {

class Inode;

// Threads: any may call. The front end must not wait inside: it queues.
class InvalidationSink {
 public:
  InvalidationSink() = default;
  InvalidationSink(const InvalidationSink&) = delete;
  InvalidationSink& operator=(const InvalidationSink&) = delete;
  virtual ~InvalidationSink() = default;

  // The file has a new version, and every reply with bytes of an older one has been sent; or what
  // is cached of it shall be asked for anew.
  virtual void data_changed(const Inode& inode) = 0;
  // What is read by a hold for passthrough is another content now: size and stamps are to be asked
  // for anew. `holder`: as HeldVersions::hold() was given it. Has been done when it returns.
  virtual void attributes_changed(std::uint64_t holder) = 0;
  // The cache is pressed for room: lets go of some files that nobody has open, those closed longest
  // ago. False: there are none.
  virtual bool give_room() = 0;
};

}  // namespace larder::netfs
