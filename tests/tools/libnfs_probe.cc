// libnfs_probe: the same read as `nfs_probe read`, by libnfs's raw NFSv3 calls.
//
//   libnfs_probe URL NAME [IN_FLIGHT [READ_SIZE [discard]]]
//
// libnfs hands out its own receive buffer: a program that keeps the data copies it, as this one
// does unless it is told to discard it.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

// libnfs's headers need this order.
// clang-format off
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-nfs.h>
// clang-format on

// What nfs_get_fh() points to in libnfs 4; its headers only declare it.
struct nfs_fh {
  int len;
  char* val;
};

namespace {

[[noreturn]] void die(const std::string& why) {
  fmt::print(stderr, "libnfs_probe: {}\n", why);
  std::exit(1);
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Reader {
  rpc_context* rpc;
  const nfs_fh* handle;
  std::uint64_t size;
  std::uint64_t read_size;
  bool discard;
  std::uint64_t next = 0;
  std::uint64_t total = 0;
  std::size_t in_flight = 0;
};

struct Slot {
  Reader* reader;
  std::vector<char> buffer;
};

void read_on(Slot& slot);

void on_read(rpc_context* /*rpc*/, int status, void* data, void* private_data) {
  Slot& slot = *static_cast<Slot*>(private_data);
  const auto* result = static_cast<READ3res*>(data);
  if (status != RPC_STATUS_SUCCESS || result->status != NFS3_OK) {
    die("READ failed");
  }
  const auto& ok = result->READ3res_u.resok;
  if (!slot.reader->discard) {
    std::memcpy(slot.buffer.data(), ok.data.data_val, ok.data.data_len);
  }
  slot.reader->total += ok.data.data_len;
  --slot.reader->in_flight;
  read_on(slot);
}

void read_on(Slot& slot) {
  Reader& reader = *slot.reader;
  if (reader.next >= reader.size) {
    return;
  }
  READ3args arguments{};
  arguments.file.data.data_len = static_cast<u_int>(reader.handle->len);
  arguments.file.data.data_val = reader.handle->val;
  arguments.offset = reader.next;
  arguments.count = static_cast<count3>(reader.read_size);
  reader.next += reader.read_size;
  ++reader.in_flight;
  if (rpc_nfs3_read_async(reader.rpc, on_read, &arguments, &slot) != 0) {
    die("cannot queue a READ");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 6) {
    fmt::print(stderr, "usage: libnfs_probe URL NAME [IN_FLIGHT [READ_SIZE [discard]]]\n");
    return 2;
  }
  const std::size_t in_flight = argc > 3 ? std::stoul(argv[3]) : 16;
  const std::uint64_t read_size = argc > 4 ? std::stoul(argv[4]) : 1U << 20;
  nfs_context* nfs = nfs_init_context();
  nfs_url* url = nfs_parse_url_dir(nfs, argv[1]);
  if (url == nullptr || nfs_mount(nfs, url->server, url->path) != 0) {
    die(nfs_get_error(nfs));
  }
  nfsfh* file = nullptr;
  nfs_stat_64 stat{};
  if (nfs_open(nfs, argv[2], O_RDONLY, &file) != 0 || nfs_fstat64(nfs, file, &stat) != 0) {
    die(nfs_get_error(nfs));
  }
  const int one = 1;
  ::setsockopt(nfs_get_fd(nfs), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  Reader reader{nfs_get_rpc_context(nfs), nfs_get_fh(file), stat.nfs_size, read_size,
                argc > 5 && std::string(argv[5]) == "discard"};
  std::vector<Slot> slots(in_flight);
  const double cpu_before = cpu_seconds();
  const auto begin = std::chrono::steady_clock::now();
  for (Slot& slot : slots) {
    slot = {&reader, std::vector<char>(read_size)};
    read_on(slot);
  }
  while (reader.in_flight > 0) {
    pollfd poll_fd{nfs_get_fd(nfs), static_cast<short>(nfs_which_events(nfs)), 0};
    if (::poll(&poll_fd, 1, -1) < 0 || nfs_service(nfs, poll_fd.revents) < 0) {
      die("the connection broke");
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("libnfs: {:.0f} MiB/s, {:.3f} CPU s, {} bytes, {} in flight of {}\n",
             static_cast<double>(stat.nfs_size) / seconds / (1 << 20), cpu_seconds() - cpu_before,
             reader.total, in_flight, read_size);
  return 0;
}
