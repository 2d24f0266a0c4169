// The walk of change_protection(), level by level, and its account. Models mm/mprotect.c:
// change_protection_range, change_p4d_range, change_pud_range, change_pmd_range and the steps
// around change_pte_range (v5.12 with the seed series, v6.1, v6.12, v6.18). A PUD that fails
// pud_bad() is cleared under every profile, though v6.12 on follows it. hugetlb is left out.
// Where one entry covers a whole range without a table of its own below, the range changes by one
// pointer, with the account that the kernel's descent would give.
#include "ptwalk/protect.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "ptwalk/address_space.hpp"
#include "ptwalk/huge.hpp"
#include "ptwalk/kernels.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

/// What a failed allocation returns instead of a count. (-ENOMEM; the levels above add it up)
constexpr i64 FAILED = -12;

/// Lowest address that the entry after the one for `addr` maps, or `end`. (pmd_addr_end, …)
u64 next_addr(u64 addr, u64 end, Level level) {
  return std::min(align_down(addr, level_size(level)) + level_size(level), end);
}

/// mmu_notifier_range of one PMD or PUD range. Start 0 means "not started" to the kernel, so a
/// start at address 0 is made again at the next populated entry and never ended.
class Notifier {
 public:
  Notifier(ProtectResult& result, u64 end) : result_(result), end_(end) {}
  void start_once(u64 addr) {
    if (start_) return;
    start_ = addr;
    result_.notifier.push_back({NotifierKind::protection_vma, addr, end_, addr != 0});
  }

 private:
  ProtectResult& result_;
  u64 end_;
  u64 start_ = 0;
};

/// What a plan makes of one shared PTE table.
struct SharedStep {
  Uniform becomes = Uniform::no;  ///< no: not the same for all pages, or nothing shared
  SpanCounts counts{};
};

/// A span of entries whose turn comes later, with others, on several threads.
struct LeafJob {
  u64* pmd;
  std::span<u64> ptes;
  u64 addr;
  [[nodiscard]] bool whole() const { return ptes.size() == PTRS_PER_TABLE; }
};
/// From so many tables on threads pay: a MiB of tables.
constexpr std::size_t MANY_TABLES = 256;
constexpr std::size_t TABLES_PER_CHUNK = 64, MOST_JOBS = 1 << 15;

/// One request on one VMA, at the entries.
class Leaves {
 public:
  Leaves(AddressSpace& mm, const Vma& vma, const LeafPlan& plan, ProtectResult& result)
      : tables_(mm.tables),
        profile_(mm.profile()),
        plan_(plan),
        result_(result),
        kernel_(mm.machine->leaf_kernel),
        huge_{*mm.machine, mm.tables, vma, result} {}

  i64 change_recent(u64* ptes, Range range);

 protected:
  LeafJob begin(u64* pmd, u64* first, u64 addr, u64 next);
  i64 change(const LeafJob& job);
  [[nodiscard]] SpanCounts apply(const LeafJob& job) const;
  LeafFacts& facts_of(const LeafJob& job) const {
    FrameArena& frames = tables_.frames();
    return frames.info(frames.pfn_of(job.ptes.data())).facts;
  }
  void finish(const LeafJob& job, const SpanCounts& counts);
  void cover(Branch branch) { huge_.machine.coverage.hit(branch); }
  void account(const SpanCounts& counts, u64 tables);

  PageTable& tables_;
  const Profile& profile_;
  const LeafPlan& plan_;
  ProtectResult& result_;
  const LeafKernel kernel_;
  const HugeContext huge_;
};

/// The same from the top of the tables. Each change_*_range returns pages, or sums that went
/// negative by FAILED.
class Walk : Leaves {
 public:
  using Leaves::Leaves;

  i64 change_range(Range range);

 private:
  i64 change_upper_range(u64* table, Level level, u64 addr, u64 end);
  i64 change_pud_range(u64* table, u64 addr, u64 end);
  i64 change_pmd_range(u64* table, u64 addr, u64 end);
  i64 change_pmd(u64* pmd, u64 addr, u64 next, Notifier& notifier);
  void meet_huge(u64 pmd, u64 addr, u64 next);
  i64 change_pte_range(u64* pmd, u64 addr, u64 next);
  i64 change_table(u64* pmd, u64* table, u64 addr, u64 next);
  void run_jobs();

  bool prepare(u64* entry, Level level);
  bool populates(Level level) const {
    if (planted(Mutant::populate_at_pmd_only) && level != PMD_LEVEL) return false;
    return plan_.populate == Populate::every_level ||
           (plan_.populate == Populate::pmd_only && level == PMD_LEVEL);
  }
  const SharedStep& step(Uniform uniform);
  u64 change_whole(u64* entry, Level level, Range range, i64& pages);
  void start_notifiers(Level level, Range range);
  /// Counts the first of three branches that differ by the level: pgd, pud, pmd.
  void cover_level(Branch first, Level level, u64 times = 1) {
    const u16 below = u16(std::min(level, P4D_LEVEL));
    huge_.machine.coverage.hit(Branch(u16(first) + u16(P4D_LEVEL - below)), times);
  }
  EntryKind none_or_clear_bad(u64* entry, Level level, u64 addr);
  bool splits(u64 addr, u64 next, Level level) const {
    return next - addr != level_size(level) || plan_.splits_file_pmd;
  }
  /// Nothing lies below an entry of `level`.
  void count_skipped(Level level, u64 addr, u64 next) {
    if (planted(Mutant::skipped_not_counted)) return;
    if (!plan_.counts_none) return;
    cover_level(Branch::skipped_pgd, level);
    cover(Branch::rule_populate);
    result_.none_skipped += (next - addr) >> PAGE_SHIFT;
  }

  std::array<std::optional<SharedStep>, 3> steps_{};
  bool defers_ = false;
  std::vector<LeafJob> jobs_{};
  u64 deferred_pages_ = 0;
};

/// Makes the table below a none entry where the plan populates. False stops the range: -ENOMEM.
/// (change_protection_prepare in the series; change_pmd_prepare and change_prepare, v6.18)
bool Walk::prepare(u64* entry, Level level) {
  if (!populates(level) || tables_.kind(*entry, level) != EntryKind::none) return true;
  if (planted(Mutant::populate_missing)) return true;
  cover(Branch::rule_populate);
  if (tables_.populate(entry, level)) {
    cover_level(Branch::populate_pgd, level);
    ++result_.tables_allocated;
    return true;
  }
  cover(Branch::rule_populate_enomem);
  if (profile_.populate_enomem) return false;
  result_.warnings.push_back(Warning::table_alloc_failed);
  return true;
}

/// The entry's kind, after a bad entry was reported and cleared. (pmd_none_or_clear_bad, …)
EntryKind Walk::none_or_clear_bad(u64* entry, Level level, u64 addr) {
  const EntryKind kind = tables_.kind(*entry, level);
  if (level >= P4D_LEVEL && kind != EntryKind::none && (*entry & _PAGE_NX))
    cover(Branch::rule_page_table_isolation);
  if (kind != EntryKind::bad) return kind;
  cover(Branch::bad_cleared);
  tables_.store(entry, 0);
  result_.bad_cleared.push_back({level, align_down(addr, level_size(level))});
  return EntryKind::none;
}

const SharedStep& Walk::step(Uniform uniform) {
  std::optional<SharedStep>& known = steps_[std::size_t(uniform)];
  if (known) return *known;
  SharedStep& step = known.emplace();
  const SharedTables& shared = huge_.machine.shared_tables;
  std::array<u64, PTRS_PER_TABLE> ptes;
  ptes.fill(shared.word(uniform));
  step.counts = apply_scalar(plan_, ptes, huge_.machine.pages);
  step.becomes = shared.uniform_of(ptes[0]);
  return step;
}

/// Adds the counts of `tables` PTE tables that all had the same.
void Leaves::account(const SpanCounts& counts, u64 tables) {
  huge_.machine.coverage.hit_span(plan_.row, counts, tables);
  result_.present += counts.present * tables;
  result_.swap += counts.swap * tables;
  result_.none_to_marker += counts.none_to_marker * tables;
  result_.marker_to_none += counts.marker_to_none * tables;
  result_.none_skipped += counts.none_skipped * tables;
}

/// The notifiers that begin and end below one entry of `level`: one for each PMD or PUD range.
void Walk::start_notifiers(Level level, Range range) {
  const Level one = profile_.notifier == NotifierLevel::pmd ? PUD_LEVEL : P4D_LEVEL;
  if (level < one) return;
  for (u64 addr = range.start; addr < range.end; addr += level_size(one))
    result_.notifier.push_back({NotifierKind::protection_vma, addr, addr + level_size(one), true});
}

/// Changes all that `entry`, and those after it that are the same, map by making them point to
/// another shared table; how many entries. None where that cannot be: part of it, tables of its
/// own, allocations that may fail, the notifier's address 0.
u64 Walk::change_whole(u64* entry, Level level, Range range, i64& pages) {
  const u64 size = level_size(level), most = (range.end - range.start) / size;
  if (most == 0 || range.start == 0 || !is_aligned(range.start, size)) return 0;
  if (level > SharedTables::TOP_LEVEL + 1) return 0;
  const EntryKind kind = tables_.kind(*entry, level);
  const bool none = kind == EntryKind::none;
  if (none && (!populates(level) || tables_.may_fail())) return 0;
  if (none && planted(Mutant::populate_missing)) return 0;
  const Uniform uniform = none ? Uniform::none : tables_.uniform_below(*entry);
  if (uniform == Uniform::no || (!none && kind != EntryKind::table)) return 0;
  const SharedStep& change = step(uniform);
  if (change.becomes == Uniform::no) return 0;
  u64 nr = 1;
  while (!none && nr < most && entry[nr] == *entry) ++nr;
  range.end = range.start + nr * size;
  const u64 tables = nr * pte_tables_in(level - 1);
  if (none) cover(Branch::rule_populate);
  if (!none) {
    tables_.exchange(entry, change.becomes, nr);
  } else if (tables_.populate(entry, level, _PAGE_TABLE, change.becomes)) {
    cover_level(Branch::populate_pgd, level);
    result_.tables_allocated += tables_in(level - 1);
  }
  start_notifiers(level, range);
  cover_level(Branch::shared_pgd, level, nr);
  const u64 word = huge_.machine.shared_tables.word(uniform);
  huge_.machine.coverage.meet_span(plan_, profile_, huge_.vma, {&word, 1}, tables * PTRS_PER_TABLE);
  if (planted(Mutant::shared_not_accounted)) return nr;
  account(change.counts, tables);
  pages += i64(change.counts.pages * tables);
  return nr;
}

/// The range lies in the PTE table that was stored to last, and is not all of it: nothing is to be
/// made or found bad on the way there.
i64 Leaves::change_recent(u64* ptes, Range range) {
  Notifier(result_, range.end).start_once(range.start);
  return change(begin(nullptr, ptes, range.start, range.end));
}

i64 Walk::change_range(Range range) {
  // With 4 levels the PGD is folded: its loop runs once per entry of the top table.
  const u64 chunk = tables_.levels() == 5 ? level_size(6) : level_size(P4D_LEVEL);
  // Where an allocation fails, what was counted before it matters: no thread is ahead then.
  defers_ = huge_.machine.threads > 1 && !tables_.may_fail() &&
            range.end - range.start >= MANY_TABLES * PMD_SIZE;
  i64 pages = 0;
  for (u64 addr = range.start; addr != range.end;) {
    const u64 next = std::min(align_down(addr, chunk) + chunk, range.end);
    pages += change_upper_range(tables_.root_table(), tables_.levels(), addr, next);
    addr = next;
  }
  if (!jobs_.empty()) {
    run_jobs();
    tables_.share_range(range.start, range.end);
  }
  return pages + i64(deferred_pages_);
}

/// PGD and P4D. (change_protection_range, change_p4d_range)
i64 Walk::change_upper_range(u64* table, Level level, u64 addr, u64 end) {
  i64 pages = 0;
  for (u64 next; addr != end; addr = next) {
    next = next_addr(addr, end, level);
    u64* entry = &table[level_index(addr, level)];
    if (const u64 nr = change_whole(entry, level, {addr, end}, pages)) {
      next = addr + nr * level_size(level);
      continue;
    }
    if (!prepare(entry, level)) return FAILED;
    u64* below = nullptr;
    if (none_or_clear_bad(entry, level, addr) == EntryKind::table) below = tables_.own(entry);
    if (!below) {
      count_skipped(level, addr, next);
      continue;
    }
    pages += level > P4D_LEVEL ? change_upper_range(below, level - 1, addr, next)
                               : change_pud_range(below, addr, next);
    if (next - addr == level_size(level)) tables_.share_if_uniform(entry);
  }
  return pages;
}

i64 Walk::change_pud_range(u64* table, u64 addr, u64 end) {
  Notifier notifier(result_, end);
  i64 pages = 0;
  for (u64 next; addr != end; addr = next) {
    next = next_addr(addr, end, PUD_LEVEL);
    u64* pud = &table[level_index(addr, PUD_LEVEL)];
    if (const u64 nr = change_whole(pud, PUD_LEVEL, {addr, end}, pages)) {
      next = addr + nr * PUD_SIZE;
      if (profile_.notifier == NotifierLevel::pud) notifier.start_once(addr);
      continue;
    }
    if (!prepare(pud, PUD_LEVEL)) return FAILED;
    if (*pud & _PAGE_PSE) cover(Branch::rule_pud_leaves);
    EntryKind kind = none_or_clear_bad(pud, PUD_LEVEL, addr);
    if (kind != EntryKind::none && profile_.notifier == NotifierLevel::pud)
      notifier.start_once(addr);
    if (kind == EntryKind::leaf && splits(addr, next, PUD_LEVEL)) {
      split_huge_pud(huge_, pud, addr);
      if (!prepare(pud, PUD_LEVEL)) return FAILED;
      kind = tables_.kind(*pud, PUD_LEVEL);
    }
    u64* below = kind == EntryKind::table ? tables_.own(pud) : nullptr;
    if (kind == EntryKind::leaf) {
      if (!change_huge_pud(huge_, plan_, pud, addr)) continue;
      ++result_.huge;
      pages += i64(HPAGE_PUD_NR);
    } else if (below) {
      pages += change_pmd_range(below, addr, next);
      if (next - addr == PUD_SIZE) tables_.share_if_uniform(pud);
    } else {
      count_skipped(PUD_LEVEL, addr, next);
    }
  }
  return pages;
}

i64 Walk::change_pmd_range(u64* table, u64 addr, u64 end) {
  Notifier notifier(result_, end);
  const u64 start = addr;
  i64 pages = 0;
  for (u64 next; addr != end; addr = next) {
    next = next_addr(addr, end, PMD_LEVEL);
    u64* pmd = &table[level_index(addr, PMD_LEVEL)];
    if (u64* const ptes = tables_.private_table(*pmd, PMD_LEVEL)) {  // as most are: nothing to ask
      if (profile_.notifier == NotifierLevel::pmd) notifier.start_once(addr);
      pages += change_table(pmd, ptes, addr, next);
      continue;
    }
    if (const u64 nr = change_whole(pmd, PMD_LEVEL, {addr, end}, pages)) {
      if (profile_.notifier == NotifierLevel::pmd) notifier.start_once(addr);
      next = addr + nr * PMD_SIZE;
      continue;
    }
    const i64 changed = change_pmd(pmd, addr, next, notifier);
    if (changed < 0) return FAILED;
    if (addr == start && tables_.kind(*pmd, PMD_LEVEL) == EntryKind::none)
      cover(Branch::rule_notifier);
    pages += changed;
  }
  return pages;
}

void Walk::meet_huge(u64 pmd, u64 addr, u64 next) {
  huge_.machine.coverage.meet_huge(plan_, profile_, pmd);
  const bool whole = next - addr == PMD_SIZE;
  if (whole && plan_.counts_none && !huge_.vma.anonymous()) cover(Branch::rule_wp_splits_file_pmd);
}

/// One turn of change_pmd_range().
i64 Walk::change_pmd(u64* pmd, u64 addr, u64 next, Notifier& notifier) {
  if (!prepare(pmd, PMD_LEVEL)) return FAILED;
  const bool was_bad = tables_.kind(*pmd, PMD_LEVEL) == EntryKind::bad;
  EntryKind kind = none_or_clear_bad(pmd, PMD_LEVEL, addr);
  if (was_bad) cover(Branch::rule_pmd_retry);
  if (was_bad && profile_.pmd_retry) {
    if (!prepare(pmd, PMD_LEVEL)) return FAILED;
    kind = tables_.kind(*pmd, PMD_LEVEL);
  }
  if (kind == EntryKind::none) {
    count_skipped(PMD_LEVEL, addr, next);
    return 0;
  }
  if (profile_.notifier == NotifierLevel::pmd) notifier.start_once(addr);
  if (kind == EntryKind::leaf) meet_huge(*pmd, addr, next);
  if (kind == EntryKind::leaf) run_jobs();  // which may ask for the facts that a split changes
  if (kind == EntryKind::leaf && !splits(addr, next, PMD_LEVEL)) {
    cover(Branch::huge_changed);
    if (!change_huge_pmd(huge_, plan_, pmd, addr)) return 0;
    ++result_.huge;
    ++result_.numa_huge_pte_updates;  // for every request, NUMA or not
    return HPAGE_PMD_NR;
  }
  if (kind == EntryKind::leaf) {
    cover(Branch::huge_split);
    split_huge_pmd(huge_, pmd, addr);
    // A dropped file mapping needs a table again; patch 11 of the series did not think of it.
    if (plan_.splits_file_pmd && !prepare(pmd, PMD_LEVEL)) return FAILED;
  }
  return change_pte_range(pmd, addr, next);
}

i64 Walk::change_pte_range(u64* pmd, u64 addr, u64 next) {
  const EntryKind kind = none_or_clear_bad(pmd, PMD_LEVEL, addr);
  u64* table = kind == EntryKind::table ? tables_.own(pmd) : nullptr;
  if (!table) {
    if (kind == EntryKind::none) count_skipped(PMD_LEVEL, addr, next);
    return 0;
  }
  return change_table(pmd, table, addr, next);
}

/// A part of a private PTE table, or all of it.
i64 Walk::change_table(u64* pmd, u64* table, u64 addr, u64 next) {
  tables_.remember(addr, table);
  const LeafJob job = begin(pmd, &table[level_index(addr, PTE_LEVEL)], addr, next);
  if (!defers_) return change(job);
  jobs_.push_back(job);
  if (jobs_.size() == MOST_JOBS) run_jobs();
  return 0;
}

/// A span that is about to change. Without its PMD entry it must be that it is no whole table.
LeafJob Leaves::begin(u64* pmd, u64* first, u64 addr, u64 next) {
  const bool short_one = planted(Mutant::pmd_end_left_out) && is_aligned(next, PMD_SIZE);
  const LeafJob job{pmd, {first, ((next - addr) >> PAGE_SHIFT) - u64(short_one)}, addr};
  huge_.machine.coverage.meet_span(plan_, profile_, huge_.vma, job.ptes);
  LeafFacts& facts = facts_of(job);
  const bool known = facts.known && job.whole();
  tables_.frames().will_store(job.ptes.data(), job.ptes.size());
  facts.known = known;  // the kernel keeps them up
  return job;
}

i64 Leaves::change(const LeafJob& job) {
  const SpanCounts counts = apply(job);
  finish(job, counts);
  return counts.pages + (planted(Mutant::present_counted_twice) ? counts.present : 0);
}

SpanCounts Leaves::apply(const LeafJob& job) const {
  return kernel_(plan_, job.ptes, huge_.machine.pages, job.whole() ? &facts_of(job) : nullptr);
}

/// Puts what the kernel did to a span into the account.
void Leaves::finish(const LeafJob& job, const SpanCounts& counts) {
  account(counts, 1);
  if (job.whole() && counts.present == 0) tables_.share_if_uniform(job.pmd);
  if (counts.bad_page_map)
    result_.warnings.insert(result_.warnings.end(), counts.bad_page_map, Warning::bad_page_map);
  if (counts.flush_first <= counts.flush_last)
    result_.gather_flush(job.addr + counts.flush_first * PAGE_SIZE,
                         job.addr + (counts.flush_last + 1) * PAGE_SIZE);
}

/// Applies the kernel to every span that waits, and accounts for them in the order of addresses.
void Walk::run_jobs() {
  const std::size_t chunks = (jobs_.size() + TABLES_PER_CHUNK - 1) / TABLES_PER_CHUNK;
  const unsigned threads = jobs_.size() < MANY_TABLES ? 1 : huge_.machine.threads;
  std::vector<SpanCounts> counts(jobs_.size());
  ThreadPool::shared().run(threads, chunks, [&](std::size_t chunk) {
    const std::size_t first = chunk * TABLES_PER_CHUNK;
    const std::size_t last = std::min(first + TABLES_PER_CHUNK, jobs_.size());
    for (std::size_t i = first; i < last; ++i) counts[i] = apply(jobs_[i]);
  });
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    finish(jobs_[i], counts[i]);
    deferred_pages_ += counts[i].pages;
  }
  jobs_.clear();
}

}  // namespace

Error change_protection(AddressSpace& mm, const Vma& vma, Range range, u64 newprot, u32 cp_flags,
                        ProtectResult& account) {
  const u64 features = mm.machine->uffd_features(vma.uffd);
  const LeafPlan& plan = mm.machine->plans.get(vma, newprot, cp_flags, features, mm.users);
  u64* const recent = mm.tables.recent(range);
  const i64 pages = recent ? Leaves(mm, vma, plan, account).change_recent(recent, range)
                           : Walk(mm, vma, plan, account).change_range(range);
  if (pages < 0) return {Cause::table_alloc_failed, "change_protection", range.start, range.end};
  account.pages += u64(pages);
  if (!plan.gathers_flush && pages > 0) account.gather_flush(range.start, range.end);
  return {};
}

}  // namespace ptwalk
