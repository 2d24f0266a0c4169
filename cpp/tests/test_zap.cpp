// What is left when entries are taken away. F11 to F18 are the named cases of the v2 series'
// vectors.
#include "space.hpp"

using namespace ptwalk;

namespace {

using Details = AddressSpace::ZapDetails;
constexpr Details DROP{.drop_marker = true};
constexpr u64 ARMED = 0x8000000012345425, SWAPPED = 0x1fffffffffdb9604;

/// The entry at `addr` after `word` was stored there and zapped.
u64 zapped(Space& s, u64 addr, u64 word, const Details& details) {
  const u64 words[] = {word};
  REQUIRE(s.mm->set_ptes(addr, words).ok());
  s.mm->zap_range(s.vma(addr), addr, addr + PAGE_SIZE, details);
  return s.pte(addr);
}

}  // namespace

TEST_CASE("F11 to F18: what persists (zap_install_uffd_wp_if_needed of the v2 series)") {
  Space s("uffd-wp-v2");
  const u64 shared = s.shmem(1), copies = s.private_shmem(1), anon = s.anon(1);
  CHECK(zapped(s, shared, ARMED, {}) == 4);                           // F11
  CHECK(zapped(s, shared, ARMED & ~_PAGE_UFFD_WP, {}) == 0);          // F12
  CHECK(zapped(s, shared, ARMED, DROP) == 0);                         // F13
  CHECK(zapped(s, shared, 4, {}) == 4);                               // F14
  CHECK(zapped(s, shared, 4, DROP) == 0);                             // F15
  CHECK(zapped(s, anon, ARMED, {}) == 0);                             // F16
  CHECK(zapped(s, copies, SWAPPED, {}) == 4);                         // F17
  CHECK(zapped(s, copies, SWAPPED, {.skip_swap = true}) == SWAPPED);  // F18
}

TEST_CASE("from 6.1 on a zap leaves markers in registered VMAs only") {
  for (const char* name : {"6.1", "6.12", "6.18"}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.shmem(1);
    const u64 marker = s.machine->profile.make_marker(PTE_MARKER_UFFD_WP);
    CHECK(zapped(s, addr, ARMED, {}) == 0);
    s.watch(addr, 1, MODE_WP);
    CHECK(zapped(s, addr, ARMED, {}) == marker);
    CHECK(zapped(s, addr, SWAPPED, {}) == marker);
    CHECK(zapped(s, addr, marker, {}) == marker);
    CHECK(zapped(s, addr, ARMED, DROP) == 0);
    CHECK(zapped(s, addr, marker, DROP) == 0);
  }
}

TEST_CASE("markers by kind: wr-protect goes from anonymous memory, poison goes, guards stay") {
  Space s;
  const u64 anon = s.anon(1), file = s.shmem(1);
  CHECK(zapped(s, anon, WP_MARKER, {}) == 0);
  for (u64 addr : {anon, file}) {
    CHECK(zapped(s, addr, POISON_MARKER, {}) == 0);
    CHECK(zapped(s, addr, POISON_MARKER, {.even_cows = false}) == POISON_MARKER);
    CHECK(zapped(s, addr, GUARD_MARKER, {}) == GUARD_MARKER);
    CHECK(zapped(s, addr, GUARD_MARKER, DROP) == 0);
  }
}

TEST_CASE("without even_cows private copies stay, in memory and in swap") {
  Space s;
  const u64 addr = s.private_shmem(3);
  s.write(addr);
  s.write(addr + pages(1));
  s.read(addr + pages(2));
  s.reclaim(addr + pages(1));
  s.mm->zap_range(s.vma(addr), addr, addr + pages(3), {.even_cows = false});
  CHECK(pte_present(s.pte(addr)));
  CHECK(is_swap_pte(s.pte(addr + pages(1))));
  CHECK(s.pte(addr + pages(2)) == 0);
  s.mm->zap_range(s.vma(addr), addr, addr + pages(3), {});
  CHECK(s.mm->count(addr, pages(3)).none == 3);
  CHECK(s.machine->free_slots.size() == 1);
}

TEST_CASE("a dirty entry makes its file page dirty; the last unmap frees an anonymous page") {
  Space s;
  const u64 file = s.shmem(1), anon = s.anon(1);
  s.read(file);
  s.write(file);  // by the CPU alone: the entry was writable
  s.write(anon);
  const Pfn cached = pte_pfn(s.pte(file));
  CHECK_FALSE(s.page(file).dirty());
  s.mm->zap_range(s.vma(file), file, file + pages(1), {});
  s.mm->zap_range(s.vma(anon), anon, anon + pages(1), {});
  CHECK(s.machine->pages.find(cached)->dirty());
  CHECK(s.machine->pages.find(cached)->mapcount == 0);
  CHECK(s.machine->pages.in_use() == 1);
}

TEST_CASE("migration entries give their page back") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  const Pfn moved = s.migrate(addr, [&] {
    s.mm->zap_range(s.vma(addr), addr, addr + pages(1), {});
    CHECK(s.pte(addr) == 0);
  });
  CHECK(moved == 0);
  CHECK(s.machine->pages.in_use() == 0);
}

TEST_CASE("reclaim_tables frees a PTE table that was covered whole and is empty") {
  Space s;
  const u64 addr = s.anon(512), guarded = s.anon(512);
  s.write(addr);
  s.write(guarded);
  REQUIRE(s.mm->madvise(guarded + pages(7), pages(1), 102).ok());
  const u64 before = s.mm->tables.nr_tables();
  const Details details{.reclaim_tables = true};
  s.mm->zap_range(s.vma(guarded), guarded, guarded + PMD_SIZE, details);
  CHECK(s.mm->tables.nr_tables() == before);  // the guard stays
  s.mm->zap_range(s.vma(addr), addr, addr + PMD_SIZE - pages(1), details);
  CHECK(s.mm->tables.nr_tables() == before);
  s.mm->zap_range(s.vma(addr), addr, addr + PMD_SIZE, details);
  CHECK(s.mm->tables.nr_tables() == before - 1);
  CHECK(*s.mm->tables.find(addr, PMD_LEVEL) == 0);
}

TEST_CASE("a huge PMD goes whole, or is split and goes in part") {
  Space s;
  const u64 addr = s.anon(512);
  REQUIRE(s.mm->tables.ensure(addr, PMD_LEVEL));
  u64* pmd = s.mm->tables.writable(addr, PMD_LEVEL);
  REQUIRE(s.mm->set_entry(addr, PMD_LEVEL, 0x80000000400000e7).ok());
  s.mm->zap_range(s.vma(addr), addr, addr + PMD_SIZE, {});
  CHECK(*pmd == 0);
  REQUIRE(s.mm->set_entry(addr, PMD_LEVEL, 0x80000000400000e7).ok());
  s.mm->zap_range(s.vma(addr), addr, addr + pages(2), {});
  CHECK(s.pte(addr + pages(1)) == 0);
  CHECK(pte_pfn(s.pte(addr + pages(2))) == 0x40002);
  CHECK(s.mm->count(addr, PMD_SIZE).present == 510);
}
