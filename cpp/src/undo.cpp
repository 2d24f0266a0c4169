#include "ptwalk/undo.hpp"

namespace ptwalk {

UndoLog::Position UndoLog::mark() {
  active_ = true;
  ++epoch_;
  return used_;
}

void UndoLog::enlarge() { bytes_.resize(2 * used_); }

void UndoLog::save(void* object, Restore restore, Bytes data, Bytes more) {
  std::byte* const to = grow({object, restore, data.size() + more.size()});
  if (!data.empty()) std::memcpy(to, data.data(), data.size());
  if (!more.empty()) std::memcpy(to + data.size(), more.data(), more.size());
}

void UndoLog::restore(Position position) {
  std::size_t end = used_;
  while (end > position) {
    Record record;
    end -= sizeof record;
    std::memcpy(&record, &bytes_[end], sizeof record);
    end -= padded(record.size);
    if (!record.object) continue;
    if (record.restore)
      record.restore(record.object, {&bytes_[end], record.size});
    else
      std::memcpy(record.object, &bytes_[end], record.size);
  }
  used_ = position;
  ++epoch_;
}

void UndoLog::stop() {
  used_ = 0;
  active_ = false;
}

void UndoLog::forget(const void* object, std::size_t size) {
  const auto* const first = static_cast<const std::byte*>(object);
  for (std::size_t end = used_; end > 0;) {
    Record record;
    end -= sizeof record;
    std::memcpy(&record, &bytes_[end], sizeof record);
    const auto* const at = static_cast<const std::byte*>(record.object);
    if (at >= first && at < first + size) {
      record.object = nullptr;
      std::memcpy(&bytes_[end], &record, sizeof record);
    }
    end -= padded(record.size);
  }
}

}  // namespace ptwalk
