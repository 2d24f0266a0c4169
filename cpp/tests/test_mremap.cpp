// mremap(2): what is refused, how VMAs and entries travel, and what a userfaultfd loses or keeps.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u32 MAYMOVE = MREMAP_MAYMOVE_, FIXED = MREMAP_MAYMOVE_ | MREMAP_FIXED_,
              DONTUNMAP = MREMAP_MAYMOVE_ | MREMAP_DONTUNMAP_;
constexpr u64 TO = BASE + 64 * PUD_SIZE;

Cause cause_of(Space& s, u64 addr, u64 old_nr, u64 new_nr, u32 flags, u64 to = 0) {
  return s.mm->mremap(addr, pages(old_nr), pages(new_nr), flags, to).error.cause;
}

}  // namespace

TEST_CASE("check_mremap_params: what is refused") {
  Space s;
  const u64 addr = s.anon(4);
  CHECK(cause_of(s, addr, 1, 1, 8) == Cause::bad_mremap_flags);
  CHECK(cause_of(s, addr, 1, 1, MREMAP_FIXED_, TO) == Cause::bad_mremap_flags);
  CHECK(cause_of(s, addr, 1, 2, DONTUNMAP) == Cause::resized_old);
  CHECK(cause_of(s, addr + 1, 1, 1, 0) == Cause::start_unaligned);
  CHECK(cause_of(s, addr, 1, 0, 0) == Cause::length_zero);
  CHECK(cause_of(s, addr, 1, 1, FIXED, TO + 1) == Cause::start_unaligned);
  CHECK(cause_of(s, addr, 2, 2, FIXED, addr + pages(1)) == Cause::overlap);
  CHECK(cause_of(s, addr, 1, 1, FIXED, s.mm->task_size()) == Cause::beyond_task_size);
  CHECK(cause_of(s, TO, 1, 2, MAYMOVE) == Cause::not_mapped);
  CHECK(cause_of(s, addr, 8, 9, MAYMOVE) == Cause::crosses_vma);
  CHECK(s.nr_vmas() == 1);
  for (const char* name : {"6.12", "6.18"}) {  // a range that wraps names no mapping
    Space wraps(name);
    CHECK(cause_of(wraps, align_down(~0ull, PAGE_SIZE), 2, 2, FIXED, TO) == Cause::not_mapped);
  }
}

TEST_CASE("a shorter mapping loses its tail, a longer one grows in place where there is room") {
  Space s;
  const u64 addr = s.anon(4);
  for (u64 i = 0; i < 4; ++i) s.write(addr + pages(i));
  CHECK(s.mm->mremap(addr, pages(4), pages(2), 0, 0).value == addr);
  CHECK(s.vma(addr).end == addr + pages(2));
  CHECK(s.machine->pages.in_use() == 2);
  CHECK(s.mm->mremap(addr, pages(2), pages(8), 0, 0).value == addr);
  CHECK(s.vma(addr).end == addr + pages(8));
  CHECK(s.pte(addr + pages(2)) == 0);
  CHECK(s.mm->mremap(addr, pages(8), pages(8), 0, 0).value == addr);
}

TEST_CASE("what a shorter mapping would lose must lie in user memory") {
  Space s;
  const u64 addr = s.anon(4);
  for (const u64 old_length : {s.mm->task_size(), pages(2) - addr, 0 - pages(1)})
    CHECK(s.mm->mremap(addr, old_length, pages(1), 0, 0).error.cause == Cause::beyond_task_size);
  CHECK(s.vma(addr).end == addr + pages(4));
}

TEST_CASE("DONTUNMAP compares lengths in pages since 6.17, in bytes before") {
  for (const auto& [name, cause] : {std::pair{"6.12", Cause::resized_old}, {"6.18", Cause::none}}) {
    Space s(name);
    CHECK(s.mm->mremap(s.anon(1), PAGE_SIZE, 1, DONTUNMAP, 0).error.cause == cause);
  }
}

TEST_CASE("a new length beyond user memory is refused before anything is looked for, since 6.17") {
  for (const auto& [name, cause] :
       {std::pair{"6.12", Cause::none}, {"6.18", Cause::beyond_task_size}}) {
    Space s(name);
    const u64 addr = s.anon(1), length = s.mm->task_size() + pages(1);
    CHECK(s.mm->mremap(addr, length, length, MAYMOVE, 0).error.cause == cause);
  }
}

TEST_CASE("no room: the mapping moves where it may, pages and all") {
  Space s;
  const u64 addr = s.anon(4);
  for (u64 i = 0; i < 4; ++i) s.write(addr + pages(i));
  const u64 second = s.pte(addr + pages(1));
  CHECK(cause_of(s, addr, 2, 3, 0) == Cause::no_space);
  const u64 to = s.mm->mremap(addr, pages(2), pages(3), MAYMOVE, 0).value;
  CHECK(to == s.mm->task_size() - pages(3));
  CHECK(s.pte(to + pages(1)) == second);
  CHECK(s.pte(to + pages(2)) == 0);
  CHECK(s.mm->vmas.find(addr) == nullptr);
  CHECK(pte_present(s.pte(addr + pages(2))));
  CHECK(s.machine->pages.in_use() == 4);
  // The reverse map still finds them: their linear index did not change.
  s.reclaim(to + pages(1));
  CHECK(is_swap_pte(s.pte(to + pages(1))));
  CHECK(s.write(to + pages(1)).outcome == Outcome::done);
}

TEST_CASE("MREMAP_FIXED replaces what lies at the destination and tells its userfaultfd") {
  Space s;
  const u64 addr = s.anon(2), other = s.anon(2);
  s.write(addr);
  s.write(other + pages(1));
  const UffdId id = s.watch(other, 2, MODE_MISSING, UFFD_FEATURE_EVENT_UNMAP);
  const u64 first = s.pte(addr);
  CHECK(s.mm->mremap(addr, pages(2), pages(2), FIXED, other).value == other);
  CHECK(s.pte(other) == first);
  CHECK(s.pte(other + pages(1)) == 0);
  CHECK(s.vma(other).uffd == NO_UFFD);
  CHECK(s.next_message(id).event == UffdEvent::unmap);
  CHECK(s.machine->pages.in_use() == 1);
}

TEST_CASE("every kind of entry moves; poison and guards too") {
  Space s;
  const u64 addr = s.anon(5);
  const UffdId id = s.watch(addr, 5, MODE_WP, UFFD_FEATURE_EVENT_REMAP);
  s.write(addr);
  s.write(addr + pages(1));
  s.reclaim(addr + pages(1));
  REQUIRE(s.mm->uffd_poison(id, addr + pages(2), pages(1), 0).ok());
  REQUIRE(s.mm->madvise(addr + pages(3), pages(1), 102).ok());
  std::vector<u64> before(5), after(5);
  s.mm->ptes(addr, before);
  REQUIRE(s.mm->mremap(addr, pages(5), pages(5), FIXED, TO).ok());
  s.mm->ptes(TO, after);
  CHECK(after == before);
  CHECK(after[2] == POISON_MARKER);
  CHECK(after[3] == GUARD_MARKER);
  CHECK(s.pte(addr + pages(1)) == 0);
}

TEST_CASE("without EVENT_REMAP the move disarms: bits and markers go, RW does not come back") {
  Space s;
  const u64 addr = s.shmem(3);
  const UffdId id = s.watch(addr, 3, MODE_WP);
  s.write(addr);
  s.write(addr + pages(1));
  s.protect(id, addr, 3);
  s.reclaim(addr + pages(1));
  REQUIRE(s.mm->mremap(addr, pages(3), pages(3), FIXED, TO).ok());
  CHECK(s.flags_of(TO) == present(SAVED_DIRTY));
  CHECK(s.pte(TO + pages(1)) == 0);
  CHECK(s.pte(TO + pages(2)) == 0);
  CHECK(s.vma(TO).uffd == NO_UFFD);
  CHECK_FALSE(has(s.vma(TO).flags, VM_UFFD_WP));
  CHECK(s.vma(TO).page_prot == RW_NX);
  CHECK(s.messages(id).empty());
  CHECK(s.write(TO).outcome == Outcome::done);
}

TEST_CASE("an armed anonymous page and an armed swap entry are disarmed likewise") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_WP);
  s.write(addr);
  s.write(addr + pages(1));
  s.protect(id, addr, 2);
  s.reclaim(addr + pages(1));
  CHECK(has(s.pte(addr + pages(1)), _PAGE_SWP_UFFD_WP));
  REQUIRE(s.mm->mremap(addr, pages(2), pages(2), FIXED, TO).ok());
  CHECK(s.flags_of(TO) == present(SAVED_DIRTY));
  CHECK_FALSE(has(s.pte(TO + pages(1)), _PAGE_SWP_UFFD_WP));
  CHECK(has(s.pte(TO + pages(1)), _PAGE_SWP_EXCLUSIVE));
}

TEST_CASE("the v2 series keeps the bits of a move that loses its registration") {
  Space s("uffd-wp-v2");
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP);
  s.write(addr);
  s.protect(id, addr, 2);
  REQUIRE(s.mm->mremap(addr, pages(2), pages(2), FIXED, TO).ok());
  CHECK(has(s.pte(TO), _PAGE_UFFD_WP));
  CHECK(s.pte(TO + pages(1)) == 4);
  CHECK_FALSE(has(s.vma(TO).flags, VM_UFFD_WP));
  s.read(TO + pages(1));  // 6.2: the marker is cleared by the first fault
  CHECK(s.flags_of(TO + pages(1)) == present(_PAGE_RW));
}

TEST_CASE("with EVENT_REMAP all stays and the message says where it went") {
  Space s;
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP, UFFD_FEATURE_EVENT_REMAP);
  s.write(addr);
  s.protect(id, addr, 2);
  const u64 armed = s.pte(addr);
  REQUIRE(s.mm->mremap(addr, pages(2), pages(2), FIXED, TO).ok());
  CHECK(s.pte(TO) == armed);
  CHECK(s.pte(TO + pages(1)) == WP_MARKER);
  CHECK(s.vma(TO).uffd == id);
  CHECK(s.mm->uffd_writeprotect(id, TO, pages(2), 0).error.cause == Cause::mmap_changing);
  const UffdMsg message = s.next_message(id);
  CHECK(message.event == UffdEvent::remap);
  CHECK(message.address == addr);
  CHECK(message.to == TO);
  CHECK(message.length == pages(2));
  s.resolve(id, TO, 2);
}

TEST_CASE("DONTUNMAP leaves an empty VMA behind, registered as it was") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_MISSING | MODE_WP);
  REQUIRE(s.mm->uffd_copy(id, addr, pages(1), 0).ok());
  const u64 to = s.mm->mremap(addr, pages(2), pages(2), DONTUNMAP, 0).value;
  CHECK(pte_present(s.pte(to)));
  CHECK(s.pte(addr) == 0);
  CHECK(s.vma(addr).uffd == id);
  CHECK(s.vma(to).uffd == NO_UFFD);
  CHECK(s.read(addr).outcome == Outcome::blocked);
}

TEST_CASE("soft-dirty comes on with the move; on markers from 5.19 on") {
  for (const auto& [name, marked, moved] :
       {std::tuple{"uffd-wp-v2", u64(4), u64(4)}, {"6.12", WP_MARKER, u64(0xfffffffffffffc02)}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.shmem(3);
    const UffdId id = s.watch(addr, 3, MODE_WP, UFFD_FEATURE_EVENT_REMAP);
    s.read(addr);
    s.protect(id, addr + pages(1), 1);
    CHECK(s.pte(addr + pages(1)) == marked);
    CHECK_FALSE(has(s.pte(addr), _PAGE_SOFT_DIRTY));
    REQUIRE(s.mm->mremap(addr, pages(3), pages(3), FIXED, TO).ok());
    CHECK(has(s.pte(TO), _PAGE_SOFT_DIRTY));
    CHECK(s.pte(TO + pages(1)) == moved);
    CHECK(s.pte(TO + pages(2)) == 0);
  }
}

TEST_CASE(
    "several VMAs: 6.17 on moves each, gaps and what lies opposite them stay; before, EFAULT") {
  for (const auto& [name, cause] : {std::pair{"6.12", Cause::crosses_vma}, {"6.18", Cause::none}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(3);
    REQUIRE(s.mm->munmap(addr + pages(1), pages(1)).ok());
    s.write(addr);
    s.write(addr + pages(2));
    REQUIRE(s.mm->mmap(TO, pages(3), PROT_READ_, 0x32, NO_FILE, 0).ok());
    CHECK(cause_of(s, addr, 3, 3, FIXED, TO) == cause);
    if (cause != Cause::none) continue;
    CHECK(pte_present(s.pte(TO)));
    CHECK(pte_present(s.pte(TO + pages(2))));
    CHECK(s.vma(TO + pages(1)).flags == (VM_READ | 0x70));
    CHECK(s.mm->vmas.find(addr) == nullptr);
  }
}

TEST_CASE("6.18: of several VMAs none may have a userfaultfd") {
  Space s;
  const u64 addr = s.anon(2);
  s.watch(addr + pages(1), 1, MODE_MISSING);
  s.write(addr);
  CHECK(cause_of(s, addr, 2, 2, FIXED, TO) == Cause::crosses_vma);
  CHECK(pte_present(s.pte(TO)));  // the first has moved by then
  CHECK(s.mm->vmas.find(addr + pages(1)) != nullptr);
}

TEST_CASE("whole PTE tables move; move_page_tables otherwise goes entry by entry") {
  Space s;
  const u64 addr = s.anon(1024);
  s.write(addr + PMD_SIZE);
  const u64 table = *s.mm->tables.find(addr + PMD_SIZE, PMD_LEVEL);
  const u64 entry = s.pte(addr + PMD_SIZE);
  REQUIRE(s.mm->mremap(addr, pages(1024), pages(1024), FIXED, TO).ok());
  CHECK(*s.mm->tables.find(TO + PMD_SIZE, PMD_LEVEL) == table);
  CHECK(s.pte(TO + PMD_SIZE) == entry);
  REQUIRE(s.mm->mremap(TO, pages(1024), pages(1024), FIXED, addr + PMD_SIZE / 2).ok());
  CHECK(s.pte(addr + PMD_SIZE / 2 + PMD_SIZE) == entry);
}
