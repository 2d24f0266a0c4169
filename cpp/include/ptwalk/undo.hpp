// The log by which every change of a machine can be taken back: what is about to change is saved
// once, and restoring writes the saved bytes back, last first. So going back costs what was
// touched, however large the machine is. Has no kernel counterpart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <span>
#include <type_traits>
#include <vector>

#include "ptwalk/types.hpp"

namespace ptwalk {

class UndoLog {
 public:
  using Bytes = std::span<const std::byte>;
  /// Puts what was saved of `object` back.
  using Restore = void (*)(void* object, Bytes saved);
  /// A place in the log: what was saved after it can be taken back.
  using Position = std::size_t;

  UndoLog() = default;
  UndoLog(const UndoLog&) = delete;
  UndoLog& operator=(const UndoLog&) = delete;

  /// Whether changes must be saved: somebody may want to go back.
  [[nodiscard]] bool active() const { return active_; }
  /// Changes at every mark() and restore(): what was saved under it need not be saved again.
  [[nodiscard]] u64 epoch() const { return epoch_; }

  /// From here on changes are saved. The position of now.
  Position mark();
  /// Takes back everything after `position`.
  void restore(Position position);
  /// Nobody will go back to any position: nothing is saved any more.
  void stop();
  /// Drops what was saved of an object that is no more, or of a part of it.
  void forget(const void* object, std::size_t size);

  /// Saves the bytes of a value that keeps its address.
  template <class T>
  void save(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::byte* const to = grow({&value, nullptr, sizeof value});
    std::memcpy(to, &value, sizeof value);
  }
  /// Saves a value that `restore` will be called with.
  template <class T>
  void save_for(void* object, Restore restore, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memcpy(grow({object, restore, sizeof value}), &value, sizeof value);
  }
  /// Saves `data`, which `restore` will be called with; without one it is copied to `object`.
  void save(void* object, Restore restore, Bytes data, Bytes more = {});

  [[nodiscard]] std::size_t size() const { return used_; }

 private:
  struct Record {  // lies behind its data
    void* object = nullptr;
    Restore restore = nullptr;
    u64 size = 0;
  };
  static std::size_t padded(std::size_t size) { return align_up(size, alignof(Record)); }
  /// Adds a record and returns where its data goes.
  std::byte* grow(const Record& record) {
    const std::size_t at = used_, end = at + padded(record.size);
    used_ = end + sizeof record;
    if (used_ > bytes_.size()) enlarge();
    std::memcpy(&bytes_[end], &record, sizeof record);
    return &bytes_[at];
  }

  void enlarge();

  std::vector<std::byte> bytes_;  // room; the first used_ are records
  std::size_t used_ = 0;
  u64 epoch_ = 0;
  bool active_ = false;
};

/// Whether the object with this stamp must be saved now; it counts as saved afterwards. Without a
/// log, as in tests of one part, nothing ever must.
inline bool must_save(const UndoLog* log, u64& stamp) {
  if (!log || stamp == log->epoch() || !log->active()) return false;
  stamp = log->epoch();
  return true;
}

/// The stamp of an object that is made now: nobody goes back to where it was without being gone.
inline u64 epoch_of(const UndoLog* log) { return log ? log->epoch() : 0; }

template <class T>
UndoLog::Bytes bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const std::byte*>(&value), sizeof value};
}
template <class T>
UndoLog::Bytes bytes_of(const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)};
}
template <class T>
T value_of(UndoLog::Bytes saved) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, saved.data(), sizeof value);
  return value;
}
/// Makes `values` what was saved of it.
template <class T>
void assign(std::vector<T>& values, UndoLog::Bytes saved) {
  values.resize(saved.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), saved.data(), saved.size());
}

/// A stack of plain values whose changes can be undone: each one is saved at most once an epoch.
template <class T>
class UndoStack {
 public:
  explicit UndoStack(UndoLog* log = nullptr) : log_(log) {}
  [[nodiscard]] bool empty() const { return items_.empty(); }
  [[nodiscard]] std::size_t size() const { return items_.size(); }
  [[nodiscard]] const std::vector<T>& items() const { return items_; }
  [[nodiscard]] T back() const { return items_.back(); }
  void push(T value) {
    note();
    items_.push_back(value);
  }
  T pop() {
    note();
    const T value = items_.back();
    if (log_ && log_->active() && items_.size() <= intact_) {
      intact_ = items_.size() - 1;
      log_->save_for(this, put_back, Item{intact_, value});
    }
    items_.pop_back();
    return value;
  }
  /// Sorts, largest first.
  void sort() {
    if (log_ && log_->active()) {
      log_->save(this, put_all, bytes_of(items_));
      intact_ = 0;
    }
    std::sort(items_.begin(), items_.end(), std::greater<>());
  }

 private:
  struct Item {
    std::size_t index;
    T value;
  };
  void note() {
    if (!must_save(log_, stamp_)) return;
    intact_ = items_.size();
    log_->save_for(this, put_size, items_.size());
  }
  static void put_size(void* self, UndoLog::Bytes saved) {
    static_cast<UndoStack*>(self)->items_.resize(value_of<std::size_t>(saved));
  }
  static void put_back(void* self, UndoLog::Bytes saved) {
    auto& items = static_cast<UndoStack*>(self)->items_;
    const Item item = value_of<Item>(saved);
    if (items.size() <= item.index) items.resize(item.index + 1);
    items[item.index] = item.value;
  }
  static void put_all(void* self, UndoLog::Bytes saved) {
    assign(static_cast<UndoStack*>(self)->items_, saved);
  }

  UndoLog* log_;
  std::vector<T> items_;
  std::size_t intact_ = 0;  ///< so many, from the bottom, are as they were when the epoch began
  u64 stamp_ = 0;
};

/// Objects that keep their address, by number; changes of them and of their number can be undone.
/// T has a `stamp`, save(UndoLog&), and reset() for an object that is handed out again with the
/// memory that it had.
template <class T>
class UndoPool {
 public:
  explicit UndoPool(UndoLog* log = nullptr) : log_(log) {}
  [[nodiscard]] std::size_t size() const { return size_; }
  const T& operator[](std::size_t i) const { return *by_number_[i]; }
  [[nodiscard]] auto begin() const { return items_.begin(); }
  [[nodiscard]] auto end() const { return items_.begin() + std::ptrdiff_t(size_); }
  /// The object, to be changed.
  T& edit(std::size_t i) {
    T& item = *by_number_[i];
    if (must_save(log_, item.stamp)) item.save(*log_);
    return item;
  }
  /// Calls visit(object) for each, those that are kept for the next included.
  template <class Visit>
  void for_each_kept(Visit visit) {
    for (T& item : items_) visit(item);
  }
  /// One more, which size() was the number of.
  T& add() {
    if (must_save(log_, stamp_)) log_->save(size_);
    if (size_ == items_.size())
      by_number_.push_back(&items_.emplace_back(log_));
    else
      by_number_[size_]->reset();
    return *by_number_[size_++];
  }

 private:
  UndoLog* log_;
  std::deque<T> items_;
  std::vector<T*> by_number_;  ///< a deque divides to find its items
  std::size_t size_ = 0;
  u64 stamp_ = 0;
};

}  // namespace ptwalk
