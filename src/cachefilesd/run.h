// main() of cachefilesd.
#pragma once

namespace larder::cachefilesd {

// The exit code: 0 done, 1 failed, 2 not understood. In the background it is told once the cache is
// online.
[[nodiscard]] int run(int argc, char** argv);

}  // namespace larder::cachefilesd
