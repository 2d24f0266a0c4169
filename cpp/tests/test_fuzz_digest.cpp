// Hashes of states: what changes them, and what must not.
#include "ptwalk/fuzz/digest.hpp"

#include "ptwalk/fuzz/violations.hpp"

#include "space.hpp"

using namespace ptwalk;
using fuzz::state_hash;

TEST_CASE("a hash depends on every word and on their order") {
  fuzz::Hash a, b, c;
  a.add(1, 2);
  b.add(2, 1);
  c.add(1, 2, 0);
  CHECK(a.value() != b.value());
  CHECK(a.value() != c.value());
}

TEST_CASE("every part of a state enters its hash") {
  Space s;
  u64 last = state_hash(*s.machine);
  const auto changed = [&] {
    const u64 now = state_hash(*s.machine);
    const bool differs = now != last;
    last = now;
    return differs;
  };
  CHECK_FALSE(changed());
  const u64 addr = s.shmem(4);
  CHECK(changed());  // a VMA and a file
  s.read(addr);
  CHECK(changed());  // an entry and a page
  s.machine->pages.at(pte_pfn(s.pte(addr))).flags |= PG_dirty;
  CHECK(changed());  // a fact of a page that is mapped
  s.machine->file_write(s.file, pages(2), PAGE_SIZE);
  CHECK(changed());  // the page cache
  const UffdId id = s.watch(addr, 4, MODE_WP);
  CHECK(changed());
  s.protect(id, addr, 4);
  CHECK(changed());
  s.write(addr + pages(3));
  CHECK(changed());  // a pending fault and its message
  s.next_message(id);
  CHECK(changed());
  s.reclaim(addr);
  CHECK(changed());  // swap
  const auto child = s.mm->fork().value;
  CHECK(changed());
}

TEST_CASE("a hash is the same whether tables are shared or each their own") {
  Space shared, own;
  for (Space* s : {&shared, &own}) {
    const u64 addr = s->shmem(1024);
    s->protect(s->watch(addr, 1024, MODE_WP), addr, 1024);
  }
  CHECK(state_hash(*shared.machine) == state_hash(*own.machine));
  const u64 frames = own.machine->frames.in_use();
  REQUIRE(own.mm->tables.writable(BASE, PTE_LEVEL));
  REQUIRE(own.mm->tables.writable(BASE + PMD_SIZE, PTE_LEVEL));
  CHECK(own.machine->frames.in_use() > frames);
  CHECK(state_hash(*shared.machine) == state_hash(*own.machine));
}

TEST_CASE("an entry outside every VMA counts for the whole state") {
  Space s;
  s.anon(1);
  const auto hash = [&](fuzz::Scope scope) {
    fuzz::Hash h;
    const u64 found = fuzz::add_state(h, *s.machine, scope);
    return std::pair{h.value(), found};
  };
  CHECK(hash(fuzz::Scope::vmas) == hash(fuzz::Scope::everywhere));
  const u64 word = pfn_pte(0x12345, present());
  REQUIRE(!s.mm->set_ptes(BASE + PMD_SIZE, {&word, 1}));
  CHECK(hash(fuzz::Scope::vmas).second == 0);
  CHECK(hash(fuzz::Scope::everywhere).second == bit(fuzz::Violation::entry_outside_vma));
  CHECK(hash(fuzz::Scope::vmas).first != hash(fuzz::Scope::everywhere).first);
}

TEST_CASE("a hash is the same for every number of threads") {
  constexpr u64 NR_TABLES = 300;  // enough for threads to take part
  u64 hashes[2];
  for (const unsigned threads : {1u, 2u}) {
    Space s;
    s.machine->threads = threads;
    const u64 addr = s.anon(NR_TABLES * 512);
    const UffdId id = s.watch(addr, NR_TABLES * 512, MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
    for (u64 i = 0; i < NR_TABLES; ++i) s.write(addr + i * PMD_SIZE);
    s.protect(id, addr, NR_TABLES * 512);
    hashes[threads - 1] = state_hash(*s.machine);
  }
  CHECK(hashes[0] == hashes[1]);
}
