#include "vandal.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "os/filesystem.h"
#include "simulated_disk.h"

namespace larder {
namespace {

struct Found {
  std::shared_ptr<os::Directory> directory;
  std::string name;
};

void find_files(const std::shared_ptr<os::Directory>& directory, std::vector<Found>& files) {
  std::vector<os::DirectoryEntry> entries;
  static_cast<void>(directory->list([&](const os::DirectoryEntry& entry) {
    entries.push_back(entry);
    return true;
  }));
  for (const os::DirectoryEntry& entry : entries) {
    if (auto below = directory->open_directory(entry.name)) {
      find_files(std::move(*below), files);
    } else {
      files.push_back({directory, entry.name});
    }
  }
}

void damage_label(os::File& file, Random& random) {
  auto label = file.get_xattr(cachefiles::kLabelName, cachefiles::kLabelBytes);
  if (label && !label->empty()) {
    char& victim = label->at(random() % label->size());
    victim = static_cast<char>(static_cast<unsigned char>(victim) ^ (1U << random() % 8));
    static_cast<void>(file.set_xattr(cachefiles::kLabelName, bytes_of(*label)));
  }
}

void damage(const Found& found, Random& random) {
  const auto file = found.directory->open_file(found.name, os::OpenMode::kReadWrite);
  if (!file) {
    return;
  }
  const std::uint64_t size = (*file)->stat()->size;
  const std::array scribble{static_cast<std::byte>(random() & 0xffU)};
  switch (random() % 4) {
    case 0:
      static_cast<void>(found.directory->unlink(found.name));
      break;
    case 1:
      static_cast<void>((*file)->set_size(random() % (size + 100)));
      break;
    case 2:
      damage_label(**file, random);
      break;
    default:
      static_cast<void>((*file)->write_at(random() % (size + 1), scribble));
      break;
  }
}

}  // namespace

void vandalise(os::Directory& root, Random& random) {
  std::vector<Found> files;
  for (const char* const top : {"cache", "maps"}) {
    if (auto directory = root.open_directory(top)) {
      find_files(std::move(*directory), files);
    }
  }
  if (!files.empty()) {
    damage(files.at(random() % files.size()), random);
  }
}

}  // namespace larder
