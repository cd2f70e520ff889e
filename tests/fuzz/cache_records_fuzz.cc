// What lies in a cache's directory, chosen by the first byte: labels, the map log's header and
// records, state slots, names. Nothing is read beyond its end, and what decodes says the same when
// it is written again. Checksums are made to fit unless the input is odd about it: else nothing
// would come behind them.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "cachefiles/checksum.h"
#include "cachefiles/key.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "cachefiles/map_log.h"
#include "cachefiles/state_file.h"

namespace {

using namespace larder;
using namespace larder::cachefiles;

constexpr std::uint64_t kNonce = 7;
constexpr std::size_t kMostNameBytes = 255;

// `bytes` behind what all of its kind begin with, filled with zeros to its size, with the checksum
// at its end.
std::vector<std::byte> sealed(std::string_view magic, Bytes bytes, std::size_t size,
                              std::uint32_t seed = 0) {
  std::vector<std::byte> all(size);
  std::ranges::copy(bytes_of(magic), all.begin());
  std::ranges::copy(bytes.first(std::min(bytes.size(), size - magic.size())),
                    all.begin() + static_cast<std::ptrdiff_t>(magic.size()));
  store_be(all.data() + size - 4, crc32c(Bytes(all).first(size - 4), seed));
  return all;
}

void check_label(Bytes bytes) {
  if (const auto label = decode_label(bytes)) {
    const auto written = encode_label(*label);
    CHECK(std::ranges::equal(written, bytes));
  }
}

void check_header(Bytes bytes) {
  if (const auto header = decode_map_header(bytes)) {
    const auto again = decode_map_header(encode_map_header(*header));
    CHECK(again.has_value() && *again == *header);
  }
}

void check_record(Bytes bytes) {
  if (const auto record = decode_map_record(bytes, kNonce)) {
    CHECK(record->checksums.size() <= kMostCells);
    CHECK(record->run.end() >= record->run.offset);
    CHECK(record->type != MapRecordType::kPresent ||
          record->checksums.size() == cells_of(record->run));
    const auto written = encode_map_record(*record, kNonce);
    const auto again = decode_map_record(written, kNonce);
    CHECK(again.has_value() && *again == *record);
    CHECK(!decode_map_record(written, kNonce + 1));
  }
}

void check_state(Bytes bytes) {
  if (const auto found = decode_state(bytes)) {
    const auto again = decode_state(encode_state(found->state, found->sequence));
    CHECK(again.has_value() && again->state == found->state);
    CHECK(again->sequence == found->sequence);
  }
}

void check_name(std::string_view name) {
  if (const auto key = uncook_key(name)) {
    CHECK(cook_key(*key) == name);
  }
}

void check_key(std::string_view text) {
  const std::string key(text.substr(0, 128));
  if (key.empty()) {
    return;
  }
  const std::string name = cook_key(key);
  CHECK(name.size() <= kMostNameBytes && !name.contains('/') && !name.contains('\0'));
  const auto back = uncook_key(name);
  CHECK(back.has_value() && back->starts_with(key));
  CHECK(back->find_first_not_of('\0', key.size()) == std::string::npos);
  CHECK(back->size() - key.size() < 4);
}

void check_volume_key(std::string_view key) {
  const std::string shorter = short_volume_key(key);
  CHECK(volume_directory(shorter).size() <= kMostNameBytes);
  CHECK(shorter == key || key.size() >= kMostNameBytes);
  CHECK(short_volume_key(shorter) == shorter);
}

void check(std::uint8_t which, Bytes bytes) {
  switch (which % 10) {
    case 0:
      check_label(bytes);
      break;
    case 1:
      check_header(bytes);
      break;
    case 2:
      check_header(sealed("LarderML", bytes, kMapRecordBytes));
      break;
    case 3:
      check_record(bytes);
      break;
    case 4: {
      std::array<std::byte, 8> seed{};
      store_be(seed.data(), kNonce);
      check_record(sealed("", bytes, kMapRecordBytes, crc32c(seed)));
      break;
    }
    case 5:
      check_state(bytes);
      break;
    case 6:
      check_state(sealed("LarderST", bytes, kStateSlotBytes));
      break;
    case 7:
      check_name(text_of(bytes));
      break;
    case 8:
      check_key(text_of(bytes));
      break;
    default:
      check_volume_key(text_of(bytes));
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) {
    check(data[0], std::as_bytes(std::span(data + 1, size - 1)));
  }
  return 0;
}
