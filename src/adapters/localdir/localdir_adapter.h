// A directory of this machine as a server: the smallest adapter.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "adapters/localdir/local_tree.h"
#include "base/executor.h"
#include "base/result.h"
#include "netfs/adapter.h"

namespace larder::localdir {

// Whether a source is a local directory: "localdir:///path", or an absolute path.
[[nodiscard]] bool is_localdir_source(std::string_view source);
// The absolute path in it. kInvalid with a sentence: localdir:// without one.
[[nodiscard]] Result<std::string> parse_localdir_source(std::string_view source);
// A local directory has no options of its own: kInvalid with a sentence for the first of `words`.
[[nodiscard]] Result<> check_localdir_options(std::span<const std::string> words);

// `path` is absolute; it is opened by start_connect. `executor` outlives the adapter. Files are
// read with the rights of this process; ACCESS and changes are ruled by mode bits. Changes of names
// are as safe as the filesystem makes them, no fsync follows. cancel() ends only what
// has not begun yet.
[[nodiscard]] std::unique_ptr<netfs::Adapter> make_localdir_adapter(
    std::string path, Executor& executor, std::size_t most_entries = LocalTree::kMostEntries);

}  // namespace larder::localdir
