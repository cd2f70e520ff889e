#include "cachefilesd/kernel_channel.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/layout.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/limits.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {
namespace {

using control::CacheCommand;
using control::CacheState;
using control::CacheVerb;

constexpr std::uint64_t kAbovePart = 50;  // two points above run

// What to do about what the kernel says.
std::string_view advice(CacheVerb verb, int error_number) {
  switch (error_number) {
    case EIO:
      return "; the cache has failed: look at `dmesg` and at its disk, then start cachefilesd "
             "again";
    case EBUSY:
      return "; another cache has this directory or this tag: give others";
    case ENOENT:
    case ENOTDIR:
      return "; make the directory, or name another";
    case EOPNOTSUPP:
      return verb == CacheVerb::kBind
                 ? "; its filesystem lacks what a cache needs, as user xattrs: use another"
                 : "; this kernel does not know it: take it out of the configuration";
    default:
      return "";
  }
}

std::uint64_t missing(std::uint64_t wanted, std::uint64_t there) {
  return wanted > there ? wanted - there : 0;
}

}  // namespace

Result<std::unique_ptr<CacheChannel>> KernelChannel::open(const std::string& device,
                                                          Waiter& waiter) {
  UniqueFd opened(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (opened.valid()) {
    return std::make_unique<KernelChannel>(std::move(opened), waiter);
  }
  switch (const int error_number = errno) {
    case EBUSY:
      return fail(Errc::kBusy,
                  fmt::format("{} is in other hands: a kernel has one cache, stop the cachefilesd "
                              "that holds it",
                              device));
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return fail(Errc::kNotFound,
                  fmt::format("there is no {}: `modprobe cachefiles`, or use a kernel that has it",
                              device));
    default:
      return fail_errno(error_number, device);
  }
}

KernelChannel::KernelChannel(UniqueFd device, Waiter& waiter)
    : device_(std::move(device)), waiter_(waiter) {}

Result<> KernelChannel::bind(const Config& config, int directory) {
  if (config.size_bytes) {
    return fail(Errc::kNotSupported,
                "a kernel's cache has no `size`, only limits of what must be free: take the line "
                "out of the configuration");
  }
  UniqueFd own(::fcntl(directory, F_DUPFD_CLOEXEC, 0));
  if (!own.valid()) {
    return fail_errno(errno, config.directory);
  }
  root_ = TRY(os::adopt_directory(std::move(own)));
  TRY(give({CacheVerb::kDir, config.directory, {}}));
  if (config.tag) {
    TRY(give({CacheVerb::kTag, *config.tag, {}}));
  }
  if (config.security_context) {
    TRY(give({CacheVerb::kSecctx, *config.security_context, {}}));
  }
  if (config.debug_mask != 0) {
    TRY(give({CacheVerb::kDebug, fmt::format("{}", config.debug_mask), {}}));
  }
  for (const CacheCommand& command : limit_commands(config.limits)) {
    TRY(give(command));
  }
  TRY(give({CacheVerb::kBind, {}, {}}));
  watch_graveyard(config.directory);
  return {};
}

Result<> KernelChannel::reconfigure(const Config& from, const Config& to) {
  if (to.size_bytes) {
    log_warning("a kernel's cache has no `size`: the line changes nothing");
  }
  if (from.debug_mask != to.debug_mask) {
    TRY(give({CacheVerb::kDebug, fmt::format("{}", to.debug_mask), {}}));
  }
  if (from.limits == to.limits) {
    return {};
  }
  for (const CacheCommand& command : limit_commands(to.limits)) {
    TRY(give(command));
  }
  log_warning("a kernel looks at its cache's limits when it is bound: restart cachefilesd");
  return {};
}

Result<CacheState> KernelChannel::ask_state() {
  std::array<char, 4096> buffer{};
  const ssize_t length = ::read(device_.get(), buffer.data(), buffer.size());
  if (length < 0) {
    const int error_number = errno;
    return fail_errno(error_number, fmt::format("the state of the kernel's cache{}",
                                                advice(CacheVerb::kState, error_number)));
  }
  if (length == 0) {
    return fail(Errc::kCacheDead, "the kernel says nothing of its cache");
  }
  hear_graveyard();
  CacheState state =
      TRY(control::parse_cache_state({buffer.data(), static_cast<std::size_t>(length)}));
  TRY(complete(state));
  return state;
}

Result<> KernelChannel::complete(CacheState& state) {
  const os::FilesystemSpace space = TRY(root_->space());
  state.block_bytes = space.block_size;
  state.free_blocks = space.available_blocks;
  state.free_files = space.free_files;
  state.excess_bytes =
      missing(state.brun + space.blocks / kAbovePart, space.available_blocks) * space.block_size;
  // Some filesystems have no number of inodes; the kernel's limit is 0 then.
  state.excess_files =
      space.files == 0 ? 0 : missing(state.frun + space.files / kAbovePart, space.free_files);
  culling_ = state.culling || (culling_ && (state.excess_bytes > 0 || state.excess_files > 0));
  state.culling = culling_;
  state.graveyard = std::exchange(graves_, false);
  return {};
}

Result<std::optional<CacheState>> KernelChannel::hear() {
  std::array<pollfd, 2> polled{{{device_.get(), POLLIN, 0}, {graveyard_watch_.get(), POLLIN, 0}}};
  if (::poll(polled.data(), polled.size(), 0) <= 0) {
    return std::nullopt;
  }
  return TRY(ask_state());
}

Result<std::vector<Result<std::uint64_t>>> KernelChannel::cull(
    std::span<const ObjectGroup> groups) {
  std::vector<Result<std::uint64_t>> answers;
  for (const ObjectGroup& group : groups) {
    TRY(cull_group(group, answers));
  }
  return answers;
}

Result<> KernelChannel::cull_group(const ObjectGroup& group,
                                   std::vector<Result<std::uint64_t>>& answers) const {
  const UniqueFd directory = TRY(group.directory->duplicate_descriptor());
  if (::fchdir(directory.get()) != 0) {
    return fail_errno(errno, group.path);
  }
  for (const culling::Candidate& object : group.objects) {
    if (waiter_.told_to_stop()) {  // a large object takes the kernel a while
      return fail(Errc::kCancelled, "told to stop");
    }
    answers.push_back(TRY(cull_one(group.path, object)));
  }
  return {};
}

Result<Result<std::uint64_t>> KernelChannel::cull_one(const std::string& path,
                                                      const culling::Candidate& object) const {
  switch (const int error_number = write(fmt::format("cull {}", object.name))) {
    case 0:
      return object.bytes;
    case ENOENT:
    case ESTALE:  // it was retired meanwhile
      return Result<std::uint64_t>(fail(Errc::kNotFound, object.name));
    case EBUSY:
      return Result<std::uint64_t>(fail(Errc::kBusy, object.name));
    default:
      return fail_errno(error_number, fmt::format("the kernel's cull of {}/{}{}", path, object.name,
                                                  advice(CacheVerb::kCull, error_number)));
  }
}

int KernelChannel::write(std::string_view command) const {
  ssize_t written = -1;
  do {
    written = ::write(device_.get(), command.data(), command.size());
  } while (written < 0 && errno == EINTR);
  return written < 0 ? errno : 0;
}

Result<> KernelChannel::give(const CacheCommand& command) const {
  const std::string text = control::encode_cache_command(command);
  const int error_number = write(text);
  if (error_number != 0) {
    return fail_errno(error_number, fmt::format("the kernel refuses `{}`{}", text,
                                                advice(command.verb, error_number)));
  }
  return {};
}

void KernelChannel::watch_graveyard(const std::string& directory) {
  const std::string path = fmt::format("{}/{}", directory, cachefiles::kGraveyardDirectory);
  graveyard_watch_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (::inotify_add_watch(graveyard_watch_.get(), path.c_str(),
                          IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0) {
    log_warning("{} cannot be watched ({}): what is buried from now on goes at the next start",
                path, Error::from_errno(errno, "inotify").message());
    graveyard_watch_.reset();
  }
}

void KernelChannel::hear_graveyard() {
  alignas(inotify_event) std::array<char, 4096> buffer{};
  while (graveyard_watch_.valid() &&
         ::read(graveyard_watch_.get(), buffer.data(), buffer.size()) > 0) {
    graves_ = true;
  }
}

}  // namespace larder::cachefilesd
