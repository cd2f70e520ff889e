// Vandal: somebody who changes files in the cache's directory.
#pragma once

#include "os/filesystem.h"
#include "simulated_disk.h"

namespace larder {

// Damages a file of data or a map log, if there is one: its name, length, label, or a byte of it.
void vandalise(os::Directory& root, Random& random);

}  // namespace larder
