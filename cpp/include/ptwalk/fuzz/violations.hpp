// Properties that hold in every state that programs of system calls reach, and of every change of
// protection: each where the profile promises it. Raw stores void those about states. The list of
// section 9 of the v2 specification, by name. Has no kernel counterpart.
#pragma once

#include <span>
#include <string_view>

#include "ptwalk/address_space.hpp"

namespace ptwalk::fuzz {

/// What does not hold; the order is that of the bits of RunResult::violations.
enum class Violation : u8 {
  armed_writable,       ///< an armed page may be written without a fault
  marker_in_anonymous,  ///< a uffd-wp marker in an anonymous VMA whose profile or context has none
  entry_outside_vma,    ///< an entry where nothing is mapped
  count_sum,            ///< the count of a change of protection is not the sum of its parts
  flush_unlike_count,   ///< v5.12's one flush came without a count, or the count without it
};
std::span<const std::string_view> violation_names();

constexpr u64 bit(Violation violation) { return 1ull << unsigned(violation); }

/// Violations that one entry shows; `vma` is nullptr where nothing is mapped.
[[nodiscard]] u64 judge_entry(const Machine& machine, const Vma* vma, u64 word, Level level);
/// Those that an account of a change of protection shows by itself.
[[nodiscard]] u64 judge_account(const Profile& profile, const ProtectResult& result);

}  // namespace ptwalk::fuzz
