// Hashes of what a machine holds: equal for equal states, whichever leaf kernel, number of threads
// or process made them. Canonical: shared tables, table frames and serial numbers of pages do not
// enter it. Has no kernel counterpart.
#pragma once

#include "ptwalk/address_space.hpp"

namespace ptwalk::fuzz {

/// A running hash of 64-bit words, two at a time by one long multiplication.
class Hash {
 public:
  void add(u64 word) { mix(word, 0x9e3779b97f4a7c15); }
  void add(u64 first, u64 second) { mix(first, second ^ 0xd6e8feb86659fd93); }
  template <class... Words>
  void add(u64 first, u64 second, u64 third, Words... rest) {
    add(first, second);
    add(third, u64(rest)...);
  }
  [[nodiscard]] u64 value() const {
    u64 x = state_ ^ (state_ >> 32);
    x *= 0xd6e8feb86659fd93;
    return x ^ (x >> 29);
  }

 private:
  void mix(u64 a, u64 b) {
    const auto product = static_cast<unsigned __int128>(state_ ^ a) * b;
    state_ = u64(product) ^ u64(product >> 64);
  }

  u64 state_ = 0x243f6a8885a308d3;
};

/// What lies in VMAs, or anywhere: the same unless entries lie outside VMAs, which only raw stores
/// bring about.
enum class Scope : u8 { vmas, everywhere };

void add_message(Hash& hash, const UffdMsg& message);
/// Everything that a later call could depend on: VMAs, entries and their pages, files, swap,
/// userfaultfds, pending faults. Returns the violations that the entries show (violations.hpp).
u64 add_state(Hash& hash, const Machine& machine, Scope scope);
/// The same as one word.
[[nodiscard]] u64 state_hash(const Machine& machine);
/// A hash of the words of all PTEs of all address spaces, and of nothing else.
[[nodiscard]] u64 entries_hash(const Machine& machine);

}  // namespace ptwalk::fuzz
