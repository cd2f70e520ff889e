// Alterations: what the proxy changes in the attributes that replies carry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/bytes.h"
#include "rpc_message.h"

namespace larder::proxy {

// Threads: one.
class Alterations {
 public:
  // Optional attributes are left out of the replies of `procedures`; of all, if it is empty.
  void strip_attributes(std::set<Procedure> procedures);
  // Size and stamps of the file stay as the next reply shows them; nothing means all files.
  void freeze(std::optional<std::uint64_t> fileid);
  void thaw();

  void shift_times(std::int64_t seconds) { shift_seconds_ = seconds; }

  void round_times_to_seconds(bool whole) { whole_seconds_ = whole; }

  // The reply to a WRITE or COMMIT that does not tell what the file was like before tells what a
  // reply showed last: right as long as nobody changes the file but through this proxy.
  void complete_wcc(bool on);

  // The file shows this fsid, as if another filesystem were mounted there.
  void change_fsid(std::uint64_t fileid, std::uint64_t fsid) { fsids_[fileid] = fsid; }

  // Whether replies of `procedure` must pass through rewrite().
  [[nodiscard]] bool concern(Procedure procedure) const;

  // The altered reply (without record marks). What cannot be parsed comes back as it was.
  [[nodiscard]] std::vector<std::byte> rewrite(Procedure procedure, Bytes reply);

  // Part of rewrite(): changes one fattr3 of 84 bytes in place.
  void alter_attributes(MutableBytes attributes);
  // The same for a wcc_attr of 24 bytes: size, mtime, ctime.
  void alter_wcc(MutableBytes attributes) const;

  // The wcc_attr to put before these attributes; empty: none.
  [[nodiscard]] std::vector<std::byte> wcc_before(Bytes attributes) const;

  [[nodiscard]] bool completes_wcc(Procedure procedure) const {
    return completes_wcc_ && (procedure == Procedure::kWrite || procedure == Procedure::kCommit);
  }

  [[nodiscard]] bool strips(Procedure procedure) const { return stripped_.contains(procedure); }

  // Whose attributes come before an operation cannot be told: they are left out under a freeze.
  [[nodiscard]] bool hides_wcc() const { return freeze_all_ || !frozen_ids_.empty(); }

 private:
  // The bytes 20..28 (size) and 60..84 (atime, mtime, ctime) of a fattr3, as first seen.
  struct Frozen {
    std::vector<std::byte> size;
    std::vector<std::byte> times;
  };

  void alter_time(std::byte* time) const;
  void alter_frozen(std::uint64_t fileid, MutableBytes attributes);

  std::set<Procedure> stripped_;
  bool freeze_all_ = false;
  std::set<std::uint64_t> frozen_ids_;
  std::map<std::uint64_t, Frozen> frozen_;
  std::map<std::uint64_t, std::uint64_t> fsids_;
  std::int64_t shift_seconds_ = 0;
  bool whole_seconds_ = false;
  bool completes_wcc_ = false;
  std::map<std::uint64_t, std::vector<std::byte>> shown_last_;  // wcc_attr by fileid
};

}  // namespace larder::proxy
