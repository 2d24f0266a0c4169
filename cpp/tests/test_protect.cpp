// The walk: population, skipped extents, bad entries, notifiers, flushes and failed allocations.
#include "ptwalk/protect.hpp"

#include <doctest/doctest.h>

#include "walk_space.hpp"

using namespace ptwalk;

namespace {

constexpr u32 WP = MM_CP_UFFD_WP, RESOLVE = MM_CP_UFFD_WP_RESOLVE;
constexpr u64 MARKER_6_18 = 0xfffffffffffffc00;

}  // namespace

TEST_CASE("T13, T14: v2 makes the missing PTE table and marks its entries") {
  WalkSpace space("uffd-wp-v2");
  REQUIRE(space.mm.tables.ensure(BASE, PMD_LEVEL));
  const ProtectResult r = space.change(BASE + 0x2000, BASE + 0x5000, RO_NX, WP).value;
  CHECK(r.pages == 3);
  CHECK(r.none_to_marker == 3);
  CHECK(r.tables_allocated == 1);
  CHECK(r.none_skipped == 0);
  CHECK(r.flush == Range{BASE + 0x2000, BASE + 0x5000});
  CHECK(space.get(BASE + 0x1000) == 0);
  CHECK(space.get(BASE + 0x2000) == 4);
  CHECK(space.get(BASE + 0x5000) == 0);
}

TEST_CASE("T17: v2 skips what lies below a none PUD, and says how much") {
  WalkSpace space("uffd-wp-v2");
  REQUIRE(space.mm.tables.ensure(BASE, PUD_LEVEL));
  const ProtectResult r = space.change(BASE, BASE + PUD_SIZE, RO_NX, WP).value;
  CHECK(r.pages == 0);
  CHECK(r.tables_allocated == 0);
  CHECK(r.none_skipped == PUD_SIZE >> PAGE_SHIFT);
  CHECK(r.flush.empty());
  CHECK(r.notifier.empty());
}

TEST_CASE("6.18 populates every level, with 4 and with 5 of them") {
  for (int levels : {4, 5}) {
    CAPTURE(levels);
    WalkSpace space("6.18", VmaKind::shmem, levels);
    const ProtectResult r = space.change(BASE, BASE + 0x1000, RO_NX, WP).value;
    CHECK(r.pages == 1);
    CHECK(r.tables_allocated == u64(levels - 1));
    CHECK(space.mm.tables.nr_tables() == u64(levels - 1));
    CHECK(space.get(BASE) == MARKER_6_18);
    CHECK(r.flush.empty());  // no translation was ever valid
  }
}

TEST_CASE("a resolve, an mprotect and an anonymous wr-protect make no tables") {
  for (u32 cp : {0u, RESOLVE, MM_CP_PROT_NUMA}) {
    WalkSpace space("6.18");
    CHECK(space.change(BASE, BASE + PUD_SIZE, RO_NX, cp).value.none_skipped == 0);
    CHECK(space.mm.tables.nr_tables() == 0);
  }
  WalkSpace anon("6.18", VmaKind::anon);
  CHECK(anon.change(BASE, BASE + PUD_SIZE, RO_NX, WP).value.none_skipped == 262144);
  CHECK(anon.mm.tables.nr_tables() == 0);
}

TEST_CASE("the walk crosses table boundaries with every page in its place") {
  WalkSpace space("uffd-wp-v2", VmaKind::anon, 5);
  const u64 boundary = 1ull << 48;  // of a PGD entry, and so of every level
  for (u64 addr : {boundary - PMD_SIZE, boundary - PAGE_SIZE, boundary, boundary + PUD_SIZE})
    space.put(addr, PTE_LEVEL, 0x8000000012345067);
  const ProtectResult r =
      space.change(boundary - PAGE_SIZE, boundary + PUD_SIZE + PAGE_SIZE, RO_NX, 0).value;
  CHECK(r.pages == 3);
  CHECK(r.present == 3);
  CHECK(space.get(boundary - PMD_SIZE) == 0x8000000012345067);
  CHECK(space.get(boundary - PAGE_SIZE) == 0x8000000012345065);
  CHECK(space.get(boundary + PUD_SIZE) == 0x8000000012345065);
}

TEST_CASE("W01, W04: bad entries are reported, cleared and skipped") {
  WalkSpace space("uffd-wp-v2", VmaKind::anon);
  space.put(BASE, PMD_LEVEL, 0x12345003);
  space.put(BASE + PUD_SIZE, PUD_LEVEL, 0x400000e7);
  const ProtectResult r = space.change(BASE + 0x3000, BASE + 2 * PUD_SIZE, RO_NX, WP).value;
  CHECK(r.pages == 0);
  REQUIRE(r.bad_cleared.size() == 2);
  CHECK(r.bad_cleared[0].level == PMD_LEVEL);
  CHECK(r.bad_cleared[0].addr == BASE);
  CHECK(r.bad_cleared[1].level == PUD_LEVEL);
  CHECK(r.bad_cleared[1].addr == BASE + PUD_SIZE);
  CHECK(space.get(BASE, PMD_LEVEL) == 0);
  CHECK(space.get(BASE + PUD_SIZE, PUD_LEVEL) == 0);
  CHECK(r.none_skipped == (2 * PUD_SIZE - 0x3000) >> PAGE_SHIFT);
}

TEST_CASE("a bad PMD is skipped up to 6.1; later kernels look again and populate it") {
  for (const auto& [name, pages] : {std::pair{"6.1", 0u}, {"6.12", 512u}, {"6.18", 512u}}) {
    CAPTURE(name);
    WalkSpace space(name);
    space.put(BASE, PMD_LEVEL, 0x12345003);
    const ProtectResult r = space.change(BASE, BASE + PMD_SIZE, RO_NX, WP).value;
    CHECK(r.bad_cleared.size() == 1);
    CHECK(r.none_to_marker == pages);
    CHECK(r.none_skipped == 512 - pages);
  }
}

TEST_CASE("W03, W06: A and D alone are none") {
  WalkSpace space("uffd-wp-v2");
  space.put(BASE, PMD_LEVEL, 0x60);
  space.put(BASE + PUD_SIZE, PUD_LEVEL, 0x40);
  const ProtectResult r = space.change(BASE, BASE + 2 * PUD_SIZE, RO_NX, WP).value;
  CHECK(r.bad_cleared.empty());
  CHECK(r.none_to_marker == 262144);
  CHECK(r.none_skipped == 262144);
  CHECK(space.get(BASE + PUD_SIZE, PUD_LEVEL) == 0x40);
}

TEST_CASE("the notifier starts at the first populated PMD, or PUD from 6.11 on") {
  const u64 addr = BASE + 3 * PMD_SIZE + 0x5000;
  const u64 end = BASE + PUD_SIZE;
  for (const auto& [name, start] : {std::pair{"uffd-wp-v2", addr - 0x5000}, {"6.18", BASE}}) {
    CAPTURE(name);
    WalkSpace space(name, VmaKind::anon);
    space.put(addr, PTE_LEVEL, 0x8000000012345025);
    const ProtectResult r = space.change(BASE, end, RO_NX, 0).value;
    REQUIRE(r.notifier.size() == 1);
    CHECK(r.notifier[0].kind == NotifierKind::protection_vma);
    CHECK(r.notifier[0].start == start);
    CHECK(r.notifier[0].end == end);
    CHECK(r.notifier[0].ended);
  }
}

TEST_CASE("a notifier started at address 0 is started again and never ended") {
  WalkSpace space("uffd-wp-v2", VmaKind::anon);
  space.put(0, PTE_LEVEL, 0x8000000012345025);
  CHECK_FALSE(space.change(0, PMD_SIZE, RO_NX, 0).value.notifier.at(0).ended);
  space.put(PMD_SIZE, PTE_LEVEL, 0x8000000012345025);
  const ProtectResult r = space.change(0, 2 * PMD_SIZE, RO_NX, 0).value;
  REQUIRE(r.notifier.size() == 2);
  CHECK_FALSE(r.notifier[0].ended);
  CHECK(r.notifier[1].start == PMD_SIZE);
  CHECK(r.notifier[1].ended);
}

TEST_CASE("the flush: the whole range when anything counted, or what pte_needs_flush says") {
  WalkSpace old_rule("uffd-wp-v2", VmaKind::anon), gather("6.18", VmaKind::anon);
  for (WalkSpace* space : {&old_rule, &gather}) {
    space->put(BASE + 0x3000, PTE_LEVEL, 0x8000000012345067);
    space->put(BASE + 0x7000, PTE_LEVEL, 0x8000000012346067);
    space->put(BASE + 0x9000, PTE_LEVEL, 0x8000000012347025);
  }
  const Range range{BASE, BASE + 0x10000};
  CHECK(old_rule.change(range.start, range.end, RO_NX, 0).value.flush == range);
  CHECK(gather.change(range.start, range.end, RO_NX, 0).value.flush ==
        Range{BASE + 0x3000, BASE + 0x8000});
  // Nothing changes the second time: counted all the same, so only the old rule flushes.
  CHECK(old_rule.change(range.start, range.end, RO_NX, 0).value.flush == range);
  CHECK(gather.change(range.start, range.end, RO_NX, 0).value.flush.empty());
}

TEST_CASE("T15: v2 warns about a failed allocation and carries on") {
  WalkSpace space("uffd-wp-v2");
  REQUIRE(space.mm.tables.ensure(BASE, PMD_LEVEL));
  space.mm.tables.fail_alloc(1);
  const auto done = space.change(BASE, BASE + 2 * PMD_SIZE, RO_NX, WP);
  CHECK(done.error.ok());
  CHECK(done.value.pages == 512);
  CHECK(done.value.tables_allocated == 1);
  CHECK(done.value.none_skipped == 512);
  CHECK(done.value.warnings == std::vector{Warning::table_alloc_failed});
}

TEST_CASE("from 6.4 on a failed allocation is an error, unless earlier pages outweigh it") {
  WalkSpace space("6.18");
  REQUIRE(space.mm.tables.ensure(BASE, PMD_LEVEL));
  space.mm.tables.fail_alloc(1);
  const auto done = space.change(BASE, BASE + PMD_SIZE, RO_NX, WP);
  CHECK(done.error.cause == Cause::table_alloc_failed);
  CHECK(done.value.pages == 0);
  CHECK(done.value.warnings.empty());

  // The first PUD's 512 pages count; the second PUD's failure is added to them as -12.
  WalkSpace masked("6.18");
  REQUIRE(masked.mm.tables.ensure(BASE + PUD_SIZE, PMD_LEVEL));
  for (u64 addr = BASE + PUD_SIZE - PMD_SIZE; addr < BASE + PUD_SIZE; addr += PAGE_SIZE)
    masked.put(addr, PTE_LEVEL, 0x8000000012345025);
  masked.mm.tables.fail_alloc(1);
  const auto counted =
      masked.change(BASE + PUD_SIZE - PMD_SIZE, BASE + PUD_SIZE + PMD_SIZE, RO_NX, WP);
  CHECK(counted.error.ok());
  CHECK(counted.value.pages == 500);
  CHECK(counted.value.present == 512);
}

TEST_CASE("a NUMA request reports a special entry that is not the zero page") {
  WalkSpace space("uffd-wp-v2");
  space.put(BASE, PTE_LEVEL, 0x12345225);
  space.put(BASE + PAGE_SIZE, PTE_LEVEL, (ZERO_PFN << PAGE_SHIFT) | 0x225);
  const ProtectResult r = space.change(BASE, BASE + PMD_SIZE, PAGE_NONE, MM_CP_PROT_NUMA).value;
  CHECK(r.pages == 0);
  CHECK(r.present == 0);  // skipped
  CHECK(r.warnings == std::vector{Warning::bad_page_map});
}

TEST_CASE("the only task of a machine with one node gets no NUMA hints in private memory") {
  WalkSpace space("6.18", VmaKind::anon);
  space.put(BASE, PTE_LEVEL, 0x8000000012345067);
  space.machine->pages.at(0x12345).mapcount = 1;
  space.mm.users = 1;
  CHECK(space.change(BASE, BASE + PAGE_SIZE, PAGE_NONE, MM_CP_PROT_NUMA).value.pages == 0);
  space.mm.users = 2;
  CHECK(space.change(BASE, BASE + PAGE_SIZE, PAGE_NONE, MM_CP_PROT_NUMA).value.pages == 1);
}

TEST_CASE("add() sums the counts, joins the lists and spans the flushes") {
  ProtectResult total;
  ProtectResult part;
  part.pages = 3;
  part.none_skipped = 2;
  part.rss_file = -512;
  part.flush = {0x5000, 0x6000};
  part.pmd_flush = {0x200000};
  part.warnings = {Warning::bad_page_map};
  total.add(part);
  CHECK(total.flush == Range{0x5000, 0x6000});
  part.flush = {0x1000, 0x2000};
  total.add(part);
  total.add(ProtectResult{});
  CHECK(total.pages == 6);
  CHECK(total.none_skipped == 4);
  CHECK(total.rss_file == -1024);
  CHECK(total.flush == Range{0x1000, 0x6000});
  CHECK(total.pmd_flush.size() == 2);
  CHECK(total.warnings.size() == 2);
}

TEST_CASE("several threads give what one gives") {
  constexpr u64 TABLES = 600;
  for (std::string_view name : {"uffd-wp-v2", "6.1", "6.18"}) {
    CAPTURE(name);
    const auto run = [&](unsigned threads) {
      auto space = std::make_unique<WalkSpace>(name);
      space->machine->threads = threads;
      for (u64 i = 0; i < TABLES; ++i) {  // one in three stays empty
        space->put(BASE + i * PMD_SIZE, PTE_LEVEL, 0);
        for (u64 page = 0; i % 3 && page < 512; page += 1 + i % 5)
          space->put(BASE + i * PMD_SIZE + page * PAGE_SIZE, PTE_LEVEL,
                     pfn_pte(0x1000 + i * 512 + page, RO_NX | (page % 2 ? u64(_PAGE_RW) : 0)));
      }
      return space;
    };
    const auto one = run(1), four = run(4);
    const u64 end = BASE + TABLES * PMD_SIZE - 3 * PAGE_SIZE;
    for (u32 cp : {WP, RESOLVE, 0u}) {
      const ProtectResult a = one->change(BASE + PAGE_SIZE, end, RO_NX, cp).value;
      const ProtectResult b = four->change(BASE + PAGE_SIZE, end, RO_NX, cp).value;
      CHECK(a.pages == b.pages);
      CHECK(a.present == b.present);
      CHECK(a.none_to_marker == b.none_to_marker);
      CHECK(a.marker_to_none == b.marker_to_none);
      CHECK(a.flush == b.flush);
      CHECK(a.notifier.size() == b.notifier.size());
      std::vector<u64> words_a(TABLES * 512), words_b(TABLES * 512);
      one->mm.ptes(BASE, words_a);
      four->mm.ptes(BASE, words_b);
      CHECK(words_a == words_b);
      CHECK(one->machine->frames.in_use() == four->machine->frames.in_use());
      CHECK(four->mm.validate() == one->mm.validate());
    }
  }
}
