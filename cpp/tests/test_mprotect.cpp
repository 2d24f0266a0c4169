// mprotect(2): its checks, the VMAs, and what becomes of entries; and change_protection() over
// VMAs.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);

Cause cause_of(Space& s, u64 start, u64 length, int prot) {
  return s.mm->mprotect(start, length, prot).error.cause;
}

}  // namespace

TEST_CASE("do_mprotect_pkey: checks in the kernel's order") {
  constexpr int DOWN = 0x01000000, UP = 0x02000000;
  Space s;
  const u64 addr = s.anon(4);
  CHECK(cause_of(s, addr + 1, 0, DOWN | UP) == Cause::grow_both);
  CHECK(cause_of(s, addr + 1, 0, PROT_READ_) == Cause::start_unaligned);
  CHECK(cause_of(s, addr, 0, 0x100) == Cause::none);  // length 0 comes before the bits
  CHECK(cause_of(s, addr, ~0ull - pages(1), 0x100) == Cause::length_overflow);
  CHECK(cause_of(s, addr, pages(1), 0x100) == Cause::bad_prot);
  CHECK(cause_of(s, addr, pages(1), PROT_READ_ | 8) == Cause::none);  // PROT_SEM
  CHECK(cause_of(s, BASE - pages(1), pages(2), PROT_READ_) == Cause::hole);
  CHECK(cause_of(s, addr, pages(1), PROT_RW | DOWN) == Cause::bad_prot);
}

TEST_CASE("a hole is ENOMEM and a missing right EACCES; VMAs before it stay changed") {
  Space s;
  const u64 addr = s.anon(4);
  REQUIRE(s.mm->munmap(addr + pages(2), pages(1)).ok());
  CHECK(cause_of(s, addr, pages(4), PROT_READ_) == Cause::hole);
  CHECK_FALSE(has(s.vma(addr).flags, VM_WRITE));
  CHECK(has(s.vma(addr + pages(3)).flags, VM_WRITE));

  const FileId readonly = s.machine->create_file(FileKind::shmem, pages(1), false);
  const u64 seen = s.map(1, PROT_READ_, MAP_SHARED_, readonly);
  CHECK(cause_of(s, seen, pages(1), PROT_RW) == Cause::may_not);
  CHECK(cause_of(s, seen, pages(1), PROT_READ_ | PROT_EXEC_) == Cause::none);
}

TEST_CASE("mprotect_fixup: equal flags walk nothing; others split and merge") {
  Space s;
  const u64 addr = s.anon(4);
  for (u64 i = 0; i < 4; ++i) s.write(addr + pages(i));
  CHECK(s.mm->mprotect(addr, pages(4), PROT_RW).value.present == 0);
  const ProtectResult r = s.mm->mprotect(addr + pages(1), pages(2), PROT_READ_).value;
  CHECK(r.pages == 2);
  CHECK(r.flush == Range{addr + pages(1), addr + pages(3)});
  CHECK(s.nr_vmas() == 3);
  REQUIRE(s.mm->mprotect(addr + pages(1), pages(2), PROT_RW).ok());
  CHECK(s.nr_vmas() == 1);
}

TEST_CASE(
    "anonymous memory to read-only and back: D hides, and an exclusive page gets RW at once") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  REQUIRE(s.mm->mprotect(addr, pages(1), PROT_READ_).ok());
  CHECK(s.flags_of(addr) == present(SAVED_DIRTY));
  CHECK(s.write(addr).signal.code == 2);  // SEGV_ACCERR
  REQUIRE(s.mm->mprotect(addr, pages(1), PROT_RW).ok());
  CHECK(s.flags_of(addr) == RW_DIRTY);
}

TEST_CASE("a page shared by fork stays read-only until a write fault, the sharer gone or not") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  const Pfn pfn = pte_pfn(s.pte(addr));
  s.mm->fork().value.reset();
  REQUIRE(s.mm->mprotect(addr, pages(1), PROT_READ_).ok());
  REQUIRE(s.mm->mprotect(addr, pages(1), PROT_RW).ok());
  CHECK(s.flags_of(addr) == present(SAVED_DIRTY));
  s.write(addr);
  CHECK(s.flags_of(addr) == RW_DIRTY);
  CHECK(pte_pfn(s.pte(addr)) == pfn);  // reused in place
}

TEST_CASE("the zero page and the cache pages of a private mapping never get RW by mprotect") {
  Space s;
  const u64 zero = s.anon(1), cached = s.private_shmem(1);
  s.read(zero);
  s.read(cached);
  for (u64 addr : {zero, cached}) {
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_READ_).ok());
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_RW).ok());
    CHECK_FALSE(has(s.pte(addr), _PAGE_RW));
  }
}

TEST_CASE("PROT_NONE inverts the frame and keeps the page; 6.1 has no SAVED_DIRTY") {
  for (const auto& [name, saved] : {std::pair{"6.18", SAVED_DIRTY}, {"6.1", u64(_PAGE_DIRTY)}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(1);
    s.write(addr);
    const Pfn pfn = pte_pfn(s.pte(addr));
    REQUIRE(s.mm->mprotect(addr, pages(1), 0).ok());
    const u64 soft = s.machine->profile.soft_dirty_bit();
    CHECK(s.flags_of(addr) == (_PAGE_ACCESSED | _PAGE_PROTNONE | saved | soft));
    CHECK((s.pte(addr) & PTE_PFN_MASK) == (~(pfn << PAGE_SHIFT) & PTE_PFN_MASK));
    CHECK(s.read(addr).signal.code == 2);
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_RW).ok());
    CHECK(s.flags_of(addr) == (RW_DIRTY | soft));
    CHECK(pte_pfn(s.pte(addr)) == pfn);
  }
}

TEST_CASE("B05, HZ1: the v2 series lets mprotect re-open an armed page of a shared mapping") {
  for (const auto& [name, reopened] :
       {std::pair{"uffd-wp-v2", true}, {"6.1", false}, {"6.12", false}, {"6.18", false}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.shmem(1);
    const UffdId id = s.watch(addr, 1, MODE_WP);
    s.write(addr);
    s.protect(id, addr, 1);
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_READ_).ok());
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_RW).ok());
    CHECK(has(s.pte(addr), _PAGE_UFFD_WP));
    CHECK(has(s.pte(addr), _PAGE_RW) == reopened);
    const AccessResult again = s.write(addr);
    CHECK(again.outcome == (reopened ? Outcome::done : Outcome::blocked));
  }
}

TEST_CASE("markers and swap entries stay as they are") {
  Space s;
  const u64 file = s.shmem(1), addr = s.anon(1);
  s.protect(s.watch(file, 1, MODE_WP), file, 1);
  s.write(addr);
  s.reclaim(addr);
  const u64 swapped = s.pte(addr);
  CHECK(has(swapped, _PAGE_SWP_EXCLUSIVE));
  for (u64 at : {file, addr}) CHECK(s.mm->mprotect(at, pages(1), 0).value.pages == 0);
  CHECK(s.pte(file) == WP_MARKER);
  CHECK(s.pte(addr) == swapped);
}

TEST_CASE(
    "VM_ACCOUNT comes with the first write permission; 6.12 on drops it without an anon_vma") {
  for (const auto& [name, drops] : {std::pair{"6.1", false}, {"6.12", true}, {"6.18", true}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(1, PROT_READ_), used = s.anon(1);
    CHECK_FALSE(has(s.vma(addr).flags, VM_ACCOUNT));
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_RW).ok());
    CHECK(has(s.vma(addr).flags, VM_ACCOUNT));
    REQUIRE(s.mm->mprotect(addr, pages(1), PROT_READ_).ok());
    CHECK(has(s.vma(addr).flags, VM_ACCOUNT) == !drops);
    s.write(used);
    REQUIRE(s.mm->mprotect(used, pages(1), PROT_READ_).ok());
    CHECK(has(s.vma(used).flags, VM_ACCOUNT));
  }
}

TEST_CASE("change_protection() over VMAs: what it refuses, and one account for all") {
  Space s;
  const u64 addr = s.anon(4);
  const auto cause = [&](u64 start, u64 end, u32 cp_flags) {
    return s.mm->change_protection(start, end, RO_NX, cp_flags).error.cause;
  };
  CHECK(cause(addr, addr, 0) == Cause::range_backwards);
  CHECK(cause(addr + pages(1), addr, 0) == Cause::range_backwards);
  CHECK(cause(addr + 1, addr + pages(1), 0) == Cause::range_unaligned);
  CHECK(cause(addr, 1ull << 60, 0) == Cause::entry_not_canonical);
  CHECK(cause(addr, addr + pages(1), 16) == Cause::unknown_cp_flag);
  CHECK(cause(addr, addr + pages(1), MM_CP_UFFD_WP_ALL) == Cause::both_wp_and_resolve);
  CHECK(cause(addr, addr + pages(5), 0) == Cause::vma_missing);
  REQUIRE(s.mm->mprotect(addr + pages(2), pages(2), PROT_READ_).ok());
  for (u64 i = 0; i < 4; ++i) s.read(addr + pages(i));
  CHECK(s.mm->change_protection(addr, addr + pages(4), RO_NX, 0).value.pages == 4);
}
