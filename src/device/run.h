// larder-device, from its arguments to its end.
#pragma once

namespace larder::device {

// The exit status: 0 done, 1 failed, 2 not understood.
[[nodiscard]] int run(int argc, char** argv);

}  // namespace larder::device
