// ReadSlice: a part of what a read answers, in the buffer in which it arrived.
#pragma once

#include "base/buffer.h"
#include "base/bytes.h"

namespace larder::netfs {

struct ReadSlice {
  Buffer owner;
  Bytes bytes;  // of the owner
};

}  // namespace larder::netfs
