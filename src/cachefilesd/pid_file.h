// PidFile: the file that says which process a daemon is, locked as long as it runs.
#pragma once

#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::cachefilesd {

// Life: the process's. The file stays, empty, where it was: by then we may not remove it.
class PidFile {
 public:
  // Writes this process's id. kBusy: a process that runs has it.
  [[nodiscard]] static Result<PidFile> claim(const std::string& path);

  PidFile(PidFile&& other) noexcept = default;
  PidFile& operator=(PidFile&& other) noexcept = default;
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;
  ~PidFile();

 private:
  explicit PidFile(UniqueFd file) : file_(std::move(file)) {}

  UniqueFd file_;
};

}  // namespace larder::cachefilesd
