// CallerKey: one file as one caller sees it; the key of what the server told him alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "netfs/attributes.h"

namespace larder::netfs {

struct CallerKey {
  FileHandle handle;
  Credential credential;

  bool operator==(const CallerKey&) const = default;
};

struct CallerKeyHash {
  std::size_t operator()(const CallerKey& key) const {
    constexpr std::size_t kMix = 0x9e3779b97f4a7c15;  // the golden ratio, as in every hash_combine
    std::size_t hash = FileHandleHash()(key.handle);
    const auto mix = [&hash](std::uint32_t value) { hash = (hash ^ value) * kMix; };
    mix(key.credential.uid);
    mix(key.credential.gid);
    for (const std::uint32_t group : key.credential.groups) {
      mix(group);
    }
    return hash;
  }
};

}  // namespace larder::netfs
