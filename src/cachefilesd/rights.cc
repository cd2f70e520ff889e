#include "cachefilesd/rights.h"

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/engine_user.h"
#include "os/capabilities.h"

namespace larder::cachefilesd {
namespace {

constexpr int kNice = 10;

// ioprio_set(2): one process, or thread; the idle class. Not from <linux/ioprio.h>, which has a
// function with an argument named `class` now.
constexpr int kOfProcess = 1;
constexpr int kIdleIo = 3 << 13;

// All rights on files of the versions of Landlock: 13 of the first, then one more each.
constexpr std::uint64_t kFirstRights = (1ULL << 13U) - 1;
constexpr std::uint64_t kRefer = 1ULL << 13U;        // version 2
constexpr std::uint64_t kTruncate = 1ULL << 14U;     // version 3
constexpr std::uint64_t kDeviceIoctl = 1ULL << 15U;  // version 5
constexpr int kReferVersion = 2;
constexpr int kTruncateVersion = 3;
constexpr int kDeviceIoctlVersion = 5;

Result<> allow(const UniqueFd& rules, const UniqueFd& directory, std::uint64_t rights) {
  landlock_path_beneath_attr rule{};
  rule.allowed_access = rights;
  rule.parent_fd = directory.get();
  if (::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
    return fail_errno(errno, "landlock_add_rule");
  }
  return {};
}

Result<> confine_by(int version, const UniqueFd& cache, const std::string& config_path) {
  landlock_ruleset_attr handled{};
  handled.handled_access_fs = kFirstRights | kRefer |
                              (version >= kTruncateVersion ? kTruncate : 0) |
                              (version >= kDeviceIoctlVersion ? kDeviceIoctl : 0);
  const UniqueFd rules(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0)));
  if (!rules.valid()) {
    return fail_errno(errno, "landlock_create_ruleset");
  }
  // A directory that is moved is made where it comes to lie.
  TRY(allow(rules, cache,
            LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR | kRefer));
  const std::string parent = std::filesystem::path(config_path).parent_path();
  const UniqueFd configs(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (configs.valid()) {
    TRY(allow(rules, configs, LANDLOCK_ACCESS_FS_READ_FILE));
  }
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) {
    return fail_errno(errno, "landlock_restrict_self");
  }
  return {};
}

}  // namespace

Result<> become(const handover::EngineUser& user) {
  if (::geteuid() != 0) {
    if (::geteuid() != user.uid) {
      return fail(Errc::kPermission, "cachefilesd must be started by root");
    }
  } else if (!os::drop_bounding_set(0) || ::setgroups(0, nullptr) != 0 ||
             ::setresgid(user.gid, user.gid, user.gid) != 0 ||
             ::setresuid(user.uid, user.uid, user.uid) != 0) {
    return fail_errno(errno, fmt::format("becoming uid {}", user.uid));
  }
  if (!os::set_capabilities(0) || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return fail_errno(errno, "giving up capabilities");
  }
  return {};
}

Result<> drop_capabilities() {
  if (!os::keep_only(0)) {
    return fail_errno(errno, "giving up capabilities");
  }
  return {};
}

void confine(const UniqueFd& cache, const std::string& config_path) {
  const long version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  // The first version lets nobody move a name from one directory to another.
  if (version < kReferVersion) {
    log_info(
        "this kernel has no Landlock that would do: other files are kept from us by their "
        "modes alone");
    return;
  }
  const Result<> confined = confine_by(static_cast<int>(version), cache, config_path);
  if (!confined) {
    log_warning("other files are kept from us by their modes alone: {}",
                confined.error().message());
  }
}

void give_way() {
  // Where it cannot be had, all goes on.
  (void)::syscall(SYS_ioprio_set, kOfProcess, 0, kIdleIo);
  (void)::setpriority(PRIO_PROCESS, 0, kNice);
}

}  // namespace larder::cachefilesd
