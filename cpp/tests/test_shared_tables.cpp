// Shared tables: what they save, and that nobody sees them. The judge is the same request made in
// pieces that never cover a table, which therefore never share one.
#include "ptwalk/shared_tables.hpp"

#include <random>

#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u32 WP = MM_CP_UFFD_WP, RESOLVE = MM_CP_UFFD_WP_RESOLVE;
using Random = std::mt19937_64;

u64 resident(const WalkSpace& space) { return space.machine->frames.in_use(); }

void check_valid(const AddressSpace& mm) {
  for (const std::string& broken : mm.validate()) FAIL_CHECK(broken);
}

/// Part of [start, end) up to the first page of a PTE table, or the rest of a table.
u64 piece_end(u64 start, u64 end) {
  const u64 table = align_down(start, PMD_SIZE);
  return std::min(end, start == table ? start + PAGE_SIZE : table + PMD_SIZE);
}

/// The same change in pieces that cover no table.
ProtectResult change_in_pieces(WalkSpace& space, u64 start, u64 end, u64 newprot, u32 cp) {
  ProtectResult sum;
  for (u64 at = start, next; at < end; at = next) {
    next = piece_end(at, end);
    sum.add(space.change(at, next, newprot, cp).value);
  }
  return sum;
}

void check_equal_counts(const ProtectResult& a, const ProtectResult& b) {
  CHECK(a.pages == b.pages);
  CHECK(a.none_to_marker == b.none_to_marker);
  CHECK(a.marker_to_none == b.marker_to_none);
  CHECK(a.present == b.present);
  CHECK(a.swap == b.swap);
  CHECK(a.none_skipped == b.none_skipped);
  CHECK(a.tables_allocated == b.tables_allocated);
}

/// Entries and levels of both spaces agree over the range.
void check_equal_entries(const AddressSpace& a, const AddressSpace& b, u64 start, u64 length) {
  const u64 nr = length >> PAGE_SHIFT;
  std::vector<u64> words_a(nr), words_b(nr);
  std::vector<u8> levels_a(nr), levels_b(nr);
  a.ptes(start, words_a);
  b.ptes(start, words_b);
  a.levels(start, levels_a);
  b.levels(start, levels_b);
  // Frames of pages follow the order of faults, which is the same.
  CHECK(words_a == words_b);
  CHECK(levels_a == levels_b);
  CHECK(a.tables.nr_tables() == b.tables.nr_tables());
}

}  // namespace

TEST_CASE("never-touched terabytes cost a handful of frames, and the account is the kernel's") {
  constexpr u64 START = 1ull << 40, LENGTH = 64ull << 40, PAGES = LENGTH >> PAGE_SHIFT;
  WalkSpace space("6.18");
  const ProtectResult armed = space.change(START, START + LENGTH, RO_NX, WP).value;
  CHECK(armed.pages == PAGES);
  CHECK(armed.none_to_marker == PAGES);
  CHECK(armed.tables_allocated == (LENGTH >> 39) * tables_in(PUD_LEVEL));
  CHECK(space.mm.tables.nr_tables() == armed.tables_allocated);
  CHECK(resident(space) <= 8);
  CHECK(space.get(START + LENGTH / 2 + 5 * PAGE_SIZE) == WP_MARKER);
  const ProtectResult resolved = space.change(START, START + LENGTH, RW_NX, RESOLVE).value;
  CHECK(resolved.marker_to_none == PAGES);
  CHECK(space.get(START) == 0);
  CHECK(space.mm.tables.walk(START).level == PTE_LEVEL);  // an empty table is not an absent one
  CHECK(resident(space) <= 8);
  check_valid(space.mm);
}

TEST_CASE("a store below a shared table copies it and its shared ancestors, nothing else") {
  WalkSpace space("6.18");
  REQUIRE(space.change(BASE, BASE + 512 * PUD_SIZE, RO_NX, WP).ok());
  const u64 before = resident(space);
  const u64 addr = BASE + 7 * PUD_SIZE + 3 * PMD_SIZE + 9 * PAGE_SIZE;
  *space.mm.tables.writable(addr, PTE_LEVEL) = 0x8000000012345025;
  CHECK(resident(space) == before + 3);  // a PUD, a PMD and a PTE table of its own
  CHECK(space.get(addr) == 0x8000000012345025);
  for (u64 near : {addr - PAGE_SIZE, addr + PAGE_SIZE, addr + PMD_SIZE, addr + PUD_SIZE})
    CHECK(space.get(near) == WP_MARKER);
  check_valid(space.mm);
  // Found again, at every level, when a request over the whole makes it uniform.
  *space.mm.tables.writable(addr, PTE_LEVEL) = 0;
  CHECK(space.change(BASE, BASE + 512 * PUD_SIZE, RO_NX, WP).value.none_to_marker == 1);
  CHECK(resident(space) == before);
  check_valid(space.mm);
}

TEST_CASE("dense tables that a request makes uniform give their frames back") {
  for (u32 cp : {WP, RESOLVE}) {
    WalkSpace space("uffd-wp-v2");
    for (u64 addr = BASE; addr < BASE + PUD_SIZE; addr += PMD_SIZE)
      space.put(addr, PTE_LEVEL, cp == WP ? 0 : 4);
    CHECK(resident(space) > 512);
    REQUIRE(space.change(BASE, BASE + PUD_SIZE, RO_NX, cp).ok());
    CHECK(resident(space) <= 5);
    CHECK(space.mm.tables.nr_tables() == 2 + 512);
    CHECK(space.get(BASE + PMD_SIZE) == (cp == WP ? 4 : 0));
    check_valid(space.mm);
  }
}

TEST_CASE("v2 shares at the PMD level only, for that is where it populates") {
  WalkSpace space("uffd-wp-v2");
  REQUIRE(space.mm.tables.ensure(BASE, PMD_LEVEL));
  const ProtectResult r = space.change(BASE, BASE + 2 * PUD_SIZE, RO_NX, WP).value;
  CHECK(r.none_to_marker == PUD_SIZE >> PAGE_SHIFT);
  CHECK(r.none_skipped == PUD_SIZE >> PAGE_SHIFT);  // the second has no PMD table
  CHECK(r.tables_allocated == 512);
  CHECK(resident(space) <= 5);
  check_valid(space.mm);
}

TEST_CASE("table allocations that may fail are made one by one") {
  WalkSpace space("uffd-wp-v2");
  REQUIRE(space.mm.tables.ensure(BASE, PMD_LEVEL));
  space.mm.tables.fail_alloc(3);
  const ProtectResult r = space.change(BASE, BASE + 4 * PMD_SIZE, RO_NX, WP).value;
  CHECK(r.tables_allocated == 3);
  CHECK(r.none_to_marker == 3 * 512);
  CHECK(r.warnings == std::vector{Warning::table_alloc_failed});
}

TEST_CASE("notifiers of a shared range are those of the descent") {
  for (const Profile& profile : profiles()) {
    CAPTURE(profile.name);
    const u64 length = 2 * 512 * PUD_SIZE;
    const auto run = [&](bool touched) {
      WalkSpace space(profile.name);
      REQUIRE(space.change(BASE, BASE + length, RO_NX, WP).ok());
      // A private table in every PMD range, put back as it was: nothing can be exchanged higher up.
      for (u64 addr = BASE; touched && addr < BASE + length; addr += PUD_SIZE)
        (void)space.mm.tables.writable(addr, PTE_LEVEL);
      return space.change(BASE, BASE + length, RW_NX, RESOLVE).value;
    };
    const ProtectResult shared = run(false), descended = run(true);
    check_equal_counts(shared, descended);
    REQUIRE(shared.notifier.size() == descended.notifier.size());
    for (std::size_t i = 0; i < shared.notifier.size(); ++i) {
      CHECK(shared.notifier[i].start == descended.notifier[i].start);
      CHECK(shared.notifier[i].end == descended.notifier[i].end);
      CHECK(shared.notifier[i].ended == descended.notifier[i].ended);
    }
    CHECK(shared.flush == descended.flush);
  }
}

TEST_CASE("random requests, whole and in pieces: same entries, levels, counts and tables") {
  constexpr u64 REACH = 3 * PUD_SIZE;
  for (const Profile& profile : profiles()) {
    CAPTURE(profile.name);
    for (u64 seed = 0; seed < 12; ++seed) {
      CAPTURE(seed);
      Random random(seed);
      WalkSpace whole(profile.name), pieces(profile.name);
      for (int round = 0; round < 12; ++round) {
        CAPTURE(round);
        const u64 unit = std::array{PAGE_SIZE, PMD_SIZE, PUD_SIZE}[random() % 3];
        const u64 a = align_down(random() % REACH, unit), b = align_down(random() % REACH, unit);
        const u64 start = BASE + std::min(a, b), end = BASE + std::max(a, b) + unit;
        const u32 cp = std::array{WP, RESOLVE, 0u, WP}[random() % 4];
        if (random() % 4 == 0) {  // a page comes in, or goes
          const u64 word = random() % 2 ? 0 : pfn_pte(0x1000 + random() % 64, RO_NX);
          whole.put(start, PTE_LEVEL, word);
          pieces.put(start, PTE_LEVEL, word);
        }
        check_equal_counts(whole.change(start, end, RO_NX, cp).value,
                           change_in_pieces(pieces, start, end, RO_NX, cp));
      }
      check_equal_entries(whole.mm, pieces.mm, BASE, REACH + PUD_SIZE);
      check_valid(whole.mm);
      CHECK(resident(whole) <= resident(pieces) + 6);  // the shared frames themselves
    }
  }
}

TEST_CASE("zap, fork, remap and unmap of shared tables: same as in pieces") {
  constexpr u64 LENGTH = 2 * PUD_SIZE;
  for (std::string_view name : {"uffd-wp-v2", "6.1", "6.12", "6.18"}) {
    CAPTURE(name);
    Profile profile = *find_profile(name);
    set_config(profile, "PT_RECLAIM", false);  // whole tables go, parts of them do not
    Space whole(profile), pieces(profile);
    std::vector<std::shared_ptr<AddressSpace>> children;
    for (Space* s : {&whole, &pieces}) {
      const FileId file = s->machine->create_file(FileKind::shmem, LENGTH);
      REQUIRE(s->mm->mmap(BASE, LENGTH, PROT_RW, MAP_SHARED_ | MAP_FIXED_, file, 0).ok());
      const UffdId id = s->watch(BASE, LENGTH >> PAGE_SHIFT, MODE_WP, UFFD_FEATURE_EVENT_FORK);
      s->read(BASE + 5 * PMD_SIZE);
      s->read(BASE + PUD_SIZE);  // v2 protects nothing where there is no PMD table
      s->protect(id, BASE, LENGTH >> PAGE_SHIFT);
      // In pieces: tables of their own everywhere.
      for (u64 addr = BASE; s == &pieces && addr < BASE + LENGTH; addr += PMD_SIZE)
        (void)s->mm->tables.writable(addr, PTE_LEVEL);
      const u64 from = BASE + PMD_SIZE / 2, nr = LENGTH / 2;
      REQUIRE(s->mm->madvise(from, nr, 4 /* DONTNEED */).ok());
      children.push_back(s->mm->fork().value);
      REQUIRE(children.back());
      REQUIRE(
          s->mm->mremap(BASE + PUD_SIZE, PUD_SIZE / 2, PUD_SIZE / 2, 3, BASE + 8 * PUD_SIZE).ok());
      REQUIRE(s->mm->munmap(BASE + PUD_SIZE / 2 + PMD_SIZE / 4, PUD_SIZE / 4).ok());
    }
    check_equal_entries(*whole.mm, *pieces.mm, BASE, 10 * PUD_SIZE);
    check_equal_entries(*children[0], *children[1], BASE, LENGTH);
    check_valid(*whole.mm);
    CHECK(whole.machine->frames.in_use() < pieces.machine->frames.in_use() / 4);
  }
}

TEST_CASE("validate tells a shared table that was written, and a wrong count") {
  WalkSpace space("6.18");
  REQUIRE(space.change(BASE, BASE + PUD_SIZE, RO_NX, WP).ok());
  SharedTables& shared = space.machine->shared_tables;
  u64* word = &space.machine->frames.table(shared.pfn(Uniform::marker, PTE_LEVEL))[3];
  *word = 0;
  REQUIRE_FALSE(space.mm.validate().empty());
  CHECK(space.mm.validate()[0].find("written in place") != std::string::npos);
  *word = WP_MARKER;
  (void)shared.take(Uniform::marker, PMD_LEVEL);
  REQUIRE_FALSE(space.mm.validate().empty());
  CHECK(space.mm.validate()[0].find("point to it") != std::string::npos);
  shared.drop(shared.pfn(Uniform::marker, PMD_LEVEL));
  check_valid(space.mm);
}
