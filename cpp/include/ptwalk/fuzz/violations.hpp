// Properties that hold in every state that programs of system calls reach, and of every change of
// protection: each where the profile promises it. Section 9 of the v2 specification, and what
// validate() finds, by name. Raw stores void what is said about states. Has no kernel counterpart.
#pragma once

#include <span>
#include <string_view>

#include "ptwalk/address_space.hpp"

namespace ptwalk::fuzz {

/// What does not hold; the order is that of the bits of RunResult::violations.
enum class Violation : u8 {
  // Of the final state, judged in every run.
  armed_writable,       ///< an armed page may be written without a fault
  marker_in_anonymous,  ///< a uffd-wp marker in an anonymous VMA that can have none
  entry_outside_vma,    ///< an entry where nothing is mapped
  page_freed,           ///< an entry maps a frame that nothing accounts for
  swap_freed,           ///< an entry names a swap slot that nothing accounts for
  index_unlike_vma,     ///< a page is mapped elsewhere than its index in the file or VMA says
  exclusive_shared,     ///< an exclusive page has other mappings
  writable_shared,      ///< a private page that has other mappings may be written
  // Of the account of a change of protection, judged in every run.
  count_sum,           ///< the count is not the sum of its parts
  flush_unlike_count,  ///< v5.12's one flush came without a count, or the count without it
  // Of what an operation answers, judged in every run.
  unmapped_access,   ///< an access was done, but no entry allows it
  fault_repeats,     ///< a fault would be taken for ever
  left_asleep,       ///< a wake or resolve left a waiter asleep
  copied_unarmed,    ///< UFFDIO_COPY and the like with WP left a page unarmed
  changing_ignored,  ///< an ioctl was done though event messages wait to be read
  // Of a change of protection, by comparing all entries before and after; Judge::each.
  count_unlike_entries,    ///< the account does not say what happened to the entries
  tables_unlike_count,     ///< tables appeared that were not counted
  outside_range,           ///< an entry outside the range changed
  kind_changed,            ///< an entry became another kind of entry
  pfn_changed,             ///< a present entry maps another frame, a swap entry another slot
  uffd_bit_changed,        ///< mprotect or NUMA balancing armed or disarmed an entry
  accessed_dirty_changed,  ///< A, D or soft-dirty of a present entry changed
  left_unarmed,            ///< a wr-protect left an entry that it had to arm
  left_armed,              ///< a resolve left an entry armed
  flush_missing,           ///< an entry lost rights that the TLB may still grant
  protect_twice,           ///< a second wr-protect was not without effect
  // Of any operation, by comparing address spaces before and after; Judge::each.
  arm_lost,              ///< an operation that resolves nothing disarmed an entry
  armed_unregistered,    ///< an entry came to be armed where nothing is registered for wp
  message_unlike_entry,  ///< the message of a store to an armed page lacks the WP flag
  copy_lost,             ///< a hole in a file took a private copy
  page_left,             ///< mremap left a page behind
  vma_changed,           ///< an address maps something else, or tells another userfaultfd
  // Of the state after each operation; Judge::each.
  invariant,  ///< validate() has something to say
};
std::span<const std::string_view> violation_names();

constexpr u64 bit(Violation violation) { return 1ull << unsigned(violation); }

[[nodiscard]] constexpr bool is_present(u64 word, Level level) {
  return level == PTE_LEVEL ? pte_present(word) : pmd_present(word);
}
/// Violations that the entry of `addr` shows; `vma` is nullptr where nothing is mapped.
[[nodiscard]] u64 judge_entry(const Machine& machine, const Vma* vma, u64 addr, u64 word,
                              Level level);
/// judge_entry() of a present entry; `page` has the facts of the page that it maps, if there are
/// any.
[[nodiscard]] u64 judge_present(const Machine& machine, const Vma* vma, u64 addr, u64 word,
                                Level level, const Page* page);
/// Those that an account of a change of protection shows by itself.
[[nodiscard]] u64 judge_account(const Profile& profile, const ProtectResult& result);

}  // namespace ptwalk::fuzz
