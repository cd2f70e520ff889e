// larder-device: a file that behaves as the kernel's /dev/cachefiles.
#include "device/run.h"

int main(int argc, char** argv) {
  return larder::device::run(argc, argv);
}
