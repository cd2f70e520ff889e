// nfs_probe: our NFS client without anything around it.
//
//   nfs_probe hash URL           a line "HASH SIZE PATH" for each regular file below the export
//   nfs_probe hash-local DIR     the same of a local directory, to compare with
//   nfs_probe read URL NAME [IN_FLIGHT [READ_SIZE]]
//                                reads one file of the export's root; prints MiB/s and CPU seconds
//   nfs_probe change URL ACTION ARGUMENT...
//                                one change below the export's root; "done", or the errno's name:
//                                mkdir|fifo|guarded|exclusive|unchecked|remove|rmdir NAME,
//                                symlink NAME TARGET, rename NAME NEW, link FILE NAME,
//                                truncate NAME SIZE, chmod NAME MODE (octal)
//   nfs_probe put URL NAME FILE [IN_FLIGHT [PIECE]]
//                                copies a local file to the export's root: unstable writes, COMMIT,
//                                and all over again while the write verifier changes
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>

#include "adapters/nfs/nfs_adapter.h"
#include "adapters/nfs/url.h"
#include "base/bytes.h"
#include "base/executor.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "os/stream.h"

namespace larder {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const Error& error) {
  fmt::print(stderr, "nfs_probe: {}\n", error.message());
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

// Counts up to a number of calls in flight, and waits.
class Flights {
 public:
  explicit Flights(std::size_t most) : most_(most) {}

  void begin() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return in_flight_ < most_; });
    ++in_flight_;
  }

  void end() {
    const std::lock_guard lock(mutex_);
    --in_flight_;
    changed_.notify_all();
  }

  void wait_for_all() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return in_flight_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::size_t most_;
  std::size_t in_flight_ = 0;
};

// Runs one asynchronous call and waits for it.
template <class T>
Result<T> try_for(const std::function<void(netfs::Done<T>)>& start) {
  Flights flights(1);
  std::optional<Result<T>> result;
  flights.begin();
  start([&](Result<T> answer) {
    result = std::move(answer);
    flights.end();
  });
  flights.wait_for_all();
  return std::move(*result);
}

// Likewise; an error is the end.
template <class T>
T wait_for(const std::function<void(netfs::Done<T>)>& start) {
  Result<T> result = try_for<T>(start);
  if (!result) {
    die(result.error());
  }
  return std::move(*result);
}

class Hash {  // FNV-1a
 public:
  void add(Bytes bytes) {
    for (const std::byte each : bytes) {
      value_ = (value_ ^ std::to_integer<std::uint64_t>(each)) * 0x100000001b3;
    }
  }

  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

class Probe {
 public:
  explicit Probe(const std::string& url_text)
      : executor_(make_threaded_executor()), connector_(os::make_socket_connector()) {
    const Result<nfs::NfsUrl> url = nfs::parse_nfs_url(url_text);
    if (!url) {
      die(url.error());
    }
    adapter_ = nfs::make_nfs_adapter(*url, url->options, *executor_, *connector_);
    share_ =
        wait_for<netfs::ShareInfo>([&](auto done) { adapter_->start_connect(std::move(done)); });
  }

  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  ~Probe() { adapter_->shut_down(); }

  void hash_tree() {
    hash_directory(share_.root, "");
    std::ranges::sort(lines_);
    for (const auto& [path, line] : lines_) {
      fmt::print("{} {}\n", line, path);
    }
  }

  void read_file(const std::string& name, std::size_t in_flight, std::size_t read_size) {
    const auto found = wait_for<netfs::LookupReply>([&](auto done) {
      adapter_->start_lookup(share_.root, name, credential_, std::move(done));
    });
    const auto attributes = wait_for<netfs::Attributes>(
        [&](auto done) { adapter_->start_getattr(found.handle, credential_, std::move(done)); });
    read_size = std::min<std::size_t>(read_size, share_.read_size);
    std::vector<std::vector<std::byte>> buffers(in_flight, std::vector<std::byte>(read_size));
    const double cpu_before = cpu_seconds();
    const Clock::time_point begin = Clock::now();
    Stream stream{found.handle, attributes.size, read_size, Flights(in_flight)};
    for (auto& buffer : buffers) {
      stream.flights.begin();
      read_on(stream, buffer);
    }
    stream.flights.wait_for_all();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const double cpu = cpu_seconds() - cpu_before;
    fmt::print("larder: {:.0f} MiB/s, {:.3f} CPU s, {} bytes, {} in flight of {}\n",
               static_cast<double>(attributes.size) / seconds / (1 << 20), cpu, stream.total,
               in_flight, read_size);
    if (stream.total != attributes.size) {
      die(Error(Errc::kCorrupt, "bytes are missing"));
    }
  }

  void put_file(const std::string& name, const std::string& path, std::size_t in_flight,
                std::size_t piece) {
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    netfs::CreateOrder order;
    order.attributes.mode = 0644;
    order.attributes.size = 0;
    wait_for<netfs::CreateReply>([&](auto done) {
      adapter_->start_create(share_.root, name, order, {credential_}, std::move(done));
    });
    const netfs::FileHandle handle = look_up(name);
    const double cpu_before = cpu_seconds();
    const Clock::time_point begin = Clock::now();
    unsigned rounds = 0;
    std::optional<netfs::WriteVerifier> committed;
    do {
      write_all(handle, bytes_of(text), in_flight, std::min<std::size_t>(piece, share_.write_size));
      committed = wait_for<netfs::CommitReply>([&](auto done) {
                    adapter_->start_commit(handle, credential_, std::move(done));
                  }).verifier;
      ++rounds;
    } while (verifiers_differ_ || (verifier_ && verifier_ != committed));
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    fmt::print("larder: {:.0f} MiB/s, {:.3f} CPU s, {} bytes, {} rounds\n",
               static_cast<double>(text.size()) / seconds / (1 << 20), cpu_seconds() - cpu_before,
               text.size(), rounds);
  }

  // False: there is no such action.
  bool change(const std::vector<std::string>& words) {
    const std::string& action = words.at(0);
    const std::string& name = words.at(1);
    if (action == "remove" || action == "rmdir") {
      print<netfs::Change>([&](auto done) {
        action == "rmdir"
            ? adapter_->start_rmdir(share_.root, name, {credential_}, std::move(done))
            : adapter_->start_remove(share_.root, name, {credential_}, std::move(done));
      });
    } else if (action == "mkdir" || action == "fifo") {
      netfs::MakeOrder order;
      order.type = action == "fifo" ? netfs::FileType::kFifo : netfs::FileType::kDirectory;
      order.attributes.mode = 0750;
      print<netfs::CreateReply>([&](auto done) {
        adapter_->start_make(share_.root, name, order, {credential_}, std::move(done));
      });
    } else if (words.size() == 2) {
      return create(action, name);
    } else {
      return change_with_argument(action, name, words.at(2));
    }
    return true;
  }

 private:
  bool create(const std::string& mode, const std::string& name) {
    netfs::CreateOrder order;
    if (mode == "exclusive") {
      order.mode = netfs::CreateMode::kExclusive;
      std::memcpy(order.verifier.data(), "a token", order.verifier.size());
    } else if (mode == "guarded") {
      order.mode = netfs::CreateMode::kGuarded;
    } else if (mode != "unchecked") {
      return false;
    }
    print<netfs::CreateReply>([&](auto done) {
      adapter_->start_create(share_.root, name, order, {credential_}, std::move(done));
    });
    return true;
  }

  bool change_with_argument(const std::string& action, const std::string& name,
                            const std::string& argument) {
    netfs::AttributeChanges changes;
    if (action == "symlink") {
      print<netfs::CreateReply>([&](auto done) {
        adapter_->start_symlink(share_.root, name, argument, {}, {credential_}, std::move(done));
      });
    } else if (action == "rename") {
      print<netfs::RenameReply>([&](auto done) {
        adapter_->start_rename(share_.root, name, share_.root, argument, {credential_},
                               std::move(done));
      });
    } else if (action == "link") {
      const netfs::FileHandle file = look_up(name);
      print<netfs::LinkReply>([&](auto done) {
        adapter_->start_link(file, share_.root, argument, {credential_}, std::move(done));
      });
    } else if (action == "truncate" || action == "chmod") {
      const netfs::FileHandle file = look_up(name);
      if (action == "truncate") {
        changes.size = std::stoull(argument);
      } else {
        changes.mode = static_cast<std::uint32_t>(std::stoul(argument, nullptr, 8));
      }
      print<netfs::Change>(
          [&](auto done) { adapter_->start_setattr(file, changes, credential_, std::move(done)); });
    } else {
      return false;
    }
    return true;
  }

  template <class T>
  void print(const std::function<void(netfs::Done<T>)>& start) {
    const Result<T> result = try_for<T>(start);
    fmt::print("{}\n", result ? "done" : ::strerrorname_np(result.error().error_number()));
  }

  netfs::FileHandle look_up(const std::string& name) {
    return wait_for<netfs::LookupReply>([&](auto done) {
             adapter_->start_lookup(share_.root, name, credential_, std::move(done));
           })
        .handle;
  }

  void write_all(const netfs::FileHandle& handle, Bytes text, std::size_t in_flight,
                 std::size_t piece) {
    Flights flights(in_flight);
    verifier_.reset();
    verifiers_differ_ = false;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      flights.begin();
      write_on(handle, at, text.subspan(at, std::min(piece, text.size() - at)), flights);
    }
    flights.wait_for_all();
  }

  void write_on(const netfs::FileHandle& handle, std::uint64_t offset, Bytes rest,
                Flights& flights) {
    adapter_->start_write(
        handle, {offset, rest, netfs::Stability::kUnstable}, credential_,
        [this, handle, offset, rest, &flights](const Result<netfs::WriteReply>& reply) {
          if (!reply) {
            die(reply.error());
          }
          {
            const std::lock_guard lock(mutex_);
            verifiers_differ_ = verifiers_differ_ || (verifier_ && verifier_ != reply->verifier);
            verifier_ = reply->verifier;
          }
          if (reply->length < rest.size()) {
            write_on(handle, offset + reply->length, rest.subspan(reply->length), flights);
          } else {
            flights.end();
          }
        });
  }

  struct Stream {
    netfs::FileHandle handle;
    std::uint64_t size;
    std::size_t read_size;
    Flights flights;
    std::atomic<std::uint64_t> next{0};
    std::atomic<std::uint64_t> total{0};
  };

  // Reads piece after piece into one buffer until nobody has begun the last.
  void read_on(Stream& stream, std::vector<std::byte>& buffer) {
    const std::uint64_t offset = stream.next.fetch_add(stream.read_size);
    if (offset >= stream.size) {
      stream.flights.end();
      return;
    }
    adapter_->start_read(stream.handle, {offset, buffer}, credential_,
                         [this, &stream, &buffer](const Result<netfs::ReadReply>& reply) {
                           if (!reply) {
                             die(reply.error());
                           }
                           stream.total += reply->length;
                           read_on(stream, buffer);
                         });
  }

  void hash_directory(const netfs::FileHandle& directory, const std::string& path) {
    netfs::DirectoryPosition from;
    while (true) {
      const auto page = wait_for<netfs::ReaddirReply>([&](auto done) {
        adapter_->start_readdir(directory, from, true, credential_, std::move(done));
      });
      for (const netfs::RemoteEntry& entry : page.entries) {
        hash_entry(directory, entry, path + "/" + entry.name);
      }
      if (page.end) {
        return;
      }
      from = {page.entries.back().cookie, page.verifier};
    }
  }

  void hash_entry(const netfs::FileHandle& directory, const netfs::RemoteEntry& entry,
                  const std::string& path) {
    netfs::FileHandle handle;
    netfs::Attributes attributes;
    if (entry.handle && entry.attributes) {
      handle = *entry.handle;
      attributes = *entry.attributes;
    } else {
      handle = wait_for<netfs::LookupReply>([&](auto done) {
                 adapter_->start_lookup(directory, entry.name, credential_, std::move(done));
               }).handle;
      attributes = wait_for<netfs::Attributes>(
          [&](auto done) { adapter_->start_getattr(handle, credential_, std::move(done)); });
    }
    if (attributes.type == netfs::FileType::kDirectory) {
      hash_directory(handle, path);
    } else if (attributes.type == netfs::FileType::kRegular) {
      lines_.emplace_back(path, hash_file(handle, attributes.size));
    }
  }

  std::string hash_file(const netfs::FileHandle& handle, std::uint64_t size) {
    std::vector<std::byte> bytes(size);
    Flights flights(16);
    std::atomic<std::uint64_t> total{0};
    for (std::uint64_t at = 0; at < size; at += share_.read_size) {
      flights.begin();
      adapter_->start_read(handle,
                           {at, MutableBytes(bytes).subspan(
                                    at, std::min<std::uint64_t>(share_.read_size, size - at))},
                           credential_, [&](const Result<netfs::ReadReply>& reply) {
                             if (!reply) {
                               die(reply.error());
                             }
                             total += reply->length;
                             flights.end();
                           });
    }
    flights.wait_for_all();
    Hash hash;
    hash.add(bytes);
    return fmt::format("{:016x} {}", hash.value(), total.load());
  }

  std::unique_ptr<Executor> executor_;
  std::unique_ptr<os::StreamConnector> connector_;
  std::unique_ptr<netfs::Adapter> adapter_;
  netfs::ShareInfo share_;
  const netfs::CredentialRef credential_ = std::make_shared<netfs::Credential>();
  std::mutex mutex_;
  std::optional<netfs::WriteVerifier> verifier_;  // of the present round of writes
  bool verifiers_differ_ = false;
  std::vector<std::pair<std::string, std::string>> lines_;
};

void hash_local(const std::string& root) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (!entry.is_symlink() && entry.is_regular_file()) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string text((std::istreambuf_iterator<char>(file)), {});
      Hash hash;
      hash.add(bytes_of(text));
      lines.emplace_back(entry.path().string().substr(root.size()),
                         fmt::format("{:016x} {}", hash.value(), text.size()));
    }
  }
  std::ranges::sort(lines);
  for (const auto& [path, line] : lines) {
    fmt::print("{} {}\n", line, path);
  }
}

int run(const std::vector<std::string>& arguments) {
  const auto number = [&](std::size_t index, unsigned long fallback) {
    return index < arguments.size() ? std::stoul(arguments[index]) : fallback;
  };
  if (arguments.size() == 2 && arguments[0] == "hash") {
    Probe(arguments[1]).hash_tree();
  } else if (arguments.size() == 2 && arguments[0] == "hash-local") {
    hash_local(arguments[1]);
  } else if (arguments.size() >= 3 && arguments.size() <= 5 && arguments[0] == "read") {
    Probe(arguments[1]).read_file(arguments[2], number(3, 16), number(4, 1UL << 20));
  } else if (arguments.size() >= 4 && arguments.size() <= 6 && arguments[0] == "put") {
    Probe(arguments[1]).put_file(arguments[2], arguments[3], number(4, 16), number(5, 1UL << 20));
  } else if (arguments.size() >= 4 && arguments.size() <= 5 && arguments[0] == "change" &&
             Probe(arguments[1]).change({arguments.begin() + 2, arguments.end()})) {
    return 0;
  } else {
    fmt::print(stderr,
               "usage: nfs_probe hash URL | hash-local DIR | "
               "read URL NAME [IN_FLIGHT [READ_SIZE]] | "
               "put URL NAME FILE [IN_FLIGHT [PIECE]] | change URL ACTION ARGUMENT...\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace larder

int main(int argc, char** argv) {
  return larder::run(std::vector<std::string>(argv + 1, argv + argc));
}
