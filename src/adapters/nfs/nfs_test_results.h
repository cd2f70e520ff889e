// For tests: results of NFSv3 procedures as a server sends them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "adapters/nfs/xdr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "netfs/attributes.h"

namespace larder::nfs {

inline netfs::Attributes test_attributes(std::uint64_t fileid) {
  netfs::Attributes attributes;
  attributes.type = netfs::FileType::kRegular;
  attributes.mode = 0640;
  attributes.link_count = 2;
  attributes.uid = 1000;
  attributes.gid = 100;
  attributes.size = 5'000'000'000;
  attributes.used = 4096;
  attributes.device_major = 8;
  attributes.device_minor = 1;
  attributes.fsid = 77;
  attributes.fileid = fileid;
  attributes.accessed = {1, 2};
  attributes.modified = {3'000'000'000, 4};
  attributes.changed = {5, 999'999'999};
  return attributes;
}

inline void put_attributes(XdrEncoder& out, const netfs::Attributes& attributes) {
  out.put_u32(static_cast<std::uint32_t>(attributes.type));
  out.put_u32(attributes.mode | 0100000);  // some servers add the type
  out.put_u32(attributes.link_count);
  out.put_u32(attributes.uid);
  out.put_u32(attributes.gid);
  out.put_u64(attributes.size);
  out.put_u64(attributes.used);
  out.put_u32(attributes.device_major);
  out.put_u32(attributes.device_minor);
  out.put_u64(attributes.fsid);
  out.put_u64(attributes.fileid);
  for (const auto& time : {attributes.accessed, attributes.modified, attributes.changed}) {
    out.put_u32(static_cast<std::uint32_t>(time.seconds));
    out.put_u32(time.nanoseconds);
  }
}

inline std::vector<std::byte> getattr_results(const netfs::Attributes& attributes) {
  XdrEncoder out;
  out.put_u32(0);
  put_attributes(out, attributes);
  return out.take();
}

inline std::vector<std::byte> lookup_results(const netfs::FileHandle& handle,
                                             const netfs::Attributes& attributes) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_opaque(handle.bytes());
  out.put_bool(true);
  put_attributes(out, attributes);
  out.put_bool(false);
  return out.take();
}

inline std::vector<std::byte> fsinfo_results(std::uint32_t read_max, std::uint32_t read_preferred) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_bool(false);
  for (const std::uint32_t word :
       {read_max, read_preferred, 4096U, read_max, read_max, 4096U, 8192U}) {
    out.put_u32(word);
  }
  out.put_u64(1ULL << 60);
  out.put_u64(1'000'000);  // time_delta: 0 s and 1 ms
  out.put_u32(0x1b);
  return out.take();
}

struct TestEntry {
  std::string name;
  std::uint64_t fileid;
  std::uint64_t cookie;
};

inline std::vector<std::byte> readdir_results(bool plus, const std::vector<TestEntry>& entries,
                                              bool end) {
  XdrEncoder out;
  out.put_u32(0);
  out.put_bool(false);
  out.put_u64(0xabcdef);  // verifier
  for (const TestEntry& entry : entries) {
    out.put_bool(true);
    out.put_u64(entry.fileid);
    out.put_string(entry.name);
    out.put_u64(entry.cookie);
    if (plus) {
      out.put_bool(true);
      put_attributes(out, test_attributes(entry.fileid));
      out.put_bool(true);
      out.put_string("handle of " + entry.name.substr(0, 20));
    }
  }
  out.put_bool(false);
  out.put_bool(end);
  return out.take();
}

// A reply cut short anywhere must be refused, never read over or half believed.
template <class Decode>
void expect_every_prefix_corrupt(Bytes whole, const Decode& decode) {
  ASSERT_TRUE(decode(whole));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const auto result = decode(whole.first(length));
    ASSERT_FALSE(result) << length;
    ASSERT_EQ(result.error().code(), Errc::kCorrupt) << length;
  }
}

}  // namespace larder::nfs
