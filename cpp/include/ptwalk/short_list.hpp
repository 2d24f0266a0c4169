// A list of plain values that most often has a few: those lie in it, more in a vector. Has no
// kernel counterpart.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace ptwalk {

template <class T, std::size_t SHORT>
class ShortList {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  ShortList() = default;
  ShortList(const ShortList& other) : size_(other.size_), long_(other.long_) { copy_short(other); }
  ShortList(ShortList&& other) noexcept : size_(other.size_), long_(std::move(other.long_)) {
    copy_short(other);
  }
  ShortList& operator=(ShortList other) noexcept {
    size_ = other.size_;
    long_.swap(other.long_);
    copy_short(other);
    return *this;
  }
  ~ShortList() = default;

  void push_back(const T& value) {
    if (size_ < SHORT) {
      room_.items[size_++] = value;
      return;
    }
    if (size_ == SHORT) long_.assign(room_.items.begin(), room_.items.end());
    long_.push_back(value);
    ++size_;
  }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const T* begin() const {
    return size_ <= SHORT ? room_.items.data() : long_.data();
  }
  [[nodiscard]] const T* end() const { return begin() + size_; }
  const T& operator[](std::size_t i) const { return begin()[i]; }
  [[nodiscard]] const T& at(std::size_t i) const {
    if (i >= size_) throw std::out_of_range("ShortList::at");
    return begin()[i];
  }

 private:
  /// Made without its items: most lists are handed on and thrown away almost empty.
  union Room {
    Room() {}
    std::array<T, SHORT> items;
  };
  void copy_short(const ShortList& other) {
    if (size_ <= SHORT) std::copy_n(other.room_.items.begin(), size_, room_.items.begin());
  }

  std::size_t size_ = 0;
  Room room_;              // the first size_, as long as they fit
  std::vector<T> long_{};  // all of them, once they do not
};

}  // namespace ptwalk
