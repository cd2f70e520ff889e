// FakeServer and FakeAdapter: a file server in memory, and the adapter that asks it.
//
// Calls are carried out one by one on a pool of the test's executor, so that a Stepper orders them.
// The server's clock is the test's own; stamps are cut to its granularity, as a real server's are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::testing {

// Threads: one.
class FakeServer {
 public:
  explicit FakeServer(const Clock& clock) : clock_(clock) {
    make_node(netfs::FileType::kDirectory);
  }

  static constexpr std::uint64_t kRoot = 1;

  // A file, directory or symbolic link below `parent`; its fileid.
  std::uint64_t add_file(const std::string& name, std::string content,
                         std::uint64_t parent = kRoot);
  std::uint64_t add_directory(const std::string& name, std::uint64_t parent = kRoot);
  std::uint64_t add_symlink(const std::string& name, std::string target,
                            std::uint64_t parent = kRoot);
  void remove(const std::string& name, std::uint64_t parent = kRoot);
  // Writes as somebody else's client would: new content, new stamps.
  void write_file(std::uint64_t fileid, std::string content);
  void append(std::uint64_t fileid, std::string_view more);
  void set_mode(std::uint64_t fileid, std::uint32_t mode);

  // The server starts anew: what was written and not committed is as it was before, stamps too, and
  // the write verifier is another.
  void restart();
  // The same, but its disk had taken everything by then.
  void restart_without_loss();

  [[nodiscard]] const std::string& content(std::uint64_t fileid) const;
  // What restart() would leave of it.
  [[nodiscard]] const std::string& stable_content(std::uint64_t fileid) const;
  [[nodiscard]] const netfs::Attributes& attributes(std::uint64_t fileid) const;
  // The fileid behind a name; nothing: no such name.
  [[nodiscard]] std::optional<std::uint64_t> find_name(std::string_view name,
                                                       std::uint64_t parent = kRoot) const;

  [[nodiscard]] std::vector<std::string> names(std::uint64_t directory = kRoot) const;

  // Every content that the file had, with the moment from which on it was so (this machine's
  // clock).
  struct Moment {
    MonotonicTime from;
    std::string content;
    netfs::Attributes attributes;
  };

  [[nodiscard]] const std::vector<Moment>& history(std::uint64_t fileid) const;

  // ---- How the server behaves.

  netfs::Timestamp granularity{0, 1};               // of stamps
  bool say_granularity = true;                      // false: FSINFO claims a nanosecond
  bool post_op_attributes = true;                   // false: replies come without attributes
  std::uint32_t read_size = 1024 * 1024;            // larger reads come short
  std::uint32_t write_size = 1024 * 1024;           // larger writes come short
  bool tells_before = true;                         // false: changes come without what was before
  bool writes_through = false;                      // true: every write is on its disk at once
  std::uint64_t capacity = std::uint64_t{1} << 40;  // bytes of all files together, else ENOSPC
  std::uint32_t entries_per_readdir = 100;
  std::uint64_t listing_verifier = 0x1157;
  std::int64_t clock_offset_seconds = 31'536'000;  // its clock is this far ahead of ours
  // ACCESS grants this user nothing, and changes end with EACCES.
  std::uint32_t denied_uid = 0xffffffff;

  std::function<void()> before_read;  // what others do just before each READ

  // ---- What it was asked.

  std::map<std::string, std::uint64_t> calls;  // by procedure
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;

 private:
  friend class FakeAdapter;

  struct Entry {
    std::string name;
    std::uint64_t fileid = 0;
    std::uint64_t cookie = 0;
  };

  struct OnDisk {
    std::string content;
    netfs::Attributes attributes;
  };

  struct Node {
    netfs::Attributes attributes;
    std::string content;
    std::vector<Entry> entries;  // by rising cookie
    std::uint64_t last_cookie = 0;
    std::vector<Moment> history;
    std::optional<OnDisk> on_disk;  // when it is another than the above
    std::optional<netfs::CreateVerifier> verifier;
  };

  // What a name must stand for, to be what a call has made.
  struct MadeNode {
    netfs::FileType type = netfs::FileType::kDirectory;
    std::string target;  // of a symlink
  };

  std::uint64_t make_node(netfs::FileType type);
  [[nodiscard]] Node* find(const netfs::FileHandle& handle);
  [[nodiscard]] netfs::FileHandle handle_of(std::uint64_t fileid) const;
  [[nodiscard]] netfs::Timestamp now() const;
  void stamp(Node& node);
  [[nodiscard]] std::optional<netfs::Attributes> post_op(const Node& node) const;

  // What the procedures do.
  Result<netfs::Change> setattr(const netfs::FileHandle& handle,
                                const netfs::AttributeChanges& changes);
  Result<netfs::CreateReply> create(const netfs::FileHandle& directory, const std::string& name,
                                    const netfs::CreateOrder& order,
                                    const netfs::Credential& credential);
  Result<netfs::CreateReply> make(const netfs::FileHandle& directory, const std::string& name,
                                  const netfs::MakeOrder& order,
                                  const netfs::Credential& credential);
  Result<netfs::CreateReply> symlink(const netfs::FileHandle& directory, const std::string& name,
                                     const std::string& target,
                                     const netfs::Credential& credential);
  Result<netfs::Change> unlink(const netfs::FileHandle& directory, const std::string& name,
                               bool is_directory);
  Result<netfs::RenameReply> rename(const netfs::FileHandle& from_directory,
                                    const std::string& from, const netfs::FileHandle& to_directory,
                                    const std::string& to);
  Result<netfs::LinkReply> link(const netfs::FileHandle& file, const netfs::FileHandle& directory,
                                const std::string& name);
  Result<netfs::WriteReply> write(const netfs::FileHandle& handle, const netfs::WriteOrder& order);
  Result<netfs::CommitReply> commit(const netfs::FileHandle& handle);

  // What an adapter makes of the answer, for who asks for what may be done already.
  Result<netfs::Change> remove_once(const netfs::FileHandle& directory, const std::string& name,
                                    bool is_directory, const netfs::Asker& asker);
  Result<netfs::CreateReply> confirm_made(Result<netfs::CreateReply> reply,
                                          const netfs::Asker& asker,
                                          const netfs::FileHandle& directory,
                                          const std::string& name, const MadeNode& wanted);
  [[nodiscard]] std::optional<std::uint64_t> id_of(const netfs::FileHandle& directory,
                                                   std::string_view name);

  [[nodiscard]] Result<Node*> find_directory(const netfs::FileHandle& handle);
  [[nodiscard]] static Entry* find_entry(Node& directory, std::string_view name);
  void add_entry(Node& directory, const std::string& name, std::uint64_t fileid);
  void drop_entry(Node& directory, const std::string& name);
  void drop_link(std::uint64_t fileid);
  [[nodiscard]] Result<> make_room_for_name(const netfs::FileHandle& to_directory,
                                            std::uint64_t fileid, Node& directory,
                                            const std::string& to);
  [[nodiscard]] bool is_below(std::uint64_t fileid, std::uint64_t directory) const;
  Result<netfs::CreateReply> add_new(Node& directory, const std::string& name, netfs::FileType type,
                                     const netfs::AttributeChanges& attributes,
                                     const netfs::Credential& credential);
  Result<> apply(Node& node, const netfs::AttributeChanges& changes);
  Result<> resize(Node& node, std::uint64_t size);
  void note_content(Node& node);
  [[nodiscard]] bool fits(const Node& node, std::uint64_t size) const;
  [[nodiscard]] std::optional<netfs::BeforeChange> before(const Node& node) const;
  [[nodiscard]] netfs::WriteVerifier write_verifier() const;

  const Clock& clock_;
  std::map<std::uint64_t, Node> nodes_;
  std::uint64_t last_fileid_ = 0;
  std::uint64_t lives_ = 1;
};

// Threads: one (the Stepper's). Life: the server outlives it.
class FakeAdapter final : public netfs::Adapter {
 public:
  FakeAdapter(FakeServer& server, Executor& executor);
  ~FakeAdapter() override;
  FakeAdapter(const FakeAdapter&) = delete;
  FakeAdapter& operator=(const FakeAdapter&) = delete;

  // While set, calls are not carried out but wait; release() lets them go on.
  struct Control {
    bool hold = false;
    // The same for calls of a procedure, after so many more of it were carried out.
    std::map<std::string, unsigned> hold_of;
    std::deque<Task> held;
    // So many calls are answered before their start returns, as a fast server's thread may do it.
    unsigned at_once = 0;
    // The server hears nothing: every call ends with kCancelled.
    bool unreachable = false;
    // The next calls end with this instead.
    std::deque<Error> errors;
    // All calls of a procedure end with this instead.
    std::map<std::string, Error> errors_of;
    // The next calls are carried out, but end with this: the answer is lost.
    std::deque<Error> lost_answers;

    [[nodiscard]] bool holds(const char* procedure) {
      const auto found = hold_of.find(procedure);
      if (found != hold_of.end() && found->second > 0) {
        --found->second;
        return hold;
      }
      return hold || found != hold_of.end();
    }

    void release() {
      hold = false;
      hold_of.clear();
      for (Task& task : std::exchange(held, {})) {
        task();
      }
    }
  };

  [[nodiscard]] const std::shared_ptr<Control>& control() const { return control_; }

  [[nodiscard]] const netfs::ShareName& name() const override { return name_; }

  void start_connect(netfs::Done<netfs::ShareInfo> done) override;
  netfs::CallId start_lookup(const netfs::FileHandle& directory, std::string_view name,
                             netfs::CredentialRef credential,
                             netfs::Done<netfs::LookupReply> done) override;
  netfs::CallId start_getattr(const netfs::FileHandle& handle, netfs::CredentialRef credential,
                              netfs::Done<netfs::Attributes> done) override;
  netfs::CallId start_access(const netfs::FileHandle& handle, std::uint32_t wanted,
                             netfs::CredentialRef credential,
                             netfs::Done<netfs::AccessReply> done) override;
  netfs::CallId start_readlink(const netfs::FileHandle& handle, netfs::CredentialRef credential,
                               netfs::Done<netfs::ReadlinkReply> done) override;
  netfs::CallId start_readdir(const netfs::FileHandle& handle, netfs::DirectoryPosition from,
                              bool with_attributes, netfs::CredentialRef credential,
                              netfs::Done<netfs::ReaddirReply> done) override;
  netfs::CallId start_statfs(const netfs::FileHandle& handle, netfs::CredentialRef credential,
                             netfs::Done<netfs::StatfsReply> done) override;
  netfs::CallId start_read(const netfs::FileHandle& handle, const netfs::ReadOrder& order,
                           netfs::CredentialRef credential,
                           netfs::Done<netfs::ReadReply> done) override;
  netfs::CallId start_setattr(const netfs::FileHandle& handle,
                              const netfs::AttributeChanges& changes,
                              netfs::CredentialRef credential,
                              netfs::Done<netfs::Change> done) override;
  netfs::CallId start_create(const netfs::FileHandle& directory, std::string_view name,
                             const netfs::CreateOrder& order, netfs::Asker asker,
                             netfs::Done<netfs::CreateReply> done) override;
  netfs::CallId start_make(const netfs::FileHandle& directory, std::string_view name,
                           const netfs::MakeOrder& order, netfs::Asker asker,
                           netfs::Done<netfs::CreateReply> done) override;
  netfs::CallId start_symlink(const netfs::FileHandle& directory, std::string_view name,
                              std::string_view target, const netfs::AttributeChanges& attributes,
                              netfs::Asker asker, netfs::Done<netfs::CreateReply> done) override;
  netfs::CallId start_remove(const netfs::FileHandle& directory, std::string_view name,
                             netfs::Asker asker, netfs::Done<netfs::Change> done) override;
  netfs::CallId start_rmdir(const netfs::FileHandle& directory, std::string_view name,
                            netfs::Asker asker, netfs::Done<netfs::Change> done) override;
  netfs::CallId start_rename(const netfs::FileHandle& from_directory, std::string_view from,
                             const netfs::FileHandle& to_directory, std::string_view to,
                             netfs::Asker asker, netfs::Done<netfs::RenameReply> done) override;
  netfs::CallId start_link(const netfs::FileHandle& file, const netfs::FileHandle& directory,
                           std::string_view name, netfs::Asker asker,
                           netfs::Done<netfs::LinkReply> done) override;
  netfs::CallId start_write(const netfs::FileHandle& handle, const netfs::WriteOrder& order,
                            netfs::CredentialRef credential,
                            netfs::Done<netfs::WriteReply> done) override;
  netfs::CallId start_commit(const netfs::FileHandle& handle, netfs::CredentialRef credential,
                             netfs::Done<netfs::CommitReply> done) override;
  void cancel(netfs::CallId id) override;
  [[nodiscard]] netfs::AdapterStatus status() const override;
  void shut_down() override;

 private:
  // Carries out `answer` when the stepper comes to it, unless the call was cancelled before.
  template <class T>
  netfs::CallId start(const char* procedure, netfs::Done<T> done,
                      std::move_only_function<Result<T>()> answer);
  // One that the denied user may not make.
  template <class T>
  netfs::CallId start_change(const char* procedure, const netfs::CredentialRef& credential,
                             netfs::Done<T> done, std::move_only_function<Result<T>()> answer);

  FakeServer& server_;
  const netfs::ShareName name_{"fake", "server", "", "/export"};
  const std::shared_ptr<Control> control_;
  std::unique_ptr<Pool> pool_;
  netfs::CallId last_call_ = 0;
  std::unordered_map<netfs::CallId, Task> cancels_;
};

}  // namespace larder::testing
