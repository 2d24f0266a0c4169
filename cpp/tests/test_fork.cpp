// fork(2): which VMAs and tables the child gets, and what the copy changes on both sides.
#include "ptwalk/madvise.hpp"

#include "space.hpp"

using namespace ptwalk;

namespace {

using Child = std::shared_ptr<AddressSpace>;

u64 pte_of(const Child& child, u64 addr) {
  const u64* found = child->tables.find(addr, PTE_LEVEL);
  return found ? *found : 0;
}

}  // namespace

TEST_CASE("copy_present_ptes: private writable pages become read-only and shared on both sides") {
  Space s;
  const u64 addr = s.anon(2);
  s.write(addr);
  s.read(addr + pages(1));
  const Child child = s.mm->fork().value;
  CHECK(s.flags_of(addr) == present(SAVED_DIRTY));
  CHECK(bits(pte_of(child, addr)) == (present(SAVED_DIRTY) & ~_PAGE_ACCESSED));
  CHECK(pte_pfn(pte_of(child, addr)) == pte_pfn(s.pte(addr)));
  CHECK_FALSE(s.anon_exclusive(addr));
  CHECK(s.page(addr).mapcount == 2);
  CHECK(bits(pte_of(child, addr + pages(1))) == (present(_PAGE_SPECIAL) & ~_PAGE_ACCESSED));
  // The first to write gets a copy, the last keeps the page.
  const Pfn pfn = pte_pfn(s.pte(addr));
  REQUIRE(child->access(addr, true).ok());
  CHECK(pte_pfn(pte_of(child, addr)) != pfn);
  s.write(addr);
  CHECK(pte_pfn(s.pte(addr)) == pfn);
  CHECK(s.anon_exclusive(addr));
}

TEST_CASE("a shared mapping without anonymous pages starts with empty tables") {
  Space s;
  const u64 addr = s.shmem(1);
  s.write(addr);
  const Child child = s.mm->fork().value;
  CHECK(child->tables.nr_tables() == 0);
  CHECK(s.flags_of(addr) == present(_PAGE_RW | _PAGE_DIRTY));
  CHECK(child->access(addr, false).value.outcome == Outcome::done);
  CHECK(s.page(addr).mapcount == 2);
}

TEST_CASE("an anonymous VMA that holds only zero pages has no anon_vma and is not copied") {
  Space s;
  const u64 addr = s.anon(1);
  s.read(addr);
  CHECK(s.vma(addr).anon_vma == 0);
  const Child child = s.mm->fork().value;
  CHECK(pte_of(child, addr) == 0);
}

TEST_CASE("without EVENT_FORK the child is not registered, and is disarmed") {
  Space s;
  const u64 addr = s.private_shmem(4);
  const UffdId id = s.watch(addr, 4, MODE_WP);
  s.write(addr);
  s.write(addr + pages(1));
  s.protect(id, addr, 4);
  s.reclaim(addr + pages(1));
  const u64 armed = s.pte(addr), swapped = s.pte(addr + pages(1));
  CHECK(has(swapped, _PAGE_SWP_UFFD_WP | _PAGE_SWP_EXCLUSIVE));
  const Child child = s.mm->fork().value;
  CHECK(child->vmas.find(addr)->uffd == NO_UFFD);
  CHECK_FALSE(has(child->vmas.find(addr)->flags, VM_UFFD_WP));
  CHECK_FALSE(has(pte_of(child, addr), _PAGE_UFFD_WP));
  CHECK(pte_of(child, addr + pages(1)) == (swapped & ~_PAGE_SWP_UFFD_WP & ~_PAGE_SWP_EXCLUSIVE));
  CHECK(pte_of(child, addr + pages(2)) == 0);
  // The parent keeps its protection; only the swap entry stops being exclusive.
  CHECK(s.pte(addr) == armed);
  CHECK(s.pte(addr + pages(1)) == (swapped & ~_PAGE_SWP_EXCLUSIVE));
  CHECK(s.pte(addr + pages(2)) == WP_MARKER);
  CHECK(s.messages(id).empty());
}

TEST_CASE("with EVENT_FORK the child has a context of its own and all protection is copied") {
  Space s;
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP, UFFD_FEATURE_EVENT_FORK);
  s.write(addr);
  s.protect(id, addr, 2);
  const Child child = s.mm->fork().value;
  CHECK(s.mm->uffd_writeprotect(id, addr, pages(1), 0).error.cause == Cause::mmap_changing);
  const UffdMsg message = s.next_message(id);
  CHECK(message.event == UffdEvent::fork);
  CHECK(message.child == child->vmas.find(addr)->uffd);
  CHECK(s.machine->uffds[u64(message.child)].mm == child.get());
  // Shared memory: the child's entry is clean and old, and as armed as the parent's.
  CHECK(bits(pte_of(child, addr)) == (present(_PAGE_UFFD_WP) & ~_PAGE_ACCESSED));
  CHECK(pte_of(child, addr + pages(1)) == WP_MARKER);
  CHECK(child->access(addr, true).value.message->flags == 3);
}

TEST_CASE("poison and guards reach the child in any case") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_MISSING);
  REQUIRE(s.mm->uffd_poison(id, addr, pages(1), 0).ok());
  REQUIRE(s.mm->madvise(addr + pages(1), pages(1), MADV_GUARD_INSTALL_).ok());
  const Child child = s.mm->fork().value;
  CHECK(pte_of(child, addr) == POISON_MARKER);
  CHECK(pte_of(child, addr + pages(1)) == GUARD_MARKER);
}

TEST_CASE("F22 to F24: the v2 series copies markers only where there is an anon_vma") {
  Space s("uffd-wp-v2");
  const u64 shared = s.shmem(1), copies = s.private_shmem(2), plain = s.private_shmem(2);
  const UffdId forks = s.uffd(UFFD_FEATURE_EVENT_FORK), stays = s.uffd();
  REQUIRE(s.mm->uffd_register(forks, shared, pages(1), MODE_WP).ok());
  REQUIRE(s.mm->uffd_register(forks, copies, pages(2), MODE_WP).ok());
  REQUIRE(s.mm->uffd_register(stays, plain, pages(2), MODE_WP).ok());
  s.write(copies + pages(1));
  s.write(plain + pages(1));
  s.protect(forks, shared, 1);
  s.protect(forks, copies, 2);
  s.protect(stays, plain, 2);
  const Child child = s.mm->fork().value;
  CHECK(pte_of(child, copies) == 4);  // F22
  CHECK(has(pte_of(child, copies + pages(1)), _PAGE_UFFD_WP));
  CHECK(pte_of(child, plain) == 0);  // F23
  CHECK(s.pte(plain) == 4);
  CHECK_FALSE(has(pte_of(child, plain + pages(1)), _PAGE_UFFD_WP));
  CHECK(pte_of(child, shared) == 0);  // F24
}

TEST_CASE("writable migration entries become readable on both sides (copy_nonpresent_pte)") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  Child child;
  s.migrate(addr, [&] {
    CHECK(s.kind_of(addr) == SwpKind::migration_write);
    child = s.mm->fork().value;
    CHECK(s.kind_of(addr) == SwpKind::migration_read);
    CHECK(pte_of(child, addr) == s.pte(addr));
  });
  CHECK(pte_pfn(pte_of(child, addr)) == pte_pfn(s.pte(addr)));
  CHECK(s.page(addr).mapcount == 2);
}

TEST_CASE("DONTFORK, WIPEONFORK and locks: what the child does not get") {
  Space s;
  const u64 gone = s.anon(1), wiped = s.anon(1), locked = s.anon(1);
  for (u64 addr : {gone, wiped, locked}) s.write(addr);
  REQUIRE(s.mm->madvise(gone, pages(1), MADV_DONTFORK_).ok());
  REQUIRE(s.mm->madvise(wiped, pages(1), MADV_WIPEONFORK_).ok());
  REQUIRE(s.mm->mlock(locked, pages(1)).ok());
  const Child child = s.mm->fork().value;
  CHECK(child->vmas.find(gone) == nullptr);
  CHECK(pte_of(child, wiped) == 0);
  CHECK(child->vmas.find(wiped)->anon_vma == 0);
  CHECK_FALSE(has(child->vmas.find(locked)->flags, VM_LOCKED));
  CHECK(pte_present(pte_of(child, locked)));
}

TEST_CASE(
    "the child's word of a shared mapping is not write-protected by the parent's userfaultfd") {
  Space s;
  const u64 addr = s.shmem(1);
  s.watch(addr, 1, MODE_WP);
  CHECK(s.vma(addr).page_prot == RO_NX);
  CHECK(s.mm->fork().value->vmas.find(addr)->page_prot == RW_NX);
}

TEST_CASE("pages of a forked VMA are found by the reverse map in both") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  const Child child = s.mm->fork().value;
  s.reclaim(addr);
  CHECK(is_swap_pte(s.pte(addr)));
  CHECK(swp_offset(pte_of(child, addr)) == swp_offset(s.pte(addr)));
  CHECK_FALSE(has(s.pte(addr), _PAGE_SWP_EXCLUSIVE));
}
