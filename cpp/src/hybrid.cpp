// Rules by name, and profiles made of the rules of two kernels.
#include "ptwalk/hybrid.hpp"

#include <cstdio>

namespace ptwalk {
namespace {

std::string word(bool value) { return value ? "yes" : "no"; }
std::string word(u64 value) {
  char text[2 + 16 + 1];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}
std::string word(MarkerFormat value) {
  constexpr const char* NAMES[] = {"none", "special_pte", "swap_type"};
  return NAMES[unsigned(value)];
}
std::string word(Populate value) {
  constexpr const char* NAMES[] = {"never", "pmd_only", "every_level"};
  return NAMES[unsigned(value)];
}
std::string word(MarkerVmas value) {
  constexpr const char* NAMES[] = {"none", "file_backed", "registered"};
  return NAMES[unsigned(value)];
}
std::string word(UpgradeRule value) {
  constexpr const char* NAMES[] = {"dirty_accountable", "dirty_or_exclusive_dirty",
                                   "shared_dirty_private_exclusive"};
  return NAMES[unsigned(value)];
}
std::string word(FlushRule value) {
  constexpr const char* NAMES[] = {"whole_range", "gather"};
  return NAMES[unsigned(value)];
}
std::string word(NotifierLevel value) {
  constexpr const char* NAMES[] = {"pmd", "pud"};
  return NAMES[unsigned(value)];
}

template <auto Member>
constexpr Rule field(std::string_view name) {
  return {name, [](const Profile& a, const Profile& b) { return a.*Member == b.*Member; },
          [](Profile& to, const Profile& from) { to.*Member = from.*Member; },
          [](const Profile& p) { return word(p.*Member); }};
}
template <auto Member>
constexpr Rule option(std::string_view name) {
  return {name,
          [](const Profile& a, const Profile& b) { return a.config.*Member == b.config.*Member; },
          [](Profile& to, const Profile& from) { to.config.*Member = from.config.*Member; },
          [](const Profile& p) { return word(p.config.*Member); }};
}

#define FIELD(name) field<&Profile::name>(#name)
constexpr Rule RULES[] = {
    FIELD(devmap_bit),
    FIELD(saved_dirty_bit),
    FIELD(modify_keeps_pat),
    FIELD(mkuffd_wp_wrprotects),
    FIELD(swp_exclusive),
    FIELD(marker_format),
    FIELD(marker_mask),
    FIELD(swapin_error_type),
    FIELD(exclusive_types),
    FIELD(one_device_exclusive),
    FIELD(populate),
    FIELD(populate_enomem),
    FIELD(marker_vmas),
    FIELD(marker_resolve_needs_file),
    FIELD(wp_splits_file_pmd),
    FIELD(upgrade),
    FIELD(pmd_retry),
    FIELD(numa_saves_write),
    FIELD(numa_skips_zone_device),
    FIELD(migration_keeps_uffd),
    FIELD(huge_migration_uffd),
    FIELD(huge_upgrade),
    FIELD(split_copies_dirty),
    FIELD(split_zero_keeps_uffd),
    FIELD(split_flushes_migration),
    FIELD(pud_leaves),
    FIELD(flush),
    FIELD(notifier),
    FIELD(writenotify_uffd_wp),
    FIELD(manual_write_upgrade),
    FIELD(merge_adopts_anon_vma),
    FIELD(ro_drops_account),
    FIELD(uffd_features),
    FIELD(wp_file_feature),
    FIELD(wp_file_backed),
    FIELD(minor_shmem),
    FIELD(wp_one_vma),
    FIELD(wp_table_word),
    FIELD(wp_upgrades),
    FIELD(unregister_resolves),
    FIELD(unregister_checks_ctx),
    FIELD(register_merges_next),
    FIELD(uffd_cont_wp),
    FIELD(fills_prepare_first),
    FIELD(copy_private_over_marker),
    FIELD(copy_ignores_wp_readonly),
    FIELD(poison_ioctl),
    FIELD(move_ioctl),
    FIELD(migration_wrprotects),
    FIELD(pageout_checks_lru),
    FIELD(faultaround_dirty),
    FIELD(swapin_arms_first),
    FIELD(persist_needs_uffd_vma),
    FIELD(fork_copies_wp_vma),
    FIELD(mremap_clears_uffd),
    FIELD(mremap_marks_markers),
    FIELD(move_realigns),
    FIELD(mremap_multi_vma),
    FIELD(populate_advice),
    FIELD(dontneed_locked),
    FIELD(guard_advice),
    FIELD(pagemap_uffd_wp),
    FIELD(pagemap_scan),
    FIELD(anon_exclusive),
    option<&Config::mem_soft_dirty>("MEM_SOFT_DIRTY"),
    option<&Config::memory_failure>("MEMORY_FAILURE"),
    option<&Config::device_private>("DEVICE_PRIVATE"),
    option<&Config::page_table_isolation>("PAGE_TABLE_ISOLATION"),
    option<&Config::pt_reclaim>("PT_RECLAIM"),
};
#undef FIELD

/// Takes `text` apart at `separator`; the part before it is returned, all of it where there is
/// none.
std::string_view cut(std::string_view& text, std::string_view separator) {
  const std::size_t at = text.find(separator);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == text.npos ? text.size() : at + separator.size());
  return part;
}

std::string quoted(std::string_view name) {
  std::string text = "'";
  return text.append(name).append("'");
}

NamedProfile unknown(std::string_view name) {
  std::string known;
  for (const Profile& p : profiles()) known += (known.empty() ? "" : ", ") + p.name;
  return {{}, "profile " + quoted(name) + " is not known; use one of " + known};
}

/// Gives `profile` the rules that `clause` lists: "populate, flush of 6.18". Returns what is wrong.
std::string take_rules(Profile& profile, std::string_view clause) {
  const std::size_t at = clause.rfind(" of ");
  if (at == clause.npos) {
    return "a hybrid profile ends with a kernel, not " + quoted(clause) +
           "; write it as 'uffd-wp-v2 with populate of 6.18'";
  }
  const Profile* donor = find_profile(clause.substr(at + 4));
  if (!donor) return unknown(clause.substr(at + 4)).wrong;
  for (std::string_view names = clause.substr(0, at); !names.empty();) {
    const std::string_view name = cut(names, ", ");
    const Rule* rule = find_rule(name);
    if (!rule) {
      return "rule " + quoted(name) + " is not known; struct Profile in profile.hpp has the names";
    }
    rule->take(profile, *donor);
  }
  return {};
}

}  // namespace

std::span<const Rule> rules() { return RULES; }

const Rule* find_rule(std::string_view name) {
  for (const Rule& rule : RULES)
    if (rule.name == name) return &rule;
  return nullptr;
}

std::string_view contradiction(const Profile& p) {
  const bool markers = p.marker_format != MarkerFormat::none;
  if (p.marker_vmas != MarkerVmas::none && !markers) return "VMAs take markers that do not exist";
  if (markers != ((p.marker_mask & PTE_MARKER_UFFD_WP) != 0))
    return "the marker has no UFFD_WP bit, or the bit no marker";
  if (p.marker_format == MarkerFormat::special_pte && p.marker_mask != PTE_MARKER_UFFD_WP)
    return "the special pte has no bits";
  if (p.poison_ioctl && !(p.marker_mask & PTE_MARKER_POISONED))
    return "UFFDIO_POISON has no marker to leave";
  if (p.guard_advice && !(p.marker_mask & PTE_MARKER_GUARD))
    return "MADV_GUARD_INSTALL has no marker to leave";
  if (p.devmap_bit & p.saved_dirty_bit) return "DEVMAP and SAVED_DIRTY are the same bit";
  if (p.anon_exclusive && !p.exclusive_types)
    return "exclusive pages have no migration entry that says so";
  return {};
}

NamedProfile named_profile(std::string_view name) {
  std::string_view clauses = name;
  const std::string_view base = cut(clauses, " with ");
  const Profile* found = find_profile(base);
  if (!found) return unknown(base);
  Profile profile = *found;
  while (!clauses.empty())
    if (std::string wrong = take_rules(profile, cut(clauses, " with ")); !wrong.empty())
      return {{}, wrong};
  if (const std::string_view why = contradiction(profile); !why.empty())
    return {{}, "profile " + quoted(name) + " contradicts itself: " + std::string(why)};
  profile.name = name;
  number_swap_types(profile);
  return {std::move(profile), {}};
}

}  // namespace ptwalk
