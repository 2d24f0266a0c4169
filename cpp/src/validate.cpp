// Every invariant of an address space and its machine, checked at once: the gate for data from
// elsewhere, and what each test and fuzz run calls. Entries that only raw stores can make are
// reported like any other.
#include <algorithm>
#include <map>

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

using Report = std::vector<std::string>;

std::string at(u64 addr) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(addr));
  return text;
}

void check_vmas(const AddressSpace& mm, Report& report) {
  u64 end = 0;
  for (const Vma& vma : mm.vmas.all()) {
    const std::string name = "VMA " + vma_range(vma.start, vma.end, vma.flags);
    if (vma.start >= vma.end) report.push_back(name + " is empty or backwards");
    if (!is_aligned(vma.start | vma.end, PAGE_SIZE))
      report.push_back(name + " is not page aligned");
    if (vma.start < end) report.push_back(name + " overlaps the one before it");
    if (vma.anonymous() != (vma.file == NO_FILE) && vma.kind != VmaKind::other)
      report.push_back(name + " has a file that does not fit its kind");
    if ((vma.uffd == NO_UFFD) != !(vma.flags & VM_UFFD_FLAGS) && vma.uffd != NO_UFFD)
      report.push_back(name + " names a userfaultfd but has no VM_UFFD_ flag");
    end = vma.end;
  }
}

/// Walks every table; `mapped` counts the entries that map each frame, `slots` those naming a slot.
struct TableCheck {
  const AddressSpace& mm;
  std::map<Pfn, u64>& mapped;
  std::map<u64, u64>& slots;
  std::map<Pfn, u64>& shared;  ///< entries of private tables that point to each shared one
  Report& report;
  u64 tables = 0;  ///< as the kernel would have them
  u64 own = 0;     ///< private ones

  void pte(u64 entry, u64 addr) {
    const Profile& p = mm.profile();
    if (pte_none(entry) || p.is_marker(entry)) return;
    if (pte_present(entry)) {
      if (!(entry & _PAGE_SPECIAL)) ++mapped[pte_pfn(entry)];
      const Vma* vma = mm.vmas.find(addr);
      if (vma && vma->uffd_wp() && p.writenotify_uffd_wp && (entry & _PAGE_UFFD_WP) &&
          (entry & _PAGE_RW))
        report.push_back(at(addr) + " is armed and writable");
      return;
    }
    const SwpKind kind = p.swp_kind(entry);
    if (kind == SwpKind::swap) ++slots[swp_offset(entry)];
    if (kind >= SwpKind::migration_read && kind <= SwpKind::migration_write)
      ++mapped[swp_offset(entry) & SWP_PFN_MASK];
  }

  /// What a kernel noted about the words must hold for them.
  void facts(Pfn pfn, u64 addr) {
    const FrameArena& frames = mm.machine->frames;
    const u64 marker = mm.machine->shared_tables.word(Uniform::marker);
    if (!facts_hold(frames.info(pfn).facts, {frames.table(pfn), PTRS_PER_TABLE}, marker,
                    mm.machine->pages))
      report.push_back("the table at " + at(addr) + " is not what its facts say");
  }

  void table(const u64* entries, Level level, u64 base) {
    for (unsigned i = 0; i < PTRS_PER_TABLE; ++i) {
      const u64 addr = base + i * level_size(level);
      if (level == PTE_LEVEL) {
        pte(entries[i], addr);
        continue;
      }
      if (mm.tables.kind(entries[i], level) != EntryKind::table) continue;
      const Pfn pfn = (entries[i] & PTE_PFN_MASK) >> PAGE_SHIFT;
      const FrameArena& frames = mm.machine->frames;
      if (!frames.owns(pfn) || frames.info(pfn).level != level - 1) {
        report.push_back("the entry of level " + std::to_string(level) + " at " + at(addr) +
                         " names no table of the level below");
        continue;
      }
      if (frames.info(pfn).uniform != Uniform::no) {
        tables += tables_in(level - 1);
        ++shared[pfn];
        continue;
      }
      ++tables;
      ++own;
      if (level - 1 == PTE_LEVEL) facts(pfn, addr);
      table(frames.table(pfn), level - 1, addr);
    }
  }
};

void check_pages(const Machine& machine, const std::map<Pfn, u64>& mapped,
                 const std::map<u64, u64>& slots, Report& report) {
  for (const auto& [pfn, count] : mapped) {
    const Page* page = machine.pages.find(pfn);
    if (page && page->mapcount != count + page->elsewhere)
      report.push_back("page " + at(pfn) + " has map count " + std::to_string(page->mapcount) +
                       " but " + std::to_string(count) + " entries map it");
  }
  std::map<u64, u64> expected = slots;
  for (const File& file : machine.files) {
    const PageCache& cache = file.cache;
    for (u64 index = cache.next(0); index != PageCache::NO_INDEX; index = cache.next(index + 1)) {
      const CacheEntry& entry = *cache.find(index);
      if (entry.swapped()) {
        ++expected[entry.swap_slot];
        continue;
      }
      const Page* page = machine.pages.find(entry.pfn);
      if (!page || page->index != index)
        report.push_back("the page cache names page " + at(entry.pfn) + " which is not its own");
      else if (page->mapcount > page->elsewhere && !mapped.contains(entry.pfn))
        report.push_back("page " + at(entry.pfn) + " has a map count but no entry maps it");
    }
  }
  for (u64 slot = 0; slot < machine.swap.size(); ++slot) {
    const auto found = expected.find(slot);
    const u64 count = found == expected.end() ? 0 : found->second;
    if (machine.swap[slot].count != count)
      report.push_back("swap slot " + std::to_string(slot) + " has count " +
                       std::to_string(machine.swap[slot].count) + " but " + std::to_string(count) +
                       " entries name it");
  }
}

/// Shared tables hold what they should and are counted by entry; how many there are.
u64 check_shared_tables(const Machine& machine, std::map<Pfn, u64>& seen, Report& report) {
  const SharedTables& shared = machine.shared_tables;
  u64 tables = 0;
  for (Uniform uniform : {Uniform::none, Uniform::marker}) {
    for (Level level = SharedTables::TOP_LEVEL; level >= PTE_LEVEL; --level) {
      const Pfn pfn = shared.pfn(uniform, level);
      if (!pfn) continue;
      ++tables;
      const u64* table = machine.frames.table(pfn);
      const std::string name = "shared table " + at(pfn) + " of level " + std::to_string(level);
      if (!std::all_of(table, table + PTRS_PER_TABLE,
                       [&](u64 entry) { return entry == shared.entry_of(uniform, level); }))
        report.push_back(name + " was written in place");
      if (level > PTE_LEVEL) seen[shared.pfn(uniform, level - 1)] += PTRS_PER_TABLE;
      if (shared.refs(uniform, level) != seen[pfn])
        report.push_back(name + " counts " + std::to_string(shared.refs(uniform, level)) +
                         " entries but " + std::to_string(seen[pfn]) + " point to it");
    }
  }
  return tables;
}

}  // namespace

std::vector<std::string> AddressSpace::validate() const {
  Report report;
  std::map<Pfn, u64> mapped;
  std::map<u64, u64> slots;
  std::map<Pfn, u64> shared;
  u64 tables_seen = 0;
  for (const AddressSpace* mm : machine->mms()) {
    if (mm == this) check_vmas(*mm, report);
    TableCheck check{*mm, mapped, slots, shared, report};
    check.table(mm->tables.root_table(), mm->tables.levels(), 0);
    if (check.tables != mm->tables.nr_tables())
      report.push_back("nr_tables is " + std::to_string(mm->tables.nr_tables()) + " but " +
                       std::to_string(check.tables) + " tables hang below the root");
    tables_seen += check.own + 1;
  }
  tables_seen += check_shared_tables(*machine, shared, report);
  if (tables_seen != machine->frames.in_use())
    report.push_back(std::to_string(machine->frames.in_use()) + " table frames are in use but " +
                     std::to_string(tables_seen) + " are linked");
  check_pages(*machine, mapped, slots, report);
  return report;
}

}  // namespace ptwalk
