// The profiles as data: one table, a row per kernel. Sources of each field are named beside it in
// profile.hpp; what is reduced or not modelled is listed in docs/fidelity.md.
#include "ptwalk/profile.hpp"

#include <vector>

namespace ptwalk {
namespace {

/// The v5.12 tree: the common base of the three profiles of the seed's era.
Profile v5_12() {
  Profile p;
  p.name = "5.12";
  p.kernel = "v5.12.9, the tree before the series";
  p.config = {.mem_soft_dirty = true, .memory_failure = true, .device_private = true};
  p.devmap_bit = 1ull << 58;
  p.numa_saves_write = true;
  p.migration_keeps_uffd = true;
  p.split_flushes_migration = true;
  p.uffd_features = 0x3ff;
  p.wp_one_vma = true;
  p.wp_table_word = true;
  p.copy_ignores_wp_readonly = true;
  return p;
}

Profile uffd_wp_v2_11() {
  Profile p = v5_12();
  p.name = "uffd-wp-v2-11";
  p.kernel = "v5.12 with the v2 series up to patch 11/24";
  p.marker_format = MarkerFormat::special_pte;
  p.marker_mask = PTE_MARKER_UFFD_WP;
  p.populate = Populate::pmd_only;
  p.marker_vmas = MarkerVmas::file_backed;
  p.marker_resolve_needs_file = true;
  return p;
}

Profile uffd_wp_v2() {
  Profile p = uffd_wp_v2_11();
  p.name = "uffd-wp-v2";
  p.kernel = "v5.12 with the whole v2 series (27 April 2021)";
  p.wp_splits_file_pmd = true;
  p.uffd_features = 0x7ff;
  p.wp_file_feature = 1 << 10;
  p.wp_file_backed = true;
  return p;
}

Profile v6_1() {
  Profile p;
  p.name = "6.1";
  p.kernel = "Debian 6.1.192";
  p.config = {.mem_soft_dirty = true, .memory_failure = true};
  p.devmap_bit = 1ull << 58;
  p.modify_keeps_pat = true;
  p.swp_exclusive = true;
  p.marker_format = MarkerFormat::swap_type;
  p.marker_mask = PTE_MARKER_UFFD_WP;
  p.swapin_error_type = true;
  p.exclusive_types = true;
  p.populate = Populate::every_level;
  p.marker_vmas = MarkerVmas::file_backed;
  p.wp_splits_file_pmd = true;
  p.upgrade = UpgradeRule::dirty_or_exclusive_dirty;
  p.numa_saves_write = true;
  p.numa_skips_zone_device = true;
  p.migration_keeps_uffd = true;
  p.huge_migration_uffd = true;
  p.split_zero_keeps_uffd = true;
  p.split_flushes_migration = true;
  p.flush = FlushRule::gather;
  p.writenotify_uffd_wp = true;
  p.manual_write_upgrade = true;
  p.uffd_features = 0x1fff;
  p.wp_file_feature = 1 << 12;
  p.minor_shmem = true;
  p.wp_file_backed = true;
  p.wp_one_vma = true;
  p.wp_table_word = true;
  p.unregister_resolves = true;
  p.register_merges_next = false;
  p.copy_private_over_marker = true;
  p.persist_needs_uffd_vma = true;
  p.fork_copies_wp_vma = true;
  p.mremap_clears_uffd = true;
  p.mremap_marks_markers = true;
  p.anon_exclusive = true;
  p.pagemap_uffd_wp = true;
  p.populate_advice = true;
  p.dontneed_locked = true;
  p.migration_wrprotects = true;
  return p;
}

Profile v6_12() {
  Profile p = v6_1();
  p.name = "6.12";
  p.kernel = "Debian 6.12.117";
  p.devmap_bit = 1ull << 57;
  p.saved_dirty_bit = 1ull << 58;
  p.marker_mask = PTE_MARKER_UFFD_WP | PTE_MARKER_POISONED;
  p.swapin_error_type = false;
  p.mkuffd_wp_wrprotects = true;
  p.populate_enomem = true;
  p.pmd_retry = true;
  p.marker_vmas = MarkerVmas::registered;
  p.upgrade = UpgradeRule::shared_dirty_private_exclusive;
  p.numa_saves_write = false;
  p.migration_keeps_uffd = false;
  p.huge_upgrade = true;
  p.split_copies_dirty = true;
  p.split_flushes_migration = false;
  p.pud_leaves = true;
  p.notifier = NotifierLevel::pud;
  p.uffd_features = 0x1ffff;
  p.wp_one_vma = false;
  p.wp_table_word = false;
  p.wp_upgrades = true;
  p.unregister_checks_ctx = true;
  p.register_merges_next = true;
  p.uffd_cont_wp = true;
  p.swapin_arms_first = true;
  p.fills_prepare_first = true;
  p.pageout_checks_lru = true;
  p.ro_drops_account = true;
  p.move_realigns = true;
  p.poison_ioctl = true;
  p.move_ioctl = true;
  p.pagemap_scan = true;
  return p;
}

Profile v6_18() {
  Profile p = v6_12();
  p.name = "6.18";
  p.kernel = "v6.18.44";
  p.config = {.pt_reclaim = true};
  p.devmap_bit = 0;
  p.marker_mask = PTE_MARKER_UFFD_WP | PTE_MARKER_POISONED | PTE_MARKER_GUARD;
  p.one_device_exclusive = true;
  p.merge_adopts_anon_vma = true;
  p.faultaround_dirty = true;
  p.mremap_multi_vma = true;
  p.guard_advice = true;
  return p;
}

std::vector<Profile> make_profiles() {
  std::vector<Profile> all{v5_12(), uffd_wp_v2_11(), uffd_wp_v2(), v6_1(), v6_12(), v6_18()};
  for (Profile& profile : all) number_swap_types(profile);
  return all;
}

struct Option {
  std::string_view name;
  bool Config::* member;
};
constexpr std::array<Option, 5> OPTIONS{{
    {"MEM_SOFT_DIRTY", &Config::mem_soft_dirty},
    {"MEMORY_FAILURE", &Config::memory_failure},
    {"DEVICE_PRIVATE", &Config::device_private},
    {"PAGE_TABLE_ISOLATION", &Config::page_table_isolation},
    {"PT_RECLAIM", &Config::pt_reclaim},
}};
constexpr std::array<std::string_view, OPTIONS.size()> OPTION_NAMES = [] {
  std::array<std::string_view, OPTIONS.size()> names;
  for (std::size_t i = 0; i < OPTIONS.size(); ++i) names[i] = OPTIONS[i].name;
  return names;
}();

const Option* find_option(std::string_view name) {
  for (const Option& option : OPTIONS)
    if (option.name == name) return &option;
  return nullptr;
}

}  // namespace

int Profile::swp_type_of(SwpKind kind) const {
  for (unsigned type = 0; type < swp_kinds.size(); ++type)
    if (swp_kinds[type] == kind) return int(type);
  return -1;
}

u64 Profile::make_marker(u64 bits) const {
  if (marker_format == MarkerFormat::special_pte) return SPECIAL_PTE;
  return make_swp_pte(unsigned(swp_type_of(SwpKind::pte_marker)), bits);
}

u64 Profile::shift_dirty_out(u64 v) const {
  if (!saved_dirty_bit || (v & _PAGE_RW) || !(v & _PAGE_DIRTY)) return v;
  return (v & ~_PAGE_DIRTY) | saved_dirty_bit;
}

u64 Profile::shift_dirty_in(u64 v) const {
  if (!(v & _PAGE_RW) || !(v & saved_dirty_bit)) return v;
  return (v & ~saved_dirty_bit) | _PAGE_DIRTY;
}

u64 Profile::modify_mask(Level level) const {
  u64 mask = PTE_PFN_MASK | _PAGE_PWT | _PAGE_PCD | _PAGE_ACCESSED | _PAGE_DIRTY | _PAGE_SPECIAL |
             _PAGE_UFFD_WP | _PAGE_SOFT_DIRTY | devmap_bit | saved_dirty_bit;
  if (level > PTE_LEVEL || modify_keeps_pat) mask |= _PAGE_PSE;  // the PAT bit of a 4 KiB entry
  return mask;
}

u64 Profile::leaf_modify(u64 v, u64 newprot, Level level) const {
  const u64 mask = modify_mask(level);
  u64 modified = (v & mask) | (newprot & ~mask);
  if (needs_invert(v) != needs_invert(modified)) modified ^= pfn_mask(level);
  return (v & _PAGE_RW) ? shift_dirty_out(modified) : shift_dirty_in(modified);
}

// From the top of the 5-bit range. (include/linux/swap.h)
void number_swap_types(Profile& profile) {
  std::vector<SwpKind> special;
  if (profile.config.memory_failure) special.push_back(SwpKind::hwpoison);
  special.push_back(SwpKind::migration_read);
  if (profile.exclusive_types) special.push_back(SwpKind::migration_read_exclusive);
  special.push_back(SwpKind::migration_write);
  if (profile.config.device_private) {
    special.push_back(SwpKind::device_private_write);
    special.push_back(SwpKind::device_private_read);
    if (profile.exclusive_types && !profile.one_device_exclusive)
      special.push_back(SwpKind::device_exclusive_write);
    if (profile.exclusive_types) special.push_back(SwpKind::device_exclusive_read);
  }
  if (profile.marker_format == MarkerFormat::swap_type) special.push_back(SwpKind::pte_marker);
  if (profile.swapin_error_type) special.push_back(SwpKind::swapin_error);
  profile.swp_kinds.fill(SwpKind::swap);
  std::size_t type = profile.swp_kinds.size() - special.size();
  for (SwpKind kind : special) profile.swp_kinds[type++] = kind;
}

std::span<const Profile> profiles() {
  static const std::vector<Profile> all = make_profiles();
  return all;
}

const Profile* find_profile(std::string_view name) {
  for (const Profile& profile : profiles())
    if (profile.name == name) return &profile;
  return nullptr;
}

std::span<const std::string_view> config_options() { return OPTION_NAMES; }

bool get_config(const Profile& profile, std::string_view option, bool& value) {
  const Option* found = find_option(option);
  if (found) value = profile.config.*found->member;
  return found != nullptr;
}

bool set_config(Profile& profile, std::string_view option, bool value) {
  const Option* found = find_option(option);
  if (!found) return false;
  profile.config.*found->member = value;
  number_swap_types(profile);
  return true;
}

}  // namespace ptwalk
