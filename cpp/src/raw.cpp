// Stores that no system call judges: single entries, tables, VMA flags, and whole address spaces
// read from elsewhere. Leaf words are taken as they are; a table pointer must name a table frame.
// Page facts follow: map counts and slot counts change with the entries that name them.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

/// The page that a PTE maps or, as a migration entry, will map again; NO_PAGE for none.
constexpr Pfn NO_PAGE = ~0ull;

Pfn mapped_page(const Profile& p, u64 pte) {
  if (pte_present(pte)) return pte & _PAGE_SPECIAL ? NO_PAGE : pte_pfn(pte);
  if (!is_swap_pte(pte) || p.is_marker(pte)) return NO_PAGE;
  const SwpKind kind = p.swp_kind(pte);
  const bool migration = kind >= SwpKind::migration_read && kind <= SwpKind::migration_write;
  return migration ? swp_offset(pte) & SWP_PFN_MASK : NO_PAGE;
}

bool names_slot(const Machine& machine, u64 pte) {
  const Profile& p = machine.profile;
  return is_swap_pte(pte) && !p.is_marker(pte) && p.swp_kind(pte) == SwpKind::swap &&
         swp_offset(pte) < machine.swap.size();
}

/// Takes back what an entry that is no more had counted.
void drop_entry(Machine& machine, u64 old) {
  if (const Pfn pfn = mapped_page(machine.profile, old); pfn != NO_PAGE) machine.unmap_page(pfn);
  if (names_slot(machine, old)) machine.put_slot(swp_offset(old));
}

/// Replaces a PTE; counts follow. The new one first, so that a page that stays is never freed.
void store_pte(Machine& machine, u64* pte, u64 value) {
  const u64 old = *pte;
  if (const Pfn pfn = mapped_page(machine.profile, value); pfn != NO_PAGE) machine.map_page(pfn);
  if (names_slot(machine, value)) machine.dup_slot(swp_offset(value));
  *pte = value;
  drop_entry(machine, old);
}

/// Whether a frame that the caller names may be an ordinary page: zero pages and tables may not.
bool ordinary_frame(Pfn pfn) {
  const bool huge_zero = pfn >= HUGE_ZERO_PFN && pfn < HUGE_ZERO_PFN + PTRS_PER_TABLE;
  return pfn != ZERO_PFN && !huge_zero && pfn < TABLE_PFN_BASE;
}

}  // namespace

Error AddressSpace::check_entry(const char* call, u64 addr, Level level) const {
  if (level < PTE_LEVEL || level > tables.levels())
    return {Cause::entry_level, call, u64(level), u64(tables.levels())};
  if (!is_aligned(addr, PAGE_SIZE)) return {Cause::entry_unaligned, call, addr};
  const u64 user_end = 1ull << (tables.levels() == 5 ? 56 : 47);
  if (addr >= user_end)
    return {Cause::entry_not_canonical, call, addr, user_end, u64(tables.levels())};
  return {};
}

Result<u64> AddressSpace::entry(u64 addr, Level level) const {
  if (Error e = check_entry("entry", addr, level)) return {0, e};
  const u64* found = tables.find(addr, level);
  if (!found) return {0, {Cause::entry_no_table, "entry", u64(level), addr}};
  return {*found, {}};
}

Error AddressSpace::set_entry(u64 addr, Level level, u64 value) {
  const char* const call = "set_entry";
  if (Error e = check_entry(call, addr, level)) return e;
  u64* found = tables.writable(addr, level);
  if (!found) return {Cause::entry_no_table, call, u64(level), addr};
  if (level == PTE_LEVEL) {
    store_pte(*machine, found, value);
    return {};
  }
  const Pfn pfn = (value & PTE_PFN_MASK) >> PAGE_SHIFT;
  const bool points = tables.kind(value, level) == EntryKind::table;
  if (points && !machine->frames.owns(pfn)) return {Cause::entry_not_a_frame, call, value, pfn};
  if (tables.kind(*found, level) == EntryKind::table) {
    // Flags of a table entry may change; the table itself stays where it hangs.
    if (!points || tables.below(value) != tables.below(*found))
      return {Cause::entry_not_none, call, u64(level), addr, *found};
  } else if (points) {
    return {Cause::entry_wrong_frame, call, value, pfn};  // every table hangs in one place only
  }
  *found = value;
  return {};
}

Error AddressSpace::set_ptes(u64 start, std::span<const u64> values) {
  const char* const call = "set_ptes";
  if (values.empty()) return {};
  if (Error e = check_entry(call, start, PTE_LEVEL)) return e;
  const u64 user_end = 1ull << (tables.levels() == 5 ? 56 : 47);
  if (values.size() > (user_end - start) >> PAGE_SHIFT)
    return {Cause::entry_not_canonical, call, user_end, user_end, u64(tables.levels())};
  const u64 end = start + (values.size() << PAGE_SHIFT);
  if (Error e = need_tables_for_pages(call, start, end)) return e;
  const auto next_table = [](u64 addr) { return align_down(addr, PMD_SIZE) + PMD_SIZE; };
  for (u64 addr = start; addr < end; addr = next_table(addr))
    if (const WalkEnd at = tables.walk(addr);
        at.level > PTE_LEVEL && tables.kind(*at.entry, at.level) != EntryKind::none)
      return {Cause::entry_no_table, call, PTE_LEVEL, addr};
  for (u64 addr = start; addr < end; addr = next_table(addr))
    if (!tables.ensure(addr, PTE_LEVEL)) return {Cause::entry_no_table, call, PTE_LEVEL, addr};
  for (std::size_t i = 0; i < values.size(); ++i)
    store_pte(*machine, tables.writable(start + (u64(i) << PAGE_SHIFT), PTE_LEVEL), values[i]);
  return {};
}

Error AddressSpace::alloc_table(u64 addr, Level level, u64 flags) {
  const char* const call = "alloc_table";
  if (Error e = check_entry(call, addr, level)) return e;
  if (level == PTE_LEVEL) return {Cause::entry_level, call, u64(level), u64(tables.levels())};
  u64* found = tables.writable(addr, level);
  if (!found) return {Cause::entry_no_table, call, u64(level), addr};
  if (tables.kind(*found, level) != EntryKind::none)
    return {Cause::entry_not_none, call, u64(level), addr, *found};
  if (tables.kind((TABLE_PFN_BASE << PAGE_SHIFT) | flags, level) != EntryKind::table ||
      (flags & PTE_PFN_MASK))
    return {Cause::bad_table_flags, call, flags, u64(level)};
  if (Error e = need_tables(call, 1)) return e;
  if (!tables.populate(found, level, flags)) return {Cause::table_alloc_failed, call, addr};
  return {};
}

Error AddressSpace::set_vm_flags(u64 start, u64 length, u64 add, u64 remove) {
  const char* const call = "set_vm_flags";
  const u64 end = start + length;
  if (!length || end < start) return {Cause::range_backwards, call, start, end};
  if (!is_aligned(start | length, PAGE_SIZE)) return {Cause::range_unaligned, call, start, end};
  for (u64 at = start; at < end; at = vmas.find(at)->end)
    if (!vmas.find(at)) return {Cause::vma_missing, call, at};
  split_at(start);
  split_at(end);
  for (VmaList::Index i = vmas.lower(start); i < vmas.all().size() && vmas.all()[i].start < end;
       ++i) {
    Vma& vma = vmas.edit(i);
    vma.flags = (vma.flags & ~remove) | add;
    vma.page_prot = vma_page_prot(profile(), vma);
  }
  return {};
}

Error AddressSpace::load_vma(const Vma& vma, std::string_view name) {
  const char* const call = "load_vma";
  if (vma.start >= vma.end) return {Cause::range_backwards, call, vma.start, vma.end};
  if (!is_aligned(vma.start | vma.end, PAGE_SIZE))
    return {Cause::range_unaligned, call, vma.start, vma.end};
  if (vma.end > task_size() + PAGE_SIZE)
    return {Cause::entry_not_canonical, call, vma.end, task_size(), u64(tables.levels())};
  if (vmas.first_intersecting(vma.start, vma.end))
    return {Cause::address_taken, call, vma.start, vma.end};
  const auto known = std::find(names.begin(), names.end(), name);
  Vma loaded = vma;
  loaded.name = u32(known - names.begin());
  if (known == names.end()) names.emplace_back(name);
  loaded.page_prot = vma_page_prot(profile(), loaded);
  vmas.insert(loaded);
  return {};
}

Error AddressSpace::load_pages(u64 start, std::span<const u64> entries, std::span<const u8> facts) {
  const char* const call = "load_pages";
  const Vma* vma = nullptr;
  u64* table = nullptr;
  u64 base = 0;
  const u64 end = start + (u64(entries.size()) << PAGE_SHIFT);
  if (Error e = need_tables_for_pages(call, start, end)) return e;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!entries[i]) continue;
    const u64 addr = start + (u64(i) << PAGE_SHIFT);
    if (!vma || addr >= vma->end) vma = vmas.find(addr);
    if (!vma) return {Cause::vma_missing, call, addr};
    if (!table || addr >= base + PMD_SIZE) {
      base = align_down(addr, PMD_SIZE);
      table = tables.ensure(base, PTE_LEVEL, PTRS_PER_TABLE);
      if (!table) return {Cause::table_alloc_failed, call, addr};
    }
    u64& pte = table[level_index(addr, PTE_LEVEL)];
    const u64 old = pte;
    pte = adopt_entry(*vma, addr, entries[i], facts[i]);
    drop_entry(*machine, old);
  }
  return {};
}

u64 AddressSpace::adopt_entry(const Vma& vma, u64 addr, u64 entry, u8 facts) {
  if (pte_present(entry)) {
    if (facts & LOAD_ZERO) return pfn_pte(ZERO_PFN, (entry & ~PTE_PFN_MASK) | _PAGE_SPECIAL);
    return entry & _PAGE_SPECIAL ? entry : adopt_page(vma, addr, entry, facts);
  }
  if (is_swap_pte(entry) && profile().swp_kind(entry) == SwpKind::swap &&
      !profile().is_marker(entry)) {
    anon_vma_prepare(vma);  // what was swapped out was anonymous
    return adopt_swap(entry);
  }
  if (const Pfn pfn = mapped_page(profile(), entry); pfn != NO_PAGE) machine->map_page(pfn);
  return entry;
}

Pfn AddressSpace::adopt_frame(const Vma& vma, u64 index, Pfn pfn, bool cached) {
  if (!ordinary_frame(pfn)) pfn = 0;
  const Page* known = machine->pages.find(pfn);
  if (!cached) return pfn && !(known && known->file != NO_FILE) ? pfn : machine->pages.alloc(0);
  PageCache& cache = machine->files.edit(u64(vma.file)).cache;
  // A frame with another role by now was given away while the caller was reading.
  if (!pfn || known || cache.contains(index)) return machine->get_page(vma.file, index);
  cache.edit(index).pfn = pfn;
  machine->pages.at(pfn).file = vma.file;
  return pfn;
}

u64 AddressSpace::adopt_page(const Vma& vma, u64 addr, u64 entry, u8 facts) {
  const u64 index = vma.index_of(addr);
  const Pfn wanted = entry & PTE_PFN_MASK ? pte_pfn(entry) : 0;
  // Of a page that is said to be both, the file has none: it is a private copy.
  const bool cached = (facts & (LOAD_FILE | LOAD_ANON)) == LOAD_FILE && vma.file != NO_FILE;
  const Pfn pfn = adopt_frame(vma, index, wanted, cached);
  Page& page = machine->pages.at(pfn);
  if (page.mapcount++ == 0) {
    page.index = index;
    page.elsewhere = (facts & LOAD_SHARED) != 0;
    page.mapcount += page.elsewhere;
  } else if (page.elsewhere) {  // this mapping is the other one
    page.elsewhere = 0;
    --page.mapcount;
  }
  if (facts & LOAD_DIRTY) page.flags |= PG_dirty;
  if (facts & LOAD_ANON) {
    page.flags |= PG_anon;
    if (facts & LOAD_EXCLUSIVE) machine->pages.set_anon_exclusive(pfn, true);
    anon_vma_prepare(vma);
  }
  return pfn_pte(pfn, entry & ~PTE_PFN_MASK);
}

u64 AddressSpace::adopt_swap(u64 entry) {
  machine->swap.add().count = 1;
  return make_swp_pte(swp_type(entry), machine->swap.size() - 1) | (entry & SWP_FLAG_BITS);
}

}  // namespace ptwalk
