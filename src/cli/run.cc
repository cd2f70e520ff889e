#include "cli/run.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cli/cache_command.h"
#include "cli/checks.h"
#include "cli/keeper_start.h"
#include "cli/mount_command.h"
#include "cli/mount_options.h"
#include "cli/mount_table.h"
#include "cli/status_text.h"
#include "control/client.h"
#include "handover/keeper_client.h"
#include "handover/paths.h"

namespace larder::cli {

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitServed = 3;     // a keeper runs already: to try again is no use
constexpr int kHelperFailed = 32;  // as mount(8) documents it
constexpr int kHelperUsage = 1;
constexpr std::chrono::seconds kPatience{30};
// For files that were closed a moment ago.
constexpr std::chrono::seconds kDetachPatience{15};

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (!text.empty() && !text.ends_with('\n')) {
    std::fputc('\n', stdout);
  }
}

int finish(std::string_view program, const Result<>& result, int failed) {
  if (result) {
    return 0;
  }
  fmt::print(stderr, "{}: {}\n", program, result.error().message());
  return failed;
}

// What the commands' arguments are put into.
struct Arguments {
  ServeOptions keeper;
  std::string source;
  std::string path;
  std::string options;
  std::string cache;
  std::string cache_size;
  std::vector<std::string> daemons;
  bool foreground = false;
  bool json = false;
  bool lazily = false;
  bool by_force = false;
};

Result<std::string> ask_engine(const Arguments& arguments, const std::vector<std::string>& words) {
  Result<std::string> answer = control::ask(arguments.keeper.runtime_directory, words, kPatience);
  if (!answer && answer.error().code() == Errc::kNotFound) {
    return fail(Errc::kNotFound,
                fmt::format("no keeper runs for {}: `larder mount` or `larder serve` starts one",
                            arguments.keeper.runtime_directory));
  }
  return answer;
}

// The keeper works from "/", and the checks compare clean paths.
Result<> settle_runtime_directory(ServeOptions& keeper) {
  const Result<std::string> path = resolve_parent(keeper.runtime_directory);
  if (!path) {
    return fail(Errc::kInvalid,
                fmt::format("the runtime directory {} cannot be made: the directory above it does "
                            "not exist",
                            keeper.runtime_directory));
  }
  keeper.runtime_directory = *path;
  return {};
}

Result<> do_serve(Arguments& arguments, const Serve& serve) {
  if (!arguments.cache.empty()) {
    const std::vector<MountEntry> table = TRY(read_mount_table());
    arguments.keeper.cache = TRY(resolve_cache(arguments.cache, table));
  }
  if (!arguments.cache_size.empty()) {
    arguments.keeper.cache_size = TRY(parse_cache_size("--cache-size", arguments.cache_size));
  }
  for (const std::string& configuration : arguments.daemons) {
    arguments.keeper.daemons.push_back(TRY(check_configuration(configuration)));
  }
  if (!arguments.foreground) {
    return start_in_background(serve, arguments.keeper);
  }
  return serve(arguments.keeper, [] {});
}

Result<> do_mount(Arguments& arguments, const Serve& serve) {
  MountRequest request;
  request.source = arguments.source;
  request.mountpoint = arguments.path;
  request.words = TRY(parse_option_words(arguments.options));
  request.keeper = arguments.keeper;
  if (!arguments.cache.empty()) {
    request.words.cache = arguments.cache;
  }
  if (!arguments.cache_size.empty()) {
    request.words.cache_size = TRY(parse_cache_size("--cache-size", arguments.cache_size));
  }
  if (request.words.runtime_directory) {
    request.keeper.runtime_directory = *request.words.runtime_directory;
    TRY(settle_runtime_directory(request.keeper));
  }
  return mount_source(request, serve);
}

// The mount points of this keeper's mounts that are in our namespace.
std::vector<std::string> own_mountpoints(const Arguments& arguments) {
  const Result<std::string> status = ask_engine(arguments, {"status"});
  const Result<std::vector<MountEntry>> table = read_mount_table();
  std::vector<std::string> mountpoints;
  if (!status || !table) {
    return mountpoints;  // an engine that does not answer must not keep us from stopping it
  }
  const nlohmann::json parsed = nlohmann::json::parse(*status, nullptr, false);
  if (!parsed.is_object()) {
    return mountpoints;
  }
  for (const auto& mount : parsed.value("mounts", nlohmann::json::array())) {
    const std::string path = mount.is_object() ? mount.value("mountpoint", "") : "";
    const MountEntry* const entry = mount_of(*table, path);
    if (entry != nullptr && entry->is_ours() && entry->mountpoint == path) {
      mountpoints.push_back(path);
    }
  }
  return mountpoints;
}

Result<> do_stop(Arguments& arguments, const Serve& /*serve*/) {
  handover::KeeperClient client(arguments.keeper.runtime_directory);
  TRY(client.pids());  // says so if none runs
  for (const std::string& mountpoint : own_mountpoints(arguments)) {
    if (const Result<> unmounted = unmount(mountpoint, arguments.by_force); !unmounted) {
      return fail(unmounted.error().code(),
                  fmt::format("not stopped: {}", unmounted.error().message()));
    }
  }
  return client.stop(kPatience * 2);
}

Result<> do_umount(Arguments& arguments, const Serve& /*serve*/) {
  return unmount(arguments.path, arguments.lazily);
}

Result<> do_status(Arguments& arguments, const Serve& /*serve*/) {
  const std::string json = TRY(ask_engine(arguments, {"status"}));
  print(arguments.json ? json : TRY(status_text(json)));
  return {};
}

Result<> do_flush(Arguments& arguments, const Serve& /*serve*/) {
  const std::string path = TRY(resolve_parent(arguments.path));
  print(TRY(ask_engine(arguments, {"flush", path})));
  return {};
}

Result<> do_detach(Arguments& arguments, const Serve& /*serve*/) {
  const AskEngine ask = [&arguments](const std::vector<std::string>& words) {
    return ask_engine(arguments, words);
  };
  print(TRY(detach_cache(ask, arguments.cache, kDetachPatience)));
  return {};
}

Result<> do_attach(Arguments& arguments, const Serve& /*serve*/) {
  const std::string status = TRY(ask_engine(arguments, {"status"}));
  TRY(ask_engine(arguments, {"attach", tag_of(status, arguments.cache)}));
  return {};
}

Result<> do_log(Arguments& arguments, const Serve& /*serve*/) {
  print(TRY(ask_engine(arguments, {"log"})));
  return {};
}

Result<> do_version(Arguments& arguments, const Serve& /*serve*/) {
  print("larder " LARDER_VERSION);
  if (const Result<std::string> engine =
          control::ask(arguments.keeper.runtime_directory, {"version"}, kPatience)) {
    print(fmt::format("running engine: {}", *engine));
  }
  return {};
}

using Action = Result<> (*)(Arguments& arguments, const Serve& serve);

CLI::Option* add_cache_size(CLI::App& command, Arguments& arguments) {
  return command
      .add_option("--cache-size", arguments.cache_size,
                  "what the cache may take at most, as 20G (default: a tenth of its filesystem, at "
                  "most 20G)")
      ->type_name("SIZE")
      ->take_last();
}

void add_mount_commands(CLI::App& app, Arguments& arguments, Action& action) {
  CLI::App* const mount = app.add_subcommand("mount", "Mount a source through the cache");
  mount->add_option("source", arguments.source, "nfs://server/export, or a directory")->required();
  mount->add_option("mountpoint", arguments.path, "an existing directory")->required();
  mount
      ->add_option("-o", arguments.options,
                   "options, separated by commas: ro, or rw as it is without; see larder(8)")
      ->join(',');
  mount
      ->add_option("--cache", arguments.cache,
                   "cache directory, the tag of a cache that cachefilesd holds, or none")
      ->type_name("DIR")
      ->take_last()
      ->default_str(handover::kDefaultCacheDirectory);
  add_cache_size(*mount, arguments);
  mount->callback([&action] { action = do_mount; });

  CLI::App* const umount = app.add_subcommand("umount", "End a mount");
  umount->add_option("mountpoint", arguments.path)->required();
  umount->add_flag("-l,--lazy", arguments.lazily, "detach it now, end it when nobody uses it");
  umount->callback([&action] { action = do_umount; });
}

void add_process_commands(CLI::App& app, Arguments& arguments, Action& action) {
  CLI::App* const serve = app.add_subcommand("serve", "Start keeper and engine");
  serve->add_flag("--foreground", arguments.foreground, "stay in the foreground, log to stderr");
  CLI::Option* const cache =
      serve->add_option("--cache", arguments.cache, "cache directory to bring online at once")
          ->type_name("DIR")
          ->take_last();
  add_cache_size(*serve, arguments)->needs(cache);
  serve
      ->add_option("--cachefilesd", arguments.daemons,
                   "keep a cachefilesd running with this configuration; may be given again")
      ->type_name("FILE")
      ->allow_extra_args(false);
  serve->add_option("--engine", arguments.keeper.engine_program, "another engine program")
      ->group("");
  serve->callback([&action] { action = do_serve; });

  CLI::App* const stop = app.add_subcommand("stop", "Unmount everything, end keeper and engine");
  stop->add_flag("--force", arguments.by_force, "also what is in use");
  stop->callback([&action] { action = do_stop; });
}

void add_cache_commands(CLI::App& app, Arguments& arguments, Action& action) {
  CLI::App* const cache = app.add_subcommand("cache", "Take a cache offline, or let it come back");
  cache->require_subcommand(1);
  CLI::App* const detach =
      cache->add_subcommand("detach", "Take it offline and free its disk; say who keeps it");
  detach->add_option("cache", arguments.cache, "its directory or its tag")->required();
  detach->callback([&action] { action = do_detach; });
  CLI::App* const attach = cache->add_subcommand("attach", "Let it be brought online again");
  attach->add_option("cache", arguments.cache, "its directory or its tag")->required();
  attach->callback([&action] { action = do_attach; });
}

void add_question_commands(CLI::App& app, Arguments& arguments, Action& action) {
  CLI::App* const status = app.add_subcommand("status", "Show caches and mounts");
  status->add_flag("--json", arguments.json, "as JSON");
  status->callback([&action] { action = do_status; });

  CLI::App* const flush = app.add_subcommand("flush", "Forget what is cached of a file");
  flush->add_option("path", arguments.path, "a file or directory of a mount")->required();
  flush->callback([&action] { action = do_flush; });

  app.add_subcommand("log", "Show the engine's last log lines")->callback([&action] {
    action = do_log;
  });
  app.add_subcommand("version", "Show versions")->callback([&action] { action = do_version; });
}

// One sentence, as for all other errors.
std::string usage_sentence(const CLI::App* app, const CLI::Error& error) {
  const std::vector<CLI::App*> commands = app->get_subcommands();
  const std::vector<std::string> unknown = app->remaining(true);
  if (commands.empty() && !unknown.empty()) {
    return fmt::format("larder: there is no command \"{}\": see `larder --help`\n",
                       unknown.front());
  }
  const std::string command = commands.empty() ? "" : " " + commands.front()->get_name();
  return fmt::format("larder: {}: see `larder{} --help`\n", error.what(), command);
}

int run_commands(int argc, char** argv, const Serve& serve) {
  Arguments arguments;
  arguments.keeper.runtime_directory = handover::kDefaultRuntimeDirectory;
  Action action = nullptr;
  CLI::App app("Larder: a persistent cache in front of network filesystems", "larder");
  app.require_subcommand(1);
  app.failure_message(usage_sentence);
  app.fallthrough();
  app.add_option("--runtime-dir", arguments.keeper.runtime_directory,
                 "where keeper and engine have their sockets")
      ->type_name("DIR")
      ->take_last()
      ->capture_default_str();
  app.add_option("--log-level", arguments.keeper.log_level, "of a keeper that is started")
      ->check(CLI::IsMember({"error", "warning", "info", "debug"}))
      ->capture_default_str();
  add_mount_commands(app, arguments, action);
  add_process_commands(app, arguments, action);
  add_cache_commands(app, arguments, action);
  add_question_commands(app, arguments, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // CLI11's way to say that it did not understand
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  const Result<> settled = settle_runtime_directory(arguments.keeper);
  const Result<> done = settled ? action(arguments, serve) : settled;
  const bool served = action == do_serve && !done && done.error().code() == Errc::kBusy;
  return finish("larder", done, served ? kExitServed : kExitFailed);
}

// mount.larder SOURCE DIR [-sfnv] [-N namespace] [-o options] [-t type]
int run_mount_helper(int argc, char** argv, const Serve& serve) {
  MountRequest request;
  std::string options;
  std::vector<std::string> words(argv + 1, argv + argc);
  std::vector<std::string> places;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "-f") {
      request.only_check = true;
    } else if (words[i] == "-o" && i + 1 < words.size()) {
      options += (options.empty() ? "" : ",") + words[++i];
    } else if ((words[i] == "-t" || words[i] == "-N") && i + 1 < words.size()) {
      ++i;  // the type is ours, the namespace is entered by mount(8)
    } else if (!words[i].starts_with('-')) {
      places.push_back(words[i]);
    }  // -s, -n, -v change nothing here
  }
  if (places.size() != 2) {
    fmt::print(stderr, "usage: mount.larder SOURCE DIR [-sfnv] [-o OPTIONS]\n");
    return kHelperUsage;
  }
  Result<OptionWords> parsed = parse_option_words(options);
  if (!parsed) {
    return finish("mount.larder", fail(parsed.error()), kHelperUsage);
  }
  request.source = places[0];
  request.mountpoint = places[1];
  request.words = std::move(*parsed);
  request.keeper.runtime_directory =
      request.words.runtime_directory.value_or(handover::kDefaultRuntimeDirectory);
  const Result<> settled = settle_runtime_directory(request.keeper);
  return finish("mount.larder", settled ? mount_source(request, serve) : settled, kHelperFailed);
}

}  // namespace

int run(int argc, char** argv, const Serve& serve) {
  set_log_name("keeper");
  const std::string name = std::filesystem::path(argv[0]).filename();
  return name == "mount.larder" ? run_mount_helper(argc, argv, serve)
                                : run_commands(argc, argv, serve);
}

}  // namespace larder::cli
