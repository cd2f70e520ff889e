// For LD_PRELOAD: lets nfs-ganesha serve NFSv3 where no portmapper runs. It registers itself with
// one and gives up if that fails; here that always succeeds, and clients are told the ports.
#include <stdbool.h>

bool rpcb_set(unsigned program, unsigned version, const void* network, const void* address);
bool rpcb_unset(unsigned program, unsigned version, const void* network);

bool rpcb_set(unsigned program, unsigned version, const void* network, const void* address) {
  (void)program;
  (void)version;
  (void)network;
  (void)address;
  return true;
}

bool rpcb_unset(unsigned program, unsigned version, const void* network) {
  (void)program;
  (void)version;
  (void)network;
  return true;
}
