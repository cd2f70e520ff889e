#include "cachefiles/object_log.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/bytes.h"
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
