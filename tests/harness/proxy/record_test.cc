// If these fail the proxy loses its place in the stream, and every count and fault is wrong.
#include "record.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace larder::proxy {
namespace {

std::vector<std::byte> record_of(std::string_view payload, std::size_t fragment_bytes) {
  return frame_record(bytes_of(payload), fragment_bytes);
}

// The payloads of the records in `stream`, which arrives in pieces of random size.
std::vector<std::string> scan(Bytes stream, std::size_t largest_piece, unsigned seed) {
  std::minstd_rand random(seed);
  RecordScanner scanner;
  std::vector<std::string> records;
  std::string current;
  while (!stream.empty()) {
    Bytes piece = stream.first(std::min(stream.size(), 1 + (random() % largest_piece)));
    stream = stream.subspan(piece.size());
    while (!piece.empty()) {
      const RecordScanner::Piece found = scanner.next(piece);
      if (found.is_payload) {
        current += text_of(piece.first(found.length));
      }
      piece = piece.subspan(found.length);
      if (found.ends_record) {
        records.push_back(std::exchange(current, {}));
      }
    }
  }
  EXPECT_EQ(current, "") << "the last record did not end";
  return records;
}

TEST(RecordTest, FindsRecordsHoweverTheyAreFragmentedAndCutUp) {
  const std::vector<std::string> payloads{"one", "", std::string(5000, 'x'), "four"};
  for (const std::size_t fragment_bytes : {0UZ, 1UZ, 2UZ, 7UZ, 4096UZ}) {
    std::vector<std::byte> stream;
    for (const std::string& payload : payloads) {
      const auto record = record_of(payload, fragment_bytes);
      stream.insert(stream.end(), record.begin(), record.end());
    }
    for (const std::size_t largest_piece : {1UZ, 3UZ, 100UZ, 100000UZ}) {
      for (unsigned seed = 1; seed <= 20; ++seed) {
        EXPECT_EQ(scan(stream, largest_piece, seed), payloads)
            << "fragments of " << fragment_bytes << ", pieces up to " << largest_piece << ", seed "
            << seed;
      }
    }
  }
}

TEST(RecordTest, AFragmentMayBeEmpty) {
  std::vector<std::byte> stream(4);  // not the last, no bytes
  const auto rest = record_of("text", 0);
  stream.insert(stream.end(), rest.begin(), rest.end());
  EXPECT_EQ(scan(stream, 100, 1), std::vector<std::string>{"text"});
}

TEST(RecordTest, TheLastFragmentAloneIsMarked) {
  const auto record = record_of("abc", 2);
  EXPECT_EQ(text_of(record), std::string_view("\0\0\0\2ab\x80\0\0\1c", 11));
}

}  // namespace
}  // namespace larder::proxy
