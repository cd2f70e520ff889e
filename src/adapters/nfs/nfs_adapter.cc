#include "adapters/nfs/nfs_adapter.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "adapters/nfs/change_calls.h"
#include "adapters/nfs/nfs_types.h"
#include "adapters/nfs/options.h"
#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_call.h"
#include "adapters/nfs/rpc_client.h"
#include "adapters/nfs/share_connector.h"
#include "adapters/nfs/url.h"
#include "base/bytes.h"
#include "base/counter.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "os/stream.h"

namespace larder::nfs {

namespace {

using netfs::CallId;
using netfs::CredentialRef;
using netfs::Done;
using netfs::FileHandle;

// Pages of a listing in a row that held no name for us.
constexpr unsigned kMostEmptyPages = 1000;

class NfsAdapter final : public netfs::Adapter, private ChangeCalls::Carrier {
 public:
  NfsAdapter(const NfsUrl& url, const NfsOptions& options, Executor& executor,
             os::StreamConnector& connector)
      : name_{"nfs", url.host, url.port, url.path},
        share_connector_(std::make_shared<ShareConnector>(url, options, executor, connector)) {}

  [[nodiscard]] const netfs::ShareName& name() const override { return name_; }

  void start_connect(Done<netfs::ShareInfo> done) override;
  CallId start_lookup(const FileHandle& directory, std::string_view name, CredentialRef credential,
                      Done<netfs::LookupReply> done) override;
  CallId start_getattr(const FileHandle& handle, CredentialRef credential,
                       Done<netfs::Attributes> done) override;
  CallId start_access(const FileHandle& handle, std::uint32_t wanted, CredentialRef credential,
                      Done<netfs::AccessReply> done) override;
  CallId start_readlink(const FileHandle& handle, CredentialRef credential,
                        Done<netfs::ReadlinkReply> done) override;
  CallId start_readdir(const FileHandle& handle, netfs::DirectoryPosition from,
                       bool with_attributes, CredentialRef credential,
                       Done<netfs::ReaddirReply> done) override;
  CallId start_statfs(const FileHandle& handle, CredentialRef credential,
                      Done<netfs::StatfsReply> done) override;
  CallId start_read(const FileHandle& handle, const netfs::ReadOrder& order,
                    CredentialRef credential, Done<netfs::ReadReply> done) override;

  CallId start_setattr(const FileHandle& handle, const netfs::AttributeChanges& changes,
                       CredentialRef credential, Done<netfs::Change> done) override {
    return change({std::move(credential)}, [&](ChangeCalls::Caller caller) {
      changes_.setattr(std::move(caller), handle, changes, std::move(done));
    });
  }

  CallId start_create(const FileHandle& directory, std::string_view name,
                      const netfs::CreateOrder& order, netfs::Asker asker,
                      Done<netfs::CreateReply> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.create(std::move(caller), directory, name, order, std::move(done));
    });
  }

  CallId start_make(const FileHandle& directory, std::string_view name,
                    const netfs::MakeOrder& order, netfs::Asker asker,
                    Done<netfs::CreateReply> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.make(std::move(caller), directory, name, order, std::move(done));
    });
  }

  CallId start_symlink(const FileHandle& directory, std::string_view name, std::string_view target,
                       const netfs::AttributeChanges& attributes, netfs::Asker asker,
                       Done<netfs::CreateReply> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.symlink(std::move(caller), directory, name, target, attributes, std::move(done));
    });
  }

  CallId start_remove(const FileHandle& directory, std::string_view name, netfs::Asker asker,
                      Done<netfs::Change> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.remove(std::move(caller), Procedure::kRemove, directory, name, std::move(done));
    });
  }

  CallId start_rmdir(const FileHandle& directory, std::string_view name, netfs::Asker asker,
                     Done<netfs::Change> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.remove(std::move(caller), Procedure::kRmdir, directory, name, std::move(done));
    });
  }

  CallId start_rename(const FileHandle& from_directory, std::string_view from,
                      const FileHandle& to_directory, std::string_view to, netfs::Asker asker,
                      Done<netfs::RenameReply> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.rename(std::move(caller), from_directory, from, to_directory, to, std::move(done));
    });
  }

  CallId start_link(const FileHandle& file, const FileHandle& directory, std::string_view name,
                    netfs::Asker asker, Done<netfs::LinkReply> done) override {
    return change(std::move(asker), [&](ChangeCalls::Caller caller) {
      changes_.link(std::move(caller), file, directory, name, std::move(done));
    });
  }

  CallId start_write(const FileHandle& handle, const netfs::WriteOrder& order,
                     CredentialRef credential, Done<netfs::WriteReply> done) override {
    return change({std::move(credential)}, [&](ChangeCalls::Caller caller) {
      changes_.write(std::move(caller), handle, order, write_size_, std::move(done));
    });
  }

  CallId start_commit(const FileHandle& handle, CredentialRef credential,
                      Done<netfs::CommitReply> done) override {
    return change({std::move(credential)}, [&](ChangeCalls::Caller caller) {
      changes_.commit(std::move(caller), handle, std::move(done));
    });
  }

  void cancel(CallId id) override EXCLUDES(mutex_);
  [[nodiscard]] netfs::AdapterStatus status() const override;
  void shut_down() override EXCLUDES(mutex_);

 private:
  // A listing that may need several calls; all have the id of the operation.
  struct Listing {
    CallId id = 0;
    FileHandle handle;
    netfs::DirectoryPosition from;
    bool plus = false;
    CredentialRef credential;
    Done<netfs::ReaddirReply> done;
    unsigned pages = 0;
    std::atomic<bool> cancelled{false};
  };

  using ListingRef = std::shared_ptr<Listing>;

  template <class T>
  CallId start(Procedure procedure, std::vector<std::byte> arguments, CredentialRef credential,
               Result<T> (*decode)(Bytes), Done<T> done);

  template <class Start>
  CallId change(netfs::Asker asker, const Start& start) {
    const CallId id = ++last_id_;
    start(ChangeCalls::Caller{id, std::move(asker.credential), asker.may_be_done});
    return id;
  }

  void submit(CallId id, RpcRequest request) override EXCLUDES(mutex_);
  void give_up(CallId id) override EXCLUDES(mutex_);
  void on_connected(Result<ShareConnector::Share> share, Done<netfs::ShareInfo> done)
      EXCLUDES(mutex_);
  void continue_listing(const ListingRef& listing);
  void on_page(const ListingRef& listing, const Result<RpcReply>& reply);
  void end_listing(const ListingRef& listing, Result<netfs::ReaddirReply> reply) EXCLUDES(mutex_);
  [[nodiscard]] std::shared_ptr<RpcClient> client() const EXCLUDES(mutex_);

  const netfs::ShareName name_;
  const std::shared_ptr<ShareConnector> share_connector_;
  std::atomic<CallId> last_id_{0};
  std::atomic<bool> lacks_readdirplus_{false};
  // Constants of the share once connected.
  std::atomic<std::uint32_t> read_size_{0};
  std::atomic<std::uint32_t> write_size_{0};
  std::atomic<std::uint32_t> directory_read_size_{0};
  Counter reads_;
  Counter bytes_read_;
  Counter refused_names_;
  ChangeCalls changes_{*this};

  mutable Mutex mutex_{LockRank::kNetwork};
  std::shared_ptr<RpcClient> client_ GUARDED_BY(mutex_);
  bool shut_down_ GUARDED_BY(mutex_) = false;
  std::unordered_map<CallId, ListingRef> listings_ GUARDED_BY(mutex_);
};

std::shared_ptr<RpcClient> NfsAdapter::client() const {
  const MutexLock lock(mutex_);
  return client_;
}

void NfsAdapter::start_connect(Done<netfs::ShareInfo> done) {
  share_connector_->start(
      [this, done = std::move(done)](Result<ShareConnector::Share> share) mutable {
        on_connected(std::move(share), std::move(done));
      });
}

void NfsAdapter::on_connected(Result<ShareConnector::Share> share, Done<netfs::ShareInfo> done) {
  if (!share) {
    done(fail(std::move(share).error()));
    return;
  }
  read_size_ = share->info.read_size;
  write_size_ = share->info.write_size;
  directory_read_size_ = share->info.directory_read_size;
  bool too_late = false;
  {
    const MutexLock lock(mutex_);
    too_late = shut_down_;
    if (!too_late) {
      client_ = std::move(share->client);
    }
  }
  if (too_late) {
    done(fail(Errc::kCancelled, "the mount was given up"));
    return;
  }
  done(share->info);
}

void NfsAdapter::submit(CallId id, RpcRequest request) {
  const std::shared_ptr<RpcClient> connected = client();
  if (!connected) {
    request.done(fail(Errc::kInvalid, "the share is not connected"));
    return;
  }
  connected->submit(id, std::move(request));
}

void NfsAdapter::give_up(CallId id) {
  if (const std::shared_ptr<RpcClient> connected = client()) {
    connected->cancel(id);
  }
}

template <class T>
CallId NfsAdapter::start(Procedure procedure, std::vector<std::byte> arguments,
                         CredentialRef credential, Result<T> (*decode)(Bytes), Done<T> done) {
  const CallId id = ++last_id_;
  RpcRequest request;
  request.procedure = std::to_underlying(procedure);
  request.credential = std::move(credential);
  request.arguments = std::move(arguments);
  request.done = [decode, done = std::move(done)](Result<RpcReply> reply) mutable {
    if (!reply) {
      done(fail(std::move(reply).error()));
    } else {
      done(decode(reply->results));
    }
  };
  submit(id, std::move(request));
  return id;
}

CallId NfsAdapter::start_lookup(const FileHandle& directory, std::string_view name,
                                CredentialRef credential, Done<netfs::LookupReply> done) {
  if (name.size() > kMostNameBytes) {
    done(fail(Error(Errc::kRemote, ENAMETOOLONG, "LOOKUP")));
    return ++last_id_;
  }
  return start(Procedure::kLookup, encode_lookup(directory, name), std::move(credential),
               &decode_lookup, std::move(done));
}

CallId NfsAdapter::start_getattr(const FileHandle& handle, CredentialRef credential,
                                 Done<netfs::Attributes> done) {
  return start(Procedure::kGetattr, encode_handle(handle), std::move(credential), &decode_getattr,
               std::move(done));
}

CallId NfsAdapter::start_access(const FileHandle& handle, std::uint32_t wanted,
                                CredentialRef credential, Done<netfs::AccessReply> done) {
  return start(Procedure::kAccess, encode_access(handle, wanted), std::move(credential),
               &decode_access, std::move(done));
}

CallId NfsAdapter::start_readlink(const FileHandle& handle, CredentialRef credential,
                                  Done<netfs::ReadlinkReply> done) {
  return start(Procedure::kReadlink, encode_handle(handle), std::move(credential), &decode_readlink,
               std::move(done));
}

CallId NfsAdapter::start_statfs(const FileHandle& handle, CredentialRef credential,
                                Done<netfs::StatfsReply> done) {
  return start(Procedure::kFsstat, encode_handle(handle), std::move(credential), &decode_fsstat,
               std::move(done));
}

CallId NfsAdapter::start_read(const FileHandle& handle, const netfs::ReadOrder& order,
                              CredentialRef credential, Done<netfs::ReadReply> done) {
  static constexpr std::size_t kReplyHeadBytes = 128;
  const CallId id = ++last_id_;
  const MutableBytes destination =
      order.destination.first(std::min<std::size_t>(order.destination.size(), read_size_));
  if (destination.empty()) {
    done(fail(Errc::kInvalid, "READ of no bytes"));
    return id;
  }
  RpcRequest request;
  request.procedure = std::to_underlying(Procedure::kRead);
  request.credential = std::move(credential);
  request.arguments =
      encode_read(handle, order.offset, static_cast<std::uint32_t>(destination.size()));
  request.call_class = order.prefetch ? CallClass::kPrefetch : CallClass::kRead;
  request.expected_bytes = destination.size() + kReplyHeadBytes;
  request.destination = destination;
  request.find_data = &find_read_data;
  request.done = [this, wanted = destination.size(),
                  done = std::move(done)](Result<RpcReply> reply) mutable {
    if (!reply) {
      done(fail(std::move(reply).error()));
      return;
    }
    Result<netfs::ReadReply> read = decode_read(reply->results, reply->data_length, wanted);
    if (read) {
      reads_.add();
      bytes_read_.add(read->length);
    }
    done(std::move(read));
  };
  submit(id, std::move(request));
  return id;
}

CallId NfsAdapter::start_readdir(const FileHandle& handle, netfs::DirectoryPosition from,
                                 bool with_attributes, CredentialRef credential,
                                 Done<netfs::ReaddirReply> done) {
  auto listing = std::make_shared<Listing>();
  const CallId id = ++last_id_;
  listing->id = id;
  listing->handle = handle;
  listing->from = from;
  listing->plus = with_attributes;
  listing->credential = std::move(credential);
  listing->done = std::move(done);
  {
    const MutexLock lock(mutex_);
    listings_.emplace(id, listing);
  }
  continue_listing(listing);
  return id;
}

void NfsAdapter::continue_listing(const ListingRef& listing) {
  listing->plus = listing->plus && !lacks_readdirplus_;
  const std::uint32_t size = directory_read_size_;
  RpcRequest request;
  request.procedure =
      std::to_underlying(listing->plus ? Procedure::kReaddirplus : Procedure::kReaddir);
  request.credential = listing->credential;
  request.arguments = listing->plus ? encode_readdirplus(listing->handle, listing->from, size)
                                    : encode_readdir(listing->handle, listing->from, size);
  request.expected_bytes = size;
  request.done = [this, listing](const Result<RpcReply>& reply) { on_page(listing, reply); };
  submit(listing->id, std::move(request));
  // A cancel() that came between two calls found none to end.
  if (listing->cancelled) {
    give_up(listing->id);
  }
}

void NfsAdapter::on_page(const ListingRef& listing, const Result<RpcReply>& reply) {
  const std::uint64_t from = listing->from.cookie;
  Result<DirectoryPage> page = reply ? (listing->plus ? decode_readdirplus(reply->results, from)
                                                      : decode_readdir(reply->results, from))
                                     : fail(reply.error());
  if (!page) {
    const bool unknown = page.error().code() == Errc::kNotSupported;
    // Who may read a directory but not search it may have its names, not what they are.
    if (listing->plus && (unknown || page.error().error_number() == EACCES)) {
      if (unknown && !lacks_readdirplus_.exchange(true)) {
        log_info("{} has no READDIRPLUS; listing with READDIR", name_.host);
      }
      listing->plus = false;
      continue_listing(listing);
      return;
    }
    end_listing(listing, fail(std::move(page).error()));
    return;
  }
  refused_names_.add(page->refused_names);
  if (!page->reply.entries.empty() || page->reply.end) {
    end_listing(listing, std::move(page->reply));
    return;
  }
  // Nothing for us in it ("." and ".." alone): who asked could not tell where it goes on.
  if (++listing->pages > kMostEmptyPages) {
    end_listing(listing, fail(Errc::kCorrupt, "the server lists nothing, without an end"));
    return;
  }
  listing->from = {page->last_cookie, page->reply.verifier};
  continue_listing(listing);
}

void NfsAdapter::end_listing(const ListingRef& listing, Result<netfs::ReaddirReply> reply) {
  {
    const MutexLock lock(mutex_);
    listings_.erase(listing->id);
  }
  listing->done(std::move(reply));
}

void NfsAdapter::cancel(CallId id) {
  changes_.cancel(id);
  {
    const MutexLock lock(mutex_);
    const auto found = listings_.find(id);
    if (found != listings_.end()) {
      found->second->cancelled = true;
    }
  }
  give_up(id);
}

netfs::AdapterStatus NfsAdapter::status() const {
  netfs::AdapterStatus status;
  const std::shared_ptr<RpcClient> connected = client();
  if (!connected) {
    status.trouble = "not connected";
    return status;
  }
  status.connected = connected->connected();
  status.trouble = connected->trouble();
  if (status.trouble.empty() && refused_names_.value() > 0) {
    status.trouble = fmt::format("{} names that no directory can hold were left out of listings",
                                 refused_names_.value());
  }
  status.calls = connected->counters().calls.value();
  status.reads = reads_.value();
  status.bytes_read = bytes_read_.value();
  status.retransmissions = connected->counters().retransmissions.value();
  status.reconnects = connected->counters().reconnects.value();
  return status;
}

void NfsAdapter::shut_down() {
  {
    const MutexLock lock(mutex_);
    shut_down_ = true;
  }
  share_connector_->shut_down();
}

}  // namespace

std::unique_ptr<netfs::Adapter> make_nfs_adapter(const NfsUrl& url, const NfsOptions& options,
                                                 Executor& executor,
                                                 os::StreamConnector& connector) {
  return std::make_unique<NfsAdapter>(url, options, executor, connector);
}

}  // namespace larder::nfs
