#include "netfs/share_context.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fscache/cache.h"
#include "fscache/volume.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_scope.h"
#include "netfs/changes.h"
#include "netfs/file.h"
#include "netfs/inode.h"
#include "netfs/name_cache.h"

namespace larder::netfs {

namespace {

constexpr std::uint32_t kLeastIoSize = 4096;

// Printable, without '/' and without the comma that parts the fields.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte > ' ' && byte < 0x7f && c != '/' && c != ',' && c != '%';
    result += plain ? std::string(1, c) : fmt::format("%{:02x}", byte);
  }
  return result;
}

}  // namespace

std::string volume_key(const ShareName& name, std::uint64_t fsid) {
  return fmt::format("larder,1,{},{},{},{},{:x}", escaped(name.adapter), escaped(name.host),
                     escaped(name.port), escaped(name.path), fsid);
}

ShareContext::ShareContext(std::unique_ptr<Adapter> adapter_to_own, Executor& the_executor,
                           std::shared_ptr<fscache::Cache> cache, const AttributeTimes& times,
                           const ShareInfo& info)
    : owned_adapter(std::move(adapter_to_own)),
      adapter(*owned_adapter),
      executor(the_executor),
      read_size(std::max(info.read_size, kLeastIoSize)),
      write_size(std::max(info.write_size, kLeastIoSize)),
      server_time(info.time_granularity),
      inodes(the_executor.clock(), times),
      names(std::make_shared<NameCache>(the_executor, times)),
      cache_(std::move(cache)),
      uncached_(std::make_shared<fscache::Volume>(nullptr, "")),
      client_(std::random_device()()) {}

std::shared_ptr<fscache::Volume> ShareContext::volume_of(std::uint64_t fsid) {
  const MutexLock lock(mutex_);
  std::shared_ptr<fscache::Volume>& volume = volumes_[fsid];
  if (volume == nullptr) {
    volume = std::make_shared<fscache::Volume>(cache_, volume_key(adapter.name(), fsid));
  }
  return volume;
}

AttributeNews ShareContext::apply(Inode& inode, const Attributes& attributes, CheckTicket ticket) {
  server_time.observe(attributes.changed, executor.clock().now());
  const AttributeNews news = inode.update(attributes, ticket);
  if (news == AttributeNews::kChanged && inode.type() == FileType::kRegular) {
    counters.version_changes.add();
    if (const std::shared_ptr<File> file = inode.file()) {
      file->on_changed(news);
    }
  }
  return news;
}

CreateVerifier ShareContext::new_verifier() {
  const std::array<std::uint32_t, 2> words{client_, ++last_made_};
  CreateVerifier verifier{};
  static_assert(sizeof words == sizeof verifier);
  std::memcpy(verifier.data(), words.data(), verifier.size());
  return verifier;
}

std::string ShareContext::new_hidden_name(std::string_view prefix, const Inode& inode) {
  return fmt::format("{}{:016x}{:08x}{:04x}", prefix, inode.attributes().attributes.fileid, client_,
                     ++last_made_ & 0xffffU);
}

void ShareContext::discard_removed(const Inode& inode) {
  if (inode.type() == FileType::kRegular) {
    volume_of(inode.attributes().attributes.fsid)
        ->discard(std::string(text_of(inode.handle().bytes())),
                  [](const Result<>& /*a failed cache says so itself*/) {});
  }
}

void ShareContext::end_change(const InodeRef& inode, const Result<Change>& change) {
  AttributeNews news = AttributeNews::kOwn;
  if (change) {
    if (const std::optional<Attributes>& after = change->after) {
      server_time.observe(after->changed, executor.clock().now());
    }
    news = inode->end_own_change(&*change);
  } else if (was_answered(change.error())) {
    news = inode->end_own_change(nullptr);
  } else {
    news = inode->end_unknown_change();
  }
  const bool changed = news == AttributeNews::kChanged || news == AttributeNews::kUntold;
  if (changed && inode->type() == FileType::kRegular) {
    counters.version_changes.add();
    if (const std::shared_ptr<File> file = inode->file()) {
      file->on_changed(news);
    }
  }
}

void ShareContext::refresh(const InodeRef& inode, const Caller& caller, Done<Attributes> done) {
  ask_attributes(inode, caller, kMostQuestions, std::move(done));
}

// Again when the answer crossed a change of ours and so decides nothing.
void ShareContext::ask_attributes(const InodeRef& inode, const Caller& caller, unsigned questions,
                                  Done<Attributes> done) {
  const CheckTicket ticket = inodes.begin_check();
  CallWait wait(caller, adapter);
  wait.on(adapter.start_getattr(inode->handle(), caller.credential,
                                [self = shared_from_this(), inode, caller, ticket, questions,
                                 done = std::move(done)](Result<Attributes> attributes) mutable {
                                  if (attributes) {
                                    self->apply(*inode, *attributes, ticket);
                                  }
                                  if (attributes && inode->is_unsure() && questions > 1) {
                                    self->ask_attributes(inode, caller, questions - 1,
                                                         std::move(done));
                                  } else {
                                    done(std::move(attributes));
                                  }
                                }));
}

}  // namespace larder::netfs
