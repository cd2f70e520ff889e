// HiddenNameStore: the hidden names of one mount, where they outlive this process.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "netfs/attributes.h"

namespace larder::netfs {

// A name that nobody needs any more.
struct LeftName {
  FileHandle directory;
  std::string name;
  Credential credential;  // of who removed the file
};

// Threads: any; calls do not wait. Life: the share's.
class HiddenNameStore {
 public:
  HiddenNameStore() = default;
  HiddenNameStore(const HiddenNameStore&) = delete;
  HiddenNameStore& operator=(const HiddenNameStore&) = delete;
  virtual ~HiddenNameStore() = default;

  // Best effort: a store that is full forgets it.
  virtual void put(const LeftName& name) = 0;
  virtual void remove(const FileHandle& directory, std::string_view name) = 0;
  // Those of this share whose mount is over, also of engines that died: from now on this mount's.
  [[nodiscard]] virtual std::vector<LeftName> adopt() = 0;
};

}  // namespace larder::netfs
