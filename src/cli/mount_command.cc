#include "cli/mount_command.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cli/checks.h"
#include "cli/keeper_start.h"
#include "cli/mount_options.h"
#include "cli/mount_table.h"
#include "control/client.h"
#include "handover/keeper_client.h"
#include "handover/mount_spec.h"
#include "handover/paths.h"

namespace larder::cli {

namespace {

constexpr std::chrono::seconds kProbePatience{90};  // a server may take its time; ^C works
constexpr std::chrono::seconds kReadyPatience{30};
constexpr unsigned kReadAheadKiB = 1024;

// The mount that a signal undoes. Global, because a handler has nothing else.
std::array<char, PATH_MAX> mount_to_undo{};
std::atomic<bool> undo_armed{false};
constexpr auto kEndingSignals = std::to_array<int>({SIGINT, SIGTERM, SIGHUP});

void undo_mount_and_die(int number) {
  if (undo_armed.load()) {
    ::umount2(mount_to_undo.data(), MNT_DETACH);
  }
  ::_exit(128 + number);
}

// Keeps SIGINT, SIGTERM and SIGHUP away while it lives.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t held;
    ::sigemptyset(&held);
    for (const int number : kEndingSignals) {
      ::sigaddset(&held, number);
    }
    ::pthread_sigmask(SIG_BLOCK, &held, &before_);
  }

  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

  ~SignalsHeld() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

// Detaches the mount at a path when destroyed or when a signal ends us, once it is armed and until
// it is told to keep it. Threads: one in the process.
class HalfMount {
 public:
  explicit HalfMount(const std::string& path) {
    CHECK(path.size() < mount_to_undo.size());
    std::memcpy(mount_to_undo.data(), path.c_str(), path.size() + 1);
    for (const int number : kEndingSignals) {
      ::signal(number, undo_mount_and_die);
    }
  }

  HalfMount(const HalfMount&) = delete;
  HalfMount& operator=(const HalfMount&) = delete;

  ~HalfMount() {
    if (undo_armed.exchange(false)) {
      ::umount2(mount_to_undo.data(), MNT_DETACH);
    }
  }

  void arm() { undo_armed.store(true); }

  void keep() { undo_armed.store(false); }
};

unsigned long flags_of(const handover::MountOptions& options) {
  unsigned long flags = options.read_only ? MS_RDONLY : 0;
  if (options.nosuid) {
    flags |= MS_NOSUID;
  }
  if (options.nodev) {
    flags |= MS_NODEV;
  }
  if (options.noexec) {
    flags |= MS_NOEXEC;
  }
  return flags;
}

Result<UniqueFd> open_fuse() {
  UniqueFd fuse(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (fuse.valid()) {
    return fuse;
  }
  switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return fail(Errc::kNotSupported,
                  "there is no /dev/fuse: `modprobe fuse`; in a container, give it the device");
    default:
      return fail_errno(errno, "/dev/fuse cannot be opened");
  }
}

Result<> call_mount(const handover::MountSpec& spec, const UniqueFd& fuse) {
  const std::string data = fmt::format(
      "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576",
      fuse.get());
  if (::mount(spec.source.c_str(), spec.mountpoint.c_str(), std::string(kMountType).c_str(),
              flags_of(spec.options), data.c_str()) == 0) {
    return {};
  }
  switch (errno) {
    case EPERM:
      return fail(Errc::kPermission,
                  fmt::format("the kernel does not let you mount on {}: root needs CAP_SYS_ADMIN "
                              "for it (in a container: --cap-add SYS_ADMIN)",
                              spec.mountpoint));
    case ENODEV:
      return fail(Errc::kNotSupported, "the kernel has no FUSE: `modprobe fuse`");
    default:
      return fail_errno(errno, fmt::format("mount on {}", spec.mountpoint));
  }
}

// From the table, because stat(2) would wait for a server that is not there yet.
Result<MountEntry> entry_of(const std::string& mountpoint) {
  const std::vector<MountEntry> table = TRY(read_mount_table());
  const MountEntry* const entry = mount_of(table, mountpoint);
  if (entry == nullptr || !entry->is_ours() || entry->mountpoint != mountpoint) {
    return fail(Errc::kIo, fmt::format("{} was mounted and is gone again", mountpoint));
  }
  return *entry;
}

// Not fatal: sequential reads of what is not cached are slower without it.
void set_read_ahead(const MountEntry& entry) {
  std::ofstream stream(
      fmt::format("/sys/class/bdi/{}:{}/read_ahead_kb", entry.device_major, entry.device_minor));
  stream << kReadAheadKiB;
}

Result<handover::MountSpec> check_request(const MountRequest& request) {
  if (::geteuid() != 0) {
    return fail(Errc::kPermission, "only root can mount: try `sudo larder mount ...`");
  }
  const std::vector<MountEntry> table = TRY(read_mount_table());
  handover::MountSpec spec;
  spec.source = request.source;
  spec.options = request.words.options;
  spec.mountpoint = TRY(check_mountpoint(request.mountpoint, table));
  const std::string cache = request.words.cache.value_or(handover::kDefaultCacheDirectory);
  const bool is_directory = cache.find('/') != std::string::npos;
  if (is_directory) {
    spec.cache = TRY(resolve_cache(cache, table));
    spec.cache_size = request.words.cache_size.value_or(0);
  } else if (request.words.cache_size) {
    return fail(Errc::kInvalid,
                cache == "none" ? "a size without a cache: leave out the size, or name a cache "
                                  "other than none"
                                : "a size for a cache that is named by its tag: its cachefilesd "
                                  "has the size, leave it out");
  } else if (cache != "none") {
    spec.cache = TRY(check_tag(cache));
  }
  TRY(check_places(
      {spec.mountpoint, is_directory ? spec.cache : "", request.keeper.runtime_directory}, table));
  TRY(check_source(spec.source, spec.mountpoint, table));
  return spec;
}

Result<> probe(const handover::MountSpec& spec, const std::string& runtime_directory) {
  std::vector<std::string> words{"probe", spec.source};
  const std::string options = fmt::format("{}", fmt::join(words_of(spec.options), ","));
  if (!options.empty()) {
    words.push_back(options);
  }
  TRY(control::ask(runtime_directory, words, kProbePatience));
  return {};
}

}  // namespace

Result<> mount_source(const MountRequest& request, const Serve& serve) {
  const handover::MountSpec spec = TRY(check_request(request));
  const std::string text = TRY(encode_spec(spec));
  if (request.only_check) {
    return {};
  }
  const UniqueFd fuse = TRY(open_fuse());
  TRY(ensure_keeper(serve, request.keeper));
  TRY(probe(spec, request.keeper.runtime_directory));
  HalfMount half(spec.mountpoint);
  {
    const SignalsHeld held;  // no signal between the mount and the word that there is one
    TRY(call_mount(spec, fuse));
    half.arm();
  }
  const MountEntry entry = TRY(entry_of(spec.mountpoint));
  handover::KeeperClient keeper(request.keeper.runtime_directory);
  TRY(keeper.mount(text, makedev(entry.device_major, entry.device_minor), fuse, kReadyPatience));
  half.keep();
  set_read_ahead(entry);
  return {};
}

Result<> unmount(const std::string& mountpoint, bool lazily) {
  const std::string path = TRY(resolve_parent(mountpoint));
  const std::vector<MountEntry> table = TRY(read_mount_table());
  const bool ours = std::ranges::any_of(table, [&path](const MountEntry& entry) {
    return entry.is_ours() && entry.mountpoint == path;
  });
  if (!ours) {
    return fail(Errc::kInvalid, fmt::format("{} is not a mount of larder", path));
  }
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0)) == 0) {
    return {};
  }
  switch (errno) {
    case EBUSY:
      return fail(Errc::kBusy, fmt::format("{0} is in use: `fuser -vm {0}` tells by whom, `larder "
                                           "umount -l {0}` detaches it all the same",
                                           path));
    case EPERM:
      return fail(Errc::kPermission, fmt::format("only root can unmount {}", path));
    default:
      return fail_errno(errno, fmt::format("umount {}", path));
  }
}

}  // namespace larder::cli
