// /proc/PID/pagemap words and PAGEMAP_SCAN, by the kind of entry.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 PM_SOFT_DIRTY = 1ull << 55, PM_EXCLUSIVE = 1ull << 56, PM_UFFD_WP = 1ull << 57,
              PM_GUARD = 1ull << 58, PM_FILE = 1ull << 61, PM_SWAP = 1ull << 62,
              PM_PRESENT = 1ull << 63;
constexpr u64 WP_MATCHING = 1, CHECK_WPASYNC = 2, WRITTEN = 2, ALL = 0x1ff;

u64 word(const Space& s, u64 addr) {
  u64 out = 0;
  s.mm->pagemap(addr, {&out, 1});
  return out;
}

/// The categories of one page; ~0 where the scan reports nothing.
u64 categories(Space& s, u64 addr) {
  const auto done = s.mm->pagemap_scan(addr, PAGE_SIZE, {.returned = ALL});
  REQUIRE(done.ok());
  return done.value.ranges.empty() ? ~0ull : done.value.ranges[0].categories;
}

Cause scan_cause(Space& s, u64 addr, u64 nr, const ScanArgs& args) {
  return s.mm->pagemap_scan(addr, pages(nr), args).error.cause;
}

}  // namespace

TEST_CASE("pte_to_pagemap_entry: present pages") {
  Space s;
  const u64 anon = s.anon(2), shared = s.shmem(1), disk = s.regular(1);
  s.write(anon);
  s.read(anon + pages(1));
  s.read(shared);
  s.read(disk);
  CHECK(word(s, anon) == (PM_PRESENT | PM_EXCLUSIVE | pte_pfn(s.pte(anon))));
  CHECK(word(s, anon + pages(1)) == (PM_PRESENT | ZERO_PFN));
  CHECK(word(s, shared) == (PM_PRESENT | PM_FILE | PM_EXCLUSIVE | pte_pfn(s.pte(shared))));
  const auto child = s.mm->fork().value;
  CHECK(word(s, anon) == (PM_PRESENT | pte_pfn(s.pte(anon))));  // mapped twice now
  REQUIRE(s.mm->mprotect(anon, pages(1), 0).ok());
  CHECK(word(s, anon) == (PM_PRESENT | pte_pfn(s.pte(anon))));  // PROT_NONE reads as present
  CHECK(word(s, BASE - PMD_SIZE) == 0);
}

TEST_CASE("swap entries, markers and migration entries") {
  Space s;
  const u64 addr = s.anon(5);
  const UffdId id = s.watch(addr, 5, MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
  s.write(addr);
  s.write(addr + pages(4));
  s.protect(id, addr, 2);
  s.reclaim(addr);
  CHECK(word(s, addr) == (PM_SWAP | PM_UFFD_WP | 1 << 5));  // type 0, slot 1
  CHECK(word(s, addr + pages(1)) == (PM_SWAP | PM_UFFD_WP | 31 | 1 << 5));
  REQUIRE(s.mm->uffd_poison(id, addr + pages(2), pages(1), 0).ok());
  CHECK(word(s, addr + pages(2)) == (PM_SWAP | 31 | 2 << 5));
  REQUIRE(s.mm->madvise(addr + pages(3), pages(1), 102).ok());
  CHECK(word(s, addr + pages(3)) == (PM_SWAP | PM_GUARD | 31 | 4 << 5));
  const Pfn pfn = pte_pfn(s.pte(addr + pages(4)));
  s.migrate(addr + pages(4),
            [&] { CHECK(word(s, addr + pages(4)) == (PM_SWAP | PM_EXCLUSIVE | 30 | pfn << 5)); });
}

TEST_CASE("bit 57 came after the v2 series, whose marker reads as empty") {
  Space s("uffd-wp-v2");
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP);
  s.write(addr);
  s.protect(id, addr, 2);
  CHECK(s.pte(addr + pages(1)) == 4);
  CHECK_FALSE(has(word(s, addr), PM_UFFD_WP));
  CHECK(word(s, addr + pages(1)) == PM_SOFT_DIRTY);  // of the VMA
}

TEST_CASE("soft-dirty of the entry or of the VMA") {
  Space s("6.12");
  const u64 addr = s.anon(2);
  s.read(addr);
  CHECK(has(word(s, addr), PM_SOFT_DIRTY));
  REQUIRE(s.mm->set_vm_flags(addr, pages(2), 0, VM_SOFTDIRTY).ok());
  CHECK_FALSE(has(word(s, addr), PM_SOFT_DIRTY));
  s.write(addr);
  CHECK(has(word(s, addr), PM_SOFT_DIRTY));
}

TEST_CASE("a huge page gives each of its pages a frame") {
  Space s;
  const u64 addr = s.anon(512);
  REQUIRE(s.mm->tables.ensure(addr, PMD_LEVEL));
  REQUIRE(s.mm->set_entry(addr, PMD_LEVEL, 0x80000000400004e7).ok());
  std::vector<u64> words(512);
  s.mm->pagemap(addr, words);
  CHECK(words[0] == (PM_PRESENT | PM_UFFD_WP | 0x40000));
  CHECK(words[511] == (PM_PRESENT | PM_UFFD_WP | 0x401ff));
}

TEST_CASE("PAGEMAP_SCAN: what it says of each kind of entry (pagemap_page_category)") {
  Space s;
  const u64 plain = s.anon(2), addr = s.anon(6), file = s.shmem(1);
  s.write(plain);
  CHECK(categories(s, plain) == 0x0a);
  CHECK(categories(s, plain + pages(1)) == 0x02);
  s.read(file);
  CHECK(categories(s, file) == 0x0e);

  const UffdId id = s.watch(addr, 6, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  CHECK(categories(s, addr) == 0x03);  // no table: written as far as anybody knows
  s.write(addr);
  CHECK(categories(s, addr) == 0x0b);
  s.protect(id, addr, 2);
  CHECK(categories(s, addr) == 0x09);
  CHECK(categories(s, addr + pages(1)) == 0x11);
  REQUIRE(s.mm->uffd_poison(id, addr + pages(2), pages(1), 0).ok());
  CHECK(categories(s, addr + pages(2)) == 0x13);
  REQUIRE(s.mm->madvise(addr + pages(3), pages(1), 102).ok());
  CHECK(categories(s, addr + pages(3)) == 0x113);
  s.read(addr + pages(4));
  CHECK(categories(s, addr + pages(4)) == 0x2b);
  CHECK(categories(s, addr + pages(5)) == 0x03);
}

TEST_CASE("WP_MATCHING arms what matched, so that the next scan finds what was written since") {
  Space s;
  const u64 addr = s.anon(4), file = s.shmem(2);
  s.watch(addr, 4, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  s.watch(file, 2, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  s.write(addr);
  s.write(addr + pages(1));
  s.reclaim(addr + pages(1));
  REQUIRE(s.mm->madvise(addr + pages(3), pages(1), 102).ok());
  const ScanArgs arm{.flags = WP_MATCHING | CHECK_WPASYNC, .mask = WRITTEN, .returned = ALL};
  REQUIRE(s.mm->pagemap_scan(addr, pages(4), arm).value.ranges.size() == 4);
  CHECK(s.flags_of(addr) == present(_PAGE_UFFD_WP | SAVED_DIRTY));
  CHECK(has(s.pte(addr + pages(1)), _PAGE_SWP_UFFD_WP));
  CHECK(s.pte(addr + pages(2)) == WP_MARKER);
  CHECK(s.pte(addr + pages(3)) == 0xfffffffffffff604);                        // bit 2 on a guard
  REQUIRE(s.mm->pagemap_scan(file, pages(2), arm).value.ranges.size() == 1);  // no table yet
  CHECK(s.pte(file) == WP_MARKER);

  CHECK(s.mm->pagemap_scan(addr, pages(4), arm).value.ranges.empty());
  s.write(addr + pages(2));
  const auto again = s.mm->pagemap_scan(addr, pages(4), arm);
  REQUIRE(again.value.ranges.size() == 1);
  CHECK(again.value.ranges[0].start == addr + pages(2));
  CHECK(again.value.ranges[0].end == addr + pages(3));
  CHECK(s.messages(s.vma(addr).uffd).empty());
}

TEST_CASE("CHECK_WPASYNC: EPERM at the first other VMA; earlier ones stay armed") {
  Space s;
  const u64 addr = s.anon(2);
  s.watch(addr, 1, MODE_WP, UFFD_FEATURE_WP_ASYNC);
  s.write(addr);
  const ScanArgs args{.flags = WP_MATCHING | CHECK_WPASYNC, .mask = WRITTEN};
  CHECK(scan_cause(s, addr, 2, args) == Cause::not_wp_async);
  CHECK(has(s.pte(addr), _PAGE_UFFD_WP));
  const auto skipped = s.mm->pagemap_scan(addr, pages(2), {.flags = WP_MATCHING});
  CHECK(skipped.value.ranges.size() == 1);  // without it such VMAs are passed over
}

TEST_CASE("mask, anyof, inverted and the returned categories") {
  Space s;
  const u64 addr = s.anon(3);
  s.write(addr);
  s.read(addr + pages(1));
  const auto found = [&](const ScanArgs& args) {
    std::vector<u64> at;
    for (const ScanRange& range : s.mm->pagemap_scan(addr, pages(3), args).value.ranges)
      for (u64 a = range.start; a < range.end; a += PAGE_SIZE) at.push_back((a - addr) / PAGE_SIZE);
    return at;
  };
  using List = std::vector<u64>;
  CHECK(found({}) == List{0, 1, 2});
  CHECK(found({.mask = 8}) == List{0, 1});
  CHECK(found({.mask = 8 | 32}) == List{1});
  CHECK(found({.inverted = 8, .mask = 8}) == List{2});
  CHECK(found({.anyof = 32 | 16}) == List{1});
  CHECK(found({.inverted = 32, .mask = 32 | 8}) == List{0});
  const auto reported = s.mm->pagemap_scan(addr, pages(3), {.returned = 8}).value.ranges;
  REQUIRE(reported.size() == 2);  // neighbours with the same answer are one range
  CHECK(reported[0].end == addr + pages(2));
  CHECK(reported[0].categories == 8);
}

TEST_CASE("max_pages and vec_len end the walk, and walk_end says where") {
  Space s;
  const u64 addr = s.anon(6);
  for (u64 i : {0, 1, 3, 5}) s.write(addr + pages(i));
  const auto three = s.mm->pagemap_scan(addr, pages(6), {.mask = 8, .max_pages = 3}).value;
  CHECK(three.ranges.size() == 2);
  CHECK(three.walk_end == addr + pages(5));  // the match that found no room
  const auto two = s.mm->pagemap_scan(addr, pages(6), {.mask = 8, .vec_len = 2}).value;
  CHECK(two.ranges.size() == 2);
  CHECK(two.walk_end == addr + pages(5));
  CHECK(s.mm->pagemap_scan(addr, pages(6), {.mask = 8}).value.walk_end == addr + pages(6));
}

TEST_CASE("what PAGEMAP_SCAN refuses, by kernel") {
  Space s, v6_12("6.12"), v6_1("6.1");
  const u64 addr = s.anon(1);
  CHECK(scan_cause(s, addr, 1, {.flags = 4}) == Cause::bad_scan);
  CHECK(scan_cause(s, addr, 1, {.mask = 512}) == Cause::bad_scan);
  CHECK(scan_cause(s, addr + 1, 1, {}) == Cause::start_unaligned);
  CHECK(scan_cause(s, addr, 1ull << 40, {}) == Cause::beyond_access);
  CHECK(scan_cause(s, addr, 1, {.mask = 256}) == Cause::none);
  const u64 older = v6_12.anon(1), oldest = v6_1.anon(1);
  CHECK(scan_cause(v6_12, older, 1, {.mask = 256}) == Cause::bad_scan);
  CHECK(scan_cause(v6_1, oldest, 1, {}) == Cause::no_pagemap_scan);
}
