// One access: what the CPU does alone, which signal ends it, and what waits, fails or is retried.
#include "ptwalk/fault.hpp"

#include <random>
#include <tuple>

#include "ptwalk/madvise.hpp"
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);
constexpr int SIGBUS_NO = 7, SIGSEGV_NO = 11;

/// Ranges of every backing with some pages touched, armed, swapped out or waited for; the same seed
/// gives the same.
struct Assorted : Space {
  Assorted(std::string_view profile, u64 seed) : Space(profile) {
    std::mt19937_64 random(seed);
    starts = {anon(PAGES), shmem(PAGES), private_shmem(PAGES), regular(PAGES)};
    machine->file_truncate(file, pages(PAGES - 8));
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const auto page = [&] { return starts[i] + pages(random() % PAGES); };
      const bool armed = random() % 2 && i < 2;
      const UffdId id = armed ? watch(starts[i], PAGES, MODE_WP) : NO_UFFD;
      for (int n = 0; n < 20; ++n) (void)mm->access(page(), random() % 2);
      for (int n = 0; armed && n < 5; ++n) protect(id, page(), 1);
      for (int n = 0; n < 5; ++n) (void)mm->reclaim(page(), PAGE_SIZE);
      if (random() % 4 == 0) (void)mm->madvise(page(), PAGE_SIZE, MADV_GUARD_INSTALL_);
      if (random() % 4 == 0) (void)mm->mprotect(page(), PAGE_SIZE, PROT_READ_);
    }
  }
  static constexpr u64 PAGES = 1200;  // over three PTE tables
  std::vector<u64> starts;
};

/// The entry and all facts of the page that it maps.
std::tuple<u64, u64, u64, u32, u16> facts(Space& s, u64 addr) {
  const u64 pte = s.pte(addr);
  const Page* found = pte_present(pte) ? s.machine->pages.find(pte_pfn(pte)) : nullptr;
  if (!found) return {pte, 0, 0, 0, 0};
  return {pte, found->serial, found->index, found->mapcount, s.machine->pages.flags(pte_pfn(pte))};
}

}  // namespace

TEST_CASE("access_error: no VMA is SEGV_MAPERR, no right SEGV_ACCERR, before any userfaultfd") {
  Space s;
  const u64 ro = s.anon(1, PROT_READ_), none = s.anon(1, 0), wo = s.anon(1, PROT_WRITE_);
  check_signal(s.read(BASE - PAGE_SIZE), SIGSEGV_NO, 1);
  check_signal(s.write(ro), SIGSEGV_NO, 2);
  check_signal(s.read(none), SIGSEGV_NO, 2);
  CHECK(s.read(wo).outcome == Outcome::done);  // x86 cannot write without reading
  const UffdId id = s.watch(ro, 1, MODE_MISSING | MODE_WP);
  check_signal(s.write(ro), SIGSEGV_NO, 2);
  CHECK(s.messages(id).empty());
  CHECK(s.mm->access(1ull << 47, false).error.cause == Cause::entry_not_canonical);
}

TEST_CASE("without a fault the CPU sets A, and D for a store") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  REQUIRE(s.mm->madvise(addr, pages(1), MADV_FREE_).ok());
  CHECK(s.flags_of(addr) == (present(_PAGE_RW) & ~_PAGE_ACCESSED));
  s.read(addr);
  CHECK(s.flags_of(addr) == present(_PAGE_RW));
  s.write(addr);
  CHECK(s.flags_of(addr) == RW_DIRTY);
}

TEST_CASE("features: EXACT_ADDRESS, SIGBUS and WP_ASYNC") {
  Space s;
  const u64 exact = s.anon(1), bus = s.shmem(1), async = s.anon(1);
  s.watch(exact, 1, MODE_MISSING, UFFD_FEATURE_EXACT_ADDRESS);
  CHECK(s.read(exact + 0x18).message->address == exact + 0x18);

  s.protect(s.watch(bus, 1, MODE_WP, UFFD_FEATURE_SIGBUS), bus, 1);
  check_signal(s.write(bus), SIGBUS_NO, 2);
  CHECK(s.flags_of(bus) == present(_PAGE_UFFD_WP | SAVED_DIRTY));  // the first half happened
  CHECK(s.mm->kernel_access(bus, true).error.cause == Cause::page_fault_failed);

  const UffdId id = s.watch(async, 1, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  s.write(async);
  s.protect(id, async, 1);
  CHECK(s.mm->kernel_access(async, true).ok());
  CHECK(s.flags_of(async) == RW_DIRTY);
  CHECK(s.messages(id).empty());
}

TEST_CASE("UFFD_USER_MODE_ONLY: faults of the kernel fail instead of waiting") {
  Space s;
  const u64 addr = s.anon(1);
  const UffdId id = s.mm->userfaultfd(0, true).value;
  REQUIRE(s.mm->uffd_register(id, addr, pages(1), MODE_MISSING).ok());
  CHECK(s.mm->kernel_access(addr, false).error.cause == Cause::page_fault_failed);
  CHECK(s.read(addr).outcome == Outcome::blocked);
}

TEST_CASE("VM_UFFD_ flags without a userfaultfd: nobody to wait for (handle_userfault)") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  REQUIRE(s.mm->set_vm_flags(addr, pages(1), VM_UFFD_WP, 0).ok());
  REQUIRE(s.mm->change_protection(addr, addr + pages(1), RO_NX, MM_CP_UFFD_WP).ok());
  check_signal(s.write(addr), SIGBUS_NO, 2);
}

TEST_CASE("the retry of a fault happens in the kernel and marks the entry dirty, SOFT_DIRTY too") {
  Space s("6.1");
  const u64 addr = s.shmem(1);
  const UffdId id = s.watch(addr, 1, MODE_MISSING);
  CHECK(s.write(addr).outcome == Outcome::blocked);
  REQUIRE(s.mm->uffd_zeropage(id, addr, pages(1), 0).ok());
  REQUIRE(s.mm->change_protection(addr, addr + pages(1), RW_NX, 0).ok());
  u64* pte = s.mm->tables.writable(addr, PTE_LEVEL);
  *pte &= ~(_PAGE_DIRTY | _PAGE_SOFT_DIRTY);
  s.write(addr);
  CHECK(has(s.pte(addr), _PAGE_DIRTY | _PAGE_SOFT_DIRTY));
  *pte &= ~(_PAGE_DIRTY | _PAGE_SOFT_DIRTY);
  s.write(addr);  // by the CPU alone
  CHECK((s.pte(addr) & (_PAGE_DIRTY | _PAGE_SOFT_DIRTY)) == _PAGE_DIRTY);
}

TEST_CASE(
    "do_numa_page: the hint goes with the access; v5.12 has kept RW, later kernels have not") {
  for (const auto& [name, rw] : {std::pair{"uffd-wp-v2", true}, {"6.1", true}, {"6.18", false}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(1);
    s.write(addr);
    s.mm->users = 2;  // so that the task's node is not the target
    REQUIRE(
        s.mm->change_protection(addr, addr + pages(1), PAGE_NONE, MM_CP_PROT_NUMA).value.pages ==
        1);
    CHECK(pte_protnone(s.pte(addr)));
    s.read(addr);
    CHECK(has(s.pte(addr), present()));
    CHECK(has(s.pte(addr), _PAGE_RW) == rw);
    s.write(addr);
    CHECK(has(s.pte(addr), _PAGE_RW | _PAGE_DIRTY));
  }
}

TEST_CASE("what the model cannot answer is an error, and no endless fault") {
  Space s;
  const u64 addr = s.anon(1024);
  const u64 no_user[] = {0x8000000012345061};
  REQUIRE(s.mm->set_ptes(addr, no_user).ok());
  CHECK(s.mm->access(addr, false).error.cause == Cause::fault_repeats);
  REQUIRE(s.mm->set_entry(addr + PMD_SIZE, PMD_LEVEL, 0x80000000400000a5).ok());
  CHECK(s.mm->access(addr + PMD_SIZE, false).ok());
  CHECK(s.mm->access(addr + PMD_SIZE, true).error.cause == Cause::huge_fault);
}

TEST_CASE("no memory for a table ends in SIGKILL; the next access finds some") {
  Space s;
  const u64 addr = s.anon(1);
  s.mm->tables.fail_alloc(1);
  check_signal(s.write(addr), 9, 0);
  CHECK(s.write(addr).outcome == Outcome::done);
}

TEST_CASE("to populate a range is to populate its pages one after another") {
  for (u64 seed = 0; seed < 48; ++seed) {
    const std::string_view profile = seed % 2 ? "6.18" : "uffd-wp-v2";
    const bool write = seed & 2;
    CAPTURE(seed);
    Assorted whole(profile, seed), single(profile, seed);
    for (std::size_t i = 0; i < whole.starts.size(); ++i) {
      const u64 start = whole.starts[i];
      CAPTURE(i);
      const auto done = whole.mm->populate(start, pages(Assorted::PAGES), write);
      u64 nr = 0;
      Error error;
      for (; !error && nr < Assorted::PAGES; nr += !error)
        error = single.mm->populate(start + pages(nr), PAGE_SIZE, write).error;
      CHECK(done.value == nr);
      CHECK(done.error.cause == error.cause);
      CHECK(done.error.a == error.a);
      for (u64 page = 0; page < Assorted::PAGES; ++page)
        REQUIRE(facts(whole, start + pages(page)) == facts(single, start + pages(page)));
    }
    CHECK(whole.mm->tables.nr_tables() == single.mm->tables.nr_tables());
    CHECK(whole.machine->frames.in_use() == single.machine->frames.in_use());
    CHECK(whole.machine->pages.in_use() == single.machine->pages.in_use());
  }
}

TEST_CASE("populate: pages until the first that cannot be") {
  Space s;
  const u64 addr = s.shmem(4), none = s.anon(1, 0);
  s.machine->file_truncate(s.file, pages(2));
  const auto done = s.mm->populate(addr, pages(4), true);
  CHECK(done.value == 2);
  CHECK(done.error.cause == Cause::page_fault_failed);
  CHECK(done.error.a == addr + pages(2));
  CHECK(s.mm->populate(none, pages(1), false).error.cause == Cause::gup_refused);
  CHECK(s.mm->populate(addr + 1, pages(1), false).error.cause == Cause::start_unaligned);
  CHECK(s.mm->populate(addr, 1ull << 47, false).error.cause == Cause::beyond_task_size);
  const u64 watched = s.anon(1);
  s.watch(watched, 1, MODE_MISSING);
  CHECK(s.mm->populate(watched, pages(1), false).error.cause == Cause::would_block);
}

TEST_CASE("access_many: one record per access, up to an address that is no user memory") {
  Space s;
  const u64 addr = s.anon(2);
  const std::vector<u64> addrs{addr, addr, addr - pages(1), 1ull << 60, addr + pages(1)};
  const std::vector<u8> write{0, 1, 0, 0, 1};
  std::vector<AccessRecord> records(addrs.size());
  const auto done = s.mm->access_many(addrs, write, records);
  CHECK(done.value == 3);
  CHECK(done.error.cause == Cause::entry_not_canonical);
  CHECK(records[1].before == records[0].after);
  CHECK(bits(records[1].after) == RW_DIRTY);
  CHECK(records[2].signo == SIGSEGV_NO);
  CHECK(s.pte(addr + pages(1)) == 0);
}
