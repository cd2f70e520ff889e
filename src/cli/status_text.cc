#include "cli/status_text.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/result.h"

namespace larder::cli {

namespace {

using Json = nlohmann::json;

enum class Shape : std::uint8_t { kText, kNumber, kBytes, kRatio, kAge };

struct Column {
  const char* title;
  const char* key;
  Shape shape;
};

constexpr auto kCacheColumns = std::to_array<Column>({
    {"CACHE", "path", Shape::kText},
    {"TAG", "tag", Shape::kText},
    {"USED", "used_bytes", Shape::kBytes},
    {"LIMIT", "limit_bytes", Shape::kBytes},
    {"OBJECTS", "objects", Shape::kNumber},
    {"IN USE", "open_objects", Shape::kNumber},
    {"CULLED/H", "culled_last_hour", Shape::kNumber},
    {"OLDEST", "oldest_s", Shape::kAge},
    {"STATE", "state", Shape::kText},
});

constexpr auto kMountColumns = std::to_array<Column>({
    {"MOUNT", "mountpoint", Shape::kText},
    {"SOURCE", "source", Shape::kText},
    {"STATE", "state", Shape::kText},
    {"HITS", "hits", Shape::kNumber},
    {"MISSES", "misses", Shape::kNumber},
    {"RATIO", "hit_ratio", Shape::kRatio},
    {"FROM CACHE", "bytes_from_cache", Shape::kBytes},
    {"FROM SERVER", "bytes_from_server", Shape::kBytes},
});

// What is wrong with a cache or a mount, each a sentence or "".
constexpr auto kTroubleKeys =
    std::to_array<const char*>({"trouble", "damage", "passthrough_trouble"});

std::string readable_age(double seconds) {
  constexpr double kMinute = 60;
  constexpr double kHour = 60 * kMinute;
  constexpr double kDay = 24 * kHour;
  if (seconds <= 0) {
    return "-";
  }
  if (seconds < 2 * kHour) {
    return fmt::format("{:.0f} min", seconds / kMinute);
  }
  return seconds < 2 * kDay ? fmt::format("{:.0f} h", seconds / kHour)
                            : fmt::format("{:.0f} d", seconds / kDay);
}

std::string cell(const Json& object, const Column& column) {
  const auto found = object.find(column.key);
  if (found == object.end() || found->is_null()) {
    return "-";
  }
  if (found->is_string()) {
    return printable(found->get<std::string>());
  }
  if (!found->is_number()) {
    return printable(found->dump());
  }
  switch (column.shape) {
    case Shape::kBytes:
      return readable_bytes(found->get<double>());
    case Shape::kAge:
      return readable_age(found->get<double>());
    case Shape::kRatio:
      return fmt::format("{:.1f} %", found->get<double>() * 100);
    default:
      return found->dump();
  }
}

// What is shown below a row.
std::vector<std::string> remarks_on(const Json& row) {
  std::vector<std::string> remarks;
  if (const auto holder = row.find("holder");
      holder != row.end() && holder->is_string() && !holder->get<std::string>().empty()) {
    remarks.push_back("cared for by " + holder->get<std::string>());
  }
  for (const char* const key : kTroubleKeys) {
    const auto found = row.find(key);
    if (found != row.end() && found->is_string() && !found->get<std::string>().empty()) {
      remarks.push_back("! " + found->get<std::string>());
    }
  }
  return remarks;
}

// As it is shown: a tag only where it says more than the path, and the state with what goes on in
// it.
Json cache_row(Json cache) {
  if (!cache.is_object()) {
    return cache;
  }
  if (cache.contains("path") && cache.contains("tag") && cache["path"] == cache["tag"]) {
    cache.erase("tag");
  }
  if (cache.contains("state") && cache["state"].is_string() && cache.contains("culling") &&
      cache["culling"] == true) {
    cache["state"] = cache["state"].get<std::string>() + ", culling";
  }
  return cache;
}

Json cache_rows(const Json& caches) {
  Json rows = Json::array();
  if (caches.is_array()) {
    for (const Json& cache : caches) {
      rows.push_back(cache_row(cache));
    }
  }
  return rows;
}

// A table with columns as wide as their widest cell, and below each row what else there is to say.
void append_table(std::string& text, const Json& rows, std::span<const Column> columns) {
  if (!rows.is_array() || rows.empty()) {
    return;
  }
  std::vector<std::vector<std::string>> cells(1);
  for (const Column& column : columns) {
    cells[0].emplace_back(column.title);
  }
  std::vector<std::vector<std::string>> remarks(1);
  for (const Json& row : rows) {
    if (!row.is_object()) {
      continue;
    }
    std::vector<std::string>& line = cells.emplace_back();
    for (const Column& column : columns) {
      line.push_back(cell(row, column));
    }
    remarks.push_back(remarks_on(row));
  }
  std::vector<std::size_t> widths(columns.size());
  for (const auto& line : cells) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], line[i].size());
    }
  }
  text += '\n';
  for (std::size_t row = 0; row < cells.size(); ++row) {
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
      text += fmt::format("{:{}}  ", cells[row][i], widths[i]);
    }
    text += cells[row].back() + '\n';
    for (const std::string& remark : remarks[row]) {
      text += fmt::format("  {}\n", printable(remark));
    }
  }
}

std::string number_at(const Json& object, const char* part, const char* key) {
  const auto found = object.find(part);
  if (found == object.end() || !found->is_object()) {
    return "-";
  }
  return cell(*found, {"", key, Shape::kNumber});
}

std::string keeper_trouble(const Json& status) {
  const auto keeper = status.find("keeper");
  if (keeper == status.end() || !keeper->is_object()) {
    return "";
  }
  const auto trouble = keeper->find("trouble");
  return trouble != keeper->end() && trouble->is_string() ? trouble->get<std::string>() : "";
}

}  // namespace

std::string readable_bytes(double bytes) {
  constexpr std::array<const char*, 6> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes)
                   : fmt::format("{:.1f} {}", bytes, kUnits.at(unit));
}

std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

Result<std::string> status_text(std::string_view json) {
  const Json status = Json::parse(json, nullptr, false);
  if (!status.is_object()) {
    return fail(Errc::kCorrupt,
                "the engine's status is not JSON: engine and command line are of "
                "different versions, `larder stop` and start again");
  }
  std::string text =
      fmt::format("keeper pid {}, engine pid {}, up {} s\n", number_at(status, "keeper", "pid"),
                  number_at(status, "engine", "pid"), number_at(status, "engine", "uptime_s"));
  if (const std::string trouble = keeper_trouble(status); !trouble.empty()) {
    text += fmt::format("  ! {}\n", printable(trouble));
  }
  const Json none = Json::array();
  append_table(text, cache_rows(status.value("caches", none)), kCacheColumns);
  append_table(text, status.value("mounts", none), kMountColumns);
  if (status.value("mounts", none).empty()) {
    text += "no mounts\n";
  }
  return text;
}

}  // namespace larder::cli
