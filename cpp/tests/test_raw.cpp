// Stores that no system call judges: what they refuse, and the counts that follow them.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 ADDR = BASE;

}  // namespace

TEST_CASE("entry() and set_entry(): level, alignment, user memory, a table above") {
  Space s;
  AddressSpace& mm = *s.mm;
  CHECK(mm.entry(ADDR, 0).error.cause == Cause::entry_level);
  CHECK(mm.entry(ADDR, 5).error.cause == Cause::entry_level);
  CHECK(mm.entry(ADDR + 8, 1).error.cause == Cause::entry_unaligned);
  CHECK(mm.entry(1ull << 47, 1).error.cause == Cause::entry_not_canonical);
  CHECK(mm.entry(ADDR, 1).error.cause == Cause::entry_no_table);
  CHECK(mm.set_entry(ADDR, 1, 0).cause == Cause::entry_no_table);
  CHECK(mm.entry(ADDR, 4).value == 0);
  REQUIRE(mm.tables.ensure(ADDR, PTE_LEVEL));
  for (u64 word : {0x8000000012345067ull, 0x4ull, 0x123456789abcdef0ull, 0x0ull}) {
    REQUIRE(mm.set_entry(ADDR, 1, word).ok());  // leaf words as they are
    CHECK(mm.entry(ADDR, 1).value == word);
  }
  CHECK(mm.set_entry((1ull << 47) - PAGE_SIZE, 4, 0).ok());  // the last page of the user half
}

TEST_CASE("table entries: flags may change, the table hangs where it hangs") {
  Space s;
  AddressSpace& mm = *s.mm;
  REQUIRE(mm.tables.ensure(ADDR, PTE_LEVEL));
  const u64 entry = mm.entry(ADDR, PMD_LEVEL).value;
  CHECK(mm.set_entry(ADDR, PMD_LEVEL, entry & ~_PAGE_USER).ok());
  CHECK(mm.set_entry(ADDR, PMD_LEVEL, 0).cause == Cause::entry_not_none);
  CHECK(mm.set_entry(ADDR, PMD_LEVEL, 0x80000000400000e7).cause == Cause::entry_not_none);
  CHECK(mm.set_entry(ADDR + PMD_SIZE, PMD_LEVEL, entry).cause == Cause::entry_wrong_frame);
  CHECK(mm.set_entry(ADDR + PMD_SIZE, PMD_LEVEL, 0x12345067).cause == Cause::entry_not_a_frame);
  CHECK(mm.set_entry(ADDR + PMD_SIZE, PMD_LEVEL, 0x12345003).ok());  // bad, and no table
  CHECK(mm.set_entry(ADDR + PMD_SIZE, PMD_LEVEL, 0).ok());
  REQUIRE(mm.set_entry(ADDR, PMD_LEVEL, entry).ok());
}

TEST_CASE("alloc_table(): one level at a time, with flags that make a table entry") {
  Space s;
  AddressSpace& mm = *s.mm;
  CHECK(mm.alloc_table(ADDR, PTE_LEVEL, 0x67).cause == Cause::entry_level);
  CHECK(mm.alloc_table(ADDR, PMD_LEVEL, 0x67).cause == Cause::entry_no_table);
  REQUIRE(mm.alloc_table(ADDR, 4, 0x67).ok());
  CHECK(mm.alloc_table(ADDR, 4, 0x67).cause == Cause::entry_not_none);
  CHECK(mm.alloc_table(ADDR, PUD_LEVEL, 0xe7).cause == Cause::bad_table_flags);
  CHECK(mm.alloc_table(ADDR, PUD_LEVEL, 0x1067).cause == Cause::bad_table_flags);
  REQUIRE(mm.alloc_table(ADDR, PUD_LEVEL, 0x67).ok());
  mm.tables.fail_alloc(1);
  CHECK(mm.alloc_table(ADDR, PMD_LEVEL, 0x67).cause == Cause::table_alloc_failed);
  REQUIRE(mm.alloc_table(ADDR, PMD_LEVEL, 0x63).ok());
  CHECK(mm.tables.nr_tables() == 3);
  CHECK(mm.entry(ADDR, PTE_LEVEL).ok());
}

TEST_CASE("counts follow the entries that are stored and overwritten") {
  Space s;
  const u64 addr = s.anon(3);
  s.write(addr);
  s.write(addr + pages(1));
  s.reclaim(addr + pages(1));
  const u64 entry = s.pte(addr), swapped = s.pte(addr + pages(1));
  const u64 both[] = {entry, swapped, entry};
  REQUIRE(s.mm->set_ptes(addr, both).ok());  // the same again, and the page a second time
  CHECK(s.page(addr).mapcount == 2);
  CHECK(s.machine->swap[swp_offset(swapped)].count == 1);
  // What no reverse map leads to keeps the page in memory.
  CHECK(s.mm->reclaim(addr, pages(1)) == 1);
  CHECK(is_swap_pte(s.pte(addr)));
  CHECK(s.page(addr + pages(2)).mapcount == 1);
  REQUIRE(s.mm->set_entry(addr + pages(2), PTE_LEVEL, 0).ok());
  REQUIRE(s.mm->set_entry(addr, PTE_LEVEL, 0).ok());
  REQUIRE(s.mm->set_entry(addr + pages(1), PTE_LEVEL, 0).ok());
  CHECK(s.machine->pages.in_use() == 0);
  CHECK(s.machine->free_slots.size() == 2);
}

TEST_CASE("set_ptes(): tables are made; a leaf in the way, or the end of user memory, is refused") {
  Space s;
  const std::vector<u64> words(600, 0x8000000012345025);
  REQUIRE(s.mm->set_ptes(ADDR + pages(500), words).ok());
  CHECK(s.mm->count(ADDR, pages(2048)).present == 600);
  CHECK(s.mm->set_ptes(ADDR + 1, words).cause == Cause::entry_unaligned);
  CHECK(s.mm->set_ptes((1ull << 47) - pages(2), words).cause == Cause::entry_not_canonical);
  CHECK(s.mm->set_ptes(ADDR + 1, {}).ok());
  REQUIRE(s.mm->tables.ensure(ADDR + PUD_SIZE, PMD_LEVEL));
  REQUIRE(s.mm->set_entry(ADDR + PUD_SIZE, PMD_LEVEL, 0x80000000400000e7).ok());
  CHECK(s.mm->set_ptes(ADDR + PUD_SIZE, words).cause == Cause::entry_no_table);
}

TEST_CASE("set_vm_flags(): splits, sets, recomputes the protection word") {
  Space s;
  const u64 addr = s.shmem(4);
  const auto cause = [&](u64 start, u64 length) {
    return s.mm->set_vm_flags(start, length, VM_UFFD_WP, 0).cause;
  };
  CHECK(cause(addr, 0) == Cause::range_backwards);
  CHECK(cause(addr, ~0ull - addr + 1 + pages(1)) == Cause::range_backwards);
  CHECK(cause(addr + 1, pages(1)) == Cause::range_unaligned);
  CHECK(cause(addr, pages(5)) == Cause::vma_missing);
  CHECK(s.nr_vmas() == 1);
  REQUIRE(cause(addr + pages(1), pages(1)) == Cause::none);
  CHECK(s.nr_vmas() == 3);
  CHECK(s.vma(addr + pages(1)).page_prot == RO_NX);
  REQUIRE(s.mm->set_vm_flags(addr, pages(4), VM_PFNMAP, VM_UFFD_WP).ok());
  CHECK(s.vma(addr + pages(1)).page_prot == RW_NX);
  CHECK(has(s.vma(addr + pages(3)).flags, VM_PFNMAP));
}

TEST_CASE("load_vma(): as it stands, but for overlap and place; names are kept once") {
  Space s;
  Vma vma{.start = ADDR, .end = ADDR + pages(2), .flags = VM_READ | VM_WRITE | VM_MAYWRITE};
  REQUIRE(s.mm->load_vma(vma, "[heap]").ok());
  CHECK(s.vma(ADDR).page_prot == RO_NX);
  CHECK(s.mm->names[s.vma(ADDR).name] == "[heap]");
  CHECK(s.mm->load_vma(vma, "").cause == Cause::address_taken);
  vma.start = ADDR + pages(4);
  CHECK(s.mm->load_vma(vma, "").cause == Cause::range_backwards);
  vma.end = ADDR + pages(4) + 1;
  CHECK(s.mm->load_vma(vma, "").cause == Cause::range_unaligned);
  vma.end = 1ull << 50;
  CHECK(s.mm->load_vma(vma, "").cause == Cause::entry_not_canonical);
  vma.end = ADDR + pages(5);
  REQUIRE(s.mm->load_vma(vma, "[heap]").ok());
  CHECK(s.mm->names.size() == 2);
}

TEST_CASE("load_pages(): facts of anonymous, cached and zero pages; a word of 0 changes nothing") {
  Space s;
  const u64 addr = s.anon(5), file = s.shmem(2);
  const u64 words[] = {0x8000000012345067, 0x8000000000000025, 0, 0x8000000001a2b025,
                       0x0000000000000120};
  const u8 facts[] = {LOAD_ANON | LOAD_EXCLUSIVE | LOAD_DIRTY, LOAD_ANON, 0, LOAD_ZERO, LOAD_ANON};
  s.read(addr + pages(2));
  REQUIRE(s.mm->load_pages(addr, words, facts).ok());
  CHECK(pte_pfn(s.pte(addr)) == 0x12345);
  CHECK(s.anon_exclusive(addr));
  CHECK(s.page(addr).dirty());
  CHECK(pte_pfn(s.pte(addr + pages(1))) != 0);  // a frame of the machine's choice
  CHECK_FALSE(s.anon_exclusive(addr + pages(1)));
  CHECK(s.flags_of(addr + pages(2)) == present(_PAGE_SPECIAL));
  CHECK(s.pte(addr + pages(3)) == 0x8000000001a2b225);
  CHECK(pte_protnone(s.pte(addr + pages(4))));
  CHECK(s.page(addr + pages(4)).anon());
  const u64 cached[] = {0x8000000000000025};
  const u8 of_file[] = {LOAD_FILE};
  REQUIRE(s.mm->load_pages(file, cached, of_file).ok());
  CHECK(s.machine->cached_page(s.file, 0) == pte_pfn(s.pte(file)));
  CHECK(s.mm->load_pages(addr + pages(5), words, facts).cause == Cause::vma_missing);
}

TEST_CASE("loaded swap entries get slots of their own, and their VMA an anon_vma for fork") {
  Space s;
  const u64 addr = s.anon(3);
  const u64 words[] = {
      make_swp_pte(0, 77) | _PAGE_SWP_EXCLUSIVE, WP_MARKER,
      make_swp_pte(unsigned(find_profile("6.18")->swp_type_of(SwpKind::migration_read)), 0x12345)};
  const u8 facts[3] = {};
  REQUIRE(s.mm->load_pages(addr, words, facts).ok());
  CHECK(s.machine->swap[swp_offset(s.pte(addr))].count == 1);
  CHECK(has(s.pte(addr), _PAGE_SWP_EXCLUSIVE));
  CHECK(s.pte(addr + pages(1)) == WP_MARKER);
  CHECK(s.pte(addr + pages(2)) == words[2]);
  const auto child = s.mm->fork().value;
  REQUIRE(child->tables.find(addr, PTE_LEVEL));
  CHECK(is_swap_pte(*child->tables.find(addr, PTE_LEVEL)));
  CHECK(s.write(addr).outcome == Outcome::done);
  CHECK(s.mm->reclaim(addr, pages(1)) == 1);
  CHECK(is_swap_pte(s.pte(addr)));
}

TEST_CASE("a loaded page that is neither anonymous nor of a file is never reclaimed") {
  Space s;
  const u64 addr = s.anon(1);
  const u64 words[] = {0x8000000012345067};
  const u8 facts[1] = {};
  REQUIRE(s.mm->load_pages(addr, words, facts).ok());
  (void)s.mm->reclaim(addr, pages(1));
  CHECK(s.pte(addr) == words[0]);
}
