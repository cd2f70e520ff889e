// ChangeCalls: the adapter's calls that change a share, done once although they may be sent twice.
//
// A call whose answer did not come is sent again. A server remembers its latest answers and gives
// them again, but it forgets them when it restarts. Then it answers to the repetition of what it
// has done: the name is gone (REMOVE, RMDIR, RENAME), or the name is there (MKDIR, SYMLINK, MKNOD,
// LINK, guarded CREATE), or that the caller may not open what is there (unchecked CREATE of a file
// that gives its maker no rights). To such an answer, and only if the call was sent more than once,
// we look at the names; if they are as the call wanted them, it has ended well. (A name that is
// gone needs no look.) A call that an earlier process may have sent counts as one that was sent
// before. The repetition may be answered while the server is still at the first call,
// or from what it remembers of names: at a name that is not as it should be we look more than once.
// docs/nfs-client.md has the rules, and what they cannot tell apart.
//
// The other calls need nothing of the kind: SETATTR without a guard, exclusive CREATE, WRITE and
// COMMIT may be repeated.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "adapters/nfs/procedures.h"
#include "adapters/nfs/rpc_call.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::nfs {

// Threads: any. Life: the carrier outlives it, and has ended all its calls before it goes.
class ChangeCalls {
 public:
  // What carries the calls: the adapter.
  class Carrier {
   public:
    Carrier() = default;
    Carrier(const Carrier&) = delete;
    Carrier& operator=(const Carrier&) = delete;
    virtual ~Carrier() = default;

    virtual void submit(netfs::CallId id, RpcRequest request) = 0;
    // The submitted call of this id, if there is one, ends soon with kCancelled.
    virtual void give_up(netfs::CallId id) = 0;
  };

  struct Caller {
    netfs::CallId id = 0;  // also of the calls that follow from the first
    netfs::CredentialRef credential;
    bool may_be_done = false;  // as netfs::Asker says
  };

  explicit ChangeCalls(Carrier& carrier) : carrier_(carrier) {}

  // As those of netfs::Adapter.
  void setattr(Caller caller, const netfs::FileHandle& handle,
               const netfs::AttributeChanges& changes, netfs::Done<netfs::Change> done);
  void create(Caller caller, const netfs::FileHandle& directory, std::string_view name,
              const netfs::CreateOrder& order, netfs::Done<netfs::CreateReply> done);
  void make(Caller caller, const netfs::FileHandle& directory, std::string_view name,
            const netfs::MakeOrder& order, netfs::Done<netfs::CreateReply> done);
  void symlink(Caller caller, const netfs::FileHandle& directory, std::string_view name,
               std::string_view target, const netfs::AttributeChanges& attributes,
               netfs::Done<netfs::CreateReply> done);
  // REMOVE or RMDIR.
  void remove(Caller caller, Procedure procedure, const netfs::FileHandle& directory,
              std::string_view name, netfs::Done<netfs::Change> done);
  void rename(Caller caller, const netfs::FileHandle& from_directory, std::string_view from,
              const netfs::FileHandle& to_directory, std::string_view to,
              netfs::Done<netfs::RenameReply> done);
  void link(Caller caller, const netfs::FileHandle& file, const netfs::FileHandle& directory,
            std::string_view name, netfs::Done<netfs::LinkReply> done);
  // At most `write_size` bytes of the order's.
  void write(Caller caller, const netfs::FileHandle& handle, const netfs::WriteOrder& order,
             std::size_t write_size, netfs::Done<netfs::WriteReply> done);
  void commit(Caller caller, const netfs::FileHandle& handle, netfs::Done<netfs::CommitReply> done);

  // Besides the carrier's own cancel: one that comes between two calls of an operation.
  void cancel(netfs::CallId id) EXCLUDES(mutex_);

 private:
  // A change that may need several calls.
  struct OperationBase {
    explicit OperationBase(Caller given) : caller(std::move(given)) {}

    const Caller caller;
    std::atomic<bool> cancelled{false};
  };

  using OperationBaseRef = std::shared_ptr<OperationBase>;

  template <class T>
  struct Operation : OperationBase {
    Operation(Caller given, netfs::Done<T> when_done)
        : OperationBase(std::move(given)), done(std::move(when_done)) {}

    netfs::Done<T> done;
  };

  template <class T>
  using OperationRef = std::shared_ptr<Operation<T>>;

  template <class T>
  using Decode = Result<T> (*)(Bytes results);

  // A call that is not the same when it is done twice.
  template <class T>
  struct OnceOnly {
    Procedure procedure = Procedure::kNull;
    std::vector<std::byte> arguments;
    Decode<T> decode = nullptr;
    int echo = 0;  // the errno by which a server answers to a repetition of what it has done
    // Finds out whether it did, and ends the operation: with success, or with the error given.
    std::move_only_function<void(const OperationRef<T>&, Error)> confirm;
  };

  // What a name must stand for, to be what a call has made.
  struct Made {
    netfs::FileHandle directory;
    std::string name;
    netfs::FileType type;
    std::string target{};  // of a symlink
    // Of a file that could have been there before: whose it must be, and what mode it must have.
    std::optional<std::uint32_t> owner{};
    std::optional<std::uint32_t> mode{};
  };

  template <class T>
  void start(Caller caller, Procedure procedure, std::vector<std::byte> arguments, Decode<T> decode,
             netfs::Done<T> done);
  template <class T>
  void start_once_only(Caller caller, OnceOnly<T> call, netfs::Done<T> done) EXCLUDES(mutex_);
  template <class T>
  void end(const OperationRef<T>& operation, Result<T> result) EXCLUDES(mutex_);

  void start_making(Caller caller, Procedure procedure, std::vector<std::byte> arguments, Made made,
                    int echo, netfs::Done<netfs::CreateReply> done);
  [[nodiscard]] static bool is_as_made(const netfs::Attributes& found, const Made& made);
  void confirm_made(const OperationRef<netfs::CreateReply>& operation, Made made, Error error);
  void confirm_target(const OperationRef<netfs::CreateReply>& operation, const std::string& target,
                      const netfs::CreateReply& found, Error error);
  void confirm_left(const OperationRef<netfs::RenameReply>& operation,
                    const netfs::FileHandle& directory, std::string_view name,
                    const netfs::LookupReply& target, Error error, unsigned looks = 0);

  // Calls that follow from the first.
  void send(const OperationBaseRef& operation, Procedure procedure,
            std::vector<std::byte> arguments, netfs::Done<RpcReply> done, Duration pause = {});
  void look_up(const OperationBaseRef& operation, const netfs::FileHandle& directory,
               std::string_view name, Duration pause, netfs::Done<netfs::LookupReply> done);
  // A name that should be there; `looks` have failed so far.
  void look_for(const OperationBaseRef& operation, const netfs::FileHandle& directory,
                std::string_view name, netfs::Done<netfs::LookupReply> done, unsigned looks = 0);
  // With attributes in any case.
  void examine(const OperationBaseRef& operation, const netfs::FileHandle& directory,
               std::string_view name, netfs::Done<netfs::LookupReply> done);

  Carrier& carrier_;

  Mutex mutex_{LockRank::kNetwork};
  std::unordered_map<netfs::CallId, OperationBaseRef> operations_ GUARDED_BY(mutex_);
};

}  // namespace larder::nfs
