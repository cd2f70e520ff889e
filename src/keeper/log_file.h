// LogFile: <runtime directory>/keeper.log, to which keeper and engine write, kept from growing.
#pragma once

#include <string>

namespace larder::keeper {

// Owned by the keeper, used on its thread only.
class LogFile {
 public:
  static constexpr long long kMostBytes = 4LL << 20;

  // Whether stderr is that file is looked up now; any other (a journal, a person's file) is left
  // alone.
  explicit LogFile(const std::string& runtime_directory);

  [[nodiscard]] bool ours() const { return ours_; }

  // Where a person finds what keeper and engine said.
  [[nodiscard]] std::string place() const;

  // If it has more than kMostBytes: moves them to keeper.log.1, over what is there. The file stays
  // the same, so that those who have it open go on writing to it; a line that is written meanwhile
  // may be lost.
  void bound() const;

 private:
  const std::string path_;
  bool ours_ = false;
};

}  // namespace larder::keeper
