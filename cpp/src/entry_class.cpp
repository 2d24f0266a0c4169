#include "ptwalk/entry_class.hpp"

#include <array>

namespace ptwalk {

EntryClass class_of(const Profile& profile, u64 word) {
  using enum EntryClass;
  if (pte_none(word)) return none;
  if (pte_present(word)) {
    if (word & _PAGE_SPECIAL) return no_page;
    if (pte_protnone(word)) return protnone;
    return word & _PAGE_UFFD_WP ? armed : present;
  }
  if (profile.is_marker(word)) return profile.is_uffd_wp_marker(word) ? wp_marker : other_marker;
  const bool is_armed = word & _PAGE_SWP_UFFD_WP;
  switch (profile.swp_kind(word)) {
    case SwpKind::swap: return is_armed ? armed_swap : swap;
    case SwpKind::migration_read:
    case SwpKind::migration_read_exclusive:
    case SwpKind::migration_write: return is_armed ? armed_migration : migration;
    case SwpKind::device_private_read:
    case SwpKind::device_private_write:
    case SwpKind::device_exclusive_read:
    case SwpKind::device_exclusive_write: return device;
    default: return other;
  }
}

std::string_view name_of(EntryClass entry_class) {
  static constexpr std::array<std::string_view, ENTRY_CLASSES> NAMES{
      "none",
      "a present entry",
      "an armed entry",
      "a PROT_NONE entry",
      "an entry without a page",
      "a swap entry",
      "an armed swap entry",
      "a migration entry",
      "an armed migration entry",
      "a device entry",
      "a hwpoison or swap-in error entry",
      "a uffd-wp marker",
      "another marker"};
  return NAMES[std::size_t(entry_class)];
}

}  // namespace ptwalk
