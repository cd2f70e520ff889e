#include "cli/cache_command.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>

#include "base/result.h"
#include "cli/status_text.h"

namespace larder::cli {

namespace {

namespace fs = std::filesystem;

constexpr int kPauseMilliseconds = 200;

bool is_below(std::string_view path, const std::vector<std::string>& directories) {
  return std::ranges::any_of(directories, [path](const std::string& directory) {
    return path == directory ||
           (path.starts_with(directory) && path.substr(directory.size()).starts_with('/'));
  });
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The targets of the links in a directory of /proc/PID.
void add_links(const fs::path& directory, std::vector<std::string>& paths) {
  std::error_code error;
  for (fs::directory_iterator at(directory, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    std::error_code gone;
    if (const fs::path target = fs::read_symlink(at->path(), gone); !gone) {
      paths.push_back(target);
    }
  }
}

bool is_process(std::string_view name) {
  return !name.empty() && name.find_first_not_of("0123456789") == std::string_view::npos;
}

nlohmann::json rows_of(std::string_view status, const char* which) {
  const nlohmann::json parsed = nlohmann::json::parse(status, nullptr, false);
  if (!parsed.is_object() || !parsed.contains(which) || !parsed[which].is_array()) {
    return nlohmann::json::array();
  }
  return parsed[which];
}

std::string text_at(const nlohmann::json& row, const char* key) {
  const auto found = row.is_object() ? row.find(key) : row.end();
  return row.is_object() && found != row.end() && found->is_string() ? found->get<std::string>()
                                                                     : std::string();
}

// The texts at `wanted` of the rows that have `text` at `key`.
std::vector<std::string> texts_where(const nlohmann::json& rows, const char* key,
                                     const std::string& text, const char* wanted) {
  std::vector<std::string> texts;
  for (const auto& row : rows) {
    if (text_at(row, key) == text && !text_at(row, wanted).empty()) {
      texts.push_back(text_at(row, wanted));
    }
  }
  return texts;
}

std::string lines_of(const std::vector<FileHolder>& holders) {
  std::string text;
  for (const FileHolder& holder : holders) {
    text += fmt::format("  process {} ({}): {}\n", holder.pid, printable(holder.command),
                        printable(holder.path));
  }
  return text;
}

}  // namespace

std::vector<FileHolder> file_holders(const std::string& proc,
                                     const std::vector<std::string>& directories) {
  std::vector<FileHolder> holders;
  std::error_code error;
  for (fs::directory_iterator at(proc, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    const std::string pid = at->path().filename();
    if (!is_process(pid)) {
      continue;
    }
    std::vector<std::string> paths;
    add_links(at->path() / "fd", paths);
    add_links(at->path() / "map_files", paths);
    std::ranges::sort(paths);
    const auto repeated = std::ranges::unique(paths);
    paths.erase(repeated.begin(), repeated.end());
    for (const std::string& path : paths) {
      if (is_below(path, directories)) {
        holders.push_back({pid, first_line(at->path() / "comm"), path});
      }
    }
  }
  return holders;
}

std::vector<std::string> directories_of(std::string_view status, const std::string& tag) {
  return texts_where(rows_of(status, "caches"), "tag", tag, "path");
}

std::vector<std::string> mountpoints_of(std::string_view status, const std::string& tag) {
  return texts_where(rows_of(status, "mounts"), "cache", tag, "mountpoint");
}

bool is_let_go(std::string_view status, const std::string& tag) {
  const auto caches = rows_of(status, "caches");
  return std::ranges::none_of(caches, [&tag](const auto& cache) {
    return text_at(cache, "tag") == tag && cache.value("disk_in_use", false);
  });
}

std::string tag_of(std::string_view status, const std::string& name) {
  std::string tag = name;
  for (const auto& cache : rows_of(status, "caches")) {
    if (text_at(cache, "tag") == name) {
      return name;
    }
    if (text_at(cache, "path") == name) {
      tag = text_at(cache, "tag");
    }
  }
  return tag;
}

Result<std::string> detach_cache(const AskEngine& ask, const std::string& name,
                                 std::chrono::seconds patience) {
  std::string status = TRY(ask({"status"}));
  const std::string tag = tag_of(status, name);
  TRY(ask({"detach", tag}));
  const auto until = std::chrono::steady_clock::now() + patience;
  status = TRY(ask({"status"}));
  while (!is_let_go(status, tag) && std::chrono::steady_clock::now() < until) {
    ::poll(nullptr, 0, kPauseMilliseconds);
    status = TRY(ask({"status"}));
  }
  if (!is_let_go(status, tag)) {
    const std::string users = lines_of(file_holders("/proc", mountpoints_of(status, tag)));
    return users.empty()
               ? fmt::format(
                     "the cache {} is offline, but its disk is still in use: it does not "
                     "answer, or files are open that cannot be seen from here\n",
                     tag)
               : fmt::format(
                     "the cache {} is offline, but files of it are still open; its disk is "
                     "free when these are closed:\n",
                     tag) +
                     users;
  }
  // Above all its daemon, which waits for it to come back.
  const std::vector<FileHolder> holders = file_holders("/proc", directories_of(status, tag));
  return holders.empty()
             ? fmt::format("the cache {} is offline and its disk is free\n", tag)
             : fmt::format("the cache {} is offline; its disk is free when these have ended:\n",
                           tag) +
                   lines_of(holders);
}

}  // namespace larder::cli
