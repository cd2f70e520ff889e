#include "cachefiles/state_file.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefiles/checksum.h"
#include "cachefiles/layout.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::string_view kStateMagic = "LarderST";
constexpr std::uint32_t kStateFormat = 1;
constexpr std::uint32_t kClean = 1;
constexpr std::uint32_t kVerify = 1;

// Where the fields begin.
constexpr std::size_t kStateFormatAt = 8;
constexpr std::size_t kStateFlags = 12;
constexpr std::size_t kSequence = 16;
constexpr std::size_t kUuid = 24;
constexpr std::size_t kBootId = 40;
constexpr std::size_t kBootIdBytes = 40;
constexpr std::size_t kMountId = 80;
constexpr std::size_t kStateGeneration = 88;
constexpr std::size_t kDurable = 92;
constexpr std::size_t kUsed = 96;
constexpr std::size_t kCeiling = 104;
constexpr std::size_t kObjects = 112;
constexpr std::size_t kRotation = 120;
constexpr std::size_t kPastCount = 128;
constexpr std::size_t kPast = 132;
constexpr std::size_t kPastBytes = 16;
constexpr std::size_t kStateChecksum = kStateSlotBytes - 4;
static_assert(kPast + kMostPastGenerations * kPastBytes <= kStateChecksum);

constexpr std::uint64_t kDoubtOffset = 2 * kStateSlotBytes;
constexpr std::size_t kDoubtBytes = 12;  // generation, epoch, checksum

}  // namespace

StateSlot encode_state(const CacheState& state, std::uint64_t sequence) {
  CHECK(state.past.size() <= kMostPastGenerations && state.boot_id.size() <= kBootIdBytes);
  StateSlot slot{};
  std::byte* const to = slot.data();
  std::ranges::copy(bytes_of(kStateMagic), slot.begin());
  store_be(to + kStateFormatAt, kStateFormat);
  store_be(to + kStateFlags, state.clean ? kClean : 0U);
  store_be(to + kSequence, sequence);
  std::ranges::copy(state.uuid, slot.begin() + kUuid);
  std::ranges::copy(bytes_of(state.boot_id), slot.begin() + kBootId);
  store_be(to + kMountId, state.mount_id);
  store_be(to + kStateGeneration, state.generation);
  store_be(to + kDurable, state.durable_epoch);
  store_be(to + kUsed, state.used_bytes);
  store_be(to + kCeiling, state.ceiling_bytes);
  store_be(to + kObjects, state.objects);
  store_be(to + kRotation, state.rotation);
  store_be(to + kPastCount, static_cast<std::uint32_t>(state.past.size()));
  std::size_t at = kPast;
  for (const PastGenerations& past : state.past) {
    store_be(to + at, past.first);
    store_be(to + at + 4, past.last);
    store_be(to + at + 8, past.durable);
    store_be(to + at + 12, past.verify ? kVerify : 0U);
    at += kPastBytes;
  }
  store_be(to + kStateChecksum, crc32c(Bytes(slot).first(kStateChecksum)));
  return slot;
}

std::optional<NumberedState> decode_state(Bytes slot) {
  if (slot.size() != kStateSlotBytes || text_of(slot.first(kStateMagic.size())) != kStateMagic ||
      load_be<std::uint32_t>(slot.data() + kStateChecksum) != crc32c(slot.first(kStateChecksum)) ||
      load_be<std::uint32_t>(slot.data() + kStateFormatAt) != kStateFormat) {
    return std::nullopt;
  }
  const std::byte* const from = slot.data();
  NumberedState found;
  found.sequence = load_be<std::uint64_t>(from + kSequence);
  CacheState& state = found.state;
  state.clean = (load_be<std::uint32_t>(from + kStateFlags) & kClean) != 0;
  std::ranges::copy(slot.subspan(kUuid, state.uuid.size()), state.uuid.begin());
  const std::string_view boot_id = text_of(slot.subspan(kBootId, kBootIdBytes));
  state.boot_id = boot_id.substr(0, boot_id.find('\0'));
  state.mount_id = load_be<std::uint64_t>(from + kMountId);
  state.generation = load_be<std::uint32_t>(from + kStateGeneration);
  state.durable_epoch = load_be<std::uint32_t>(from + kDurable);
  state.used_bytes = load_be<std::uint64_t>(from + kUsed);
  state.ceiling_bytes = load_be<std::uint64_t>(from + kCeiling);
  state.objects = load_be<std::uint64_t>(from + kObjects);
  state.rotation = load_be<std::uint64_t>(from + kRotation);
  const std::size_t count = load_be<std::uint32_t>(from + kPastCount);
  for (std::size_t i = 0; i < std::min(count, kMostPastGenerations); ++i) {
    const std::byte* const entry = from + kPast + i * kPastBytes;
    state.past.push_back({load_be<std::uint32_t>(entry), load_be<std::uint32_t>(entry + 4),
                          load_be<std::uint32_t>(entry + 8),
                          (load_be<std::uint32_t>(entry + 12) & kVerify) != 0});
  }
  return found;
}

Result<std::unique_ptr<StateFile>> StateFile::open(os::Directory& root) {
  Result<std::unique_ptr<os::File>> file = root.open_file(kStateFile, os::OpenMode::kReadWrite);
  if (!file && file.error().code() == Errc::kNotFound) {
    file = root.create_file(kStateFile, kFileMode);
  }
  std::unique_ptr<os::File> opened = TRY(std::move(file));
  return std::unique_ptr<StateFile>(new StateFile(std::move(opened)));
}

Result<std::optional<CacheState>> StateFile::load() {
  std::optional<NumberedState> newest;
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{kStateSlotBytes}}) {
    StateSlot slot{};
    const std::size_t got = TRY(file_->read_at(offset, slot));
    std::optional<NumberedState> found = decode_state(Bytes(slot).first(got));
    if (found && (!newest || found->sequence > newest->sequence)) {
      newest = std::move(found);
    }
  }
  if (!newest) {
    return std::nullopt;
  }
  sequence_ = newest->sequence;
  return std::move(newest->state);
}

Result<> StateFile::store(const CacheState& state) {
  const std::uint64_t sequence = sequence_ + 1;
  TRY(file_->write_at((sequence % 2) * kStateSlotBytes, encode_state(state, sequence)));
  TRY(file_->sync());
  sequence_ = sequence;
  return {};
}

Result<> StateFile::note_doubt(std::uint32_t generation, std::uint32_t epoch) {
  std::array<std::byte, kDoubtBytes> bytes{};
  store_be(bytes.data(), generation);
  store_be(bytes.data() + 4, epoch);
  store_be(bytes.data() + 8, crc32c(Bytes(bytes).first(8)));
  return file_->write_at(kDoubtOffset, bytes);
}

Result<std::uint32_t> StateFile::doubted_epoch(std::uint32_t generation) {
  std::array<std::byte, kDoubtBytes> bytes{};
  const std::size_t got = TRY(file_->read_at(kDoubtOffset, bytes));
  if (got < bytes.size() ||
      load_be<std::uint32_t>(bytes.data() + 8) != crc32c(Bytes(bytes).first(8)) ||
      load_be<std::uint32_t>(bytes.data()) != generation) {
    return 0;
  }
  return load_be<std::uint32_t>(bytes.data() + 4);
}

}  // namespace larder::cachefiles
