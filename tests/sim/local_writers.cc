#include "local_writers.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/result.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"
#include "netfs/inode.h"
#include "netfs/share.h"
#include "netfs/writer.h"

namespace larder {

namespace {

constexpr std::size_t kMostWriters = 4;

std::string written_bytes(Random& random, std::size_t size) {
  std::string bytes(size, '\0');
  std::uint64_t word = random();
  for (std::size_t i = 0; i < size; ++i) {
    word = i % 64 == 0 ? random() : word;
    bytes[i] = static_cast<char>(word >> (i % 8 * 8));
  }
  return bytes;
}

}  // namespace

void LocalWriters::step(netfs::Share& share, const std::string& name) {
  const std::uint64_t what = random_() % 10;
  if (writers_.empty() || (what < 2 && writers_.size() < kMostWriters)) {
    open(share, name);
    return;
  }
  const WriterRef writer = writers_[random_() % writers_.size()];
  if (what < 6) {
    write(share, writer);
  } else if (what < 7) {
    cut(share, writer);
  } else if (what < 9) {
    sync(share, writer);
  } else {
    close(share, writer);
  }
}

void LocalWriters::sync_all(netfs::Share& share) {
  for (const WriterRef& writer : writers_) {
    sync(share, writer);
  }
}

void LocalWriters::end_life() {
  writers_.clear();
  logs_.clear();
  calls_ = 0;
  trouble_ = 0;
  ++life_;
}

void LocalWriters::open(netfs::Share& share, const std::string& name) {
  const bool truncate = random_() % 4 == 0;
  ++calls_;
  share.lookup(share.root(), name, caller_,
               [this, &share, truncate, life = life_](const Result<netfs::LookupOutcome>& found) {
                 if (life != life_) {
                   return;
                 }
                 if (!found) {
                   --calls_;
                   return;
                 }
                 const std::uint64_t fileid = found->inode->attributes().attributes.fileid;
                 if (truncate) {
                   raise_barrier(fileid);
                 }
                 share.open(
                     found->inode, {.read = true, .write = true, .truncate = truncate}, caller_,
                     [this, fileid, truncate, life](Result<netfs::OpenFile> opened) {
                       if (life != life_) {
                         return;
                       }
                       --calls_;
                       if (truncate) {
                         raise_barrier(fileid);
                       }
                       if (opened) {
                         writers_.push_back(
                             std::make_shared<Writer>(Writer{fileid, std::move(*opened), {}}));
                       }
                     });
               });
}

void LocalWriters::write(netfs::Share& share, const WriterRef& writer) {
  constexpr std::uint64_t kMostGap = 1000;
  const std::uint64_t size = writer->open.file->inode()->attributes().attributes.size;
  const std::uint64_t largest = random_() % 5 == 0 ? 700'000 : 9'000;
  const auto bytes =
      std::make_shared<const std::string>(written_bytes(random_, 1 + random_() % largest));
  netfs::WritePlace place;
  place.append = random_() % 6 == 0;
  place.through = random_() % 6 == 0;
  place.offset = place.append ? 0 : random_() % (size + kMostGap);
  const auto write = std::make_shared<Write>();
  write->begun = ++clock_;
  write->range = {place.offset, place.append ? 0 : bytes->size()};
  write->bytes = *bytes;
  Log& log = logs_[writer->fileid];
  log.writes.push_back(write);
  log.last = clock_;
  ++calls_;
  share.write(writer->open, place, {bytes, bytes_of(*bytes)}, caller_,
              [this, writer, write, life = life_](const Result<netfs::Written>& written) {
                if (life != life_) {
                  return;
                }
                --calls_;
                logs_[writer->fileid].last = ++clock_;
                if (!written) {
                  on_error(*writer);
                  return;
                }
                log_debug("file {}: wrote {} at {}, accepted as {}", writer->fileid,
                          written->length, written->offset, clock_);
                EXPECT_EQ(written->length, write->bytes.size());
                write->range = {written->offset, written->length};
                write->accepted = clock_;
                writer->unconfirmed.push_back(write);
              });
}

// As ftruncate(2) does.
void LocalWriters::cut(netfs::Share& share, const WriterRef& writer) {
  const std::uint64_t size = writer->open.file->inode()->attributes().attributes.size;
  netfs::AttributeChanges changes;
  changes.size = random_() % 3 == 0 ? 0 : random_() % (size + size / 4 + 1);
  raise_barrier(writer->fileid);
  ++calls_;
  share.set_attributes(writer->open.file->inode(), changes, &writer->open, caller_,
                       [this, writer, life = life_](const Result<netfs::FreshAttributes>& set) {
                         if (life != life_) {
                           return;
                         }
                         --calls_;
                         raise_barrier(writer->fileid);
                         if (!set) {
                           on_error(*writer);
                         }
                       });
}

void LocalWriters::sync(netfs::Share& share, const WriterRef& writer) {
  const std::uint64_t before = ++clock_;
  log_debug("file {}: syncs as {}", writer->fileid, before);
  ++calls_;
  share.sync(writer->open, caller_, [this, writer, before, life = life_](const Result<>& synced) {
    if (life != life_) {
      return;
    }
    --calls_;
    if (!synced) {
      on_error(*writer);
      return;
    }
    check_confirmed(*writer, before);
    std::erase_if(writer->unconfirmed,
                  [before](const WriteRef& write) { return write->accepted < before; });
  });
}

void LocalWriters::close(netfs::Share& share, const WriterRef& writer) {
  std::erase(writers_, writer);
  sync(share, writer);
  share.closed(writer->open.file);
}

// He was told; which of his bytes it concerns he does not know.
void LocalWriters::on_error(Writer& writer) {
  writer.unconfirmed.clear();
  raise_barrier(writer.fileid);
}

void LocalWriters::raise_barrier(std::uint64_t fileid) {
  log_debug("file {}: changed, as {}", fileid, clock_ + 1);
  Log& log = logs_[fileid];
  log.barrier = log.last = ++clock_;
  std::erase_if(log.writes, [](const WriteRef& write) { return write->accepted != 0; });
}

bool LocalWriters::is_certain(const Log& log, const Write& write) const {
  return write.begun > log.barrier && write.accepted != 0 &&
         std::ranges::none_of(log.writes, [&write](const WriteRef& other) {
           return other->begun > write.begun && other->range.overlaps(write.range);
         });
}

void LocalWriters::check_confirmed(const Writer& writer, std::uint64_t before) {
  const Log& log = logs_[writer.fileid];
  for (const WriteRef& write : writer.unconfirmed) {
    if (write->accepted > before || !is_certain(log, *write)) {
      continue;
    }
    const std::string& disk = server_.stable_content(writer.fileid);
    EXPECT_TRUE(disk.size() >= write->range.end() &&
                disk.compare(write->range.offset, write->range.length, write->bytes) == 0)
        << fmt::format("{} bytes at {} of file {} were confirmed and are not on the server's disk",
                       write->range.length, write->range.offset, writer.fileid);
    bytes_confirmed_ += write->range.length;
  }
}

bool LocalWriters::wrote_since(std::uint64_t fileid, std::uint64_t since) const {
  const auto log = logs_.find(fileid);
  return log != logs_.end() && log->second.last > since;
}

void LocalWriters::check_read(std::uint64_t fileid, std::uint64_t since, ByteRange range,
                              std::string_view got) const {
  const auto found = logs_.find(fileid);
  if (found == logs_.end()) {
    return;
  }
  for (const WriteRef& write : found->second.writes) {
    const ByteRange common = write->range.intersection({range.offset, got.size()});
    if (write->accepted >= since || write->begun < trouble_ || common.empty() ||
        !is_certain(found->second, *write)) {
      continue;
    }
    EXPECT_TRUE(
        got.substr(common.offset - range.offset, common.length) ==
        std::string_view(write->bytes).substr(common.offset - write->range.offset, common.length))
        << fmt::format("{} bytes at {} of file {} were written before and are not read",
                       common.length, common.offset, fileid);
    bytes_read_back_ += common.length;
  }
}

}  // namespace larder
