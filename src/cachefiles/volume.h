// A volume: one directory I<key>, its 256 directories of fan-out, and those of its map logs.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "cachefiles/accounts.h"
#include "cachefiles/core.h"
#include "cachefiles/in_use.h"
#include "cachefiles/layout.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// What was taken off the disk.
struct Removed {
  bool existed = false;
  std::uint64_t bytes = 0;  // of the data file and its map log
};

// The two directories of one fan-out; null: there is none.
struct OpenFanOut {
  // False: the name has no map log. Asked by the holder of its claim.
  [[nodiscard]] bool may_have_log(std::string_view name) const {
    return maps != nullptr && (!logs || *made_now != made_before || logs->contains(name));
  }

  std::shared_ptr<os::Directory> data;
  std::unique_ptr<os::Directory> maps;
  // The names that have a map log, if they were listed; as long as no other was made.
  std::optional<std::set<std::string, std::less<>>> logs;
  const std::atomic<std::uint64_t>* made_now = nullptr;
  std::uint64_t made_before = 0;
};

// A volume on disk, whether somebody has it open or not.
// Threads: any. Life: the cache's.
class Volume {
 public:
  // `key` as it stands in the directory's name.
  Volume(Core& core, std::string key);

  [[nodiscard]] Core& core() { return core_; }

  [[nodiscard]] const std::string& key() const { return key_; }

  [[nodiscard]] InUse& in_use() { return in_use_; }

  [[nodiscard]] std::uint8_t fan_out_of(std::string_view object_key) const;

  // kNotFound when the directory does not exist and `create` does not ask for it, or was removed
  // just then.
  [[nodiscard]] Result<std::shared_ptr<os::Directory>> fan_out(std::uint8_t index, bool create);
  // Has `put` put something into a directory of fan-out, or of map logs, which is made where there
  // is none; and again, in a new one, where it was removed meanwhile: then `put` says kNotFound.
  using Put = std::function<Result<>(const std::shared_ptr<os::Directory>&)>;
  [[nodiscard]] Result<> put_in_fan_out(std::uint8_t index, const Put& put);
  [[nodiscard]] Result<> put_in_maps(std::uint8_t index, const Put& put);
  // As fan_out, but it is not kept open: for who looks at all of them.
  [[nodiscard]] Result<std::unique_ptr<os::Directory>> open_fan_out(std::uint8_t index,
                                                                    bool create);
  [[nodiscard]] Result<std::unique_ptr<os::Directory>> map_fan_out(std::uint8_t index, bool create);

  [[nodiscard]] DirectoryAccount& account(std::uint8_t index) { return accounts_[index]; }

  // Removes a directory of fan-out, or of map logs, if nothing is in it: `directory`, as it was
  // opened. Whoever is about to put something there makes it again.
  void remove_if_empty(std::uint8_t index, os::Directory& directory, bool map_directory);

  // As long as somebody holds it.
  void note_opened() { ++users_; }

  void note_closed() { --users_; }

  [[nodiscard]] bool is_used() const { return users_ > 0; }

  // Looks how large a directory of fan-out itself has become.
  void account_directory(std::uint8_t index, os::Directory& directory, bool map_directory);

  // Stamps open objects in use whose files do not say so since `seconds`, at most `most` of them.
  // Returns how many.
  std::size_t stamp_open_objects(double seconds, std::size_t most);

  // For who removes many names. `data`: as fan_out() or open_fan_out() gave it.
  [[nodiscard]] Result<OpenFanOut> with_maps(std::uint8_t index,
                                             Result<std::shared_ptr<os::Directory>> data);
  // Lists the map logs, unless there are more than `most`: most objects have none, and to ask for
  // each costs more.
  void list_logs(std::uint8_t index, OpenFanOut& directories, std::size_t most) const;

  // Before a map log gets its name, by an open object.
  void note_log(std::uint8_t index) { ++logs_made_[index]; }

  // Unlinks data file and map log of a name, by the holder of its claim. Buries what is neither.
  Result<Removed> remove(const OpenFanOut& directories, std::string_view name);
  Result<Removed> remove(std::uint8_t index, std::string_view name);

 private:
  struct Opened {
    std::unique_ptr<os::Directory> directory;
    bool made = false;
  };

  [[nodiscard]] os::Directory& top(bool maps) const { return maps ? *core_.maps : *core_.cache; }

  // Below cache/ or maps/.
  [[nodiscard]] Result<std::unique_ptr<os::Directory>> open_fan_out_in(bool maps,
                                                                       std::uint8_t index,
                                                                       bool create);
  [[nodiscard]] Result<Opened> open_beneath(os::Directory& parent, std::string_view name,
                                            bool create);
  // The open directory is not the one with the name any more.
  void forget_fan_out(std::uint8_t index);

  Core& core_;
  const std::string key_;
  const std::uint32_t hash_;
  InUse in_use_;
  std::array<DirectoryAccount, kFanOut> accounts_;  // guarded by Accounts
  std::array<std::atomic<std::uint64_t>, kFanOut> logs_made_{};
  std::atomic<unsigned> users_{0};
};

// A volume as its user holds it.
class OpenVolume final : public fscache::BackendVolume {
 public:
  explicit OpenVolume(Volume& volume) : volume_(volume) { volume_.note_opened(); }

  OpenVolume(const OpenVolume&) = delete;
  OpenVolume& operator=(const OpenVolume&) = delete;

  ~OpenVolume() override { volume_.note_closed(); }

  Result<std::unique_ptr<fscache::BackendObject>> open_object(
      const fscache::ObjectDescription& description) override;
  Result<> discard(std::string_view key) override;

 private:
  Volume& volume_;
};

}  // namespace larder::cachefiles
