#include "adapters/localdir/rights.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <variant>

#include <sys/stat.h>

#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::localdir {

namespace {

using netfs::Attributes;
using netfs::Credential;
using netfs::FileType;

bool owns(const Attributes& file, const Credential& credential) {
  return credential.uid == 0 || credential.uid == file.uid;
}

bool may(const Attributes& file, const Credential& credential, std::uint32_t wanted) {
  return (rights_of(file, credential) & wanted) == wanted;
}

bool sets_time_of_caller(const std::optional<netfs::StampChange>& change) {
  return change && std::holds_alternative<netfs::Timestamp>(*change);
}

}  // namespace

bool is_member(const Credential& credential, std::uint32_t gid) {
  return credential.gid == gid ||
         std::ranges::find(credential.groups, gid) != credential.groups.end();
}

std::uint32_t rights_of(const Attributes& attributes, const Credential& credential) {
  std::uint32_t bits = attributes.mode & 07U;
  if (credential.uid == 0) {
    const bool executable =
        attributes.type == FileType::kDirectory || (attributes.mode & 0111U) != 0;
    bits = executable ? 07U : 06U;
  } else if (credential.uid == attributes.uid) {
    bits = attributes.mode >> 6U & 07U;
  } else if (is_member(credential, attributes.gid)) {
    bits = attributes.mode >> 3U & 07U;
  }
  std::uint32_t granted = 0;
  const bool directory = attributes.type == FileType::kDirectory;
  if ((bits & 04U) != 0) {
    granted |= netfs::kAccessRead;
  }
  if ((bits & 02U) != 0) {
    granted |=
        netfs::kAccessModify | netfs::kAccessExtend | (directory ? netfs::kAccessDelete : 0U);
  }
  if ((bits & 01U) != 0) {
    granted |= directory ? netfs::kAccessLookup : netfs::kAccessExecute;
  }
  return granted;
}

int why_not_add(const Attributes& directory, const Credential& credential) {
  if (directory.type != FileType::kDirectory) {
    return ENOTDIR;
  }
  return may(directory, credential, netfs::kAccessModify | netfs::kAccessLookup) ? 0 : EACCES;
}

int why_not_take(const Attributes& directory, const Attributes& file,
                 const Credential& credential) {
  if (const int why = why_not_add(directory, credential); why != 0) {
    return why;
  }
  const bool sticky = (directory.mode & S_ISVTX) != 0;
  return sticky && !owns(file, credential) && !owns(directory, credential) ? EPERM : 0;
}

int why_not_write(const Attributes& file, const Credential& credential) {
  if (file.type != FileType::kRegular) {
    return file.type == FileType::kDirectory ? EISDIR : EINVAL;
  }
  return owns(file, credential) || may(file, credential, netfs::kAccessModify) ? 0 : EACCES;
}

int why_not_link(const Attributes& file, const Credential& credential) {
  if (file.type == FileType::kDirectory) {
    return EPERM;
  }
  const bool gives_rights = (file.mode & S_ISUID) != 0 || (file.mode & 02010U) == 02010U;
  const bool could_copy = file.type == FileType::kRegular && !gives_rights &&
                          may(file, credential, netfs::kAccessRead | netfs::kAccessModify);
  return owns(file, credential) || could_copy ? 0 : EPERM;
}

int why_not_change(const Attributes& file, const netfs::AttributeChanges& changes,
                   const Credential& credential) {
  const bool owner = owns(file, credential);
  const bool gives_away = changes.uid && *changes.uid != file.uid;
  const bool to_strangers =
      changes.gid && *changes.gid != file.gid && !is_member(credential, *changes.gid);
  if ((gives_away || to_strangers) && credential.uid != 0) {
    return EPERM;
  }
  if (!owner && (changes.mode || changes.uid || changes.gid ||
                 sets_time_of_caller(changes.accessed) || sets_time_of_caller(changes.modified))) {
    return EPERM;
  }
  if (changes.size) {
    return why_not_write(file, credential);
  }
  const bool touches = changes.accessed || changes.modified;
  return touches && !owner && !may(file, credential, netfs::kAccessModify) ? EACCES : 0;
}

}  // namespace larder::localdir
