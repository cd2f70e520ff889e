// Rewrites the attributes in NFSv3 replies, by walking the results as RFC 1813 lays them out.
#include "alterations.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/endian.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

constexpr std::size_t kWccBytes = 24;
constexpr std::size_t kSizeAt = 20;
constexpr std::size_t kFsidAt = 44;
constexpr std::size_t kFileidAt = 52;
constexpr std::size_t kTimesAt = 60;
constexpr std::size_t kMaximumFrozen = 1'000'000;

// Copies a result field by field, altering the attributes on the way.
class ResultCopier {
 public:
  ResultCopier(Alterations& alterations, Procedure procedure, Bytes from)
      : alterations_(alterations), procedure_(procedure), from_(from), reader_(from) {}

  std::uint32_t word() {
    const std::uint32_t value = reader_.u32();
    append_word(value);
    return value;
  }

  void opaque() {
    const std::size_t start = reader_.position();
    static_cast<void>(reader_.opaque());
    append(from_.subspan(start, reader_.position() - start));
  }

  void fixed(std::size_t length) { append(reader_.fixed_opaque(length)); }

  void attributes() {
    const Bytes bytes = reader_.fixed_opaque(kAttributesBytes);
    append(bytes);
    if (bytes.size() == kAttributesBytes) {
      alterations_.alter_attributes(MutableBytes(out_).last(kAttributesBytes));
    }
  }

  void optional_attributes() {
    const bool follow = reader_.u32() != 0;
    if (follow && alterations_.strips(procedure_)) {
      reader_.fixed_opaque(kAttributesBytes);
      append_word(0);
      return;
    }
    append_word(follow ? 1 : 0);
    if (follow) {
      attributes();
    }
  }

  void wcc_data() {
    const bool follow = reader_.u32() != 0;
    if (!follow && alterations_.completes_wcc(procedure_)) {
      complete_wcc();
      return;
    }
    const Bytes before = follow ? reader_.fixed_opaque(kWccBytes) : Bytes{};
    const bool keep = follow && !alterations_.strips(procedure_) && !alterations_.hides_wcc();
    append_word(keep ? 1 : 0);
    if (keep) {
      append(before);
      alterations_.alter_wcc(MutableBytes(out_).last(before.size()));
    }
    optional_attributes();
  }

  void optional_handle() {
    if (word() != 0) {
      opaque();
    }
  }

  void rest() { append(from_.subspan(reader_.position())); }

  [[nodiscard]] bool ok() const { return reader_.ok(); }

  std::vector<std::byte> take() { return std::move(out_); }

 private:
  void complete_wcc() {
    XdrReader ahead = reader_;
    const bool follow = ahead.u32() != 0;
    const Bytes after = follow ? ahead.fixed_opaque(kAttributesBytes) : Bytes{};
    const std::vector<std::byte> before = alterations_.wcc_before(after);
    append_word(before.empty() ? 0 : 1);
    append(before);
    optional_attributes();
  }

  void append(Bytes bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }

  void append_word(std::uint32_t value) {
    out_.resize(out_.size() + 4);
    store_be(out_.data() + out_.size() - 4, value);
  }

  Alterations& alterations_;
  Procedure procedure_;
  Bytes from_;
  XdrReader reader_;
  std::vector<std::byte> out_;
};

void copy_directory_entries(ResultCopier& copier) {
  copier.fixed(8);  // cookie verifier
  while (copier.ok() && copier.word() != 0) {
    copier.fixed(8);  // fileid
    copier.opaque();  // name
    copier.fixed(8);  // cookie
    copier.optional_attributes();
    copier.optional_handle();
  }
}

void copy_created(ResultCopier& copier, bool succeeded) {
  if (succeeded) {
    copier.optional_handle();
    copier.optional_attributes();
  }
  copier.wcc_data();
}

void copy_lookup(ResultCopier& copier, bool succeeded) {
  if (succeeded) {
    copier.opaque();
    copier.optional_attributes();
  }
  copier.optional_attributes();
}

void copy_result(ResultCopier& copier, Procedure procedure) {
  const bool succeeded = copier.word() == 0;
  switch (procedure) {
    case Procedure::kGetattr:
      if (succeeded) {
        copier.attributes();
      }
      break;
    case Procedure::kLookup:
      copy_lookup(copier, succeeded);
      break;
    case Procedure::kReaddirplus:
      copier.optional_attributes();
      if (succeeded) {
        copy_directory_entries(copier);
      }
      break;
    case Procedure::kCreate:
    case Procedure::kMkdir:
    case Procedure::kSymlink:
    case Procedure::kMknod:
      copy_created(copier, succeeded);
      break;
    case Procedure::kSetattr:
    case Procedure::kWrite:
    case Procedure::kRemove:
    case Procedure::kRmdir:
    case Procedure::kCommit:
      copier.wcc_data();
      break;
    case Procedure::kRename:
      copier.wcc_data();
      copier.wcc_data();
      break;
    case Procedure::kLink:
      copier.optional_attributes();
      copier.wcc_data();
      break;
    default:  // ACCESS, READLINK, READ, READDIR, FSSTAT, FSINFO, PATHCONF
      copier.optional_attributes();
      break;
  }
  copier.rest();
}

}  // namespace

void Alterations::strip_attributes(std::set<Procedure> procedures) {
  if (procedures.empty()) {
    for (std::size_t i = 0; i < kProcedureCount; ++i) {
      procedures.insert(static_cast<Procedure>(i));
    }
  }
  stripped_ = std::move(procedures);
}

void Alterations::freeze(std::optional<std::uint64_t> fileid) {
  if (fileid) {
    frozen_ids_.insert(*fileid);
  } else {
    freeze_all_ = true;
  }
}

void Alterations::thaw() {
  freeze_all_ = false;
  frozen_ids_.clear();
  frozen_.clear();
}

void Alterations::complete_wcc(bool on) {
  completes_wcc_ = on;
  shown_last_.clear();
}

std::vector<std::byte> Alterations::wcc_before(Bytes attributes) const {
  if (attributes.size() != kAttributesBytes) {
    return {};
  }
  const auto shown = shown_last_.find(load_be<std::uint64_t>(attributes.data() + kFileidAt));
  // The replies to changes side by side may overtake each other.
  const auto is_older = [&attributes](const std::vector<std::byte>& before) {
    const Bytes change_time = attributes.subspan(kTimesAt + 16, 8);
    return std::ranges::lexicographical_compare(Bytes(before).last(8), change_time);
  };
  return shown == shown_last_.end() || !is_older(shown->second) ? std::vector<std::byte>{}
                                                                : shown->second;
}

bool Alterations::concern(Procedure procedure) const {
  if (procedure == Procedure::kNull || procedure >= Procedure::kMountNull) {
    return false;
  }
  return strips(procedure) || hides_wcc() || !fsids_.empty() || shift_seconds_ != 0 ||
         whole_seconds_ || completes_wcc_;
}

std::vector<std::byte> Alterations::rewrite(Procedure procedure, Bytes reply) {
  std::vector<std::byte> unchanged(reply.begin(), reply.end());
  const std::optional<ReplyHead> head = parse_reply(reply);
  if (!head || !head->is_success || !concern(procedure)) {
    return unchanged;
  }
  ResultCopier copier(*this, procedure, reply.subspan(head->result_at));
  copy_result(copier, procedure);
  if (!copier.ok()) {
    return unchanged;
  }
  const Bytes header = reply.first(head->result_at);
  std::vector<std::byte> altered(header.begin(), header.end());
  const std::vector<std::byte> result = copier.take();
  altered.insert(altered.end(), result.begin(), result.end());
  return altered;
}

void Alterations::alter_attributes(MutableBytes attributes) {
  const auto fileid = load_be<std::uint64_t>(attributes.data() + kFileidAt);
  if (freeze_all_ || frozen_ids_.contains(fileid)) {
    alter_frozen(fileid, attributes);
  }
  const auto fsid = fsids_.find(fileid);
  if (fsid != fsids_.end()) {
    store_be(attributes.data() + kFsidAt, fsid->second);
  }
  for (std::size_t at = kTimesAt; at < kAttributesBytes; at += 8) {
    alter_time(attributes.data() + at);
  }
  if (completes_wcc_ && shown_last_.size() < kMaximumFrozen) {
    std::vector<std::byte>& shown = shown_last_[fileid];
    shown.assign(attributes.begin() + kSizeAt, attributes.begin() + kSizeAt + 8);
    shown.insert(shown.end(), attributes.begin() + kTimesAt + 8, attributes.end());
  }
}

void Alterations::alter_wcc(MutableBytes attributes) const {
  if (attributes.size() == kWccBytes) {
    alter_time(attributes.data() + 8);
    alter_time(attributes.data() + 16);
  }
}

void Alterations::alter_time(std::byte* time) const {
  const auto seconds = load_be<std::uint32_t>(time);
  store_be(time, static_cast<std::uint32_t>(seconds + shift_seconds_));
  if (whole_seconds_) {
    store_be(time + 4, std::uint32_t{0});
  }
}

void Alterations::alter_frozen(std::uint64_t fileid, MutableBytes attributes) {
  const MutableBytes size = attributes.subspan(kSizeAt, 8);
  const MutableBytes times = attributes.subspan(kTimesAt);
  auto frozen = frozen_.find(fileid);
  if (frozen == frozen_.end() && frozen_.size() < kMaximumFrozen) {
    frozen = frozen_
                 .emplace(fileid, Frozen{.size = {size.begin(), size.end()},
                                         .times = {times.begin(), times.end()}})
                 .first;
  }
  if (frozen != frozen_.end()) {
    std::ranges::copy(frozen->second.size, size.begin());
    std::ranges::copy(frozen->second.times, times.begin());
  }
}

}  // namespace larder::proxy
