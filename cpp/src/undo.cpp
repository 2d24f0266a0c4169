#include "ptwalk/undo.hpp"

namespace ptwalk {

UndoLog::Position UndoLog::mark() {
  active_ = true;
  ++epoch_;
  return bytes_.size();
}

void UndoLog::save(void* object, Restore restore, Bytes data, Bytes more) {
  const Record record{object, restore, data.size() + more.size()};
  const std::size_t at = bytes_.size();
  const std::size_t padded = align_up(record.size, alignof(Record));
  bytes_.resize(at + padded + sizeof record);
  if (!data.empty()) std::memcpy(&bytes_[at], data.data(), data.size());
  if (!more.empty()) std::memcpy(&bytes_[at + data.size()], more.data(), more.size());
  std::memcpy(&bytes_[at + padded], &record, sizeof record);
}

void UndoLog::restore(Position position) {
  std::size_t end = bytes_.size();
  while (end > position) {
    Record record;
    end -= sizeof record;
    std::memcpy(&record, &bytes_[end], sizeof record);
    end -= align_up(record.size, alignof(Record));
    if (!record.object) continue;
    if (record.restore)
      record.restore(record.object, {&bytes_[end], record.size});
    else
      std::memcpy(record.object, &bytes_[end], record.size);
  }
  bytes_.resize(position);
  ++epoch_;
}

void UndoLog::stop() {
  bytes_.clear();
  active_ = false;
}

void UndoLog::forget(const void* object, std::size_t size) {
  const auto* const first = static_cast<const std::byte*>(object);
  for (std::size_t end = bytes_.size(); end > 0;) {
    Record record;
    end -= sizeof record;
    std::memcpy(&record, &bytes_[end], sizeof record);
    const auto* const at = static_cast<const std::byte*>(record.object);
    if (at >= first && at < first + size) {
      record.object = nullptr;
      std::memcpy(&bytes_[end], &record, sizeof record);
    }
    end -= align_up(record.size, alignof(Record));
  }
}

}  // namespace ptwalk
