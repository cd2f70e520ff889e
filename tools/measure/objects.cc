// bench_objects: a cache full of made objects, and the loop that culling is compared with; a JSON
// line with seconds, CPU and objects.
//
//   bench_objects fill DIR COUNT BYTES   a cache directory with so many objects of one volume
//   bench_objects remove DIR COUNT       takes so many out of it, as many of each directory, with
//                                        nothing but fstatat(2) and unlinkat(2)
//   bench_objects bury DIR COUNT         puts a directory of so many empty files into its graveyard
//
// Two directories filled with the same words hold the same names.
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "cachefiles/key.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "handover/engine_user.h"
#include "measured_run.h"

namespace larder {
namespace {

constexpr const char* kVolumeKey = "larder,1,nfs,bench,,%2fexport,0";
constexpr std::size_t kKeyBytes = 12;  // as of a server whose file handles are short
constexpr double kDaySeconds = 86400;
constexpr double kOldestDays = 30;

[[noreturn]] void die(const std::string& what) {
  fmt::print(stderr, "bench_objects: {}: {}\n", what, std::strerror(errno));
  std::exit(1);
}

void must(bool done, const std::string& what) {
  if (!done) {
    die(what);
  }
}

UniqueFd open_directory(int parent, const std::string& name) {
  UniqueFd directory(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  must(directory.valid(), name);
  return directory;
}

UniqueFd make_directory(int parent, const std::string& name) {
  must(::mkdirat(parent, name.c_str(), cachefiles::kDirectoryMode) == 0, name);
  return open_directory(parent, name);
}

std::string fan_out(unsigned index) {
  return cachefiles::fan_out_directory(static_cast<std::uint8_t>(index));
}

handover::EngineUser engines_user() {
  const auto user = handover::find_engine_user();
  must(user.has_value(), "the engine's user");
  return *user;
}

// The engine finds a cache of its user's, of which it does not know what is in it.
UniqueFd make_cache(const std::string& path) {
  const auto user = engines_user();
  must(::mkdir(path.c_str(), cachefiles::kDirectoryMode) == 0, path);
  must(::chown(path.c_str(), user.uid, user.gid) == 0, path);
  UniqueFd root = open_directory(AT_FDCWD, path);
  must(::setegid(user.gid) == 0 && ::seteuid(user.uid) == 0, "becoming the engine's user");
  const UniqueFd format(::openat(root.get(), std::string(cachefiles::kFormatFile).c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, cachefiles::kFileMode));
  must(::write(format.get(), cachefiles::kFormatText.data(), cachefiles::kFormatText.size()) ==
           static_cast<ssize_t>(cachefiles::kFormatText.size()),
       "format");
  return root;
}

std::vector<UniqueFd> make_volume(const UniqueFd& root, std::string_view below) {
  const UniqueFd top = make_directory(root.get(), std::string(below));
  const UniqueFd volume = make_directory(top.get(), cachefiles::volume_directory(kVolumeKey));
  std::vector<UniqueFd> directories;
  for (unsigned i = 0; i < cachefiles::kFanOut; ++i) {
    directories.push_back(make_directory(volume.get(), fan_out(i)));
  }
  return directories;
}

timespec seconds_ago(double seconds) {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  time.tv_sec -= static_cast<std::time_t>(seconds);
  return time;
}

class Filler {
 public:
  Filler(const std::string& path, std::uint64_t bytes) : bytes_(bytes) {
    const UniqueFd root = make_cache(path);
    directories_ = make_volume(root, cachefiles::kCacheDirectory);
    // As of a volume that had larger files too: culling looks there for each object.
    make_volume(root, cachefiles::kMapsDirectory);
  }

  // Keys are hashed, so that every directory grows a little at a time, as in use.
  void add() {
    std::string key;
    while (key.size() < kKeyBytes) {
      key.push_back(static_cast<char>(random_() & 0xFFU));
    }
    const std::uint32_t hash = cachefiles::hash_of_key(volume_hash_, key);
    const std::string name = cachefiles::cook_key(key);
    const int directory = directories_[hash % cachefiles::kFanOut].get();
    const UniqueFd file(::openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                                 cachefiles::kFileMode));
    must(file.valid(), name);
    // Blocks without bytes: the page cache stays free for inodes.
    must(::fallocate(file.get(), 0, 0, static_cast<off_t>(bytes_)) == 0, "fallocate");
    cachefiles::Label label;
    label.size = bytes_;
    label.small = true;
    label.complete = true;
    const auto encoded = cachefiles::encode_label(label);
    must(::fsetxattr(file.get(), std::string(cachefiles::kLabelName).c_str(), encoded.data(),
                     encoded.size(), 0) == 0,
         "fsetxattr");
    stamp(file);
  }

 private:
  // Spread over a month; one of two was used again, a day after it was filled.
  void stamp(const UniqueFd& file) {
    const double unused = std::uniform_real_distribution<double>(0, kOldestDays)(random_);
    const double again = static_cast<double>(random_() % 2);
    const std::array<timespec, 2> times{seconds_ago(unused * kDaySeconds),
                                        seconds_ago((unused + again) * kDaySeconds)};
    must(::futimens(file.get(), times.data()) == 0, "futimens");
  }

  const std::uint64_t bytes_;
  const std::uint32_t volume_hash_ = cachefiles::hash_of_volume(kVolumeKey);
  std::mt19937_64 random_{1};
  std::vector<UniqueFd> directories_;
};

std::uint64_t fill(const std::string& path, std::uint64_t count, std::uint64_t bytes) {
  Filler filler(path, bytes);
  for (std::uint64_t i = 0; i < count; ++i) {
    filler.add();
  }
  return count;
}

// Returns how many went.
std::uint64_t remove_some(const UniqueFd& directory, std::uint64_t most) {
  // For closedir(3) to close.
  const int duplicate = ::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> listed(::fdopendir(duplicate), ::closedir);
  must(listed != nullptr, "fdopendir");
  std::uint64_t gone = 0;
  while (gone < most) {
    const dirent* const entry = ::readdir(listed.get());  // NOLINT(concurrency-mt-unsafe)
    if (entry == nullptr) {
      break;
    }
    struct stat status{};
    must(::fstatat(directory.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0,
         entry->d_name);
    if (S_ISREG(status.st_mode)) {
      must(::unlinkat(directory.get(), entry->d_name, 0) == 0, entry->d_name);
      ++gone;
    }
  }
  return gone;
}

std::uint64_t remove(const std::string& path, std::uint64_t count) {
  const UniqueFd volume =
      open_directory(AT_FDCWD, fmt::format("{}/{}/{}", path, cachefiles::kCacheDirectory,
                                           cachefiles::volume_directory(kVolumeKey)));
  std::uint64_t gone = 0;
  for (unsigned i = 0; i < cachefiles::kFanOut; ++i) {
    const std::uint64_t share = (count - gone) / (cachefiles::kFanOut - i);
    gone += remove_some(open_directory(volume.get(), fan_out(i)), share);
  }
  return gone;
}

// Whoever reaps does not begin before all are there: they come into the graveyard together.
std::uint64_t bury(const std::string& path, std::uint64_t count) {
  const std::string outside = path + "-dead";
  const std::string grave = fmt::format("{}/{}/x1x1x", path, cachefiles::kGraveyardDirectory);
  const auto user = engines_user();
  const UniqueFd dead = make_directory(AT_FDCWD, outside);
  must(::fchown(dead.get(), user.uid, user.gid) == 0, outside);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string name = fmt::format("Dgone{:027}", i);  // as long as a made object's
    const UniqueFd file(::openat(dead.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                                 cachefiles::kFileMode));
    must(file.valid(), name);
  }
  must(::rename(outside.c_str(), grave.c_str()) == 0, grave);
  return count;
}

std::uint64_t run(const std::vector<std::string>& words) {
  const auto number = [&](std::size_t at) { return std::stoull(words.at(at)); };
  if (words[0] == "fill") {
    return fill(words[1], number(2), number(3));
  }
  if (words[0] == "remove") {
    return remove(words[1], number(2));
  }
  if (words[0] == "bury") {
    return bury(words[1], number(2));
  }
  fmt::print(stderr, "bench_objects: I cannot {}\n", words[0]);
  std::exit(2);
}

}  // namespace
}  // namespace larder

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 3) {
    fmt::print(stderr, "usage: bench_objects fill|remove|bury DIR COUNT [BYTES]\n");
    return 2;
  }
  larder::print_measured("objects", [&] { return larder::run(words); });
  return 0;
}
