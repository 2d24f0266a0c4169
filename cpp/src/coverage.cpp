#include "ptwalk/coverage.hpp"

#include <vector>

#include "ptwalk/kernels.hpp"

namespace ptwalk {

using namespace places;

namespace {

constexpr const char* TEXTS[] = {
#define PTWALK_BRANCH_TEXT(name, text) text,
    PTWALK_BRANCHES(PTWALK_BRANCH_TEXT) PTWALK_RULE_BRANCHES(PTWALK_BRANCH_TEXT)
#undef PTWALK_BRANCH_TEXT
};
constexpr const char* WALK_TEXTS[] = {
#define PTWALK_WALK_TEXT(name, text, classes) text,
    PTWALK_WALKS(PTWALK_WALK_TEXT)
#undef PTWALK_WALK_TEXT
};
constexpr std::array<const char*, REQUESTS> REQUEST_NAMES{"mprotect", "wr-protect", "resolve",
                                                          "NUMA hint"};
constexpr std::array<const char*, MAPPINGS> MAPPING_NAMES{"anonymous", "private file",
                                                          "shared file"};
constexpr std::array<const char*, OUTCOMES> OUTCOME_NAMES{
    "present", "swap entry changed", "none to marker", "marker to none", "none skipped", "flush"};

/// A row of REQUEST_NAMES; a raw request may ask for two things.
std::size_t request_of(const LeafPlan& plan) {
  return plan.swp_set ? 1 : plan.swp_clear ? 2 : plan.numa.active ? 3 : 0;
}

/// An entry that a plan is about to be applied to.
struct Met {
  const LeafPlan& plan;
  const Profile& profile;
  const Vma& vma;
  u64 word;
  EntryClass is;

  [[nodiscard]] bool is_present() const { return pte_present(word); }
  [[nodiscard]] bool is_swap(SwpKind kind) const {
    return is >= EntryClass::swap && is <= EntryClass::other && profile.swp_kind(word) == kind;
  }
  /// As it will be, an upgrade left out.
  [[nodiscard]] u64 changed() const { return change_present(plan, word, PTE_LEVEL); }
};

/// A rule of change_pte_range(), and which entries it decides.
struct LeafRule {
  Branch branch;
  bool (*decides)(const Met& met);
};
constexpr LeafRule LEAF_RULES[] = {
    {Branch::rule_devmap_bit,
     [](const Met& m) { return m.is_present() && (m.word & m.profile.devmap_bit) != 0; }},
    {Branch::rule_saved_dirty_bit,
     [](const Met& m) {
       constexpr u64 BOTH = _PAGE_RW | _PAGE_DIRTY;
       return m.is_present() && (m.word & BOTH) == BOTH && !(m.changed() & _PAGE_RW);
     }},
    {Branch::rule_modify_keeps_pat,
     [](const Met& m) { return m.is_present() && (m.word & _PAGE_PSE) != 0; }},
    {Branch::rule_upgrade,
     [](const Met& m) {
       return m.is_present() && m.plan.upgrade.possible && !(m.changed() & _PAGE_RW);
     }},
    {Branch::rule_flush,
     [](const Met& m) { return m.is_present() && !m.plan.numa.active && m.changed() != m.word; }},
    {Branch::rule_numa_saves_write,
     [](const Met& m) { return m.is_present() && m.plan.numa.active && (m.word & _PAGE_RW); }},
    {Branch::rule_numa_skips_zone_device,
     [](const Met& m) {
       return m.is_present() && m.plan.numa.active && m.vma.kind == VmaKind::dax;
     }},
    {Branch::rule_swapin_error_type, [](const Met& m) { return m.is_swap(SwpKind::swapin_error); }},
    {Branch::rule_exclusive_types,
     [](const Met& m) { return m.is_swap(SwpKind::migration_write); }},
    {Branch::rule_migration_keeps_uffd,
     [](const Met& m) {
       return m.is == EntryClass::armed_migration && m.is_swap(SwpKind::migration_write);
     }},
    {Branch::rule_one_device_exclusive,
     [](const Met& m) {
       return m.is_swap(SwpKind::device_exclusive_read) ||
              m.is_swap(SwpKind::device_exclusive_write);
     }},
    {Branch::rule_device_private,
     [](const Met& m) {
       return m.is_swap(SwpKind::device_private_read) || m.is_swap(SwpKind::device_private_write);
     }},
    {Branch::rule_marker_vmas,
     [](const Met& m) { return m.is == EntryClass::none && m.plan.counts_none; }},
    {Branch::rule_marker_format,
     [](const Met& m) { return m.is == EntryClass::none && m.plan.none_becomes != 0; }},
    {Branch::rule_marker_mask, [](const Met& m) { return m.is == EntryClass::other_marker; }},
    {Branch::rule_marker_resolve_needs_file,
     [](const Met& m) {
       return m.is == EntryClass::wp_marker && m.plan.swp_clear && m.vma.anonymous();
     }},
};

}  // namespace

void Coverage::look_at(const LeafPlan& plan, const Profile& profile, const Vma& vma,
                       std::span<const u64> ptes, u64 times) {
  const auto walk = LeafWalk(request_of(plan));
  for (const u64 word : ptes) {
    const EntryClass is = class_of(profile, word);
    counts_[MET[std::size_t(walk)][std::size_t(is)]] += times;
    const Met met{plan, profile, vma, word, is};
    for (const LeafRule& rule : LEAF_RULES)
      if (rule.decides(met)) hit(rule.branch, times);
  }
}

void Coverage::meet_huge(const LeafPlan& plan, const Profile& profile, u64 pmd) {
  const std::size_t request = request_of(plan);
  meet(LeafWalk(std::size_t(LeafWalk::huge_mprotect) + request), profile, pmd);
  if (is_swap_pmd(pmd) && (plan.swp_set | plan.swp_clear)) hit(Branch::rule_huge_migration_uffd);
  if (pmd_present(pmd) && plan.upgrade.possible &&
      !(change_present(plan, pmd, PMD_LEVEL) & _PAGE_RW))
    hit(Branch::rule_huge_upgrade);
}

u16 Coverage::row_of(const LeafPlan& plan, const Vma& vma) {
  const std::size_t mapping = vma.anonymous() ? 0 : vma.shared() ? 2 : 1;
  return u16(request_of(plan) * MAPPINGS + mapping);
}

void Coverage::hit_span(u16 row, const SpanCounts& counts, u64 times) {
  const std::array<u32, OUTCOMES> outcomes{
      counts.present,        counts.swap,         counts.none_to_marker,
      counts.marker_to_none, counts.none_skipped, counts.flush_first <= counts.flush_last};
  for (std::size_t i = 0; i < OUTCOMES; ++i) counts_[SPANS[row][i]] += outcomes[i] * times;
}

std::span<const std::string> Coverage::names() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> names(std::begin(TEXTS), std::end(TEXTS));
    names.resize(SIZE + 1);
    for (std::size_t row = 0; row < SPANS.size(); ++row)
      for (std::size_t i = 0; i < OUTCOMES; ++i)
        names[SPANS[row][i]] = "change_pte_range: " + std::string(REQUEST_NAMES[row / MAPPINGS]) +
                               ", " + MAPPING_NAMES[row % MAPPINGS] + ", " + OUTCOME_NAMES[i];
    for (std::size_t walk = 0; walk < WALKS; ++walk)
      for (std::size_t c = 0; c < ENTRY_CLASSES; ++c)
        names[MET[walk][c]] = WALK_TEXTS[walk] + std::string(name_of(EntryClass(c)));
    names.pop_back();
    return names;
  }();
  return all;
}

}  // namespace ptwalk
