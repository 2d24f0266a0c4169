// mlock(2) and munlock(2): the flag VMA by VMA, then the pages.
#include "space.hpp"

using namespace ptwalk;

TEST_CASE("mlock brings pages in as the VMA allows and splits it") {
  Space s;
  const u64 addr = s.anon(4), shared = s.shmem(2, PROT_READ_);
  REQUIRE(s.mm->mlock(addr + pages(1) + 5, pages(1)).ok());  // touches two pages
  CHECK(s.pte(addr) == 0);
  CHECK(s.flags_of(addr + pages(1)) == present(_PAGE_RW | _PAGE_DIRTY));
  CHECK(s.flags_of(addr + pages(2)) == present(_PAGE_RW | _PAGE_DIRTY));
  CHECK(has(s.vma(addr + pages(1)).flags, VM_LOCKED));
  CHECK(s.vma(addr + pages(1)).end == addr + pages(3));
  CHECK_FALSE(has(s.vma(addr).flags, VM_LOCKED));
  REQUIRE(s.mm->mlock(shared, pages(2)).ok());
  CHECK(s.flags_of(shared) == present());
  REQUIRE(s.mm->munlock(addr, pages(4)).ok());
  CHECK(s.vma(addr).end == addr + pages(4));
  CHECK(pte_present(s.pte(addr + pages(1))));
}

TEST_CASE("do_mlock: up to the first hole the flag is set, and nothing is populated") {
  Space s;
  const u64 addr = s.anon(4);
  REQUIRE(s.mm->munmap(addr + pages(2), pages(1)).ok());
  CHECK(s.mm->mlock(addr, pages(4)).cause == Cause::hole);
  CHECK(has(s.vma(addr).flags, VM_LOCKED));
  CHECK(s.pte(addr) == 0);
  CHECK(s.mm->mlock(addr + pages(2), pages(1)).cause == Cause::hole);
  CHECK(s.mm->mlock(addr, 0).ok());
  CHECK(s.mm->mlock(~0ull - pages(4), pages(2)).cause == Cause::hole);
  CHECK(s.mm->mlock(addr, ~0ull - addr - pages(1)).cause == Cause::hole);
  CHECK(s.mm->mlock(addr, ~0ull - pages(2)).cause == Cause::wraps);
}

TEST_CASE("a page that cannot be faulted in is ENOMEM; the range is locked all the same") {
  Space s;
  const u64 anon = s.anon(1);
  const u64 addr = s.shmem(2);
  s.machine->file_truncate(s.file, pages(1));
  Error error = s.mm->mlock(addr, pages(2));
  CHECK(error.cause == Cause::lock_fault_failed);
  CHECK(error.a == addr + pages(1));
  CHECK(has(s.vma(addr).flags, VM_LOCKED));
  CHECK(pte_present(s.pte(addr)));
  // The address is right in the second VMA of the range, too.
  REQUIRE(s.mm->mmap(anon + pages(1), pages(1), PROT_RW, MAP_SHARED_ | MAP_FIXED_, s.file, pages(1))
              .ok());
  error = s.mm->mlock(anon, pages(2));
  CHECK(error.cause == Cause::lock_fault_failed);
  CHECK(error.a == anon + pages(1));
}

TEST_CASE("a fault that waits for its handler does not fail mlock") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_MISSING);
  CHECK(s.mm->mlock(addr, pages(2)).ok());
  CHECK(s.messages(id).size() == 1);
  CHECK(s.pte(addr) == 0);
}

TEST_CASE("mprotect that makes locked private memory writable populates it") {
  Space s;
  const u64 addr = s.anon(2, PROT_READ_);
  REQUIRE(s.mm->mlock(addr, pages(2)).ok());
  CHECK(s.flags_of(addr) == present(_PAGE_SPECIAL));
  REQUIRE(s.mm->mprotect(addr, pages(2), PROT_RW).ok());
  CHECK(s.flags_of(addr) == present(_PAGE_RW | _PAGE_DIRTY));
}
