// A list of plain values that most often has a few: those lie in it, more in a vector. Has no
// kernel counterpart.
#pragma once

#include <array>
#include <cstddef>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace ptwalk {

template <class T, std::size_t SHORT>
class ShortList {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  void push_back(const T& value) {
    if (size_ < SHORT) {
      short_[size_++] = value;
      return;
    }
    if (size_ == SHORT) long_.assign(short_.begin(), short_.end());
    long_.push_back(value);
    ++size_;
  }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const T* begin() const { return size_ <= SHORT ? short_.data() : long_.data(); }
  [[nodiscard]] const T* end() const { return begin() + size_; }
  const T& operator[](std::size_t i) const { return begin()[i]; }
  [[nodiscard]] const T& at(std::size_t i) const {
    if (i >= size_) throw std::out_of_range("ShortList::at");
    return begin()[i];
  }

 private:
  std::size_t size_ = 0;
  std::array<T, SHORT> short_;  // the first size_, as long as they fit
  std::vector<T> long_{};       // all of them, once they do not
};

}  // namespace ptwalk
