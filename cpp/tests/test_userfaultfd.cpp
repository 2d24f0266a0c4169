// userfaultfd(2): features, registration, write protection, waking and closing.
#include "ptwalk/userfaultfd.hpp"

#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);

Cause wp_cause(Space& s, UffdId id, u64 start, u64 length, u64 mode) {
  return s.mm->uffd_writeprotect(id, start, length, mode).error.cause;
}

Cause register_cause(Space& s, UffdId id, u64 addr, u64 nr, u64 mode) {
  return s.mm->uffd_register(id, addr, pages(nr), mode).error.cause;
}

}  // namespace

TEST_CASE("UFFDIO_API: features that the kernel has; WP_ASYNC brings WP_UNPOPULATED") {
  Space s, v2("uffd-wp-v2"), v6_1("6.1");
  const UffdId id = s.uffd(UFFD_FEATURE_WP_ASYNC);
  CHECK(s.machine->uffds[u64(id)].features ==
        (UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED));
  CHECK(s.mm->userfaultfd(1 << 17).error.cause == Cause::bad_feature);
  CHECK(s.mm->userfaultfd(0x1ffff).ok());
  CHECK(v2.mm->userfaultfd(1 << 10).ok());
  CHECK(v2.mm->userfaultfd(1 << 11).error.cause == Cause::bad_feature);
  CHECK(v6_1.mm->userfaultfd(UFFD_FEATURE_WP_UNPOPULATED).error.cause == Cause::bad_feature);
  // After a failed UFFDIO_API no other ioctl works.
  const UffdId failed = s.mm->userfaultfd(1 << 17).value;
  const u64 addr = s.anon(1);
  CHECK(register_cause(s, failed, addr, 1, MODE_WP) == Cause::api_missing);
}

TEST_CASE("UFFDIO_REGISTER: what is refused, in order") {
  Space s;
  const UffdId id = s.uffd(), other = s.uffd();
  const u64 addr = s.anon(2), file = s.regular(1);
  const FileId readonly = s.machine->create_file(FileKind::shmem, pages(1), false);
  const u64 seen = s.map(1, PROT_READ_, MAP_SHARED_, readonly);
  CHECK(register_cause(s, id, addr + 1, 1, 0) == Cause::bad_mode);
  CHECK(register_cause(s, id, addr, 1, 8) == Cause::bad_mode);
  CHECK(register_cause(s, id, addr + 1, 1, MODE_WP) == Cause::start_unaligned);
  CHECK(s.mm->uffd_register(id, addr, 5, MODE_WP).error.cause == Cause::length_unaligned);
  CHECK(register_cause(s, id, addr, 0, MODE_WP) == Cause::length_zero);
  CHECK(register_cause(s, id, 0x1000, 1, MODE_WP) == Cause::start_below_min);
  CHECK(register_cause(s, id, addr, 1ull << 40, MODE_WP) == Cause::beyond_task_size);
  CHECK(register_cause(s, id, BASE - PMD_SIZE, 1, MODE_WP) == Cause::no_vma_einval);
  CHECK(register_cause(s, id, file, 1, MODE_WP) == Cause::wrong_backing);
  CHECK(register_cause(s, id, addr, 1, MODE_MINOR) == Cause::wrong_backing);
  CHECK(register_cause(s, id, seen, 1, MODE_WP) == Cause::no_may_write);
  REQUIRE(register_cause(s, other, addr, 1, MODE_WP) == Cause::none);
  CHECK(register_cause(s, id, addr, 2, MODE_WP) == Cause::owned_by_other);
  CHECK(register_cause(s, s.uffd(UFFD_FEATURE_WP_ASYNC), file, 1, MODE_WP) == Cause::none);
}

TEST_CASE("who may register WP on files: nobody before the series, shmem after it") {
  Space base("5.12"), first("uffd-wp-v2-11"), v2("uffd-wp-v2");
  CHECK(register_cause(base, base.uffd(), base.shmem(1), 1, MODE_WP) == Cause::wrong_backing);
  CHECK(register_cause(first, first.uffd(), first.shmem(1), 1, MODE_WP) == Cause::wrong_backing);
  CHECK(register_cause(v2, v2.uffd(), v2.shmem(1), 1, MODE_WP) == Cause::none);
  CHECK(register_cause(base, base.uffd(), base.anon(1), 1, MODE_WP) == Cause::none);
  CHECK(register_cause(v2, v2.uffd(), v2.shmem(1), 1, MODE_MINOR) == Cause::wrong_backing);
}

TEST_CASE("the ioctls that a range offers") {
  Space s;
  const auto ioctls = [&](u64 addr, u64 mode) {
    return s.mm->uffd_register(s.uffd(), addr, pages(1), mode).value;
  };
  CHECK(ioctls(s.anon(1), MODE_WP) == 0x17c);
  CHECK(ioctls(s.anon(1), MODE_MISSING) == 0x13c);
  CHECK(ioctls(s.shmem(1), MODE_MINOR) == 0x1bc);
  CHECK(ioctls(s.shmem(1), MODE_MINOR | MODE_WP) == 0x1fc);
  Space old("6.1");
  CHECK(old.mm->uffd_register(old.uffd(), old.anon(1), pages(1), MODE_WP).value == 0x5c);
}

TEST_CASE("a registration splits VMAs, replaces the modes, and touches no entry") {
  Space s;
  const u64 addr = s.shmem(4);
  s.write(addr + pages(1));
  const UffdId id = s.watch(addr + pages(1), 2, MODE_WP | MODE_MISSING);
  CHECK(s.nr_vmas() == 3);
  CHECK((s.vma(addr + pages(1)).flags & VM_UFFD_FLAGS) == (VM_UFFD_WP | VM_UFFD_MISSING));
  CHECK(s.vma(addr + pages(1)).page_prot == RO_NX);
  CHECK(s.flags_of(addr + pages(1)) == RW_DIRTY);
  REQUIRE(register_cause(s, id, addr + pages(1), 2, MODE_MISSING) == Cause::none);
  CHECK(has(s.vma(addr + pages(1)).flags, VM_UFFD_WP));  // all that was asked for is set: skipped
  REQUIRE(register_cause(s, id, addr + pages(1), 2, MODE_MINOR) == Cause::none);
  CHECK((s.vma(addr + pages(1)).flags & VM_UFFD_FLAGS) == VM_UFFD_MINOR);
  CHECK(s.vma(addr + pages(1)).page_prot == RW_NX);
  REQUIRE(s.mm->uffd_unregister(id, addr, pages(4)).ok());
  CHECK(s.nr_vmas() == 1);
  CHECK(s.mm->uffd_unregister(id, addr, pages(4)).ok());  // nothing registered: success
}

TEST_CASE("a registration passes over holes") {
  Space s;
  const u64 addr = s.anon(3);
  REQUIRE(s.mm->munmap(addr + pages(1), pages(1)).ok());
  const UffdId id = s.watch(addr, 3, MODE_WP);
  CHECK(s.vma(addr).uffd == id);
  CHECK(s.vma(addr + pages(2)).uffd == id);
}

TEST_CASE("I01 to I08: what UFFDIO_WRITEPROTECT refuses, by kernel") {
  for (const auto& [name, hole, plain] :
       {std::tuple{"uffd-wp-v2", Cause::one_vma_rule, Cause::not_registered_wp},
        {"6.18", Cause::no_vma, Cause::not_registered_wp}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(2), missing = s.anon(1), unknown = s.anon(1);
    const UffdId id = s.watch(addr, 2, MODE_WP);
    REQUIRE(register_cause(s, id, missing, 1, MODE_MISSING) == Cause::none);
    CHECK(wp_cause(s, id, addr + 1, pages(1), 1) == Cause::start_unaligned);
    CHECK(wp_cause(s, id, addr, 0, 1) == Cause::length_zero);
    CHECK(wp_cause(s, id, addr, 0x1800, 1) == Cause::length_unaligned);
    CHECK(wp_cause(s, id, addr, pages(1), 4) == Cause::bad_mode);
    CHECK(wp_cause(s, id, addr, pages(1), 3) == Cause::bad_mode);
    CHECK(wp_cause(s, id, BASE - PMD_SIZE, pages(1), 1) == hole);
    CHECK(wp_cause(s, id, unknown, pages(1), 1) == plain);
    CHECK(wp_cause(s, id, missing, pages(1), 1) == Cause::not_registered_wp);
    CHECK(errno_of(wp_cause(s, id, missing, pages(1), 1)) == 2);
  }
}

TEST_CASE("several VMAs and holes: 6.2 on does each in turn, before one must hold the range") {
  for (const auto& [name, many] : {std::pair{"6.1", false}, {"6.18", true}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(4);
    for (u64 i = 0; i < 4; ++i) s.write(addr + pages(i));
    REQUIRE(s.mm->munmap(addr + pages(1), pages(1)).ok());
    const UffdId id = s.watch(addr, 1, MODE_WP);
    REQUIRE(register_cause(s, id, addr + pages(2), 1, MODE_WP) == Cause::none);
    CHECK(wp_cause(s, id, addr, pages(3), 1) == (many ? Cause::none : Cause::one_vma_rule));
    CHECK(has(s.pte(addr), _PAGE_UFFD_WP) == many);
    CHECK(has(s.pte(addr + pages(2)), _PAGE_UFFD_WP) == many);
    s.mm->uffd_writeprotect(id, addr, pages(1), 0).value.pages;
    // The first VMA that is not registered stops it; those before stay changed.
    CHECK(wp_cause(s, id, addr, pages(4), 1) ==
          (many ? Cause::not_registered_wp : Cause::one_vma_rule));
    CHECK(has(s.pte(addr), _PAGE_UFFD_WP) == many);
  }
}

TEST_CASE("what a resolve leaves, by backing: the matrix of 6.18") {
  Space s;
  const UffdId id = s.uffd();
  const auto resolved = [&](u64 addr, bool write, bool protect = true) {
    s.touch(addr, write);
    REQUIRE(register_cause(s, id, addr, 1, MODE_WP) == Cause::none);
    if (protect) s.protect(id, addr, 1);
    s.resolve(id, addr, 1);
    return s.flags_of(addr);
  };
  CHECK(resolved(s.anon(1), true) == RW_DIRTY);
  CHECK(resolved(s.anon(1), false) == present(_PAGE_SPECIAL));
  CHECK(resolved(s.shmem(1), true) == present(SAVED_DIRTY));
  CHECK(resolved(s.shmem(1), true, false) == present(SAVED_DIRTY));  // even never protected
  CHECK(resolved(s.private_shmem(1), false) == present());
  CHECK(resolved(s.private_shmem(1), true) == RW_DIRTY);
  const u64 disk = s.regular(1);
  s.write(disk);
  const UffdId async = s.watch(disk, 1, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  s.protect(async, disk, 1);
  s.resolve(async, disk, 1);
  CHECK(s.flags_of(disk) == RW_DIRTY);
}

TEST_CASE("6.1: anonymous pages come back read-only, shared shmem writable (HZ4)") {
  Space s("6.1");
  const u64 anon = s.anon(1), shared = s.shmem(1);
  const UffdId id = s.watch(anon, 1, MODE_WP);
  REQUIRE(register_cause(s, id, shared, 1, MODE_WP) == Cause::none);
  for (u64 addr : {anon, shared}) {
    s.write(addr);
    s.protect(id, addr, 1);
    s.resolve(id, addr, 1);
  }
  CHECK_FALSE(has(s.pte(anon), _PAGE_RW));
  CHECK(has(s.pte(shared), _PAGE_RW));
}

TEST_CASE("v2 and 6.1: protecting a write-only mapping leaves PROT_NONE entries") {
  Space s("6.1");
  const u64 addr = s.anon(1, PROT_WRITE_);
  s.write(addr);
  const UffdId id = s.watch(addr, 1, MODE_WP);
  s.protect(id, addr, 1);
  CHECK(pte_protnone(s.pte(addr)));
  CHECK(has(s.pte(addr), _PAGE_UFFD_WP));
  CHECK(s.write(addr).message->flags == 3);  // repaired on the way as a NUMA hint
}

TEST_CASE("unregister and close resolve the range from 6.1 on; the v2 series leaves it (HZ12)") {
  for (const auto& [name, resolves] : {std::pair{"uffd-wp-v2", false}, {"6.18", true}}) {
    for (bool close : {false, true}) {
      CAPTURE(name);
      Space s(name);
      const u64 addr = s.shmem(2), anon = s.anon(1);
      const UffdId id = s.watch(addr, 2, MODE_WP);
      REQUIRE(register_cause(s, id, anon, 1, MODE_WP) == Cause::none);
      s.write(addr);
      s.write(anon);
      s.protect(id, addr, 2);
      s.protect(id, anon, 1);
      if (close) {
        s.mm->uffd_close(id);
      } else {
        REQUIRE(s.mm->uffd_unregister(id, addr, pages(2)).ok());
        REQUIRE(s.mm->uffd_unregister(id, anon, pages(1)).ok());
      }
      CHECK(has(s.pte(addr), _PAGE_UFFD_WP) == !resolves);
      CHECK((s.pte(addr + pages(1)) == 0) == resolves);
      // The walk comes before vm_page_prot is restored; a private exclusive page gets RW.
      if (resolves) CHECK(s.flags_of(addr) == present(SAVED_DIRTY));
      if (resolves) CHECK(s.flags_of(anon) == RW_DIRTY);
      CHECK(s.vma(addr).page_prot == RW_NX);
      CHECK(s.vma(addr).uffd == NO_UFFD);
      CHECK(s.write(addr).outcome == Outcome::done);
    }
  }
}

TEST_CASE("UFFDIO_UNREGISTER: another's range, a backing that cannot be, nothing there") {
  Space s;
  const u64 addr = s.anon(1), disk = s.regular(1);
  const UffdId owner = s.watch(addr, 1, MODE_WP), other = s.uffd();
  CHECK(s.mm->uffd_unregister(other, addr, pages(1)).cause == Cause::not_registered_einval);
  CHECK(s.mm->uffd_unregister(owner, disk, pages(1)).cause == Cause::wrong_backing);
  CHECK(s.mm->uffd_unregister(owner, BASE - PMD_SIZE, pages(1)).cause == Cause::no_vma_einval);
  CHECK(s.mm->uffd_unregister(owner, addr, 0).cause == Cause::length_zero);
  CHECK(s.vma(addr).uffd == owner);
}

TEST_CASE("a resolve wakes the waiters of its range unless DONTWAKE; WAKE does only that") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_WP);
  for (u64 i : {0, 1}) s.write(addr + pages(i));
  s.protect(id, addr, 2);
  for (u64 i : {0, 1}) CHECK(s.write(addr + pages(i)).outcome == Outcome::blocked);
  REQUIRE(s.mm->uffd_writeprotect(id, addr, pages(1), UFFDIO_WRITEPROTECT_MODE_DONTWAKE).ok());
  CHECK_FALSE(s.mm->pending.find(addr)->woken);
  s.resolve(id, addr + pages(1), 1);
  CHECK(s.mm->pending.find(addr + pages(1))->woken);
  CHECK_FALSE(s.mm->pending.find(addr)->woken);
  REQUIRE(s.mm->uffd_wake(id, addr, pages(1)).ok());
  CHECK(s.mm->pending.find(addr)->woken);
  CHECK(s.mm->uffd_wake(id, addr, 5).cause == Cause::length_unaligned);
  // Woken before anybody read it, a waiter takes its message along.
  CHECK(s.messages(id).empty());
}

TEST_CASE("UFFDIO_UNREGISTER wakes who waits for a missing page in the range") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_MISSING);
  for (u64 i : {0, 1}) CHECK(s.read(addr + pages(i)).outcome == Outcome::blocked);
  REQUIRE(s.mm->uffd_unregister(id, addr, pages(1)).ok());
  CHECK(s.mm->pending.find(addr)->woken);
  CHECK_FALSE(s.mm->pending.find(addr + pages(1))->woken);
  CHECK(s.read(addr).outcome == Outcome::done);
}

TEST_CASE("a protected range that nobody resolved blocks again, with another message") {
  Space s;
  const u64 addr = s.anon(1);
  const UffdId id = s.watch(addr, 1, MODE_WP);
  s.write(addr);
  s.protect(id, addr, 1);
  CHECK(s.write(addr).outcome == Outcome::blocked);
  CHECK(s.next_message(id).flags == 3);
  REQUIRE(s.mm->uffd_wake(id, addr, pages(1)).ok());
  CHECK(s.write(addr).outcome == Outcome::blocked);
  CHECK(s.next_message(id).flags == 3);
}

TEST_CASE("a closed userfaultfd answers EBADF and watches no more") {
  Space s;
  const u64 addr = s.anon(1);
  const UffdId id = s.watch(addr, 1, MODE_MISSING, UFFD_FEATURE_EVENT_UNMAP);
  CHECK(s.read(addr).outcome == Outcome::blocked);
  s.mm->uffd_close(id);
  s.mm->uffd_close(id);
  CHECK(wp_cause(s, id, addr, pages(1), 1) == Cause::closed);
  CHECK(s.mm->uffd_wake(id, addr, pages(1)).cause == Cause::closed);
  CHECK(s.messages(id).empty());
  CHECK(s.read(addr).outcome == Outcome::done);
  REQUIRE(s.mm->munmap(addr, pages(1)).ok());
  CHECK(s.messages(id).empty());
}

TEST_CASE("I10 and 6.4 on: a table that cannot be had") {
  for (const auto& [name, cause] :
       {std::pair{"uffd-wp-v2", Cause::none}, {"6.18", Cause::table_alloc_failed}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.shmem(512);
    REQUIRE(s.mm->tables.ensure(addr, PMD_LEVEL));
    const UffdId id = s.watch(addr, 512, MODE_WP);
    s.mm->tables.fail_alloc(1);
    CHECK(wp_cause(s, id, addr, pages(512), 1) == cause);
    CHECK(s.mm->tables.find(addr, PTE_LEVEL) == nullptr);
    CHECK(wp_cause(s, id, addr, pages(512), 1) == Cause::none);
    CHECK(s.pte(addr) == s.machine->profile.make_marker(PTE_MARKER_UFFD_WP));
  }
}
