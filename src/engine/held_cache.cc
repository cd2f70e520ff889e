#include "engine/held_cache.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>

#include "base/byte_count.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/cache.h"
#include "cachefiles/caretaker.h"
#include "cachefiles/space.h"
#include "control/cache_protocol.h"
#include "control/cache_session.h"
#include "control/server.h"
#include "engine/cache_binder.h"
#include "engine/serial_queue.h"
#include "handover/cache_keeper.h"
#include "os/packet_socket.h"

namespace larder::engine {

namespace {

using control::CacheCommand;
using control::CacheState;
using control::CacheVerb;
using control::ObjectOutcome;
using control::ObjectPath;
using control::Responder;

constexpr std::uint64_t kKernelBlock = 512;

Error again(std::string_view what) {
  return {Errc::kExists, fmt::format("{} was given already: once is enough", what)};
}

std::optional<unsigned long long> parse_mask(std::string_view text) {
  const int base = text.starts_with("0x") ? 16 : text.starts_with('0') && text.size() > 1 ? 8 : 10;
  text.remove_prefix(base == 16 ? 2 : 0);
  unsigned long long mask = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mask, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(mask)
                                                                  : std::nullopt;
}

// Why an object was not taken out, or may not be.
Error why_not(int error_number, std::string_view path) {
  switch (error_number) {
    case EBUSY:
      return {Errc::kBusy, fmt::format("{} is in use: it can go when nobody has it open", path)};
    case ENOENT:
      return {Errc::kNotFound, fmt::format("{} is gone: there is nothing left to cull", path)};
    case EINVAL:
      return {Errc::kInvalid, fmt::format("{} is no object of this cache: give the path of a data "
                                          "file below cache/, as Ivolume/@3f/name",
                                          path)};
    default:
      return Error::from_errno(
          error_number,
          fmt::format("{} stays where it is, `larder status` says how the cache is", path));
  }
}

// What can be done about what the operating system said of a cache's directory.
std::string_view remedy_for(Errc code) {
  switch (code) {
    case Errc::kPermission:
      return "it and all in it must belong to the engine's user, and be writable";
    case Errc::kNotFound:
      return "look whether it is still there";
    case Errc::kInvalid:
      return "give a directory";
    case Errc::kNoSpace:
      return "make room on its filesystem";
    default:
      return "look at its disk, and at the kernel's log";
  }
}

bool is_sentence(const Error& error) {
  return error.message() == error.context();
}

// Of a bind that failed.
Error with_remedy(const Error& error, std::string_view path) {
  return is_sentence(error)
             ? error
             : error.within(fmt::format("no cache in {}: {}", path, remedy_for(error.code())));
}

// Of a cache that is bound.
Error with_hint(const Error& error) {
  return is_sentence(error) ? error : error.within("`larder status` says how the cache is");
}

// Culled in one go: who is gone is not obeyed for longer.
constexpr std::size_t kMostInARun = 64;

// Names that lie in one directory, from the first on.
std::size_t run_of(std::span<const ObjectPath> objects) {
  const auto other = std::ranges::find_if(objects, [&](const ObjectPath& object) {
    return object.directory != objects.front().directory;
  });
  return std::min(kMostInARun, static_cast<std::size_t>(other - objects.begin()));
}

CacheState state_of(const cachefiles::CareState& care) {
  const cachefiles::SpaceState& space = care.space;
  CacheState state;
  state.culling = space.culling;
  state.stopped = space.stopped;
  state.graveyard = care.graveyard;
  state.block_bytes = std::max<std::uint64_t>(space.block_size, 1);
  state.frun = space.room.files.run;
  state.fcull = space.room.files.cull;
  state.fstop = space.room.files.stop;
  state.brun = space.room.blocks.run / state.block_bytes;
  state.bcull = space.room.blocks.cull / state.block_bytes;
  state.bstop = space.room.blocks.stop / state.block_bytes;
  state.free_files = space.room.free_files;
  state.free_blocks = space.room.free_bytes / state.block_bytes;
  state.used_bytes = space.used_bytes;
  state.size_bytes = space.limits.size_bytes;
  state.objects = space.objects;
  state.excess_files = space.to_free.files;
  state.excess_bytes = space.to_free.bytes;
  return state;
}

// As the kernel compares one with the others.
Result<> check_order(CacheVerb verb, const cachefiles::Percentages& limits) {
  if (limits.stop < limits.cull && limits.cull < limits.run) {
    return {};
  }
  return fail(Errc::kInvalid,
              fmt::format("{}: run {}%, cull {}% and stop {}% would not be in order: to raise all "
                          "three begin with run, to lower them with stop",
                          name_of(verb), limits.run, limits.cull, limits.stop));
}

}  // namespace

HeldCache::HeldCache(CacheBinder& binder, handover::CacheKeeper& keeper, std::string holder,
                     control::StatePusher push)
    : binder_(binder),
      keeper_(keeper),
      holder_(std::move(holder)),
      push_(std::move(push)),
      queue_(std::make_shared<SerialQueue>(binder.pool())) {}

void HeldCache::execute(CacheCommand command, std::vector<UniqueFd> descriptors,
                        Responder responder) {
  queue_->post([self = shared_from_this(), command = std::move(command),
                descriptors = std::move(descriptors), responder = std::move(responder)]() mutable {
    if (const Result<> in_time = self->check_time(command.verb); !in_time) {
      responder.answer(fail(in_time.error()));
    } else if (command.verb == CacheVerb::kBind) {
      self->bind(command.argument, std::move(responder));
    } else {
      responder.answer(self->obey(command, std::move(descriptors)));
    }
  });
}

void HeldCache::hang_up() {
  gone_ = true;
  queue_->post([self = shared_from_this()] {
    if (self->is_bound()) {
      self->held_ = {};
      self->binder_.let_go(self->tag_);
    }
  });
}

Result<> HeldCache::check_time(CacheVerb verb) const {
  const bool bound = is_bound() || binding_;
  if (control::time_of(verb) == control::CommandTime::kAfterBind && !is_bound()) {
    return fail(Errc::kIo, fmt::format("{} before bind: there is no cache yet", name_of(verb)));
  }
  if (control::time_of(verb) == control::CommandTime::kBeforeBind && bound) {
    return verb == CacheVerb::kBind
               ? fail(Errc::kBusy, "the cache is bound already")
               : fail(Errc::kExists, fmt::format("{} after bind: hang up and begin anew to change "
                                                 "it",
                                                 name_of(verb)));
  }
  return {};
}

HeldCache::Answer HeldCache::obey(const CacheCommand& command, std::vector<UniqueFd> descriptors) {
  switch (command.verb) {
    case CacheVerb::kDir:
      return set_directory(command.argument, std::move(descriptors));
    case CacheVerb::kTag:
      return set_tag(command.argument);
    case CacheVerb::kSecctx:
      return fail(Errc::kInvalid,
                  "secctx: what the engine makes has the engine's own security context; leave the "
                  "line out and label the engine");
    case CacheVerb::kDebug: {
      const auto mask = parse_mask(command.argument);
      if (!mask) {
        return fail(Errc::kInvalid, fmt::format("debug \"{}\": give a number", command.argument));
      }
      debugs_.reset();
      if (*mask != 0) {
        debugs_.emplace();
      }
      return "";
    }
    case CacheVerb::kSize:
      return set_size(command.argument);
    case CacheVerb::kCull:
      return cull(command);
    case CacheVerb::kInuse:
      return look_in_use(command);
    case CacheVerb::kOldest:
      return set_oldest(command.argument);
    case CacheVerb::kState:
      return tell_state();
    default:
      return set_percentage(command.verb, command.argument);
  }
}

HeldCache::Answer HeldCache::set_directory(std::string_view path,
                                           std::vector<UniqueFd> descriptors) {
  if (!path_.empty()) {
    return fail(again("dir"));
  }
  if (!path.starts_with('/')) {
    return fail(Errc::kInvalid, fmt::format("dir \"{}\": give an absolute path", path));
  }
  if (!descriptors.empty()) {
    directory_ = std::move(descriptors.front());
  }
  path_ = path;
  return "";
}

HeldCache::Answer HeldCache::set_tag(std::string_view tag) {
  if (!tag_.empty()) {
    return fail(again("tag"));
  }
  if (tag.empty() || tag.find('/') != std::string_view::npos || tag == "none") {
    return fail(Errc::kInvalid,
                fmt::format("tag \"{}\": give a name without a /, other than none", tag));
  }
  tag_ = tag;
  return "";
}

HeldCache::Answer HeldCache::set_percentage(CacheVerb verb, std::string_view argument) {
  const unsigned percent = TRY(control::parse_percent(argument));
  cachefiles::Limits limits = limits_;
  const bool of_files =
      verb == CacheVerb::kFrun || verb == CacheVerb::kFcull || verb == CacheVerb::kFstop;
  cachefiles::Percentages& three = of_files ? limits.files : limits.blocks;
  if (verb == CacheVerb::kBrun || verb == CacheVerb::kFrun) {
    three.run = percent;
  } else if (verb == CacheVerb::kBcull || verb == CacheVerb::kFcull) {
    three.cull = percent;
  } else {
    three.stop = percent;
  }
  TRY(check_order(verb, three));
  return apply_limits(limits);
}

HeldCache::Answer HeldCache::set_size(std::string_view argument) {
  cachefiles::Limits limits = limits_;
  limits.size_bytes = 0;
  if (argument != "0") {
    const Result<std::uint64_t> size = parse_byte_count(argument);
    if (!size) {
      return fail(Errc::kInvalid,
                  fmt::format("size \"{}\": give a whole number with K, M, G or T behind it, as "
                              "20G, or 0 for the default",
                              argument));
    }
    limits.size_bytes = *size;
  }
  return apply_limits(limits);
}

HeldCache::Answer HeldCache::apply_limits(const cachefiles::Limits& limits) {
  if (is_bound()) {
    if (const Result<> set = held_.directory->set_limits(limits); !set) {
      return fail(with_hint(set.error()));
    }
    note_change();
  }
  limits_ = limits;
  return "";
}

HeldCache::Answer HeldCache::set_oldest(std::string_view argument) {
  double seconds = 0;
  const auto [end, error] =
      std::from_chars(argument.data(), argument.data() + argument.size(), seconds);
  const bool is_number = error == std::errc() && end == argument.data() + argument.size();
  if (!is_number || !std::isfinite(seconds) || seconds < 0) {
    return fail(Errc::kInvalid, fmt::format("oldest \"{}\": give a number of seconds", argument));
  }
  held_.directory->set_oldest(seconds);
  return "";
}

void HeldCache::bind(std::string_view argument, Responder responder) {
  if (!argument.empty()) {
    return responder.answer(
        fail(Errc::kInvalid,
             fmt::format("bind \"{}\": this engine has no such mode; write bind alone", argument)));
  }
  if (path_.empty()) {
    return responder.answer(fail(Errc::kInvalid, "bind before dir: name the directory first"));
  }
  binding_ = true;
  if (directory_.valid()) {
    return on_directory(UniqueFd(::fcntl(directory_.get(), F_DUPFD_CLOEXEC, 0)),
                        std::move(responder));
  }
  keeper_.open_cache_directory(path_, [self = shared_from_this(), responder = std::move(responder)](
                                          Result<UniqueFd> directory) mutable {
    self->queue_->post(
        [self, directory = std::move(directory), responder = std::move(responder)]() mutable {
          self->on_directory(std::move(directory), std::move(responder));
        });
  });
}

void HeldCache::on_directory(Result<UniqueFd> directory, Responder responder) {
  if (directory && !directory->valid()) {
    directory = fail_errno(errno, path_);
  }
  if (!directory) {
    binding_ = false;
    return responder.answer(fail(with_remedy(directory.error(), path_)));
  }
  HeldSettings settings{tag_.empty() ? path_ : tag_, path_, holder_, limits_, {}, {}};
  settings.detached = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->push_.hang_up();  // which comes back as hang_up()
    }
  };
  settings.changed = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->note_change();
    }
  };
  binder_.hold(std::move(settings), std::move(*directory),
               [self = shared_from_this(),
                responder = std::move(responder)](Result<HeldBackend> held) mutable {
                 self->queue_->post(
                     [self, held = std::move(held), responder = std::move(responder)]() mutable {
                       self->on_bound(std::move(held), std::move(responder));
                     });
               });
}

void HeldCache::on_bound(Result<HeldBackend> held, Responder responder) {
  binding_ = false;
  if (!held) {
    return responder.answer(fail(with_remedy(held.error(), path_)));
  }
  tag_ = held->tag;
  if (gone_) {
    held = fail(Errc::kCancelled, "the channel was closed");
    binder_.let_go(tag_);
    return;
  }
  held_ = std::move(*held);
  log_info("cache {}: {} cares for it", tag_, holder_);
  responder.answer(std::string());
  note_change();
}

std::vector<ObjectOutcome> HeldCache::cull_some(std::span<const ObjectPath> objects) {
  std::vector<std::string> names;
  names.reserve(objects.size());
  for (const ObjectPath& object : objects) {
    names.push_back(object.name);
  }
  const Result<std::vector<cachefiles::Culled>> culled =
      held_.directory->cull(objects.front().directory, names);
  std::vector<ObjectOutcome> outcomes;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (!culled) {
      outcomes.push_back({culled.error().error_number(), 0});
    } else if (const cachefiles::Culled& one = (*culled)[i]; one) {
      outcomes.push_back({0, *one});
    } else {
      outcomes.push_back({one.error().error_number(), 0});
    }
  }
  return outcomes;
}

HeldCache::Answer HeldCache::cull(const CacheCommand& command) {
  const std::vector<ObjectPath> objects = TRY(control::objects_of(command));
  std::vector<ObjectOutcome> outcomes;
  for (std::span<const ObjectPath> left = objects; !left.empty() && !gone_;) {
    const std::size_t run = run_of(left);
    std::ranges::move(cull_some(left.first(run)), std::back_inserter(outcomes));
    left = left.subspan(run);
  }
  note_change();
  if (gone_) {
    return fail(Errc::kCancelled, "the channel was closed");
  }
  if (objects.size() == 1 && outcomes.front().error_number != 0) {
    return fail(why_not(outcomes.front().error_number, command.argument));
  }
  return control::encode_outcomes(outcomes);
}

HeldCache::Answer HeldCache::look_in_use(const CacheCommand& command) {
  const std::vector<ObjectPath> objects = TRY(control::objects_of(command));
  std::vector<ObjectOutcome> outcomes;
  for (const ObjectPath& object : objects) {
    const Result<bool> used = held_.directory->in_use(object.directory, object.name);
    outcomes.push_back({!used ? used.error().error_number() : *used ? EBUSY : 0, 0});
  }
  if (objects.size() == 1 && outcomes.front().error_number != 0) {
    return fail(why_not(outcomes.front().error_number, command.argument));
  }
  return control::encode_outcomes(outcomes);
}

HeldCache::Answer HeldCache::tell_state() {
  const Result<cachefiles::CareState> care = held_.directory->care_state();
  if (!care) {
    return fail(with_hint(care.error()));
  }
  note_told(*care);
  return control::encode_cache_state(told_);
}

void HeldCache::note_told(const cachefiles::CareState& care) {
  CacheState state = state_of(care);
  const cachefiles::Released released = held_.directory->take_released();
  state.released_files = released.objects;
  state.released_blocks = released.bytes / kKernelBlock;
  told_ = state;
  told_buried_ = care.buried;
}

// From any thread, also while a file is closed: the looking is done elsewhere.
void HeldCache::note_change() {
  if (!looking_.exchange(true)) {
    queue_->post([self = shared_from_this()] { self->push_news(); });
  }
}

void HeldCache::push_news() {
  looking_ = false;
  if (!is_bound()) {
    return;
  }
  const Result<cachefiles::CareState> care = held_.directory->care_state();
  if (!care) {
    return;  // the cache's own trouble; the next command says so
  }
  const CacheState state = state_of(*care);
  const bool news = state.culling != told_.culling || state.stopped != told_.stopped ||
                    state.graveyard != told_.graveyard ||
                    (state.graveyard && care->buried != told_buried_) ||
                    (state.culling && care->released_objects > 0);
  if (news) {
    note_told(*care);
    push_.push(told_);
  }
}

namespace {

class HeldCacheSession final : public control::CacheSession {
 public:
  explicit HeldCacheSession(std::shared_ptr<HeldCache> held) : held_(std::move(held)) {}

  HeldCacheSession(const HeldCacheSession&) = delete;
  HeldCacheSession& operator=(const HeldCacheSession&) = delete;

  ~HeldCacheSession() override { held_->hang_up(); }

  void execute(CacheCommand command, std::vector<UniqueFd> descriptors,
               Responder responder) override {
    held_->execute(std::move(command), std::move(descriptors), std::move(responder));
  }

 private:
  const std::shared_ptr<HeldCache> held_;
};

}  // namespace

std::unique_ptr<control::CacheSession> open_cache_session(CacheBinder& binder,
                                                          handover::CacheKeeper& keeper,
                                                          const os::PeerCredentials& peer,
                                                          control::StatePusher push) {
  return std::make_unique<HeldCacheSession>(std::make_shared<HeldCache>(
      binder, keeper, fmt::format("the holder of its channel (process {})", peer.pid),
      std::move(push)));
}

}  // namespace larder::engine
