// CallJournal: what is noted of one call that must not happen twice, where it outlives this
// process.
//
// The process may die in the midst of a call. The next one is asked for the same call again, and
// finds here how far the one before has come and what it had chosen: it chooses the same, skips
// what is known to be done, and tells the adapter of what may be done already.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::netfs {

// What a process before us noted.
struct CallNotes {
  bool sent = false;  // the server may have carried out the call
  std::optional<CreateVerifier> verifier;
  std::optional<FileHandle> made;       // by the server, or found there: CREATE has been answered
  std::optional<std::uint64_t> offset;  // where an append went
  // The name for the open file that loses its own, or that is moved out of a directory that goes;
  // empty: none was needed so far.
  std::string hidden_name;
  bool has_hidden = false;  // the file has that name
};

// Each note is made before the server is asked for what it tells of, but for those of what has been
// done.
// Threads: any; notes of a call that was answered meanwhile go nowhere. Life: shared by whoever
// works on the call.
class CallJournal {
 public:
  CallJournal() = default;
  CallJournal(const CallJournal&) = delete;
  CallJournal& operator=(const CallJournal&) = delete;
  virtual ~CallJournal() = default;

  // The same for as long as it lives, whatever is noted.
  [[nodiscard]] virtual const CallNotes& earlier() const = 0;

  // What leaves now may carry out the call.
  virtual void note_sent() = 0;
  virtual void note_verifier(const CreateVerifier& verifier) = 0;
  virtual void note_made(const FileHandle& handle) = 0;
  // Of an append: it leaves for this offset.
  virtual void note_offset(std::uint64_t offset) = 0;
  // The last counts.
  virtual void note_hidden_name(std::string_view name) = 0;
  // The file has the hidden name now.
  virtual void note_hidden() = 0;
};

using CallJournalRef = std::shared_ptr<CallJournal>;  // null: nothing is noted

[[nodiscard]] inline CallNotes notes_of(const CallJournalRef& journal) {
  return journal == nullptr ? CallNotes{} : journal->earlier();
}

}  // namespace larder::netfs
