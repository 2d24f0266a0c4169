// madvise(2): each advice that changes entries, what it refuses, and the messages that it sends.
#include "ptwalk/madvise.hpp"

#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);

Cause advise(Space& s, u64 addr, u64 nr, int advice) {
  return s.mm->madvise(addr, pages(nr), advice).cause;
}

}  // namespace

TEST_CASE("do_madvise: checks, and a hole is ENOMEM after the mapped part was done") {
  Space s;
  const u64 addr = s.anon(4);
  for (u64 i = 0; i < 4; ++i) s.write(addr + pages(i));
  REQUIRE(s.mm->munmap(addr + pages(1), pages(1)).ok());
  CHECK(advise(s, addr, 4, 12345) == Cause::unknown_advice);
  CHECK(s.mm->madvise(addr + 1, pages(1), MADV_DONTNEED_).cause == Cause::start_unaligned);
  CHECK(s.mm->madvise(addr, ~0ull, MADV_DONTNEED_).cause == Cause::wraps);
  CHECK(advise(s, addr, 0, MADV_DONTNEED_) == Cause::none);
  CHECK(advise(s, addr, 4, MADV_DONTNEED_) == Cause::hole);
  for (u64 i = 0; i < 4; ++i) CHECK(s.pte(addr + pages(i)) == 0);
  CHECK(s.machine->pages.in_use() == 0);
  CHECK(advise(s, addr, 1, 2) == Cause::none);  // MADV_SEQUENTIAL only tunes readahead
}

TEST_CASE("DONTNEED: refused on locked memory, markers of a file stay, the message comes first") {
  Space s;
  const u64 addr = s.shmem(3), locked = s.anon(1);
  const UffdId id = s.watch(addr, 3, MODE_WP, UFFD_FEATURE_EVENT_REMOVE);
  s.write(addr);
  s.write(addr + pages(1));
  s.protect(id, addr, 1);
  s.protect(id, addr + pages(2), 1);
  CHECK(advise(s, addr, 3, MADV_DONTNEED_) == Cause::none);
  const UffdMsg message = s.next_message(id);
  CHECK(message.event == UffdEvent::remove);
  CHECK(message.address == addr);
  CHECK(message.to == addr + pages(3));
  CHECK(s.pte(addr) == WP_MARKER);  // armed, so that it stays known
  CHECK(s.pte(addr + pages(1)) == 0);
  CHECK(s.pte(addr + pages(2)) == WP_MARKER);

  REQUIRE(s.mm->mlock(locked, pages(1)).ok());
  CHECK(advise(s, locked, 1, MADV_DONTNEED_) == Cause::locked_vma);
  CHECK(pte_present(s.pte(locked)));
  CHECK(advise(s, locked, 1, MADV_DONTNEED_LOCKED_) == Cause::none);
  CHECK(s.pte(locked) == 0);
  Space old("uffd-wp-v2");
  CHECK(advise(old, old.anon(1), 1, MADV_DONTNEED_LOCKED_) == Cause::unknown_advice);
}

TEST_CASE("CONFIG_PT_RECLAIM: DONTNEED of whole 2 MiB frees the PTE table, from 6.14 on") {
  for (const auto& [name, freed] : {std::pair{"6.12", 0u}, {"6.18", 1u}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(1024);
    s.write(addr);
    s.write(addr + PMD_SIZE);
    const u64 before = s.mm->tables.nr_tables();
    // The second table is covered in part only.
    REQUIRE(s.mm->madvise(addr, PMD_SIZE + pages(511), MADV_DONTNEED_).ok());
    CHECK(s.mm->tables.nr_tables() == before - freed);
  }
}

TEST_CASE("madvise_free_pte_range: old and clean, armed and writable as before") {
  Space s;
  const u64 addr = s.anon(6);
  const UffdId id = s.watch(addr, 6, MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
  for (u64 i = 0; i < 3; ++i) s.write(addr + pages(i));
  s.read(addr + pages(3));
  s.protect(id, addr + pages(1), 1);
  s.protect(id, addr + pages(4), 1);
  s.reclaim(addr + pages(2));
  REQUIRE(s.mm->uffd_poison(id, addr + pages(5), pages(1), 0).ok());
  CHECK(advise(s, addr, 6, MADV_FREE_) == Cause::none);
  CHECK(s.flags_of(addr) == (RW_DIRTY & ~_PAGE_ACCESSED & ~_PAGE_DIRTY));
  CHECK(s.flags_of(addr + pages(1)) == (present(_PAGE_UFFD_WP) & ~_PAGE_ACCESSED));
  CHECK(s.pte(addr + pages(2)) == 0);                            // was in swap
  CHECK(s.flags_of(addr + pages(3)) == present(_PAGE_SPECIAL));  // the zero page
  CHECK(s.pte(addr + pages(4)) == WP_MARKER);
  CHECK(s.pte(addr + pages(5)) == 0);  // was poisoned
  // Clean it goes; written again it is swapped out like any other.
  s.reclaim(addr);
  CHECK(s.pte(addr) == 0);
}

TEST_CASE("a page that is written after MADV_FREE is kept") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  REQUIRE(advise(s, addr, 1, MADV_FREE_) == Cause::none);
  s.write(addr);
  s.reclaim(addr);
  CHECK(is_swap_pte(s.pte(addr)));
}

TEST_CASE("MADV_FREE is for anonymous memory that is not locked") {
  Space s;
  const u64 file = s.private_shmem(1), locked = s.map(1, PROT_RW, 0x2022);
  CHECK(advise(s, file, 1, MADV_FREE_) == Cause::bad_advice);
  CHECK(advise(s, locked, 1, MADV_FREE_) == Cause::locked_vma);
}

TEST_CASE("COLD clears A; PAGEOUT reclaims now, those that the caller says could be isolated") {
  Space s;
  const u64 addr = s.anon(3), file = s.shmem(2);
  for (u64 i = 0; i < 3; ++i) s.write(addr + pages(i));
  const UffdId id = s.watch(file, 2, MODE_WP);
  s.write(file);
  s.write(file + pages(1));
  s.protect(id, file, 1);
  REQUIRE(advise(s, addr, 1, MADV_COLD_) == Cause::none);
  CHECK(s.flags_of(addr) == (RW_DIRTY & ~_PAGE_ACCESSED));
  const std::vector<u64> victims{addr + pages(1)};
  REQUIRE(s.mm->madvise(addr + pages(1), pages(2), MADV_PAGEOUT_, &victims).ok());
  CHECK(is_swap_pte(s.pte(addr + pages(1))));
  CHECK(s.flags_of(addr + pages(2)) == RW_DIRTY);  // A stays too, from 6.5 on
  REQUIRE(advise(s, file, 2, MADV_PAGEOUT_) == Cause::none);
  CHECK(s.pte(file) == WP_MARKER);
  CHECK(s.pte(file + pages(1)) == 0);
  CHECK(s.machine->cached_page(s.file, 1) == 0);
}

TEST_CASE("PAGEOUT leaves pages with another mapping") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  const auto child = s.mm->fork().value;
  REQUIRE(advise(s, addr, 1, MADV_PAGEOUT_) == Cause::none);
  CHECK(pte_present(s.pte(addr)));
}

TEST_CASE("REMOVE punches the file through a shared mapping that may be written") {
  Space s;
  const u64 addr = s.shmem(3), copies = s.private_shmem(1), anon = s.anon(1);
  s.write(addr + pages(1));
  const FileId file = s.vma(addr).file;
  REQUIRE(s.mm->mprotect(addr, pages(3), 0).ok());
  CHECK(advise(s, addr + pages(1), 1, MADV_REMOVE_) == Cause::none);  // VM_MAYWRITE decides
  CHECK(s.pte(addr + pages(1)) == 0);
  CHECK(s.machine->cached_page(file, 1) == 0);
  CHECK(advise(s, copies, 1, MADV_REMOVE_) == Cause::may_not);
  CHECK(advise(s, anon, 1, MADV_REMOVE_) == Cause::bad_advice);
  REQUIRE(s.mm->mlock(copies, pages(1)).ok());
  CHECK(advise(s, copies, 1, MADV_REMOVE_) == Cause::locked_vma);
}

TEST_CASE("POPULATE_READ and POPULATE_WRITE fault in, and leave alone what allows the access") {
  Space s;
  const u64 addr = s.anon(2), ro = s.anon(1, PROT_READ_);
  REQUIRE(advise(s, addr, 1, MADV_POPULATE_READ_) == Cause::none);
  CHECK(s.flags_of(addr) == present(_PAGE_SPECIAL));
  REQUIRE(advise(s, addr, 2, MADV_POPULATE_WRITE_) == Cause::none);
  CHECK(s.flags_of(addr) == RW_DIRTY);
  REQUIRE(advise(s, addr, 2, MADV_COLD_) == Cause::none);
  REQUIRE(advise(s, addr, 2, MADV_POPULATE_WRITE_) == Cause::none);
  CHECK_FALSE(has(s.pte(addr), _PAGE_ACCESSED));
  CHECK(advise(s, ro, 1, MADV_POPULATE_WRITE_) == Cause::gup_refused);
  CHECK(advise(s, ro, 2, MADV_POPULATE_READ_) == Cause::hole);
  CHECK(pte_present(s.pte(ro)));
  const UffdId id = s.watch(ro, 1, MODE_WP, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_UNPOPULATED);
  REQUIRE(s.mm->mprotect(ro, pages(1), PROT_RW).ok());
  s.protect(id, ro, 1);
  CHECK(advise(s, ro, 1, MADV_POPULATE_WRITE_) == Cause::page_fault_failed);
  Space old("uffd-wp-v2");
  CHECK(advise(old, old.anon(1), 1, MADV_POPULATE_READ_) == Cause::unknown_advice);
}

TEST_CASE("GUARD_INSTALL: every entry becomes a guard, and an access is SEGV_MAPERR") {
  Space s;
  const u64 addr = s.anon(4);
  const UffdId id = s.watch(addr, 4, MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
  s.write(addr);
  s.protect(id, addr + pages(1), 1);
  REQUIRE(advise(s, addr, 3, MADV_GUARD_INSTALL_) == Cause::none);
  for (u64 i = 0; i < 3; ++i) CHECK(s.pte(addr + pages(i)) == GUARD_MARKER);
  CHECK(s.read(addr).signal.signo == 11);
  CHECK(s.read(addr).signal.code == 1);
  CHECK(s.vma(addr).anon_vma != 0);  // so that fork copies it

  // It survives DONTNEED, mprotect and both halves of wr-protection.
  REQUIRE(advise(s, addr, 3, MADV_DONTNEED_) == Cause::none);
  REQUIRE(s.mm->mprotect(addr, pages(3), PROT_READ_).ok());
  REQUIRE(s.mm->mprotect(addr, pages(3), PROT_RW).ok());
  s.protect(id, addr, 3);
  s.resolve(id, addr, 3);
  for (u64 i = 0; i < 3; ++i) CHECK(s.pte(addr + pages(i)) == GUARD_MARKER);
  const auto child = s.mm->fork().value;
  CHECK(*child->tables.find(addr, PTE_LEVEL) == GUARD_MARKER);

  s.write(addr + pages(3));
  REQUIRE(advise(s, addr + pages(1), 3, MADV_GUARD_REMOVE_) == Cause::none);
  CHECK(s.pte(addr) == GUARD_MARKER);
  CHECK(s.pte(addr + pages(1)) == 0);
  CHECK(pte_present(s.pte(addr + pages(3))));
}

TEST_CASE(
    "GUARD_INSTALL: refused on locked memory, unknown before 6.13, endless over armed files") {
  Space s;
  const u64 locked = s.map(1, PROT_RW, 0x2022), file = s.shmem(2);
  CHECK(advise(s, locked, 1, MADV_GUARD_INSTALL_) == Cause::locked_vma);
  CHECK(advise(s, file, 1, MADV_GUARD_INSTALL_) == Cause::none);
  CHECK(s.pte(file) == GUARD_MARKER);
  s.protect(s.watch(file, 2, MODE_WP), file + pages(1), 1);
  CHECK(advise(s, file, 2, MADV_GUARD_INSTALL_) == Cause::guard_livelock);
  Space old("6.12");
  CHECK(advise(old, old.anon(1), 1, MADV_GUARD_INSTALL_) == Cause::unknown_advice);
}

TEST_CASE(
    "advice that sets VMA flags splits and merges; WIPEONFORK is for private anonymous memory") {
  Space s;
  const u64 addr = s.anon(3), file = s.private_shmem(1);
  CHECK(advise(s, addr + pages(1), 1, MADV_DONTFORK_) == Cause::none);
  CHECK(has(s.vma(addr + pages(1)).flags, VM_DONTCOPY));
  CHECK(s.nr_vmas() == 4);
  CHECK(advise(s, addr, 3, MADV_DOFORK_) == Cause::none);
  CHECK(s.nr_vmas() == 2);
  CHECK(advise(s, addr, 3, MADV_HUGEPAGE_) == Cause::none);
  CHECK(advise(s, addr, 3, MADV_NOHUGEPAGE_) == Cause::none);
  CHECK((s.vma(addr).flags & (VM_HUGEPAGE | VM_NOHUGEPAGE)) == VM_NOHUGEPAGE);
  CHECK(advise(s, file, 1, MADV_WIPEONFORK_) == Cause::bad_advice);
  CHECK(advise(s, addr, 3, MADV_WIPEONFORK_) == Cause::none);
  CHECK(advise(s, addr, 3, MADV_KEEPONFORK_) == Cause::none);
  CHECK_FALSE(has(s.vma(addr).flags, VM_WIPEONFORK));
}

TEST_CASE("POPULATE_READ goes up to the first hole, beyond the end of user memory too") {
  Space s("6.18");
  const u64 addr = s.anon(2);
  for (const u64 length : {pages(3), s.mm->task_size(), u64(1) << 63})
    CHECK(s.mm->madvise(addr, length, MADV_POPULATE_READ_).cause == Cause::hole);
  CHECK(pte_present(s.pte(addr + pages(1))));
}
