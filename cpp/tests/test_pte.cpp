// Predicates and the L1TF inversion of entries, against the tables of bits and the named words of
// the v2 series' vectors (B, M, W).
#include "ptwalk/pte.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace ptwalk;

TEST_CASE("pte_none ignores A and D, which an erratum may set") {
  for (u64 none : {0x0ull, 0x20ull, 0x40ull, 0x60ull}) CHECK(pte_none(none));
  for (u64 word : {0x1ull, 0x4ull, 0x24ull, 0x100ull, 1ull << 63}) CHECK_FALSE(pte_none(word));
}

TEST_CASE("pte_present, pte_protnone and pmd_present") {
  CHECK(pte_present(0x8000000012345067));
  CHECK(pte_present(0x000fffffedcba960));
  CHECK(pte_protnone(0x000fffffedcba960));
  CHECK_FALSE(pte_protnone(0x8000000012345167));  // G of a present entry
  CHECK_FALSE(pte_present(0x80));                 // PSE makes a PMD present, not a PTE
  CHECK(pmd_present(0x80));
  CHECK(is_swap_pte(0x4));
  CHECK_FALSE(is_swap_pte(0x60));
}

TEST_CASE("every word is none, present or swap") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const u64 word = i & 1 ? random() : random() & 0x1ff;
    CHECK(pte_none(word) + pte_present(word) + is_swap_pte(word) == 1);
  }
}

TEST_CASE("W01 to W06: pmd_bad and pud_bad") {
  CHECK(pmd_bad(0x12345003));
  CHECK_FALSE(pmd_bad(0x12345067));
  CHECK_FALSE(pmd_bad(0x12345063));  // US is not compared
  CHECK(pud_bad(0x400000e7));        // PSE
  CHECK_FALSE(pud_bad(0x12345067));
  CHECK_FALSE(pud_bad(0x12345063));
}

TEST_CASE("B01: a word that is not zero and not present holds its frame inverted") {
  CHECK(pte_pfn(0x8000000012345067) == 0x12345);
  CHECK(pte_pfn(0x000fffffedcba960) == 0x12345);
  CHECK_FALSE(needs_invert(0));
  CHECK(pfn_pte(0x12345, 0x8000000000000067) == 0x8000000012345067);
  CHECK(pfn_pte(0x12345, 0x120) == 0x000fffffedcba120);
  // T03: a PMD inverts bits 21 to 51; bit 12 is a flag there.
  CHECK(pmd_pfn(0x000fffffbfe009e0) == 0x40000);
  CHECK(pmd_pfn(0x80000000400018e7) == 0x40000);
}

TEST_CASE("a frame that goes in comes out, at every level and protection") {
  for (Level level : {PTE_LEVEL, PMD_LEVEL, PUD_LEVEL})
    for (u64 prot : {0x8000000000000067ull, 0x120ull, 0x25ull}) {
      const Pfn pfn = 0x12345ull << (9 * unsigned(level - 1));
      CHECK(leaf_address(pfn_pte(pfn, prot, level), level) == pfn << PAGE_SHIFT);
    }
}
