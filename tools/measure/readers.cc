// bench_readers: reads and writes that a benchmark times; a JSON line with seconds, CPU and bytes.
//
//   bench_readers sequential FILE           from one end to the other, 1 MiB a read
//   bench_readers mmap FILE                 the same through a mapping, every word looked at
//   bench_readers random FILE COUNT SEED    COUNT reads of 4 KiB at random places
//   bench_readers tree DIR READERS          opens, reads and closes all files below, by threads
//   bench_readers names DIR                 walks the tree and asks for each name's attributes
//   bench_readers write FILE BYTES          a plain write, 1 MiB a call
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "measured_run.h"

namespace larder {
namespace {

constexpr std::size_t kPiece = 1 << 20;
constexpr std::size_t kPage = 4096;

// What was read must be used, or the compiler may leave reading it out.
std::atomic<std::uint64_t> sink{0};

[[noreturn]] void die(const std::string& what) {
  fmt::print(stderr, "bench_readers: {}: {}\n", what, std::strerror(errno));
  std::exit(1);
}

UniqueFd open_or_die(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    die(path);
  }
  return file;
}

std::uint64_t size_of(const UniqueFd& file) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) {
    die("fstat");
  }
  return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t read_to_end(const UniqueFd& file, std::vector<char>& buffer,
                          const std::string& path) {
  std::uint64_t total = 0;
  while (true) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0) {
      die(path);
    }
    if (got == 0) {
      return total;
    }
    total += static_cast<std::uint64_t>(got);
  }
}

std::uint64_t read_sequentially(const std::string& path) {
  std::vector<char> buffer(kPiece);
  return read_to_end(open_or_die(path), buffer, path);
}

std::uint64_t read_mapped(const std::string& path) {
  const UniqueFd file = open_or_die(path);
  const std::uint64_t size = size_of(file);
  void* const mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) {
    die("mmap");
  }
  const auto* const words = static_cast<const std::uint64_t*>(mapped);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < size / sizeof(std::uint64_t); ++i) {
    sum += words[i];
  }
  sink += sum;
  ::munmap(mapped, size);
  return size;
}

std::uint64_t read_randomly(const std::string& path, std::uint64_t count, std::uint64_t seed) {
  const UniqueFd file = open_or_die(path);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::uint64_t> page(0, size_of(file) / kPage - 1);
  std::vector<char> buffer(kPage);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto at = static_cast<off_t>(page(random) * kPage);
    if (::pread(file.get(), buffer.data(), kPage, at) != static_cast<ssize_t>(kPage)) {
      die(path);
    }
  }
  return count * kPage;
}

std::uint64_t read_file(const std::string& path, std::vector<char>& buffer) {
  return read_to_end(open_or_die(path), buffer, path);
}

// A reader takes every READERS-th directory entry, so that all of them are in all directories.
std::uint64_t read_tree(const std::string& directory, unsigned readers) {
  std::atomic<std::uint64_t> total{0};
  std::vector<std::thread> threads;
  for (unsigned part = 0; part < readers; ++part) {
    threads.emplace_back([&, part] {
      std::vector<char> buffer(kPiece);
      std::uint64_t number = 0;
      std::uint64_t bytes = 0;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        if (number++ % readers == part && entry.is_regular_file()) {
          bytes += read_file(entry.path().string(), buffer);
        }
      }
      total += bytes;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return total;
}

std::uint64_t look_at_names(const std::string& directory) {
  std::uint64_t names = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    struct stat status{};
    if (::lstat(entry.path().c_str(), &status) != 0) {
      die(entry.path().string());
    }
    ++names;
  }
  return names;
}

std::uint64_t write_plainly(const std::string& path, std::uint64_t size) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) {
    die(path);
  }
  const std::vector<char> buffer(kPiece, 'x');
  for (std::uint64_t done = 0; done < size; done += kPiece) {
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, size - done));
    if (::write(file.get(), buffer.data(), piece) != static_cast<ssize_t>(piece)) {
      die(path);
    }
  }
  return size;
}

std::uint64_t run(const std::vector<std::string>& words) {
  const std::string& what = words[0];
  const std::string& path = words[1];
  const auto number = [&](std::size_t at) { return std::stoull(words.at(at)); };
  if (what == "sequential") {
    return read_sequentially(path);
  }
  if (what == "mmap") {
    return read_mapped(path);
  }
  if (what == "random") {
    return read_randomly(path, number(2), number(3));
  }
  if (what == "tree") {
    return read_tree(path, static_cast<unsigned>(number(2)));
  }
  if (what == "names") {
    return look_at_names(path);
  }
  if (what == "write") {
    return write_plainly(path, number(2));
  }
  fmt::print(stderr, "bench_readers: I cannot {}\n", what);
  std::exit(2);
}

}  // namespace
}  // namespace larder

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 2) {
    fmt::print(stderr, "usage: bench_readers WHAT PATH [NUMBER...]\n");
    return 2;
  }
  larder::print_measured("bytes", [&] { return larder::run(words); });
  return 0;
}
