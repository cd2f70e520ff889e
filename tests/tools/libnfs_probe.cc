// libnfs_probe: what a program does that speaks NFSv3 by libnfs's raw calls and nothing else.
//
//   libnfs_probe URL NAME [IN_FLIGHT [READ_SIZE [discard]]]      the same read as `nfs_probe read`
//   libnfs_probe write URL NAME BYTES [IN_FLIGHT [WRITE_SIZE]]   a new file: WRITEs, one COMMIT
//   libnfs_probe create URL DIRECTORY COUNT BYTES [commit]       new files, one after the other
//
// libnfs hands out its own receive buffer: a program that keeps the data copies it, as this one
// does unless it is told to discard it. A file of `create` is a CREATE and a WRITE with FILE_SYNC,
// or with `commit` an UNSTABLE one and a COMMIT; its WRITE cannot be sent before the CREATE has
// brought its handle.
#include <algorithm>
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

// The connection to one export.
class Server {
 public:
  explicit Server(const char* text) : nfs_(nfs_init_context()) {
    nfs_url* const url = nfs_parse_url_dir(nfs_, text);
    if (url == nullptr || nfs_mount(nfs_, url->server, url->path) != 0) {
      die(nfs_get_error(nfs_));
    }
    const int one = 1;
    ::setsockopt(nfs_get_fd(nfs_), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }

  [[nodiscard]] nfs_context* nfs() const { return nfs_; }

  [[nodiscard]] rpc_context* rpc() const { return nfs_get_rpc_context(nfs_); }

  [[nodiscard]] const nfs_fh* open(const char* name) const {
    nfsfh* file = nullptr;
    if (nfs_open(nfs_, name, O_RDONLY, &file) != 0) {
      die(nfs_get_error(nfs_));
    }
    return nfs_get_fh(file);
  }

  // Until nothing is in flight.
  void serve(const std::size_t& in_flight) const {
    while (in_flight > 0) {
      pollfd poll_fd{nfs_get_fd(nfs_), static_cast<short>(nfs_which_events(nfs_)), 0};
      if (::poll(&poll_fd, 1, -1) < 0 || nfs_service(nfs_, poll_fd.revents) < 0) {
        die("the connection broke");
      }
    }
  }

 private:
  nfs_context* nfs_;
};

// Wall clock and processor time since it was made.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

  [[nodiscard]] double cpu() const { return cpu_seconds() - cpu_begin_; }

 private:
  double cpu_begin_ = cpu_seconds();
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

nfs_fh3 handle_of(const nfs_fh& handle) {
  nfs_fh3 made{};
  made.data.data_len = static_cast<u_int>(handle.len);
  made.data.data_val = handle.val;
  return made;
}

struct Writer {
  rpc_context* rpc;
  const nfs_fh* handle;
  std::uint64_t size;
  std::vector<char> piece;
  std::uint64_t next = 0;
  std::size_t in_flight = 0;
};

void write_on(Writer& writer);

void on_written(rpc_context* /*rpc*/, int status, void* data, void* private_data) {
  Writer& writer = *static_cast<Writer*>(private_data);
  const auto* result = static_cast<WRITE3res*>(data);
  if (status != RPC_STATUS_SUCCESS || result->status != NFS3_OK) {
    die("WRITE failed");
  }
  --writer.in_flight;
  write_on(writer);
}

void write_on(Writer& writer) {
  if (writer.next >= writer.size) {
    return;
  }
  const std::uint64_t length =
      std::min<std::uint64_t>(writer.piece.size(), writer.size - writer.next);
  WRITE3args arguments{};
  arguments.file = handle_of(*writer.handle);
  arguments.offset = writer.next;
  arguments.count = static_cast<count3>(length);
  arguments.stable = UNSTABLE;
  arguments.data.data_len = static_cast<u_int>(length);
  arguments.data.data_val = writer.piece.data();
  writer.next += length;
  ++writer.in_flight;
  if (rpc_nfs3_write_async(writer.rpc, on_written, &arguments, &writer) != 0) {
    die("cannot queue a WRITE");
  }
}

void on_committed(rpc_context* /*rpc*/, int status, void* data, void* private_data) {
  const auto* result = static_cast<COMMIT3res*>(data);
  if (status != RPC_STATUS_SUCCESS || result->status != NFS3_OK) {
    die("COMMIT failed");
  }
  --*static_cast<std::size_t*>(private_data);
}

void start_commit(rpc_context* rpc, const nfs_fh3& file, std::size_t& in_flight) {
  COMMIT3args arguments{};
  arguments.file = file;
  ++in_flight;
  if (rpc_nfs3_commit_async(rpc, on_committed, &arguments, &in_flight) != 0) {
    die("cannot queue a COMMIT");
  }
}

int run_write(int argc, char** argv) {
  const Server server(argv[2]);
  const std::uint64_t size = std::stoull(argv[4]);
  const std::size_t in_flight = argc > 5 ? std::stoul(argv[5]) : 16;
  nfsfh* file = nullptr;
  if (nfs_creat(server.nfs(), argv[3], 0644, &file) != 0) {
    die(nfs_get_error(server.nfs()));
  }
  Writer writer{server.rpc(), nfs_get_fh(file), size,
                std::vector<char>(argc > 6 ? std::stoul(argv[6]) : 1U << 20, 'x')};
  const Stopwatch watch;
  for (std::size_t number = 0; number < in_flight; ++number) {
    write_on(writer);
  }
  server.serve(writer.in_flight);
  start_commit(writer.rpc, handle_of(*writer.handle), writer.in_flight);
  server.serve(writer.in_flight);
  fmt::print("libnfs: {:.0f} MiB/s, {:.3f} CPU s, {} bytes, {} in flight of {}\n",
             static_cast<double>(size) / watch.seconds() / (1 << 20), watch.cpu(), size, in_flight,
             writer.piece.size());
  return 0;
}

// Files are made one after the other: one call is in flight.
struct Creator {
  rpc_context* rpc;
  const nfs_fh* directory;
  std::vector<char> content;
  bool commits;
  std::size_t in_flight = 0;
  std::vector<char> handle = {};  // of the newest file
};

nfs_fh3 newest_of(Creator& creator) {
  nfs_fh3 made{};
  made.data.data_len = static_cast<u_int>(creator.handle.size());
  made.data.data_val = creator.handle.data();
  return made;
}

void on_filled(rpc_context* /*rpc*/, int status, void* data, void* private_data) {
  Creator& creator = *static_cast<Creator*>(private_data);
  const auto* result = static_cast<WRITE3res*>(data);
  if (status != RPC_STATUS_SUCCESS || result->status != NFS3_OK) {
    die("WRITE failed");
  }
  --creator.in_flight;
  if (creator.commits) {
    start_commit(creator.rpc, newest_of(creator), creator.in_flight);
  }
}

void on_created(rpc_context* /*rpc*/, int status, void* data, void* private_data) {
  Creator& creator = *static_cast<Creator*>(private_data);
  const auto* result = static_cast<CREATE3res*>(data);
  if (status != RPC_STATUS_SUCCESS || result->status != NFS3_OK ||
      result->CREATE3res_u.resok.obj.handle_follows == 0) {
    die("CREATE failed");
  }
  const nfs_fh3& handle = result->CREATE3res_u.resok.obj.post_op_fh3_u.handle;
  creator.handle.assign(handle.data.data_val, handle.data.data_val + handle.data.data_len);
  WRITE3args arguments{};
  arguments.file = newest_of(creator);
  arguments.count = static_cast<count3>(creator.content.size());
  arguments.stable = creator.commits ? UNSTABLE : FILE_SYNC;
  arguments.data.data_len = static_cast<u_int>(creator.content.size());
  arguments.data.data_val = creator.content.data();
  if (rpc_nfs3_write_async(creator.rpc, on_filled, &arguments, &creator) != 0) {
    die("cannot queue a WRITE");
  }
}

void start_create(Creator& creator, std::string name) {
  CREATE3args arguments{};
  arguments.where.dir = handle_of(*creator.directory);
  arguments.where.name = name.data();
  arguments.how.mode = UNCHECKED;
  arguments.how.createhow3_u.obj_attributes.mode.set_it = 1;
  arguments.how.createhow3_u.obj_attributes.mode.set_mode3_u.mode = 0644;
  ++creator.in_flight;
  if (rpc_nfs3_create_async(creator.rpc, on_created, &arguments, &creator) != 0) {
    die("cannot queue a CREATE");
  }
}

int run_create(int argc, char** argv) {
  const Server server(argv[2]);
  const std::size_t count = std::stoul(argv[4]);
  Creator creator{server.rpc(), server.open(argv[3]), std::vector<char>(std::stoul(argv[5]), 'x'),
                  argc > 6 && std::string(argv[6]) == "commit"};
  const Stopwatch watch;
  for (std::size_t number = 0; number < count; ++number) {
    start_create(creator, fmt::format("f{:07}", number));
    server.serve(creator.in_flight);
  }
  fmt::print("libnfs: {:.1f} files/s, {:.3f} CPU s, {} files of {} bytes\n",
             static_cast<double>(count) / watch.seconds(), watch.cpu(), count,
             creator.content.size());
  return 0;
}

int run_read(int argc, char** argv) {
  const std::size_t in_flight = argc > 3 ? std::stoul(argv[3]) : 16;
  const std::uint64_t read_size = argc > 4 ? std::stoul(argv[4]) : 1U << 20;
  const Server server(argv[1]);
  nfs_stat_64 stat{};
  if (nfs_stat64(server.nfs(), argv[2], &stat) != 0) {
    die(nfs_get_error(server.nfs()));
  }
  Reader reader{server.rpc(), server.open(argv[2]), stat.nfs_size, read_size,
                argc > 5 && std::string(argv[5]) == "discard"};
  std::vector<Slot> slots(in_flight);
  const Stopwatch watch;
  for (Slot& slot : slots) {
    slot = {&reader, std::vector<char>(read_size)};
    read_on(slot);
  }
  server.serve(reader.in_flight);
  fmt::print("libnfs: {:.0f} MiB/s, {:.3f} CPU s, {} bytes, {} in flight of {}\n",
             static_cast<double>(stat.nfs_size) / watch.seconds() / (1 << 20), watch.cpu(),
             reader.total, in_flight, read_size);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "write" && argc >= 5 && argc <= 7) {
    return run_write(argc, argv);
  }
  if (what == "create" && argc >= 6 && argc <= 7) {
    return run_create(argc, argv);
  }
  if (what != "write" && what != "create" && argc >= 3 && argc <= 6) {
    return run_read(argc, argv);
  }
  fmt::print(stderr,
             "usage: libnfs_probe URL NAME [IN_FLIGHT [READ_SIZE [discard]]]\n"
             "       libnfs_probe write URL NAME BYTES [IN_FLIGHT [WRITE_SIZE]]\n"
             "       libnfs_probe create URL DIRECTORY COUNT BYTES [commit]\n");
  return 2;
}
