// UFFDIO_COPY, ZEROPAGE, CONTINUE and POISON: where each may go and what it leaves. F06 to F09 are
// the named cases of the v2 series' vectors.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);
constexpr u64 ARMED_DIRTY = present(_PAGE_UFFD_WP | SAVED_DIRTY);
constexpr u64 COPY_WP = 2, DONTWAKE = 1;

}  // namespace

TEST_CASE("F06 to F09: COPY over none and over the special pte") {
  for (const u64 mode : {u64(0), COPY_WP}) {
    Space s("uffd-wp-v2");
    const u64 shared = s.shmem(2), copies = s.private_shmem(2), anon = s.anon(1);
    const UffdId id = s.watch(shared, 2, MODE_WP | MODE_MISSING);
    REQUIRE(s.mm->uffd_register(id, copies, pages(2), MODE_WP | MODE_MISSING).ok());
    REQUIRE(s.mm->uffd_register(id, anon, pages(1), MODE_WP | MODE_MISSING).ok());
    REQUIRE(s.mm->uffd_copy(id, shared + pages(1), pages(1), 0).ok());  // makes the table
    s.protect(id, shared, 1);
    s.protect(id, copies, 1);
    const u64 flags = mode ? 0x8000000000000c65 : 0x8000000000000867;
    CHECK(s.mm->uffd_copy(id, shared, pages(1), mode).value == i64(PAGE_SIZE));
    CHECK(s.flags_of(shared) == flags);
    const auto refused = s.mm->uffd_copy(id, copies, pages(1), mode);
    CHECK(refused.error.cause == Cause::entry_exists);
    CHECK(refused.value == -17);
    CHECK(s.pte(copies) == 4);
    CHECK(s.mm->uffd_copy(id, anon, pages(1), mode).ok());
    CHECK(s.flags_of(anon) == flags);
  }
}

TEST_CASE("mfill_atomic_install_pte on 6.18: none and every marker give way, private ones too") {
  Space s;
  const u64 shared = s.shmem(4), anon = s.anon(2);
  const UffdId id = s.watch(shared, 4, MODE_WP | MODE_MISSING, UFFD_FEATURE_WP_UNPOPULATED);
  REQUIRE(s.mm->uffd_register(id, anon, pages(2), MODE_WP | MODE_MISSING).ok());
  s.protect(id, shared, 2);
  s.protect(id, anon, 1);
  CHECK(s.mm->uffd_copy(id, shared, pages(1), 0).ok());
  CHECK(s.flags_of(shared) == RW_DIRTY);
  CHECK(s.mm->uffd_copy(id, shared + pages(1), pages(1), COPY_WP).ok());
  CHECK(s.flags_of(shared + pages(1)) == ARMED_DIRTY);
  CHECK(s.mm->uffd_copy(id, anon, pages(2), COPY_WP).ok());
  CHECK(s.flags_of(anon) == ARMED_DIRTY);
  CHECK(s.anon_exclusive(anon));
  // A copy takes poison away.
  REQUIRE(s.mm->uffd_poison(id, shared + pages(2), pages(1), 0).ok());
  CHECK(s.mm->uffd_copy(id, shared + pages(2), pages(1), 0).ok());
  CHECK(s.flags_of(shared + pages(2)) == RW_DIRTY);
}

TEST_CASE("COPY: a page that is there, in the entry, in swap or in the cache, is EEXIST") {
  Space s;
  const u64 anon = s.anon(2), shared = s.shmem(2);
  const UffdId id = s.watch(anon, 2, MODE_MISSING);
  REQUIRE(s.mm->uffd_register(id, shared, pages(2), MODE_MISSING).ok());
  REQUIRE(s.mm->uffd_copy(id, anon, pages(2), 0).ok());
  s.reclaim(anon + pages(1));
  for (u64 i : {0, 1})
    CHECK(s.mm->uffd_copy(id, anon + pages(i), pages(1), 0).error.cause == Cause::entry_exists);
  s.machine->file_write(s.file, 0, 1);
  CHECK(s.mm->uffd_copy(id, shared, pages(1), 0).error.cause == Cause::entry_exists);
  CHECK(s.pte(shared) == 0);
  CHECK(s.machine->pages.in_use() == 2);  // a refused copy leaves no page behind
}

TEST_CASE(
    "COPY under a registration that makes the mapping read-only: the entry follows vm_page_prot") {
  Space s;
  const u64 addr = s.shmem(1, PROT_READ_);
  const UffdId id = s.watch(addr, 1, MODE_MISSING | MODE_WP);
  REQUIRE(s.mm->uffd_copy(id, addr, pages(1), COPY_WP).ok());
  CHECK(s.flags_of(addr) == ARMED_DIRTY);
  Space v2("uffd-wp-v2");
  const u64 seen = v2.shmem(1, PROT_READ_);
  const UffdId old = v2.watch(seen, 1, MODE_MISSING | MODE_WP);
  REQUIRE(v2.mm->uffd_copy(old, seen, pages(1), COPY_WP).ok());
  CHECK(v2.flags_of(seen) == present());  // WP and D ignored without VM_WRITE
}

TEST_CASE("what every fill refuses") {
  Space s;
  const u64 addr = s.anon(2), plain = s.anon(1), disk = s.regular(1);
  const UffdId id = s.watch(addr, 2, MODE_MISSING);
  const auto cause = [&](u64 dst, u64 nr, u64 mode = 0) {
    return s.mm->uffd_copy(id, dst, pages(nr), mode).error.cause;
  };
  CHECK(cause(addr, 1, 4) == Cause::bad_mode);
  CHECK(cause(addr + 1, 1) == Cause::start_unaligned);
  CHECK(cause(addr, 0) == Cause::length_zero);
  CHECK(cause(plain, 1) == Cause::not_registered);
  CHECK(cause(BASE - PMD_SIZE, 1) == Cause::no_vma);
  CHECK(cause(addr, 3) == Cause::one_vma_rule);
  CHECK(cause(addr, 1, COPY_WP) == Cause::wp_not_registered_einval);
  CHECK(s.mm->uffd_zeropage(id, addr, pages(1), COPY_WP).error.cause == Cause::bad_mode);
  const UffdId async = s.watch(disk, 1, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  CHECK(s.mm->uffd_copy(async, disk, pages(1), 0).error.cause == Cause::wrong_backing);
  CHECK(s.mm->uffd_continue(id, addr, pages(1), 0).error.cause == Cause::wrong_backing);
}

TEST_CASE("partial progress: the bytes done and EAGAIN; of the first page its own errno") {
  Space s;
  const u64 addr = s.anon(4);
  const UffdId id = s.watch(addr, 4, MODE_MISSING);
  CHECK(s.read(addr).outcome == Outcome::blocked);
  REQUIRE(s.mm->uffd_copy(id, addr + pages(2), pages(1), 0).ok());
  const auto partial = s.mm->uffd_copy(id, addr, pages(4), 0);
  CHECK(partial.value == i64(pages(2)));
  CHECK(partial.error.cause == Cause::partial);
  CHECK(s.mm->pending.find(addr)->woken);
  CHECK(pte_present(s.pte(addr + pages(1))));
  CHECK(s.pte(addr + pages(3)) == 0);
  CHECK(s.mm->uffd_copy(id, addr, pages(4), 0).value == -17);
}

TEST_CASE("events that nobody has read: EAGAIN before anything else") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_MISSING, UFFD_FEATURE_EVENT_REMOVE);
  REQUIRE(s.mm->madvise(addr, pages(1), 4).ok());
  const auto refused = s.mm->uffd_copy(id, addr + 1, pages(1), 99);
  CHECK(refused.error.cause == Cause::mmap_changing);
  CHECK(refused.value == -11);
  CHECK(s.next_message(id).event == UffdEvent::remove);
  CHECK(s.mm->uffd_copy(id, addr, pages(1), 0).ok());
}

TEST_CASE("DONTWAKE leaves the waiter asleep") {
  Space s;
  const u64 addr = s.anon(1);
  const UffdId id = s.watch(addr, 1, MODE_MISSING);
  CHECK(s.read(addr).outcome == Outcome::blocked);
  REQUIRE(s.mm->uffd_copy(id, addr, pages(1), DONTWAKE).ok());
  CHECK_FALSE(s.mm->pending.find(addr)->woken);
}

TEST_CASE("ZEROPAGE: the zero page in private memory, a page of the file in shared; never armed") {
  Space s;
  const u64 anon = s.anon(2), copies = s.private_shmem(1), shared = s.shmem(1);
  const UffdId id = s.watch(anon, 2, MODE_WP | MODE_MISSING, UFFD_FEATURE_WP_UNPOPULATED);
  for (u64 addr : {copies, shared})
    REQUIRE(s.mm->uffd_register(id, addr, pages(1), MODE_MISSING).ok());
  for (u64 addr : {anon, copies, shared})
    CHECK(s.mm->uffd_zeropage(id, addr, pages(1), 0).value == i64(PAGE_SIZE));
  CHECK(s.flags_of(anon) == present(_PAGE_SPECIAL));
  CHECK(pte_pfn(s.pte(anon)) == ZERO_PFN);
  CHECK(s.flags_of(copies) == present(_PAGE_SPECIAL));
  CHECK(s.flags_of(shared) == RW_DIRTY);
  CHECK(s.machine->cached_page(s.file, 0) == pte_pfn(s.pte(shared)));
  // It asks for a none entry: a marker is EEXIST, and nobody is woken.
  s.protect(id, anon + pages(1), 1);
  CHECK(s.read(anon + pages(1)).outcome == Outcome::blocked);
  CHECK(s.mm->uffd_zeropage(id, anon + pages(1), pages(1), 0).error.cause == Cause::entry_exists);
  CHECK(s.pte(anon + pages(1)) == WP_MARKER);
  CHECK_FALSE(s.mm->pending.find(anon + pages(1))->woken);
}

TEST_CASE("CONTINUE maps what is cached, over markers too") {
  Space s;
  const u64 addr = s.shmem(3);
  const UffdId id = s.watch(addr, 3, MODE_MINOR | MODE_WP);
  s.machine->file_write(s.file, 0, pages(2));
  s.protect(id, addr + pages(1), 1);
  REQUIRE(s.mm->uffd_continue(id, addr, pages(1), 0).ok());
  CHECK(s.flags_of(addr) == RW_DIRTY);
  REQUIRE(s.mm->uffd_continue(id, addr + pages(1), pages(1), COPY_WP).ok());
  CHECK(s.flags_of(addr + pages(1)) == ARMED_DIRTY);
  CHECK(s.mm->uffd_continue(id, addr + pages(2), pages(1), 0).error.cause ==
        Cause::page_not_cached);
  CHECK(s.mm->uffd_continue(id, addr, pages(1), 0).error.cause == Cause::entry_exists);
  CHECK(s.page(addr).mapcount == 1);

  Space old("6.1");
  const u64 there = old.shmem(1);
  const UffdId minor = old.watch(there, 1, MODE_MINOR | MODE_WP);
  CHECK(old.mm->uffd_continue(minor, there, pages(1), COPY_WP).error.cause == Cause::bad_mode);
}

TEST_CASE("POISON (6.6 on) asks for a none entry") {
  Space s, old("6.1");
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP);
  s.protect(id, addr + pages(1), 1);
  REQUIRE(s.mm->uffd_poison(id, addr, pages(1), 0).ok());
  CHECK(s.pte(addr) == POISON_MARKER);
  CHECK(s.mm->uffd_poison(id, addr + pages(1), pages(1), 0).error.cause == Cause::entry_exists);
  const u64 there = old.anon(1);
  const UffdId older = old.watch(there, 1, MODE_MISSING);
  CHECK(old.mm->uffd_poison(older, there, pages(1), 0).error.cause == Cause::unknown_ioctl);
}

TEST_CASE("a huge page at the destination is EEXIST, a failed allocation ENOMEM") {
  Space s;
  const u64 addr = s.anon(1024);
  const UffdId id = s.watch(addr, 1024, MODE_MISSING);
  REQUIRE(s.mm->tables.ensure(addr, PMD_LEVEL));
  REQUIRE(s.mm->set_entry(addr, PMD_LEVEL, 0x80000000400000e7).ok());
  CHECK(s.mm->uffd_copy(id, addr, pages(1), 0).error.cause == Cause::entry_exists);
  s.mm->tables.fail_alloc(1);
  CHECK(s.mm->uffd_copy(id, addr + PMD_SIZE, pages(1), 0).error.cause == Cause::table_alloc_failed);
  REQUIRE(s.mm->set_entry(addr, PMD_LEVEL, 0).ok());
}
