#include "cachefilesd/listing.h"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "cachefiles/layout.h"
#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

bool is_no_directory(const Error& error) {
  return error.code() == Errc::kNotFound || error.code() == Errc::kInvalid ||
         error.code() == Errc::kPermission;
}

bool is_object_name(std::string_view name) {
  return cachefiles::is_data_file(name) && name.find('\n') == std::string_view::npos;
}

Result<std::unique_ptr<os::Directory>> open_fan_out(os::Directory& top, const std::string& volume,
                                                    const std::string& fan_out) {
  Result<std::unique_ptr<os::Directory>> opened = top.open_directory_in(volume, fan_out);
  return opened || !is_no_directory(opened.error()) ? std::move(opened)
                                                    : Result<std::unique_ptr<os::Directory>>();
}

Result<> list_objects(os::Directory& directory,
                      const std::function<bool(culling::Candidate&&)>& visit,
                      std::vector<std::string>& unexpected) {
  return directory.list([&](const os::DirectoryEntry& entry) {
    const Result<os::FileStat> stat = directory.stat(entry.name);
    if (!stat) {
      return true;
    }
    if (is_object_name(entry.name) && stat->type == os::NodeType::kFile) {
      return visit({entry.name, *stat, stat->allocated});
    }
    if (unexpected.size() < kMostUnexpected) {
      unexpected.push_back(entry.name);
    }
    return true;
  });
}

}  // namespace larder::cachefilesd
