#include "engine/status.h"

#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "engine/cache_binder.h"
#include "engine/mount.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "netfs/share.h"

namespace larder::engine {

namespace {

using Json = nlohmann::ordered_json;

// What works on, but should not have happened; "" if it did not.
std::string damage_of(const fscache::BackendStatus& backend) {
  if (backend.corrupt_ranges == 0 && backend.damaged_objects == 0) {
    return "";
  }
  return fmt::format(
      "{} objects and {} ranges of bytes were not as they were written and are fetched again: the "
      "disk fails, or somebody changed files in the cache's directory",
      backend.damaged_objects, backend.corrupt_ranges);
}

Json limits_json(const fscache::FilesystemLimits& limits) {
  return {{"free", limits.free}, {"run", limits.run}, {"cull", limits.cull}, {"stop", limits.stop}};
}

Json cache_json(const CacheBinder::Status& status) {
  Json json;
  json["tag"] = status.cache.tag;
  json["path"] = status.path;
  json["holder"] = status.holder;
  json["disk_in_use"] = status.cache.present || status.being_bound;
  json["state"] = fscache::name_of(status.cache.state);
  // Why it could not be brought online came after why it went offline.
  json["trouble"] = status.bind_trouble.empty() ? status.cache.trouble : status.bind_trouble;
  if (status.cache.backend) {
    const fscache::BackendStatus& backend = *status.cache.backend;
    json["used_bytes"] = backend.used_bytes;
    json["limit_bytes"] = backend.limit_bytes;
    json["filesystem_bytes"] = limits_json(backend.blocks);
    json["filesystem_files"] = limits_json(backend.files);
    json["objects"] = backend.objects;
    json["objects_exact"] = backend.objects_exact;
    json["culling"] = backend.culling;
    json["culled_objects"] = backend.culled_objects;
    json["culled_bytes"] = backend.culled_bytes;
    json["culled_last_hour"] = backend.culled_last_hour;
    json["oldest_s"] = backend.oldest_seconds;
    json["open_objects"] = backend.open_objects;
    json["open_directories"] = backend.open_directories;
    json["corrupt_ranges"] = backend.corrupt_ranges;
    json["damaged_objects"] = backend.damaged_objects;
    json["damage"] = damage_of(backend);
  }
  return json;
}

// Of the reads that came to the engine, the share that needed nothing from the server.
double hit_ratio(const netfs::ShareStatistics& share) {
  const double reads = static_cast<double>(share.hits + share.misses);
  return reads == 0 ? 0 : static_cast<double>(share.hits) / reads;
}

Json mount_json(const MountStatus& status) {
  Json json;
  json["id"] = status.id;
  json["source"] = status.spec.source;
  json["mountpoint"] = status.spec.mountpoint;
  json["cache"] = status.spec.cache;
  json["state"] = name_of(status.state);
  json["trouble"] = status.adapter.trouble;
  json["connected"] = status.adapter.connected;
  json["hit_ratio"] = hit_ratio(status.share);
  json["known_inodes"] = status.share.known_inodes;
#define NETFS_COUNTER(name, text) json[#name] = status.share.name;
#include "netfs/stats.def"
#undef NETFS_COUNTER
  json["unsafe_bytes"] = status.share.unsafe_bytes;
  json["server_calls"] = status.adapter.calls;
  json["server_reads"] = status.adapter.reads;
  json["server_bytes_read"] = status.adapter.bytes_read;
  json["retransmissions"] = status.adapter.retransmissions;
  json["reconnects"] = status.adapter.reconnects;
  json["opens"] = status.filesystem.opens;
  json["opens_passthrough"] = status.filesystem.opens_passthrough;
  json["opens_page_cache"] = status.filesystem.opens_page_cache;
  json["backing_ids"] = status.filesystem.backing_ids;
  // Who turned it off knows why.
  json["passthrough_trouble"] =
      status.spec.options.passthrough ? status.filesystem.passthrough_trouble : "";
  return json;
}

}  // namespace

std::string status_text(const EngineStatus& status) {
  Json json;
  json["version"] = LARDER_VERSION;
  json["keeper"]["pid"] = ::getppid();
  json["keeper"]["trouble"] = status.keeper_trouble;
  json["engine"]["pid"] = ::getpid();
  json["engine"]["uptime_s"] = status.uptime.count();
  json["engine"]["nodes"] = status.nodes;
  json["engine"]["unjournaled_calls"] = status.unjournaled_calls;
  json["caches"] = Json::array();
  for (const auto& cache : status.caches) {
    json["caches"].push_back(cache_json(cache));
  }
  json["mounts"] = Json::array();
  for (const auto& mount : status.mounts) {
    json["mounts"].push_back(mount_json(mount));
  }
  // Names of files and servers may hold any bytes; JSON may not.
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace larder::engine
