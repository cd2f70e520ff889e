// The bytes of docs/on-disk-format.md are those that the program writes and reads. A difference is
// a new format: then the number in the format file changes, not this test alone.
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/endian.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/checksum.h"
#include "cachefiles/key.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "cachefiles/map_log.h"
#include "cachefiles/state_file.h"

namespace larder::cachefiles {
namespace {

std::string hex(Bytes bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    text += fmt::format("{:02x}", std::to_integer<unsigned>(bytes[i]));
    if (i + 1 == bytes.size() || i % 16 == 15) {
      text += '\n';
    } else {
      text += ' ';
    }
  }
  return text;
}

// The document's blocks: ```name ... ``` -> what stands between.
std::map<std::string, std::string> blocks_of_document() {
  std::ifstream file(LARDER_SOURCE_DIR "/docs/on-disk-format.md");
  std::map<std::string, std::string> blocks;
  std::string name;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("```")) {
      name = name.empty() ? line.substr(3) : std::string();
      continue;
    }
    if (!name.empty()) {
      blocks[name] += line + "\n";
    }
  }
  return blocks;
}

constexpr std::string_view kVolume = "larder,1,nfs,server,,%2fexport,0";

std::string example_key() {
  return {"\x01\x00\x07\x02\x12\x34\x56\x78\x9a\xbc\xde\xf0", 12};
}

fscache::ObjectDescription example(std::uint64_t size) {
  fscache::ObjectDescription object;
  object.key = example_key();
  object.size = size;
  store_be<std::uint64_t>(object.coherency.data(), (std::uint64_t{1'700'000'000} << 30U) | 5);
  store_be<std::uint64_t>(object.coherency.data() + 8, (std::uint64_t{1'700'000'001} << 30U) | 6);
  return object;
}

TEST(OnDiskFormatTest, NamesAreTheDocuments) {
  const std::uint32_t hash = hash_of_key(hash_of_volume(kVolume), example_key());
  const std::string path = fmt::format("cache/{}/{}/{}\n", volume_directory(kVolume),
                                       fan_out_directory(static_cast<std::uint8_t>(hash & 0xFFU)),
                                       cook_key(example_key()));
  EXPECT_EQ(path, blocks_of_document()["path"]);
  EXPECT_EQ(kFormatText, blocks_of_document()["format"]);
}

TEST(OnDiskFormatTest, LabelIsTheDocuments) {
  const std::string content = "hello, larder\n";
  const fscache::ObjectDescription object = example(content.size());
  Label label;
  label.size = object.size;
  label.coherency = object.coherency;
  label.stamp = {7, 3};
  label.small = label.complete = true;
  label.checksum = crc32c(bytes_of(content), identity_checksum(kVolume, object));
  const auto bytes = encode_label(label);
  EXPECT_EQ(hex(bytes), blocks_of_document()["label"]);
  EXPECT_EQ(decode_label(bytes).value(), label);
}

TEST(OnDiskFormatTest, MapLogIsTheDocuments) {
  const fscache::ObjectDescription object = example(200'000);
  MapHeader header;
  header.size = object.size;
  header.coherency = object.coherency;
  header.digest = digest_of_object(kVolume, object.key);
  header.nonce = 0x0123456789ABCDEF;
  MapRecord present;
  present.stamp = {7, 3};
  present.run = {65'536, 200'000 - 65'536};
  const std::vector<std::byte> zeros(200'000 - 65'536);
  present.checksums = {crc32c(Bytes(zeros).first(65'536)), crc32c(Bytes(zeros).first(65'536)),
                       crc32c(Bytes(zeros).first(3392))};
  MapRecord dropped;
  dropped.type = MapRecordType::kDropped;
  dropped.stamp = {7, 4};
  dropped.run = {65'536, 65'536};
  MapRecord sealed;
  sealed.type = MapRecordType::kSealed;
  sealed.stamp = {7, 4};
  sealed.complete = true;
  sealed.modified = {1'700'000'002, 123'456'789};
  std::string text = hex(encode_map_header(header));
  EXPECT_EQ(decode_map_header(encode_map_header(header)).value(), header);
  for (const MapRecord& record : {present, dropped, sealed}) {
    const auto bytes = encode_map_record(record, header.nonce);
    text += "\n" + hex(bytes);
    EXPECT_EQ(decode_map_record(bytes, header.nonce).value(), record);
    EXPECT_FALSE(decode_map_record(bytes, header.nonce + 1).has_value());
  }
  EXPECT_EQ(text, blocks_of_document()["map-log"]);
}

TEST(OnDiskFormatTest, StateIsTheDocuments) {
  CacheState state;
  for (std::size_t i = 0; i < state.uuid.size(); ++i) {
    state.uuid[i] = static_cast<std::byte>(i * 17);
  }
  state.boot_id = "11111111-2222-3333-4444-555555555555";
  state.mount_id = 42;
  state.generation = 7;
  state.durable_epoch = 3;
  state.used_bytes = 1'000'000;
  state.ceiling_bytes = 2'000'000;
  state.objects = 12;
  state.rotation = 96;
  state.past = {{1, 5, kWholeGeneration, true}, {6, 6, 9, true}};
  const StateSlot slot = encode_state(state, 21);
  // The tail but the checksum is zeros.
  EXPECT_EQ(hex(Bytes(slot).first(176)) + "\n" + hex(Bytes(slot).last(4)),
            blocks_of_document()["state"]);
  const auto decoded = decode_state(slot);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->state, state);
  EXPECT_EQ(decoded->sequence, 21U);
}

// What is at `directory` and below: path, mode, bytes of files.
void list_tree(os::Directory& directory, const std::string& path, std::set<std::string>& lines) {
  EXPECT_TRUE(directory.list([&](const os::DirectoryEntry& entry) {
    const std::string name = path + entry.name;
    const os::FileStat stat = directory.stat(entry.name).value();
    if (stat.type == os::NodeType::kDirectory) {
      lines.insert(fmt::format("{}/ {:04o}", name, stat.mode & 07777U));
      list_tree(*directory.open_directory(entry.name).value(), name + "/", lines);
    } else {
      lines.insert(fmt::format("{} {:04o} {}", name, stat.mode & 07777U, stat.size));
    }
    return true;
  }));
}

class CacheTreeTest : public CacheOnFake {
 protected:
  // A small file, and one with a map log, in the volume of the page.
  void keep_example(std::uint64_t size) {
    const auto object = volume_->open_object(example(size)).value();
    ASSERT_TRUE(fill(*object, std::vector<std::byte>(size)));
  }

  std::unique_ptr<os::Directory> root_ = filesystem_.open_root("/").value();
};

TEST_F(CacheTreeTest, TheTreeIsTheDocuments) {
  bind();
  keep_example(200'000);
  keep("small", 1, 14);
  const std::string long_key = "larder,1,nfs,server,," + std::string(300, 'e') + ",0";
  {
    const auto shortened = cache_->open_volume(long_key).value();
  }
  withdraw();
  std::set<std::string> lines;
  list_tree(*root_, "", lines);
  std::string text;
  for (const std::string& line : lines) {
    text += line + "\n";
  }
  EXPECT_EQ(text, blocks_of_document()["tree"]);
}

std::vector<std::byte> bytes_of_hex(const std::string& text) {
  std::istringstream words(text);
  std::vector<std::byte> bytes;
  for (unsigned byte = 0; words >> std::hex >> byte;) {
    bytes.push_back(static_cast<std::byte>(byte));
  }
  return bytes;
}

// Written by hand as the document says, it is a cache.
TEST_F(CacheTreeTest, ACacheMadeOfTheDocumentIsRead) {
  auto blocks = blocks_of_document();
  const auto write = [this](const std::string& name, std::uint64_t at, Bytes bytes) {
    const auto file = root_->open_file(name, os::OpenMode::kReadWrite);
    const auto place = file ? nullptr : root_->create_file(name, kFileMode).value();
    EXPECT_TRUE((file ? *file : place)->write_at(at, bytes));
  };
  write("format", 0, bytes_of(blocks["format"]));
  std::vector<std::byte> slot = bytes_of_hex(blocks["state"]);
  slot.insert(slot.end() - 4, 4096 - slot.size(), std::byte{});
  write("state", 4096, slot);
  auto directory = filesystem_.open_root("/").value();
  std::istringstream path(blocks["path"]);
  std::string name;
  while (std::getline(path, name, '/') && !name.starts_with("E")) {
    ASSERT_TRUE(directory->make_directory(name, kDirectoryMode));
    directory = directory->open_directory(name).value();
  }
  name.pop_back();  // the end of the line
  const auto data = directory->create_file(name, kFileMode).value();
  ASSERT_TRUE(data->write_at(0, bytes_of("hello, larder\n")));
  ASSERT_TRUE(data->set_xattr(kLabelName, bytes_of_hex(blocks["label"])));
  bind();
  const auto object = volume_->open_object(example(14)).value();
  EXPECT_TRUE(object->complete());
  std::vector<std::byte> got(14);
  ASSERT_TRUE(object->read(0, got));
  EXPECT_EQ(text_of(got), "hello, larder\n");
}

}  // namespace
}  // namespace larder::cachefiles
