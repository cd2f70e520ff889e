#include "cachefiles/object_log.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/content_map.h"
#include "cachefiles/map_log.h"
#include "cachefiles/stamp.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

void ObjectLog::adopt(std::unique_ptr<os::File> file, std::uint64_t nonce, std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  file_ = std::move(file);
  nonce_ = nonce;
  end_ = bytes;
}

Result<> ObjectLog::write(os::File& file, std::uint64_t nonce, std::uint64_t offset,
                          std::span<const MapRecord> records) {
  std::vector<std::byte> bytes;
  bytes.reserve(records.size() * kMapRecordBytes);
  for (const MapRecord& record : records) {
    const MapRecordBytes encoded = encode_map_record(record, nonce);
    bytes.insert(bytes.end(), encoded.begin(), encoded.end());
  }
  return file.write_at(offset, bytes);
}

Result<> ObjectLog::start(std::unique_ptr<os::File> file, std::uint64_t nonce, std::uint64_t bytes,
                          Stamp stamp) {
  std::vector<MapRecord> waited;
  const std::shared_ptr<os::File> shared = std::move(file);
  std::uint64_t offset = 0;
  {
    const MutexLock lock(mutex_);
    file_ = shared;
    nonce_ = nonce;
    waited = std::exchange(waiting_, {});
    offset = bytes;
    end_ = bytes + waited.size() * kMapRecordBytes;
  }
  for (MapRecord& record : waited) {
    record.stamp = stamp;
  }
  return write(*shared, nonce, offset, waited);
}

Result<> ObjectLog::append(std::vector<MapRecord> records) {
  std::shared_ptr<os::File> file;
  std::uint64_t offset = 0;
  std::uint64_t nonce = 0;
  {
    const MutexLock lock(mutex_);
    if (stopped_) {
      return {};
    }
    if (file_ == nullptr) {
      std::ranges::move(records, std::back_inserter(waiting_));
      return {};
    }
    file = file_;
    nonce = nonce_;
    offset = end_;
    end_ += records.size() * kMapRecordBytes;
  }
  return write(*file, nonce, offset, records);
}

Result<LoadedLog> ObjectLog::load() {
  std::shared_ptr<os::File> file;
  {
    const MutexLock lock(mutex_);
    file = file_;
  }
  if (file == nullptr) {
    return fail(Errc::kNotFound, "no map log");
  }
  return load_log(*file);
}

void ObjectLog::forget_waiting() {
  const MutexLock lock(mutex_);
  waiting_.clear();
}

void ObjectLog::stop() {
  std::shared_ptr<os::File> closed;
  const MutexLock lock(mutex_);
  stopped_ = true;
  waiting_.clear();
  closed = std::exchange(file_, nullptr);
}

void ObjectLog::reset() {
  stop();
  const MutexLock lock(mutex_);
  stopped_ = false;
  end_ = 0;
}

bool ObjectLog::started() const {
  const MutexLock lock(mutex_);
  return file_ != nullptr;
}

std::uint64_t ObjectLog::nonce() const {
  const MutexLock lock(mutex_);
  return file_ == nullptr ? 0 : nonce_;
}

std::uint64_t ObjectLog::bytes() const {
  const MutexLock lock(mutex_);
  return end_;
}

std::uint64_t ObjectLog::allocated() const {
  std::shared_ptr<os::File> file;
  {
    const MutexLock lock(mutex_);
    file = file_;
  }
  if (file == nullptr) {
    return 0;
  }
  const Result<os::FileStat> stat = file->stat();
  return stat ? stat->allocated : 0;
}

std::vector<MapRecord> records_of(std::span<const MapPiece> pieces, Stamp stamp) {
  std::vector<MapRecord> records;
  for (const MapPiece& piece : pieces) {
    // A record holds one checksum a cell: a second piece of the same cell begins a new one.
    const bool continues = !records.empty() && records.back().run.end() == piece.range.offset &&
                           piece.range.offset % kCellBytes == 0 &&
                           records.back().checksums.size() < kMostCells;
    if (!continues) {
      MapRecord record;
      record.stamp = stamp;
      record.run = {piece.range.offset, 0};
      records.push_back(std::move(record));
    }
    records.back().run.length += piece.range.length;
    records.back().checksums.push_back(piece.checksum);
  }
  return records;
}

std::vector<MapRecord> rewritten_records(std::span<const MapPiece> pieces,
                                         std::span<const MapRecord> before,
                                         const std::function<bool(const Stamp&)>& durable) {
  Stamp newest_durable;
  std::unordered_map<std::uint64_t, Stamp> open;  // by cell
  for (const MapRecord& record : before) {
    if (record.type != MapRecordType::kPresent) {
      continue;
    }
    if (durable(record.stamp)) {
      newest_durable = std::max(newest_durable, record.stamp);
      continue;
    }
    const ByteRange cells = record.run.rounded_out(kCellBytes);
    for (std::uint64_t at = cells.offset; at < cells.end(); at += kCellBytes) {
      Stamp& newest = open[at / kCellBytes];
      newest = std::max(newest, record.stamp);
    }
  }
  const auto stamp_of = [&](const MapPiece& piece) {
    const auto found = open.find(piece.range.offset / kCellBytes);
    return found == open.end() ? newest_durable : found->second;
  };
  std::vector<MapRecord> records;
  for (std::size_t begin = 0; begin < pieces.size();) {
    const Stamp stamp = stamp_of(pieces[begin]);
    std::size_t end = begin + 1;
    while (end < pieces.size() && stamp_of(pieces[end]) == stamp) {
      ++end;
    }
    std::ranges::move(records_of(pieces.subspan(begin, end - begin), stamp),
                      std::back_inserter(records));
    begin = end;
  }
  return records;
}

Result<LoadedLog> load_log(os::File& file) {
  constexpr std::size_t kPart = 512 * kMapRecordBytes;
  std::vector<std::byte> part(kPart);
  LoadedLog log;
  for (std::uint64_t offset = 0;; offset += kPart) {
    const std::size_t got = TRY(file.read_at(offset, part));
    if (offset == 0) {
      const Result<MapHeader> header = decode_map_header(Bytes(part).first(got));
      if (!header) {
        return fail(header.error());
      }
      log.header = *header;
    }
    for (std::size_t at = offset == 0 ? kMapRecordBytes : 0; at + kMapRecordBytes <= got;
         at += kMapRecordBytes) {
      std::optional<MapRecord> record =
          decode_map_record(Bytes(part).subspan(at, kMapRecordBytes), log.header.nonce);
      if (record) {
        log.records.push_back(std::move(*record));
      }
    }
    if (got < kPart) {
      log.bytes = offset + (got + kMapRecordBytes - 1) / kMapRecordBytes * kMapRecordBytes;
      return log;
    }
  }
}

}  // namespace larder::cachefiles
