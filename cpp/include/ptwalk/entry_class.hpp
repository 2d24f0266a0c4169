// What the rules tell entries apart by, as one small number: what coverage counts walks by. Models
// the tests that the loops over page-table entries make first (mm/mprotect.c:change_pte_range,
// mm/memory.c:handle_pte_fault, zap_pte_range, v6.18).
#pragma once

#include "ptwalk/profile.hpp"

namespace ptwalk {

enum class EntryClass : u8 {
  none,
  present,
  armed,     ///< present and UFFD_WP
  protnone,  ///< PROT_NONE, armed or not
  no_page,   ///< SPECIAL: the zero page, a frame without a struct page
  swap,
  armed_swap,
  migration,
  armed_migration,
  device,
  other,  ///< hwpoison, a swap-in error
  wp_marker,
  other_marker,  ///< poisoned, guard
  count
};
inline constexpr std::size_t ENTRY_CLASSES = std::size_t(EntryClass::count);

/// The class of the word of a leaf, or of what is in place of one.
[[nodiscard]] EntryClass class_of(const Profile& profile, u64 word);
/// "an armed swap entry"
[[nodiscard]] std::string_view name_of(EntryClass entry_class);

}  // namespace ptwalk
