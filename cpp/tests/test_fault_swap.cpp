// Faults on markers, swap entries and read-only pages. F01 to F04 and F10 are the named cases of
// the v2 series' vectors.
#include "ptwalk/madvise.hpp"
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);
constexpr int SIGBUS_NO = 7, SIGSEGV_NO = 11;

}  // namespace

TEST_CASE("F01, F02: through a marker the page comes in armed, and only a store sends a message") {
  Space s;
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP);
  s.protect(id, addr, 2);
  CHECK(s.read(addr).outcome == Outcome::done);
  CHECK(s.flags_of(addr) == present(_PAGE_UFFD_WP));
  CHECK(s.messages(id).empty());
  const AccessResult stored = s.write(addr + pages(1) + 0x10);
  CHECK(stored.outcome == Outcome::blocked);
  CHECK(stored.before == WP_MARKER);
  CHECK(bits(stored.after) == present(_PAGE_UFFD_WP | SAVED_DIRTY));
  CHECK(s.next_message(id).flags == 3);  // one store, one message: WRITE and WP
  CHECK(s.messages(id).empty());
}

TEST_CASE("F01 to F04 by the v2 series") {
  Space s("uffd-wp-v2");
  const u64 addr = s.shmem(4), copies = s.private_shmem(1);
  for (u64 i = 0; i < 3; ++i) s.machine->file_write(s.vma(addr).file, pages(i), 1);
  const UffdId id = s.watch(addr, 4, MODE_WP);
  REQUIRE(s.mm->uffd_register(id, copies, pages(1), MODE_WP).ok());
  s.read(addr + pages(3));  // v2 makes tables below the PMD only
  s.protect(id, addr, 4);
  s.protect(id, copies, 1);
  s.read(addr);
  CHECK(s.flags_of(addr) == 0x8000000000000425);
  CHECK(s.write(addr + pages(1)).message->flags == 3);
  CHECK(s.flags_of(addr + pages(1)) == 0x8000000000000c65);
  CHECK(s.write(copies).message->flags == 3);
  CHECK(s.flags_of(copies) == 0x8000000000000c65);
  CHECK(s.page(copies).anon());
  // Unregistering leaves bits and markers; the next fault on a marker clears it.
  REQUIRE(s.mm->uffd_unregister(id, addr, pages(4)).ok());
  CHECK(s.flags_of(addr) == 0x8000000000000425);
  CHECK(s.pte(addr + pages(2)) == 4);
  s.write(addr + pages(2));
  CHECK(s.flags_of(addr + pages(2)) == 0x8000000000000867);
  s.write(addr);
  CHECK(s.flags_of(addr) == 0x8000000000000c67);  // reused; the bit stays set, inert
}

TEST_CASE("an anonymous marker (WP_UNPOPULATED): zero page for a read, message for a store") {
  Space s;
  const u64 addr = s.anon(2);
  const UffdId id = s.watch(addr, 2, MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
  s.protect(id, addr, 2);
  CHECK(s.pte(addr) == WP_MARKER);
  s.read(addr);
  CHECK(s.flags_of(addr) == present(_PAGE_SPECIAL | _PAGE_UFFD_WP));
  CHECK(s.write(addr + pages(1)).message->flags == 3);
  CHECK(s.flags_of(addr + pages(1)) == present(_PAGE_UFFD_WP | SAVED_DIRTY));
}

TEST_CASE("poison and guards answer with signals") {
  Space s, failing("6.12");
  const u64 addr = s.anon(2), poisoned = failing.anon(1);
  REQUIRE(s.mm->uffd_poison(s.watch(addr, 2, MODE_MISSING), addr, pages(1), 0).ok());
  check_signal(s.read(addr), SIGBUS_NO, 2);
  REQUIRE(s.mm->madvise(addr + pages(1), pages(1), MADV_GUARD_INSTALL_).ok());
  check_signal(s.write(addr + pages(1)), SIGSEGV_NO, 1);
  const UffdId id = failing.watch(poisoned, 1, MODE_MISSING);
  REQUIRE(failing.mm->uffd_poison(id, poisoned, pages(1), 0).ok());
  check_signal(failing.read(poisoned), SIGBUS_NO, 4);  // CONFIG_MEMORY_FAILURE: BUS_MCEERR_AR
}

TEST_CASE(
    "do_wp_page: an armed page blocks a store until it is resolved, then D and RW come back") {
  Space s;
  const u64 addr = s.anon(1);
  const UffdId id = s.watch(addr, 1, MODE_WP);
  s.write(addr);
  s.protect(id, addr, 1);
  const AccessResult blocked = s.write(addr + 0x18);
  CHECK(blocked.outcome == Outcome::blocked);
  CHECK(blocked.message->flags == 3);
  CHECK(blocked.message->address == addr);
  CHECK(s.mm->pending.find(addr));
  CHECK(s.read(addr).outcome == Outcome::done);
  s.resolve(id, addr, 1);
  CHECK(s.write(addr).outcome == Outcome::done);
  CHECK(s.flags_of(addr) == RW_DIRTY);
  CHECK(s.mm->pending.all().empty());
}

TEST_CASE("do_swap_page: a read of an exclusive page gives RW without D since 6.12, RO before") {
  for (const auto& [name, rw] :
       {std::pair{"6.1", u64(0)}, {"6.12", u64(_PAGE_RW)}, {"6.18", u64(_PAGE_RW)}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(2);
    const u64 soft = s.machine->profile.soft_dirty_bit();
    for (u64 at : {addr, addr + pages(1)}) {
      s.write(at);
      s.reclaim(at);
      CHECK(has(s.pte(at), _PAGE_SWP_EXCLUSIVE));
    }
    s.read(addr);
    CHECK(s.flags_of(addr) == (present(rw) | soft));
    s.write(addr + pages(1));
    CHECK(s.flags_of(addr + pages(1)) == (RW_DIRTY | soft));
    s.write(addr);
    CHECK(has(s.pte(addr), _PAGE_RW | _PAGE_DIRTY));
  }
}

TEST_CASE("F10: an armed swap entry comes back armed, without D") {
  for (const auto& [name, flags] :
       {std::pair{"uffd-wp-v2", u64(0x8000000000000c25)}, {"6.18", present(_PAGE_UFFD_WP)}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.anon(1);
    const UffdId id = s.watch(addr, 1, MODE_WP);
    s.write(addr);
    s.protect(id, addr, 1);
    s.reclaim(addr);
    CHECK(has(s.pte(addr), _PAGE_SWP_UFFD_WP));
    s.read(addr);
    CHECK(s.flags_of(addr) == flags);
    CHECK(s.write(addr).message->flags == 3);
  }
}

TEST_CASE(
    "a swapped page that fork shares comes back read-only to both, and is copied by the first") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  s.reclaim(addr);
  const auto child = s.mm->fork().value;
  s.read(addr);
  CHECK(s.flags_of(addr) == present());
  const Pfn pfn = pte_pfn(s.pte(addr));
  REQUIRE(child->access(addr, true).ok());
  CHECK(pte_pfn(*child->tables.find(addr, PTE_LEVEL)) != pfn);
  s.write(addr);
  CHECK(pte_pfn(s.pte(addr)) == pfn);
}

TEST_CASE(
    "an entry of a slot that was never written, and of no page that could come back: SIGBUS") {
  Space s;
  const u64 addr = s.anon(2);
  const u64 words[] = {make_swp_pte(0, 0x1234), WP_MARKER ^ (1ull << SWP_OFFSET_SHIFT)};
  REQUIRE(s.mm->set_ptes(addr, words).ok());
  check_signal(s.read(addr), SIGBUS_NO, 2);
  check_signal(s.read(addr + pages(1)), SIGBUS_NO, 2);  // a marker of no kind
}

TEST_CASE("a migration entry is waited for without a message") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  s.migrate(addr, [&] {
    const AccessResult waits = s.read(addr);
    CHECK(waits.outcome == Outcome::blocked);
    CHECK_FALSE(waits.message.has_value());
  });
  CHECK(s.read(addr).outcome == Outcome::done);
}
