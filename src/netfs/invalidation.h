// How netfs tells a front end that what it may have cached of a file is out of date.
#pragma once

#include "base/byte_range.h"

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
};

}  // namespace larder::netfs
