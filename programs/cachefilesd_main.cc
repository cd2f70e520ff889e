// cachefilesd: the daemon that brings one cache online and culls it.
#include "cachefilesd/run.h"

int main(int argc, char** argv) {
  return larder::cachefilesd::run(argc, argv);
}
